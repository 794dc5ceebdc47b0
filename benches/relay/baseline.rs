//! What the relay is compared with: loops that look a datagram's sender up in a table and send it on, and do nothing
//! else. They know no STUN, no states, no limits, no timers and no statistics.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    batch::{Batch, In, MESSAGES, Out, Thread, set_joined},
    flows,
};

/// Who is passed on to whom.
pub(crate) type Routes = HashMap<SocketAddrV4, SocketAddrV4>;

/// How often a loop without work looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A running loop; dropping it ends it.
pub(crate) struct Loop {
    pub(crate) address: SocketAddrV4,
    pub(crate) thread: Thread,
    stop: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl Loop {
    /// `recvmmsg` and `sendmmsg`; with `joined`, whatever the kernel joined into one message goes on as one.
    pub(crate) fn batched(name: &str, routes: Routes, joined: bool) -> io::Result<Self> {
        let (receiver, sender) = (flows::socket(flows::LOOPBACK)?, flows::socket(flows::LOOPBACK)?);
        receiver.set_read_timeout(Some(LOOK))?;
        set_joined(&receiver, joined)?;
        Self::start(name, &receiver.try_clone()?, move |stop| {
            let mut batch = Batch::new(if joined { 65_536 + 2112 } else { 2048 });
            let mut outs = Vec::with_capacity(MESSAGES);
            while !stop.load(Ordering::Relaxed) {
                match batch.receive(&receiver, libc::MSG_WAITFORONE) {
                    Ok(count) => pass(&mut batch, count, &routes, &sender, &mut outs)?,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// tokio's own `recv_from` and `send_to`.
    pub(crate) fn tokio(name: &str, routes: Routes) -> io::Result<Self> {
        let (receiver, sender) = (flows::socket(flows::LOOPBACK)?, flows::socket(flows::LOOPBACK)?);
        Self::start(name, &receiver.try_clone()?, move |stop| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                receiver.set_nonblocking(true)?;
                sender.set_nonblocking(true)?;
                let receiver = tokio::net::UdpSocket::from_std(receiver)?;
                let sender = tokio::net::UdpSocket::from_std(sender)?;
                let mut bytes = vec![0; 2048];
                let end = async {
                    while !stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(LOOK).await;
                    }
                };
                let work = async {
                    loop {
                        let (len, from) = receiver.recv_from(&mut bytes).await?;
                        let SocketAddr::V4(from) = from else { continue };
                        if let Some(to) = routes.get(&from) {
                            sender.send_to(&bytes[..len], to).await?;
                        }
                    }
                };
                tokio::select! {
                    () = end => Ok(()),
                    failed = work => failed,
                }
            })
        })
    }

    fn start(
        name: &str,
        receiver: &UdpSocket,
        work: impl FnOnce(&AtomicBool) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let SocketAddr::V4(address) = receiver.local_addr()? else { return Err(ErrorKind::Unsupported.into()) };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let running = thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = work(&stopped) {
                eprintln!("a loop ended early: {error}");
            }
        })?;
        Ok(Self { address, thread: Thread::named(name)?, stop, running: Some(running) })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            // One that panicked has said so itself.
            drop(running.join());
        }
    }
}

fn pass(batch: &mut Batch, count: usize, routes: &Routes, sender: &UdpSocket, outs: &mut Vec<Out>) -> io::Result<()> {
    outs.clear();
    for slot in 0..count {
        let In { len, from, segment, .. } = batch.received(slot);
        if let Some(to) = routes.get(&from) {
            outs.push(Out { slot, len, from: None, to: *to, segment: segment.filter(|size| usize::from(*size) < len) });
        }
    }
    batch.send(sender, outs)
}
