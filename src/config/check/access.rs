//! Who and what the door lets in or connects to: the admin listener's token, MongoDB, the apps.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{SECOND, within};
use crate::{
    config::{
        Admin, AdminTls, AdminToken, App, Apps, Mongo, Problems, RESERVED_APPS, Secret,
        raw::{RawAdmin, RawApp, RawMongo},
    },
    domain::ids::AppName,
};

/// MongoDB's own limit for a database name on every platform.
const LONGEST_DATABASE: usize = 63;
/// Tokens of the admin API, each of which every request is compared with.
const MOST_TOKENS: usize = 64;

pub(super) fn admin(raw: RawAdmin, environment: &BTreeMap<String, String>, problems: &mut Problems) -> Admin {
    let bind: SocketAddr = raw.bind.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9090)));
    let is_guarded = raw.token_file.is_some() || raw.token_env.is_some() || raw.client_ca.is_some();
    let tls = admin_tls([raw.tls_cert, raw.tls_key, raw.client_ca], problems);
    let token_file = raw.token_file.as_ref().map(PathBuf::from);
    let (key, given) = match (raw.token_file, raw.token_env) {
        (Some(_), Some(_)) => {
            problems.add("admin.token_file", "stands beside admin.token_env; keep one of them");
            return Admin { bind, tokens: Vec::new(), token_file: None, tls: None };
        }
        (Some(path), None) => {
            let read = std::fs::read_to_string(&path);
            ("admin.token_file", Some(read.map_err(|why| format!("{path} cannot be read ({why}); make it readable"))))
        }
        (None, Some(name)) => {
            let value = environment.get(&name).cloned();
            let value = value.ok_or_else(|| format!("the environment has no variable {name}; set it to the token"));
            ("admin.token_env", Some(value))
        }
        (None, None) => ("admin.bind", None),
    };
    let tokens = given.map_or_else(|| Ok(Vec::new()), |text| text.and_then(|text| admin_tokens(&text)));
    let tokens = tokens.unwrap_or_else(|why| {
        problems.add(key, why);
        Vec::new()
    });
    if !bind.ip().to_canonical().is_loopback() && !is_guarded {
        let what = "is not a loopback address, so the admin API needs a token; set admin.token_file or admin.token_env \
                    (or admin.client_ca: certificates of callers)";
        problems.add("admin.bind", format!("{bind} {what}"));
    }
    Admin { bind, tokens, token_file, tls }
}

fn admin_tls([cert, key, client_ca]: [Option<String>; 3], problems: &mut Problems) -> Option<AdminTls> {
    let client_ca = client_ca.map(PathBuf::from);
    match (cert, key) {
        (Some(cert), Some(key)) => Some(AdminTls { cert: cert.into(), key: key.into(), client_ca }),
        (None, None) => {
            if client_ca.is_some() {
                problems.add("admin.client_ca", "needs TLS; set admin.tls_cert and admin.tls_key");
            }
            None
        }
        (None, Some(_)) => {
            problems.add("admin.tls_cert", "is missing; write the path of the PEM file that admin.tls_key belongs to");
            None
        }
        (Some(_), None) => {
            problems.add("admin.tls_key", "is missing; write the path of the PEM file with the key of admin.tls_cert");
            None
        }
    }
}

/// Reads tokens: one per line, alone or as `NAME: TOKEN`; empty lines and those that begin with `#` are left out.
///
/// # Errors
/// There is none, or one cannot be sent; the text says why, and never shows a token.
pub fn admin_tokens(text: &str) -> Result<Vec<AdminToken>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens = lines.map(|line| {
        let (name, token) = line.split_once(": ").unwrap_or(("admin", line));
        Ok(AdminToken { name: name.trim().into(), secret: check_token(token.trim())? })
    });
    let tokens: Vec<AdminToken> = tokens.collect::<Result<_, String>>()?;
    if tokens.is_empty() {
        return Err("the token is empty; make one, for example with `openssl rand -hex 32`".into());
    }
    if tokens.len() > MOST_TOKENS {
        return Err(format!("more than {MOST_TOKENS} tokens; remove some"));
    }
    Ok(tokens)
}

/// RFC 6750 sends the token in a header: printable, without spaces. Its value is never shown.
fn check_token(token: &str) -> Result<Secret, String> {
    if token.is_empty() {
        return Err("the token is empty; make one, for example with `openssl rand -hex 32`".into());
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has spaces or other characters that no header carries; use letters and digits".into());
    }
    Ok(Secret(token.to_owned()))
}

pub(super) fn mongo(raw: RawMongo, problems: &mut Problems) -> Mongo {
    let uri = raw.uri.unwrap_or_default();
    // As AMS reads `db.host`: a bare host list gets the scheme. The text may hold a password: never shown.
    let uri = match uri.split_once("://") {
        Some(("mongodb" | "mongodb+srv", rest)) if !rest.is_empty() => uri,
        None if !uri.is_empty() => format!("mongodb://{uri}"),
        None => {
            problems.add("mongo.uri", "is missing; write AMS's db.host, such as \"mongodb://10.0.0.5:27017\"");
            uri
        }
        Some(_) => {
            problems.add("mongo.uri", "is no MongoDB address; begin it with mongodb:// or mongodb+srv://");
            uri
        }
    };
    Mongo {
        uri: Secret(uri),
        live_window: within(
            "mongo.live_window",
            raw.live_window,
            20 * SECOND,
            SECOND,
            Duration::from_secs(600),
            problems,
        ),
        change_streams: raw.change_streams.unwrap_or(true),
        cache_streams: within("mongo.cache_streams", raw.cache_streams, 1_000_000, 1, 100_000_000, problems),
    }
}

pub(super) fn apps(raw: BTreeMap<String, RawApp>, problems: &mut Problems) -> Apps {
    if raw.is_empty() {
        let what = "names no app, so every client would get a 404; write one line per AMS application such as \
                    `LiveApp = {}`, or `\"*\" = {}` for all";
        problems.add("apps", what);
    }
    let mut apps = Apps::default();
    for (name, app) in raw {
        let key = format!("apps.{name}");
        let checked = check_app(&key, app, problems);
        if name == "*" {
            if checked.database.is_some() {
                let what = "would be one database for every app; remove it, or name the app that it belongs to";
                problems.add(format!("{key}.database"), what);
            }
            apps.any = Some(checked);
            continue;
        }
        match name.parse::<AppName>() {
            Err(why) => problems.add(key, format!("{why}; an app's name has letters, digits, _ and -, at most 64")),
            Ok(_) if is_reserved(&name) => {
                problems.add(key, format!("is reserved; no app is called any of {}", RESERVED_APPS.join(", ")));
            }
            Ok(name) => {
                apps.named.insert(name, checked);
            }
        }
    }
    apps
}

fn is_reserved(name: &str) -> bool {
    RESERVED_APPS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

fn check_app(key: &str, raw: RawApp, problems: &mut Problems) -> App {
    if let Some(database) = &raw.database {
        let illegal = |c: char| c.is_ascii_control() || c.is_whitespace() || "/\\.\"$*<>:|?".contains(c);
        if database.is_empty() || database.len() > LONGEST_DATABASE || database.contains(illegal) {
            let what = "is no database name; write AMS's db.name, at most 63 characters";
            problems.add(format!("{key}.database"), format!("{database:?} {what}"));
        } else if is_reserved(database) {
            problems.add(format!("{key}.database"), format!("{database:?} is reserved; write AMS's db.name"));
        }
    }
    let origins = raw.origins.unwrap_or_default();
    for (nth, origin) in origins.iter().enumerate().filter(|(_, origin)| !is_web_origin(origin)) {
        let what = "is no web origin; write scheme, host and port only, such as \"https://tv.example\"";
        problems.add(format!("{key}.origins[{nth}]"), format!("{origin:?} {what}"));
    }
    // Browsers send scheme and host in lower case.
    App { database: raw.database, origins: origins.iter().map(|origin| origin.to_ascii_lowercase()).collect() }
}

/// RFC 6454 §6.1: `scheme "://" host [ ":" port ]`, without a path; `null` is what sandboxed pages send.
fn is_web_origin(origin: &str) -> bool {
    origin == "null" || is_web_address(origin)
}

/// Scheme, host and port, and nothing else.
pub(super) fn is_web_address(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    };
    host.is_some_and(plain)
}
