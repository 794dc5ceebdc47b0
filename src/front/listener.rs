//! Accepts connections and speaks HTTP/1.1 on them.

use std::{io, pin::pin, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::{Front, http, sniff, visitor::Visitor};
use crate::{domain::ids::ClientAddr, net, shutdown::Shutdown};

/// Bytes of a request head; a larger one is a 431. SDKs send below 2 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// Header lines of a request; more is a 431.
const MAX_HEADERS: usize = 64;
/// A failing `accept` (no descriptors left) is tried again after this, doubled up to [`ACCEPT_REST_MAX`].
const ACCEPT_REST: Duration = Duration::from_millis(10);
/// See [`ACCEPT_REST`].
const ACCEPT_REST_MAX: Duration = Duration::from_secs(1);

/// Accepts until the process is asked to end.
pub async fn serve(listener: TcpListener, front: Front, shutdown: Shutdown) {
    let mut rest = ACCEPT_REST;
    loop {
        let accepted = tokio::select! {
            () = shutdown.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                rest = ACCEPT_REST;
                shutdown.spawn(connection(stream, ClientAddr(peer), front.clone(), shutdown.clone()));
            }
            Err(error) => {
                // The connection that failed is gone by itself; only a lack of descriptors or memory is worth a pause.
                if is_local(&error) {
                    front.metrics.accept_failed();
                    tracing::warn!(%error, ?rest, "cannot accept");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(ACCEPT_REST_MAX);
                }
            }
        }
    }
}

fn is_local(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn connection(stream: TcpStream, peer: ClientAddr, front: Front, shutdown: Shutdown) {
    if let Err(error) = net::tune(&stream) {
        return tracing::debug!(%error, "the client was gone before it was served");
    }
    let Some(stream) = sniff::http(stream, peer, front.ice_tcp.as_ref(), front.header_timeout, &shutdown).await else {
        return;
    };
    let header_timeout = front.header_timeout;
    let ending = shutdown.clone();
    let visitor = Visitor { client: peer, secure: false };
    let service = service_fn(|request| async {
        Ok::<_, std::convert::Infallible>(http::answer(&front, visitor, &shutdown, request).await)
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        // An idle connection ends now, a request that is being answered is finished first.
        () = ending.stopping() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client = %peer.0, %error, "connection ended");
    }
}
