//! The node, and the bare hyper proxy that the door is held against: server and client of hyper with a kept connection per
//! client connection, and nothing else. It answers `/healthz` by itself.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

/// Where the node has 1 KiB.
pub(crate) const SMALL: &str = "/LiveApp/streams/bench000000001.ts";
/// Where the node has 1 MiB.
pub(crate) const LARGE: &str = "/LiveApp/streams/bench000000002.ts";

type Body = Either<Full<Bytes>, Incoming>;

/// Serves as a node, or, with an address, as a proxy before it. Prints its address.
pub(crate) async fn run(to: Option<SocketAddr>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let large = large.clone();
        tokio::spawn(async move {
            let kept = Arc::new(Mutex::new(None));
            let service = service_fn(move |request| {
                let (kept, large) = (Arc::clone(&kept), large.clone());
                async move {
                    Ok::<_, Infallible>(match to.filter(|_| request.uri().path() != "/healthz") {
                        None => own(&request, large),
                        Some(to) => pass(to, &kept, request).await.unwrap_or_else(|error| {
                            let mut answer = Response::new(Either::Left(Full::from(error.to_string())));
                            *answer.status_mut() = hyper::StatusCode::BAD_GATEWAY;
                            answer
                        }),
                    })
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn own(request: &Request<Incoming>, large: Bytes) -> Response<Body> {
    let body = match request.uri().path() {
        LARGE => large,
        SMALL => large.slice(..1024),
        _ => Bytes::from_static(b"ready\n"),
    };
    Response::new(Either::Left(Full::new(body)))
}

async fn pass(
    to: SocketAddr,
    kept: &Mutex<Option<SendRequest<Incoming>>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let mut kept = kept.lock().await;
    let before = match kept.take() {
        Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
        None => None,
    };
    let mut sender = match before {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    let answer = sender.send_request(request).await?;
    *kept = Some(sender);
    Ok(answer.map(Either::Right))
}
