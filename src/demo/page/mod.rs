//! The demo page: publish and watch by stream name, with nothing from another host.

/// The content type and bytes of one of the page's files; `None` for any other path.
pub fn asset(path: &str) -> Option<(&'static str, &'static [u8])> {
    match path {
        "/" | "/index.html" => Some(("text/html; charset=utf-8", include_bytes!("index.html"))),
        "/demo.css" => Some(("text/css; charset=utf-8", include_bytes!("demo.css"))),
        "/demo.js" => Some(("text/javascript; charset=utf-8", include_bytes!("demo.js"))),
        "/ams.js" => Some(("text/javascript; charset=utf-8", include_bytes!("ams.js"))),
        _ => None,
    }
}
