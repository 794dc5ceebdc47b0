//! Who may ask: the bearer tokens, compared in constant time, and who a caller is in the audit log. Certificates of callers
//! are looked at before ([`super::tls`]).

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::constant_time;
use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Inner, events::Told, problem::Problem};
use crate::{
    clock,
    config::{self, AdminToken},
};

/// How often the token file is looked at, at most: a change counts after this.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The tokens that are valid now.
#[derive(Debug)]
pub(super) struct Access {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    tokens: Arc<[AdminToken]>,
    looked: Instant,
    version: Option<(SystemTime, u64)>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name of the token, else of the certificate; absent where neither is asked for.
    name: Option<Arc<str>>,
    peer: Option<SocketAddr>,
}

/// The other end of the connection, put into each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) over_tls: bool,
    /// Whose certificate it has shown.
    pub(super) certificate: Option<Arc<str>>,
}

impl Access {
    pub(super) fn new(config: &config::Admin) -> Self {
        let version = config.token_file.as_ref().and_then(version);
        let known = Known { tokens: config.tokens.clone().into(), looked: clock::now(), version };
        Self { file: config.token_file.clone(), known: Mutex::new(known) }
    }

    /// The tokens, read again if their file has changed. A file that cannot be read, or has none, changes nothing:
    /// nobody is locked out by a slip, and nobody let in.
    fn tokens(&self) -> Arc<[AdminToken]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let Some(file) = self.file.as_ref().filter(|_| now.saturating_duration_since(known.looked) >= LOOK_AGAIN)
        else {
            return Arc::clone(&known.tokens);
        };
        known.looked = now;
        let version = version(file);
        if version.is_some() && version != known.version {
            known.version = version;
            let text = std::fs::read_to_string(file).map_err(|why| why.to_string());
            match text.and_then(|text| config::admin_tokens(&text)) {
                Ok(tokens) => {
                    tracing::info!(tokens = tokens.len(), "admin.token_file was read again");
                    known.tokens = tokens.into();
                }
                Err(why) => tracing::warn!(why, "admin.token_file has changed but cannot be used: the old tokens stay"),
            }
        }
        Arc::clone(&known.tokens)
    }

    /// The name of the token that was given. All are compared, so that time tells nothing of which.
    fn name_of(tokens: &[AdminToken], given: &[u8]) -> Option<Arc<str>> {
        let mut found = None;
        for token in tokens {
            if constant_time::verify_slices_are_equal(given, token.secret.0.as_bytes()).is_ok() {
                found = Some(Arc::clone(&token.name));
            }
        }
        found
    }
}

fn version(file: &PathBuf) -> Option<(SystemTime, u64)> {
    let facts = std::fs::metadata(file).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}

/// Lets pass who sends a token, where there are any.
pub(super) async fn authorized(State(inner): State<Inner>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let tokens = inner.access.tokens();
    let token = if tokens.is_empty() {
        // Over TLS, the certificate is for a name that no foreign page has.
        if !peer.as_ref().is_some_and(|peer| peer.over_tls) && !is_plain_host(&request) {
            let detail = "this name is not known here: use an address, or localhost. A web page may be behind it";
            return Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail).into_response();
        }
        None
    } else {
        let given = request.headers().get(header::AUTHORIZATION).and_then(bearer).unwrap_or_default();
        let name = Access::name_of(&tokens, given);
        if name.is_none() && !is_public(request.uri().path()) {
            let detail = "send a token of admin.token_file or admin.token_env: Authorization: Bearer …";
            let refused = Problem::new(StatusCode::UNAUTHORIZED, "bad_token", detail);
            return refused.with("www-authenticate", "Bearer realm=\"forebay\"").into_response();
        }
        name
    };
    let name = token.or_else(|| peer.as_ref().and_then(|peer| peer.certificate.clone()));
    request.extensions_mut().insert(Caller { name, peer: peer.map(|peer| peer.address) });
    next.run(request).await
}

/// The page itself holds no secret; it asks for the token and sends it with what it asks.
fn is_public(path: &str) -> bool {
    path == "/" || path.starts_with("/page/")
}

/// Without a token, a page in an operator's browser could reach loopback under a name of its own (DNS rebinding); it
/// cannot under an address or a name without a dot.
fn is_plain_host(request: &Request) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    !name.contains('.') || name.parse::<IpAddr>().is_ok() || name.ends_with(".localhost")
}

/// RFC 6750 §2.1, the scheme in any case.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

impl Caller {
    /// Writes the line of the audit log for a change, and tells it to who listens to events.
    pub(super) fn changed<T: Serialize>(
        &self,
        inner: &Inner,
        what: &'static str,
        of: impl Display,
        before: &T,
        after: &T,
    ) {
        let who = self.name.as_deref().unwrap_or("anyone");
        let peer = self.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let json = |value: &T| serde_json::to_value(value).unwrap_or_default();
        let (before, after, of) = (json(before), json(after), of.to_string());
        tracing::info!(target: "forebay::audit", who, peer, what, of, %before, %after, "changed over the admin API");
        inner.tell(Told::Change { who: who.to_owned(), what, of, before, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_token_only_hosts_that_no_web_page_can_own_are_answered() {
        let plain = |host: &str| {
            let request = Request::builder().header(header::HOST, host).body(axum::body::Body::empty()).unwrap();
            is_plain_host(&request)
        };
        for fine in ["127.0.0.1:9090", "10.0.0.1", "[::1]:9090", "localhost:9090", "door", "a.localhost"] {
            assert!(plain(fine), "{fine}");
        }
        for foreign in ["evil.example:9090", "evil.example", "127.0.0.1.evil.example"] {
            assert!(!plain(foreign), "{foreign}");
        }
    }
}
