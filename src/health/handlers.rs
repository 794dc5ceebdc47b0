//! What `/healthz` and `/livez` answer. Pure: a method, a path and the readiness go in, an answer comes out.
//!
//! Load balancers ask in many ways (HEAD or GET, HTTP/1.0 or 1.1, with or without `Host`: facts/alibaba.md §6), so only
//! the method and the path count. There is no redirect and nothing to log.

use super::{Readiness, Ready};

/// The content type of every answer.
pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// An answer, ready to be sent. To HEAD, the sender leaves the body out and keeps its length in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// 200, 405 or 503.
    pub status: u16,
    /// A word and a line feed.
    pub body: &'static str,
    /// The `Allow` header of a 405.
    pub allow: Option<&'static str>,
    /// The pattern that was matched, for metrics.
    pub route: &'static str,
}

/// Answers a request for health; `None`: the path is another one, and none of ours.
pub fn answer(method: &str, path: &str, readiness: &Readiness) -> Option<Answer> {
    let (route, live_only) = match path {
        "/healthz" => ("/healthz", false),
        "/livez" => ("/livez", true),
        _ => return None,
    };
    if !matches!(method, "GET" | "HEAD") {
        return Some(Answer { status: 405, body: "method not allowed\n", allow: Some("GET, HEAD"), route });
    }
    if live_only {
        return Some(Answer { status: 200, body: "alive\n", allow: None, route });
    }
    let (status, body) = match readiness.now() {
        Ready::Ready => (200, "ready\n"),
        Ready::Starting => (503, "starting\n"),
        Ready::Draining => (503, "draining\n"),
        Ready::OverLimit => (503, "over limit\n"),
    };
    Some(Answer { status, body, allow: None, route })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthz_follows_readiness_and_livez_does_not() {
        let door = Readiness::new();
        let status = |path| answer("GET", path, &door).map(|answer| answer.status);
        assert_eq!((status("/healthz"), status("/livez")), (Some(503), Some(200)));
        door.started();
        assert_eq!((status("/healthz"), status("/livez")), (Some(200), Some(200)));
        door.set_over_limit(true);
        assert_eq!((status("/healthz"), status("/livez")), (Some(503), Some(200)));
        door.drain();
        assert_eq!((status("/healthz"), status("/livez")), (Some(503), Some(200)));
    }

    #[test]
    fn only_the_two_paths_and_the_two_methods_are_answered() {
        let door = Readiness::new();
        door.started();
        for path in ["/", "/healthz/", "/Healthz", "/healthz/x", "/LiveApp/websocket", ""] {
            assert_eq!(answer("GET", path, &door), None, "{path}");
        }
        assert_eq!(answer("HEAD", "/healthz", &door).unwrap().status, 200);
        for method in ["POST", "PUT", "OPTIONS", "get", ""] {
            let refused = answer(method, "/livez", &door).unwrap();
            assert_eq!((refused.status, refused.allow), (405, Some("GET, HEAD")), "{method}");
        }
    }
}
