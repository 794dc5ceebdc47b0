//! What a client's bytes travel on: TCP, TLS, or one stream of an HTTP/2 connection; one type, so that sessions are built
//! for one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{pace::Busy, seats::Seat};

/// A client's bytes, with what is given back when they end.
pub(super) enum Transport {
    /// Plain TCP.
    Plain { io: TcpStream, _seat: Seat },
    /// TLS; boxed, since its state is much larger than a socket.
    Tls { io: Box<TlsStream<TcpStream>>, _seat: Seat },
    /// A CONNECT stream (RFC 8441); the seat is its connection's.
    Stream { io: Box<TokioIo<Upgraded>>, _busy: Busy },
}

macro_rules! io {
    ($transport:expr, $io:ident => $call:expr) => {
        match $transport {
            Transport::Plain { io: $io, .. } => $call,
            Transport::Tls { io: $io, .. } => $call,
            Transport::Stream { io: $io, .. } => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        io!(self.get_mut(), io => Pin::new(io).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        io!(self.get_mut(), io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        io!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        io!(self, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        io!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        io!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}
