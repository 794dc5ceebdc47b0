//! What a forwarded request wants of the cluster, told by its route and method (facts/ams.md §3.1).

use super::{media_name, route::Route};
use crate::domain::ids::StreamId;

/// Why a request is sent to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// HLS, DASH, CMAF or a recording of a stream, as far as its name tells.
    Watch(Option<StreamId>),
    /// A page of an app.
    Page,
    /// A read by REST that any node answers from the database.
    Read,
    /// A read by REST of what only the stream's own node knows.
    ReadAtOrigin(StreamId),
    /// Makes a record by REST, which its node stamps.
    Create,
    /// Changes something by REST: of this stream, if it names one.
    Change(Option<StreamId>),
}

/// What a route's method may be, as the `Allow` of a 405.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAllowed(pub &'static str);

/// Methods that fetch.
const FETCH: &str = "GET, HEAD, OPTIONS";
/// Methods of AMS's REST API.
const REST: &str = "GET, HEAD, OPTIONS, POST, PUT, DELETE, PATCH";

/// The errand of a route that leads to nodes; `None` for routes that do not.
///
/// # Errors
/// The method is none that the route has.
pub fn errand(route: &Route<'_>, method: &str) -> Option<Result<Errand, NotAllowed>> {
    let fetches = matches!(method, "GET" | "HEAD" | "OPTIONS");
    Some(match route {
        // AMS checks tokens on these methods only (`TokenFilterManager`).
        Route::Streams(..) if !fetches => Err(NotAllowed(FETCH)),
        Route::Streams(_, file) => Ok(Errand::Watch(media_name::stream_of(file))),
        Route::Page(_, file) => {
            let reports = method == "POST" && file.starts_with("analytic/");
            if fetches || reports { Ok(Errand::Page) } else { Err(NotAllowed(FETCH)) }
        }
        Route::Rest(_, call) if fetches => Ok(read(call)),
        Route::Rest(_, call) if matches!(method, "POST" | "PUT" | "DELETE" | "PATCH") => Ok(change(call, method)),
        Route::Rest(..) => Err(NotAllowed(REST)),
        Route::Signalling(_) | Route::Whip(_) | Route::Locate | Route::Forbidden | Route::Nothing => return None,
    })
}

/// What follows `broadcasts/` in a call, after the API's version.
fn of_broadcasts(call: &str) -> Option<&str> {
    let versioned = call.split_once('/').filter(|(version, _)| {
        let digits = version.strip_prefix('v').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    versioned.map_or(call, |(_, rest)| rest).strip_prefix("broadcasts/")
}

fn read(call: &str) -> Errand {
    const LOCAL: [&str; 4] = [
        "webrtc-client-stats",
        "webrtc-send-low-level-stats",
        "webrtc-receive-low-level-stats",
        "broadcast-statistics",
    ];
    let local = of_broadcasts(call).and_then(|below| {
        let (stream, what) = below.split_once('/')?;
        LOCAL.iter().any(|local| what.starts_with(local)).then(|| stream.parse().ok())?
    });
    local.map_or(Errand::Read, Errand::ReadAtOrigin)
}

fn change(call: &str, method: &str) -> Errand {
    /// What stands where a stream's id would.
    const NO_STREAMS: [&str; 3] = ["create", "conference-rooms", "list"];
    let Some(first) = of_broadcasts(call).and_then(|below| below.split('/').next()) else {
        return Errand::Change(None);
    };
    if first == "create" && method == "POST" {
        return Errand::Create;
    }
    Errand::Change(first.parse().ok().filter(|_| !NO_STREAMS.contains(&first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::http::route::route;

    #[test]
    fn each_call_goes_on_its_errand() {
        let stream = || "s".parse::<StreamId>().unwrap();
        for (method, path, expected) in [
            ("GET", "/LiveApp/streams/s.m3u8", Errand::Watch(Some(stream()))),
            ("HEAD", "/LiveApp/streams/s000000001.ts", Errand::Watch(Some(stream()))),
            ("GET", "/LiveApp/streams/a%20b.mp4", Errand::Watch(None)),
            ("GET", "/LiveApp/play.html", Errand::Page),
            ("POST", "/LiveApp/analytic/events", Errand::Page),
            ("GET", "/LiveApp/rest/v2/broadcasts/s", Errand::Read),
            ("GET", "/LiveApp/rest/v2/broadcasts/list/0/10", Errand::Read),
            ("GET", "/LiveApp/rest/v2/broadcasts/s/webrtc-client-stats/0/5", Errand::ReadAtOrigin(stream())),
            ("GET", "/LiveApp/rest/v2/version", Errand::Read),
            ("POST", "/LiveApp/rest/v2/broadcasts/create", Errand::Create),
            ("DELETE", "/LiveApp/rest/v2/broadcasts/s", Errand::Change(Some(stream()))),
            ("PUT", "/LiveApp/rest/v2/broadcasts/s/recording/true", Errand::Change(Some(stream()))),
            ("POST", "/LiveApp/rest/broadcasts/s/stop", Errand::Change(Some(stream()))),
            ("DELETE", "/LiveApp/rest/v2/broadcasts/", Errand::Change(None)),
            ("POST", "/LiveApp/rest/v2/broadcasts/conference-rooms/r/add", Errand::Change(None)),
            ("DELETE", "/LiveApp/rest/v2/vods/1", Errand::Change(None)),
        ] {
            assert_eq!(errand(&route(path), method), Some(Ok(expected)), "{method} {path}");
        }
    }

    #[test]
    fn a_method_that_a_route_does_not_have_is_refused() {
        for (method, path, allow) in [
            ("POST", "/LiveApp/streams/s.m3u8", FETCH),
            ("PUT", "/LiveApp/streams/s.ts", FETCH),
            ("DELETE", "/LiveApp/index.html", FETCH),
            ("TRACE", "/LiveApp/rest/v2/version", REST),
            ("CONNECT", "/LiveApp/", FETCH),
        ] {
            assert_eq!(errand(&route(path), method), Some(Err(NotAllowed(allow))), "{method} {path}");
        }
        assert_eq!(errand(&route("/LiveApp/websocket"), "GET"), None);
    }
}
