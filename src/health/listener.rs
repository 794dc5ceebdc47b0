//! `[health] bind`: `/healthz` and `/livez` on a port of their own, served by a thread of their own, so that they are
//! answered however busy the door's other threads are.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Answer, Readiness, answer, handlers::CONTENT_TYPE};
use crate::net;

/// Connections at a time; the next one waits in the kernel's backlog for a seat, which is free after [`CONNECTION`].
const CONNECTIONS: usize = 256;
/// From a connection to its end, whatever the prober does.
const CONNECTION: Duration = Duration::from_secs(5);
/// A prober that has not sent its request by then is closed.
const HEAD: Duration = Duration::from_secs(2);
/// After an accept that failed (no descriptors left), before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts the thread and returns the listener's address. Nothing more is accepted when `stop` is cancelled.
///
/// # Errors
/// No thread started.
pub fn start(listener: std::net::TcpListener, readiness: Readiness, stop: CancellationToken) -> io::Result<SocketAddr> {
    net::serve_on_thread("health", listener, stop, |listener| serve(listener, readiness))
}

async fn serve(listener: TcpListener, readiness: Readiness) -> Infallible {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let readiness = readiness.clone();
                tokio::spawn(async move {
                    let _seat = seat;
                    // A prober that goes away, or sends nonsense, has told us nothing.
                    let _ = timeout(CONNECTION, connection(stream, readiness)).await;
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, readiness: Readiness) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request.method().as_str(), request.uri().path(), &readiness);
        async move { Ok::<_, Infallible>(respond(answered)) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond(answered: Option<Answer>) -> Response<Full<Bytes>> {
    let (status, body, allow) = match answered {
        Some(answer) => (answer.status, answer.body, answer.allow),
        None => (404, "not found\n", None),
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .header(header::CACHE_CONTROL, "no-store");
    if let Some(allow) = allow {
        response = response.header(header::ALLOW, allow);
    }
    response.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("literal headers are legal")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    fn started(readiness: &Readiness) -> (SocketAddr, tokio_util::sync::DropGuard) {
        let stop = CancellationToken::new();
        let any = net::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (start(any, readiness.clone(), stop.clone()).unwrap(), stop.drop_guard())
    }

    fn ask(at: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn every_way_of_asking_that_load_balancers_have_is_answered() {
        let readiness = Readiness::new();
        readiness.started();
        let (at, _running) = started(&readiness);
        // CLB asks with HTTP/1.0 and an empty Host or none, ALB with HEAD and 1.1, NLB with GET and 1.0.
        for request in [
            "HEAD /healthz HTTP/1.0\r\n\r\n",
            "HEAD /healthz HTTP/1.0\r\nHost:\r\n\r\n",
            "GET /healthz HTTP/1.0\r\n\r\n",
            "GET /healthz HTTP/1.1\r\n\r\n",
            "GET /livez HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
            "HEAD /healthz HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: keep-alive\r\n\r\n",
            "GET /healthz?probe=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            let answer = ask(at, request);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.") && head[8..].starts_with(" 200 "), "{request}: {answer}");
            assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request}: {answer}");
        }
        assert!(ask(at, "POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n").contains(" 405 "));
        assert!(ask(at, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").contains(" 404 "));
        readiness.drain();
        assert!(ask(at, "HEAD /healthz HTTP/1.0\r\n\r\n").contains(" 503 "));
        assert!(ask(at, "HEAD /livez HTTP/1.0\r\n\r\n").contains(" 200 "));
    }

    #[test]
    fn probers_that_say_nothing_or_nonsense_leave_the_others_alone() {
        let readiness = Readiness::new();
        readiness.started();
        let (at, _running) = started(&readiness);
        let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(at).unwrap()).collect();
        drop(TcpStream::connect(at).unwrap());
        let mut nonsense = TcpStream::connect(at).unwrap();
        nonsense.write_all(b"\x16\x03\x01\x00\x00\xff\xff\r\n\r\n").unwrap();
        assert!(ask(at, "GET /healthz HTTP/1.0\r\n\r\n").contains(" 200 "));
        drop(silent);
    }
}
