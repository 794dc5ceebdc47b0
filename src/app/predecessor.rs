//! The newer generation's side of an upgrade (`upgrade.rs` draws it), and the way of ICE-TCP connections to the
//! generation whose sessions they belong to.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    channel::{Channel, ToNew, ToOld},
    sockets::Sockets,
};
use crate::{
    domain::{ids::ClientAddr, relay::stun::Message},
    front::Sink,
    media::Media,
    shutdown::Shutdown,
    telemetry::metrics::{Held, Metrics},
};

/// Set for a process whose standard input is the channel to the generation before it.
pub(super) const MARK: &str = "FOREBAY_TAKEOVER";
/// How long a connection may take to bring its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// Connections whose first frame is awaited; a further one is this generation's.
const AWAITED: usize = 1024;
/// Longest first frame: an ICE check has some 100 bytes; a datagram has no more than this.
const LONGEST_FRAME: usize = 1500;

/// The channel that this process was started with, if a generation before it started it.
pub(super) fn channel() -> io::Result<Option<OwnedFd>> {
    if std::env::var_os(MARK).is_none() {
        return Ok(None);
    }
    io::stdin().as_fd().try_clone_to_owned().map(Some)
}

/// The generation before this one.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: Channel,
    gone: CancellationToken,
}

impl Predecessor {
    pub(super) fn new(channel: OwnedFd) -> io::Result<Self> {
        Ok(Self { channel: Channel::new(channel)?, gone: CancellationToken::new() })
    }

    /// Takes its listening sockets.
    pub(super) async fn sockets(&self) -> io::Result<Sockets> {
        match self.channel.hear().await? {
            Some((ToNew::Sockets(binds), attached)) => {
                Ok(Sockets::from_generation(binds.into_iter().zip(attached.into_iter().map(TcpListener::from))))
            }
            _ => Err(gave_up()),
        }
    }

    /// Says that everything is built, and waits for leave to serve.
    pub(super) async fn may_serve(&self) -> io::Result<()> {
        self.channel.say(&ToOld::Ready, &[]).await?;
        match self.channel.hear().await? {
            Some((ToNew::Serve, _)) => Ok(()),
            _ => Err(gave_up()),
        }
    }

    /// Says that clients are served: the older generation lets go.
    pub(super) async fn serving(&self) -> io::Result<()> {
        self.channel.say(&ToOld::Serving, &[]).await
    }

    /// Notes when it is gone. `_there` counts it until then.
    pub(super) fn watch(self: &Arc<Self>, metrics: &Metrics, shutdown: &Shutdown) {
        let (this, stop) = (Arc::clone(self), shutdown.child());
        let there: Held = metrics.predecessor_there();
        shutdown.spawn(async move {
            let _there = there;
            let end = async { while let Ok(Some(_)) = this.channel.hear::<ToNew>().await {} };
            if stop.run_until_cancelled(end).await.is_some() {
                this.gone.cancel();
                tracing::info!("the older generation has finished its sessions and is gone");
            }
        });
    }

    async fn give(&self, stream: &TcpStream, client: ClientAddr, read: Vec<u8>) -> io::Result<()> {
        self.channel.say(&ToOld::IceTcp { client: client.0, read }, &[stream.as_fd()]).await
    }
}

fn gave_up() -> io::Error {
    io::Error::other("the generation before this one gave the upgrade up")
}

/// Where a listener's ICE-TCP connections go: to the relay, or to the generation before this one while it is there and
/// the connection's first request names a session that this one does not know.
pub(super) fn sink(media: Media, predecessor: Option<Arc<Predecessor>>, shutdown: &Shutdown) -> Sink {
    let (shutdown, seats) = (shutdown.clone(), Arc::new(Semaphore::new(AWAITED)));
    Sink::new(move |stream, client, read| {
        let there = predecessor.as_ref().filter(|predecessor| !predecessor.gone.is_cancelled());
        let (Some(predecessor), Ok(seat)) = (there, Arc::clone(&seats).try_acquire_owned()) else {
            return media.take_tcp(stream, client, read);
        };
        let (media, predecessor, stop) = (media.clone(), Arc::clone(predecessor), shutdown.child());
        let mut read = read.to_vec();
        shutdown.spawn(stop.run_until_cancelled_owned(async move {
            let _seat = seat;
            let mut stream = stream;
            if !matches!(timeout(FIRST_FRAME, first_frame(&mut stream, &mut read)).await, Ok(Ok(()))) {
                return tracing::debug!(client = %client.0, "an ICE-TCP connection without a first frame");
            }
            let is_ours = named(&read).is_none_or(|ufrag| media.knows(ufrag));
            if is_ours {
                media.take_tcp(stream, client, &read);
            } else if let Err(error) = predecessor.give(&stream, client, read).await {
                tracing::debug!(client = %client.0, %error, "an ICE-TCP connection could not be handed over");
            }
        }));
    })
}

/// Reads until the first frame is whole.
async fn first_frame(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<()> {
    while frame(read).is_none() {
        if read.len() >= 2 + LONGEST_FRAME || stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

/// The first frame behind its length in two bytes (RFC 4571 §2), if it is whole.
fn frame(read: &[u8]) -> Option<&[u8]> {
    let [high, low, rest @ ..] = read else { return None };
    rest.get(..usize::from(u16::from_be_bytes([*high, *low])))
}

/// The node's ufrag that the first request names.
fn named(read: &[u8]) -> Option<&str> {
    let (server, _) = Message::parse(frame(read)?).ok()?.ufrags()?;
    std::str::from_utf8(server).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_when_all_its_bytes_are_there() {
        assert_eq!(frame(&[0]), None);
        assert_eq!(frame(&[0, 3, 1, 2]), None);
        assert_eq!(frame(&[0, 3, 1, 2, 3, 4]), Some(&[1, 2, 3][..]));
    }

    #[test]
    fn a_binding_request_names_the_nodes_ufrag_first() {
        // RFC 8489: a Binding request with USERNAME "node:client", padded to four bytes, and FINGERPRINT left out.
        let username = b"node:client\0";
        let mut message = vec![0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0, 6, 0, 11]);
        message.extend(username);
        let mut framed = vec![0, u8::try_from(message.len()).unwrap()];
        framed.extend(message);
        assert_eq!(named(&framed), Some("node"));
        assert_eq!(named(&[0, 2, 1, 2]), None);
    }
}
