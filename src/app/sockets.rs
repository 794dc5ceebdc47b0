//! Listening sockets: handed over by systemd or by the generation before this one, else bound here.
//!
//! Whoever hands a socket over has it open already, so that no client is refused while the door starts or changes.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;

use crate::net;

/// The sockets that this process was given, and those that it uses.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    handed: Vec<Handed>,
    used: Vec<Used>,
}

/// A socket that nobody has taken yet.
#[derive(Debug)]
struct Handed {
    /// systemd's `FileDescriptorName`; empty where there is none.
    name: String,
    /// Where it is bound; from another generation, what it was asked to bind.
    address: SocketAddr,
    listener: TcpListener,
}

/// A socket in use, as the next generation will want it.
#[derive(Debug)]
pub(super) struct Used {
    /// What was to be bound; its port may be 0.
    pub(super) bind: SocketAddr,
    /// The same socket once more.
    pub(super) listener: TcpListener,
}

impl Sockets {
    /// Takes what systemd's socket activation gave this process. Call it before there are threads: it changes the
    /// environment, so that no child believes the sockets to be its own.
    ///
    /// # Errors
    /// One of them is no TCP listener.
    pub(super) fn from_systemd() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut sockets = Self::default();
        for nth in 0..given.len() {
            let name = names.next().unwrap_or_default().to_owned();
            if let Some(listener) = given.take_tcp_listener(nth)? {
                let address = listener.local_addr()?;
                sockets.handed.push(Handed { name, address, listener });
            }
        }
        Ok(sockets)
    }

    /// Takes what the generation before this one used.
    pub(super) fn from_generation(sockets: impl IntoIterator<Item = (SocketAddr, TcpListener)>) -> Self {
        let handed = sockets.into_iter().map(|(address, listener)| Handed { name: String::new(), address, listener });
        Self { handed: handed.collect(), used: Vec::new() }
    }

    /// The listener for `bind`: one that was handed over under `name` or at that address, else a new one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(super) fn take(&mut self, name: &str, bind: SocketAddr) -> io::Result<TcpListener> {
        let by_name = self.handed.iter().position(|handed| handed.name == name);
        let found = by_name.or_else(|| self.handed.iter().position(|handed| is_same(handed.address, bind)));
        let listener = match found {
            Some(nth) => {
                let listener = self.handed.remove(nth).listener;
                listener.set_nonblocking(true)?;
                net::prepare(&listener)?;
                listener
            }
            None => net::bind(bind)?,
        };
        self.used.push(Used { bind, listener: listener.try_clone()? });
        Ok(listener)
    }

    /// All are taken that the configuration knows; says which are left, and closes them.
    pub(super) fn close_unused(&mut self) {
        for Handed { name, address, .. } in self.handed.drain(..) {
            tracing::warn!(name, %address, "a socket was handed over that the configuration does not name; closed");
        }
    }

    /// Those in use.
    pub(super) fn used(&self) -> &[Used] {
        &self.used
    }

    /// Forgets those in use: from now on only their own rooms hold them open.
    pub(super) fn let_go(&mut self) {
        self.used.clear();
    }
}

/// `ListenStream=443` is `[::]:443`, which takes IPv4 as well: it stands for `0.0.0.0:443` too.
fn is_same(handed: SocketAddr, bind: SocketAddr) -> bool {
    let both_any = handed.ip().is_unspecified() && bind.ip().is_unspecified();
    handed == bind || (both_any && handed.port() == bind.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[test]
    fn a_socket_is_found_by_its_address_and_the_rest_is_bound() {
        let (address, listener) = loopback();
        let mut sockets = Sockets::from_generation([(address, listener)]);
        let taken = sockets.take("listen-0", address).expect("a second bind of it would fail");
        assert_eq!(taken.local_addr().unwrap(), address);
        let other = sockets.take("listen-1", "127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(other.local_addr().unwrap(), address);
        assert_eq!(sockets.used().len(), 2);
    }

    #[test]
    fn a_name_goes_before_an_address() {
        let ((first, one), (second, two)) = (loopback(), loopback());
        let handed = |name: &str, address, listener| Handed { name: name.to_owned(), address, listener };
        let handed = vec![handed("", first, one), handed("admin", second, two)];
        let mut sockets = Sockets { handed, used: Vec::new() };
        assert_eq!(sockets.take("admin", first).unwrap().local_addr().unwrap(), second);
        assert_eq!(sockets.take("listen-0", first).unwrap().local_addr().unwrap(), first);
    }

    #[test]
    fn the_next_generation_finds_a_free_port_by_what_was_asked_for() {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut old = Sockets::default();
        let real = old.take("listen-0", any).unwrap().local_addr().unwrap();
        let handed = old.used().iter().map(|used| (used.bind, used.listener.try_clone().unwrap()));
        let mut new = Sockets::from_generation(handed.collect::<Vec<_>>());
        assert_eq!(new.take("listen-0", any).unwrap().local_addr().unwrap(), real);
    }

    #[test]
    fn a_socket_for_any_address_of_both_families_stands_for_that_of_one() {
        let same = |a: &str, b: &str| is_same(a.parse().unwrap(), b.parse().unwrap());
        assert!(same("[::]:443", "0.0.0.0:443"));
        assert!(
            !same("[::]:443", "0.0.0.0:80") && !same("[::]:443", "10.0.0.1:443") && !same("[::1]:443", "127.0.0.1:443")
        );
    }
}
