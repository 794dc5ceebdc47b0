//! What two generations of one door say to each other: whole messages over a Unix socket, with sockets attached.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

/// Sockets in one message; a door has fewer listeners.
pub(super) const SOCKETS: usize = 64;
/// Bytes of one message; the first frame of an ICE-TCP connection has 1.5 KiB, which JSON makes 6.
const MESSAGE: usize = 16 * 1024;

/// What the older generation says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToNew {
    /// The listening sockets, attached, with what each was asked to bind.
    Sockets(Vec<SocketAddr>),
    /// Serve now.
    Serve,
}

/// What the newer generation says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToOld {
    /// Everything is built; nothing is served yet.
    Ready,
    /// Clients are being served.
    Serving,
    /// A connection, attached, that brings the media of one of your sessions.
    IceTcp {
        /// Its far end.
        client: SocketAddr,
        /// What was read from it already.
        read: Vec<u8>,
    },
}

/// One end. The socket keeps messages apart (`SOCK_SEQPACKET`), for which tokio has no type of its own: of this one only
/// the readiness is used.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

/// Both ends; each becomes a [`Channel`] in its own process.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Channel {
    /// Takes one end, on the runtime that calls.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        let end = std::os::unix::net::UnixStream::from(end);
        end.set_nonblocking(true)?;
        UnixStream::from_std(end).map(Self)
    }

    /// Says something. The sockets stay open here too.
    ///
    /// # Errors
    /// The other generation is gone, or there is more than a message takes.
    pub(super) async fn say<M: Serialize>(&self, message: &M, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE || sockets.len() > SOCKETS {
            return Err(io::Error::other("too much for one message"));
        }
        let send = || {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(sockets));
            }
            Ok(sendmsg(self.0.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next message with what is attached to it; `None`: the other generation is gone. Cancel safe.
    ///
    /// # Errors
    /// What came is no message.
    pub(super) async fn hear<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let receive = || {
            let mut bytes = vec![0; MESSAGE];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(self.0.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let attached = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            });
            let attached: Vec<OwnedFd> = attached.flatten().collect();
            if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                return Err(io::Error::other("a message that was cut short"));
            }
            bytes.truncate(received.bytes);
            Ok((bytes, attached))
        };
        let (bytes, attached) = match self.0.async_io(Interest::READABLE, receive).await {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes)?, attached)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn channels() -> (Channel, Channel) {
        let (one, other) = pair().unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn a_listener_that_is_handed_over_takes_the_connections_of_before() {
        let (old, new) = channels();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        old.say(&ToNew::Sockets(vec![address]), &[listener.as_fd()]).await.unwrap();
        drop(listener);

        let Some((ToNew::Sockets(told), mut attached)) = new.hear().await.unwrap() else { panic!("the sockets") };
        let listener = TcpListener::from(attached.pop().unwrap());
        assert_eq!((told, listener.local_addr().unwrap()), (vec![address], address));
        listener.accept().unwrap();
        TcpStream::connect(address).expect("nobody is refused in between");
    }

    #[tokio::test]
    async fn messages_stay_whole_and_in_order_and_the_end_is_heard() {
        let (old, new) = channels();
        let client = "192.0.2.1:5".parse().unwrap();
        new.say(&ToOld::Ready, &[]).await.unwrap();
        new.say(&ToOld::IceTcp { client, read: vec![255; 1502] }, &[]).await.unwrap();
        assert!(matches!(old.hear().await.unwrap(), Some((ToOld::Ready, _))));
        let Some((ToOld::IceTcp { read, .. }, none)) = old.hear().await.unwrap() else { panic!("a connection") };
        assert_eq!((read, none.len()), (vec![255; 1502], 0));
        drop(new);
        assert!(old.hear::<ToOld>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn more_than_a_message_takes_is_an_error_and_no_panic() {
        let (old, _new) = channels();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let many = vec![listener.as_fd(); SOCKETS + 1];
        assert!(old.say(&ToNew::Serve, &many).await.is_err());
        assert!(old.say(&vec![7_u8; MESSAGE], &[]).await.is_err());
    }
}
