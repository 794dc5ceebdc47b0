//! The public paths (design.md §4): what a normal path leads to, and what no path ever leads to.

use crate::domain::ids::{AppName, StreamId};

/// Where a normal path leads. Whether the app exists, configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'p> {
    /// `/{app}/websocket`: AMS's signalling.
    Signalling(AppName),
    /// `/{app}/whip/…`, `/{app}/whep/…`
    Whip(WhipPath<'p>),
    /// `/{app}/streams/…`: HLS, DASH, CMAF and recordings; with what follows `streams/`.
    Streams(AppName, &'p str),
    /// `/{app}/rest/…`: AMS's REST API; with what follows `rest/`.
    Rest(AppName, &'p str),
    /// Any other path of an app, with what follows the app's name and a slash.
    Page(AppName, &'p str),
    /// `/forebay/locate`
    Locate,
    /// Not for the public, whatever the configuration says.
    Forbidden,
    /// Names no app.
    Nothing,
}

impl Route<'_> {
    /// The route's pattern, for metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Signalling(_) => "websocket",
            Self::Whip(WhipPath { kind: WhipKind::Whip, .. }) => "whip",
            Self::Whip(WhipPath { kind: WhipKind::Whep, .. }) => "whep",
            Self::Streams(..) => "streams",
            Self::Rest(..) => "rest",
            Self::Page(..) => "page",
            Self::Locate => "locate",
            Self::Forbidden => "forbidden",
            Self::Nothing => "none",
        }
    }

    /// The app that the path names, where it leads to one.
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::Signalling(app) | Self::Streams(app, _) | Self::Rest(app, _) | Self::Page(app, _) => Some(app),
            Self::Whip(path) => Some(&path.app),
            Self::Locate | Self::Forbidden | Self::Nothing => None,
        }
    }
}

/// A path of WHIP (RFC 9725) or WHEP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhipPath<'p> {
    /// Which of the two.
    pub kind: WhipKind,
    /// `{app}`
    pub app: AppName,
    /// `{streamId}`
    pub stream: StreamId,
    /// What follows the stream's id and a slash: a resource of the door. `None` for the endpoint itself.
    pub resource: Option<&'p str>,
}

/// Ingest or egress over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhipKind {
    /// A publish.
    Whip,
    /// A play.
    Whep,
}

/// First segments that belong to AMS's own web application, which is the dashboard and the server's REST API: with `"*"` in
/// `[apps]` they would pass for apps.
const SERVERS_OWN: [&str; 8] = ["rest", "root", "console", "manager", "host-manager", "openapi", "static", "assets"];
/// Node-to-node ingest, at the root or inside an app.
const INGEST: [&str; 2] = ["chunked", "hls-upload"];
/// Segments that are for nobody outside, wherever they stand.
const INSIDE_ONLY: [&str; 3] = ["cluster-communication", "web-inf", "meta-inf"];

/// Where a path leads that [`super::path::normalise`] has passed.
pub fn route(path: &str) -> Route<'_> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let is_one_of = |segment: &str, names: &[&str]| names.iter().any(|name| segment.eq_ignore_ascii_case(name));
    if path.split('/').any(|segment| is_one_of(segment, &INSIDE_ONLY)) {
        return Route::Forbidden;
    }
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    if first.eq_ignore_ascii_case("forebay") {
        return if path == "forebay/locate" { Route::Locate } else { Route::Nothing };
    }
    let (second, below) = rest.split_once('/').unwrap_or((rest, ""));
    if is_one_of(first, &SERVERS_OWN) || is_one_of(first, &INGEST) || is_one_of(second, &INGEST) {
        return Route::Forbidden;
    }
    let Ok(app) = first.parse::<AppName>() else { return Route::Nothing };
    match second {
        "websocket" if rest == "websocket" => Route::Signalling(app),
        "whip" => whip(WhipKind::Whip, app, below),
        "whep" => whip(WhipKind::Whep, app, below),
        "streams" => Route::Streams(app, below),
        "rest" => Route::Rest(app, below),
        // What a door on another system might take for the same path, and `websocket/signaling`, which is for AMS servers.
        other if is_one_of(other, &["websocket", "whip", "whep", "streams", "rest"]) => Route::Forbidden,
        _ => Route::Page(app, rest),
    }
}

fn whip(kind: WhipKind, app: AppName, below: &str) -> Route<'_> {
    let (stream, resource) = match below.split_once('/') {
        Some((stream, resource)) => (stream, Some(resource).filter(|resource| !resource.is_empty())),
        None => (below, None),
    };
    match stream.parse() {
        Ok(stream) => Route::Whip(WhipPath { kind, app, stream, resource }),
        Err(_) => Route::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::http::path::normalise;

    fn app() -> AppName {
        "LiveApp".parse().unwrap()
    }

    #[test]
    fn each_public_path_leads_where_the_contract_says() {
        let whip =
            |kind, resource| Route::Whip(WhipPath { kind, app: app(), stream: "s-1.x".parse().unwrap(), resource });
        for (path, expected) in [
            ("/LiveApp/websocket", Route::Signalling(app())),
            ("/LiveApp/whip/s-1.x", whip(WhipKind::Whip, None)),
            ("/LiveApp/whip/s-1.x/", whip(WhipKind::Whip, None)),
            ("/LiveApp/whip/s-1.x/abc/def", whip(WhipKind::Whip, Some("abc/def"))),
            ("/LiveApp/whep/s-1.x/abc", whip(WhipKind::Whep, Some("abc"))),
            ("/LiveApp/streams/s.m3u8", Route::Streams(app(), "s.m3u8")),
            ("/LiveApp/streams/a/b.ts", Route::Streams(app(), "a/b.ts")),
            ("/LiveApp/rest/v2/broadcasts/s", Route::Rest(app(), "v2/broadcasts/s")),
            ("/LiveApp", Route::Page(app(), "")),
            ("/LiveApp/", Route::Page(app(), "")),
            ("/LiveApp/play.html", Route::Page(app(), "play.html")),
            ("/LiveApp/js/a.js", Route::Page(app(), "js/a.js")),
            ("/forebay/locate", Route::Locate),
            ("/forebay/other", Route::Nothing),
            ("/", Route::Nothing),
            ("/index.html", Route::Nothing),
            ("/LiveApp/whip", Route::Nothing),
            ("/LiveApp/whip/a%20b", Route::Nothing),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_for_the_public_is_forbidden_in_every_spelling() {
        for path in [
            "/LiveApp/rest/cluster-communication/x",
            "/LiveApp/rest/v2/Cluster-Communication",
            "/LiveApp/streams/..;/rest/cluster-communication/x",
            "/LiveApp/%72est/cluster%2Dcommunication/x",
            "/chunked/s/1.ts",
            "/LiveApp/chunked/s/1.ts",
            "/LiveApp//chunked",
            "/hls-upload/x",
            "/LiveApp/HLS-Upload/x",
            "/rest/v2/system-resources",
            "/REST/v2/liveness",
            "/LiveApp/../rest/v2/system-resources",
            "/LiveApp/websocket/signaling",
            "/LiveApp/WebSocket",
            "/LiveApp/REST/v2/broadcasts",
            "/LiveApp/WEB-INF/web.xml",
            "/LiveApp/x/meta-inf/",
        ] {
            assert_eq!(route(&normalise(path).unwrap()), Route::Forbidden, "{path}");
        }
    }
}
