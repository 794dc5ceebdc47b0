//! Many nodes in one process, each of which a test may kill, freeze, overload or stop; and one node as a process.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use tokio::net::{TcpListener, TcpSocket};

use super::{
    node::Node,
    options::{ClusterOptions, DemoError, NodeOptions, NodeStats},
};
use crate::{
    domain::ids::{NodeId, Role},
    registry::cluster_db::ClusterDb,
    shutdown::Shutdown,
};

/// Nodes stand on 127.0.1.1 … 127.0.1.254.
const MAX_NODES: usize = 254;
/// Ports that are tried until one is free on all addresses.
const PORT_TRIES: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// One node of a running cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoNode {
    /// Its name.
    pub id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What the cluster uses it for.
    pub role: Role,
}

/// A running cluster. Its nodes end with the [`Shutdown`] that it was started with.
pub struct Cluster {
    seats: Vec<Seat>,
    db: ClusterDb,
    shutdown: Shutdown,
}

struct Seat {
    options: NodeOptions,
    node: Mutex<Arc<Node>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes()).finish()
    }
}

impl Cluster {
    /// Binds every node, then starts them all. `clusternode` documents are written before this returns.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened on, or there are more nodes than addresses.
    pub async fn start(options: ClusterOptions, db: ClusterDb, shutdown: &Shutdown) -> Result<Self, DemoError> {
        let names = named(&options);
        if names.len() > MAX_NODES {
            return Err(DemoError::TooManyNodes(MAX_NODES));
        }
        let listeners = listen_all(names.len(), options.http_port)?;
        let mut seats = Vec::new();
        for ((id, role), listener) in names.into_iter().zip(listeners) {
            let address = local(&listener)?;
            let node_options = NodeOptions {
                id,
                role,
                bind: address,
                app: options.app.clone(),
                node_ports: options.node_ports.clone(),
                traits: options.traits.clone(),
            };
            let node = begin(&node_options, address, listener, &db, shutdown).await;
            seats.push(Seat { options: node_options, node: Mutex::new(node) });
        }
        Ok(Self { seats, db, shutdown: shutdown.clone() })
    }

    /// The nodes, origins first.
    pub fn nodes(&self) -> Vec<DemoNode> {
        let node =
            |seat: &Seat| DemoNode { id: seat.options.id.clone(), address: seat.options.bind, role: seat.options.role };
        self.seats.iter().map(node).collect()
    }

    /// What a node has to do at this moment.
    ///
    /// # Errors
    ///
    /// When there is no such node; so for every method that names one.
    pub fn stats(&self, id: &NodeId) -> Result<NodeStats, DemoError> {
        Ok(self.node(id)?.stats())
    }

    /// Ends a node at once: its sockets are reset, nothing is said, its records stay as they are.
    pub fn kill(&self, id: &NodeId) -> Result<(), DemoError> {
        self.node(id)?.dead.cancel();
        Ok(())
    }

    /// Stops a node as AMS stops: `server_will_stop`, a moment to leave, records ended, sockets closed.
    pub fn stop(&self, id: &NodeId) -> Result<(), DemoError> {
        self.node(id)?.stopping.cancel();
        Ok(())
    }

    /// Starts a node again that was killed or stopped, on its old address.
    ///
    /// # Errors
    ///
    /// Also when the address cannot be listened on (yet).
    pub async fn start_again(&self, id: &NodeId) -> Result<(), DemoError> {
        let seat = self.seat(id)?;
        let listener = listen(seat.options.bind)?;
        let node = begin(&seat.options, seat.options.bind, listener, &self.db, &self.shutdown).await;
        *seat.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
        Ok(())
    }

    /// Makes a node answer nothing and forward nothing (`true`), or go on where it was (`false`).
    pub fn freeze(&self, id: &NodeId, frozen: bool) -> Result<(), DemoError> {
        self.node(id)?.freezer.set(frozen);
        Ok(())
    }

    /// Makes a node refuse everything new with `highResourceUsage`, or judge by its load again.
    pub fn refuse(&self, id: &NodeId, refusing: bool) -> Result<(), DemoError> {
        self.node(id)?.refusing.store(refusing, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a node write no heartbeats, neither of its streams' records nor of itself.
    pub fn stop_heartbeat(&self, id: &NodeId, silent: bool) -> Result<(), DemoError> {
        self.node(id)?.silent.store(silent, Ordering::Relaxed);
        Ok(())
    }

    /// Sets the CPU that a node would report without streams, in percent, and reports it at once.
    pub async fn set_load(&self, id: &NodeId, percent: f64) -> Result<(), DemoError> {
        let node = self.node(id)?;
        node.set_load(percent);
        node.records.node_alive(id.as_str(), node.cpu()).await;
        Ok(())
    }

    fn seat(&self, id: &NodeId) -> Result<&Seat, DemoError> {
        self.seats.iter().find(|seat| seat.options.id == *id).ok_or_else(|| DemoError::NoSuchNode(id.clone()))
    }

    fn node(&self, id: &NodeId) -> Result<Arc<Node>, DemoError> {
        Ok(Arc::clone(&self.seat(id)?.node.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Runs one node until `shutdown` says stop. Prints `ready node=… http=http://IP:PORT pid=…` once it listens.
///
/// # Errors
///
/// When the address cannot be listened on, or the ready line cannot be printed.
pub async fn run_node(options: NodeOptions, db: ClusterDb, shutdown: &Shutdown) -> Result<(), DemoError> {
    let listener = listen(options.bind)?;
    let address = local(&listener)?;
    let node = Node::new(options, address, db);
    node.records.app_started().await;
    node.records.node_alive(node.options.id.as_str(), node.cpu()).await;
    let ready = format!("ready node={} http=http://{address} pid={}\n", node.options.id, std::process::id());
    say(&ready).map_err(DemoError::Ready)?;
    let stopping = node.stopping.clone();
    let served = node.serve(listener);
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => {}
        () = shutdown.stopping() => {
            stopping.cancel();
            served.await;
        }
    }
    Ok(())
}

async fn begin(
    options: &NodeOptions,
    address: SocketAddr,
    listener: TcpListener,
    db: &ClusterDb,
    shutdown: &Shutdown,
) -> Arc<Node> {
    let node = Node::new(options.clone(), address, db.clone());
    node.records.app_started().await;
    node.records.node_alive(options.id.as_str(), node.cpu()).await;
    let (served, stopper, stop) = (Arc::clone(&node).serve(listener), Arc::clone(&node), shutdown.clone());
    shutdown.spawn(async move {
        tokio::pin!(served);
        tokio::select! {
            () = &mut served => {}
            () = stop.stopping() => {
                stopper.stopping.cancel();
                served.await;
            }
        }
    });
    node
}

fn named(options: &ClusterOptions) -> Vec<(NodeId, Role)> {
    let name = |role: Role, number: usize| {
        let id = format!("{}-{number}", role.as_str()).parse().expect("a role and a number are a legal name");
        (id, role)
    };
    let origins = (1..=options.origins).map(|number| name(Role::Origin, number));
    let edges = (1..=options.edges).map(|number| name(Role::Edge, number));
    origins.chain(edges).collect()
}

/// One listener per node, all on one port.
fn listen_all(count: usize, port: u16) -> Result<Vec<TcpListener>, DemoError> {
    let address = |number: usize, port: u16| {
        let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
        SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), port))
    };
    if port != 0 {
        return (0..count).map(|number| listen(address(number, port))).collect();
    }
    for _ in 0..PORT_TRIES {
        let Some(first) = (count > 0).then(|| listen(address(0, 0))).transpose()? else { return Ok(Vec::new()) };
        let port = local(&first)?.port();
        let others: Result<Vec<_>, _> = (1..count).map(|number| listen(address(number, port))).collect();
        if let Ok(others) = others {
            return Ok(std::iter::once(first).chain(others).collect());
        }
    }
    Err(DemoError::NoCommonPort)
}

fn listen(address: SocketAddr) -> Result<TcpListener, DemoError> {
    let listening = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listening().map_err(|source| DemoError::Listen { address, source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, DemoError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    listener.local_addr().map_err(|source| DemoError::Listen { address: unknown, source })
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}
