//! What clients are told to send to, where that may change: an address that was found out can be given to another machine.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::discover;
use crate::{config, domain::sdp::PublicCandidate};

/// How often a public address that was found out is looked for again (facts/relay.md §3.4).
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Told {
    public: ArcSwap<Vec<PublicCandidate>>,
    moved: watch::Sender<()>,
}

impl Told {
    pub(super) fn new(public: Vec<PublicCandidate>) -> Self {
        Self { public: ArcSwap::from_pointee(public), moved: watch::Sender::new(()) }
    }

    pub(super) fn now(&self) -> Arc<Vec<PublicCandidate>> {
        self.public.load_full()
    }

    pub(super) fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// What was told with one address is told with another.
    fn change(&self, from: IpAddr, to: IpAddr) {
        let changed = |candidate: &PublicCandidate| match candidate.address.ip() == from {
            true => PublicCandidate { address: SocketAddr::new(to, candidate.address.port()), ..*candidate },
            false => *candidate,
        };
        self.public.store(Arc::new(self.public.load().iter().map(changed).collect()));
        self.moved.send_replace(());
    }
}

/// Looks for the public address again and again, as long as anybody is told one. Where nobody names it, the last one stays.
pub(super) async fn follow(told: Weak<Told>, config: config::Media, found: IpAddr, again: Duration) {
    let (config, mut known) = (Arc::new(config), found);
    loop {
        tokio::time::sleep(again).await;
        let asked = Arc::clone(&config);
        let asked = tokio::task::spawn_blocking(move || discover::public_address_again(&asked)).await;
        let Some(told) = told.upgrade() else { return };
        match asked {
            Ok(Ok(now)) if now != known => {
                tracing::warn!(from = %known, to = %now, "this door has another public address: new sessions are told it");
                told.change(known, now);
                known = now;
            }
            Ok(Ok(_)) => {}
            Ok(Err(why)) => tracing::debug!(why, "nobody names the public address now: the last one stays"),
            Err(why) => tracing::error!(%why, "the look for the public address panicked: the last one stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        sync::atomic::{AtomicU8, Ordering},
        thread,
    };

    use super::*;
    use crate::{config::Config, domain::sdp::Transport};

    /// The last byte of the address that the cloud names; 0: it names none.
    static NAMED: AtomicU8 = AtomicU8::new(1);

    /// A metadata service that knows [`NAMED`], whatever it is asked.
    fn cloud() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 2048]);
                let body = match NAMED.load(Ordering::Relaxed) {
                    0 => String::new(),
                    last => format!("198.51.100.{last}"),
                };
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        at
    }

    #[tokio::test]
    async fn an_address_that_changes_is_told_from_then_on_and_one_that_nobody_names_stays() {
        let text = format!(
            "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\nmetadata_server = \"{}\"\n",
            cloud()
        );
        let config = Config::from_toml_str(&text).unwrap().media;
        let candidate = |ip: &str, port, transport| PublicCandidate {
            address: SocketAddr::new(ip.parse().unwrap(), port),
            transport,
        };
        let other = candidate("2001:db8::1", 5000, Transport::Udp);
        let told = Arc::new(Told::new(vec![
            candidate("198.51.100.1", 5000, Transport::Udp),
            other,
            candidate("198.51.100.1", 443, Transport::TcpPassive),
        ]));
        let mut moved = told.moved();
        let known = "198.51.100.1".parse().unwrap();
        tokio::spawn(follow(Arc::downgrade(&told), config, known, Duration::from_millis(5)));
        for named in [0, 7, 0, 9] {
            NAMED.store(named, Ordering::Relaxed);
            if named == 0 {
                continue;
            }
            moved.changed().await.unwrap();
            let ip = format!("198.51.100.{named}");
            let (udp, tcp) = (candidate(&ip, 5000, Transport::Udp), candidate(&ip, 443, Transport::TcpPassive));
            assert_eq!(*told.now(), [udp, other, tcp]);
        }
    }
}
