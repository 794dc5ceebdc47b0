//! Checked settings: what the rooms read. A required thing has no `Option`, a range is never empty.
//!
//! `raw.rs` mirrors the file and refuses unknown keys; `check.rs` turns it into this and reports every problem by key.
//! `config/forebay.toml` explains every key with its default.

mod check;
mod environment;
mod live;
mod load;
mod problems;
mod raw;
mod value;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::domain::{
    balance::BalanceSettings,
    ids::{AppName, NodeId, Role, Zone},
};

pub use check::{admin_tokens, is_global};
pub use live::Live;
pub use load::{known_keys, process_environment};
pub use problems::{Problem, Problems};

/// Everything one door needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[[listen]]`: where clients come in.
    pub listen: Vec<Listen>,
    /// `[tls]`: what the listeners with `tls = true` share.
    pub tls: Tls,
    /// `[admin]`
    pub admin: Admin,
    /// `[health]`
    pub health: Health,
    /// `[mongo]`; absent: the registry lives in this process.
    pub mongo: Option<Mongo>,
    /// `[apps]`
    pub apps: Apps,
    /// `[nodes]`, `[[nodes.static]]`, `[[nodes.rule]]`
    pub nodes: Nodes,
    /// `[publish]`, `[play]` and parts of `[nodes]`, as placement reads them.
    pub balance: BalanceSettings,
    /// `[play]`: what is not placement's.
    pub play: Play,
    /// `[signaling]`
    pub signaling: Signaling,
    /// `[media]`
    pub media: Media,
    /// `[http]`
    pub http: Http,
    /// `[limits]`
    pub limits: Limits,
    /// `[shutdown]`
    pub shutdown: ShutdownConfig,
    /// `[door]`
    pub door: Door,
    /// `[telemetry]`
    pub telemetry: Telemetry,
}

/// One public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// `bind`, default `0.0.0.0:5080`.
    pub bind: SocketAddr,
    /// `ice_tcp`, default false: clients without UDP may bring their media here too (RFC 6544).
    pub ice_tcp: bool,
    /// `tls`, default false: clients speak TLS here, with what `[tls]` says.
    pub tls: bool,
    /// `proxy`, default `off`: whether connections begin with a PROXY header.
    pub proxy: Proxy,
    /// `trusted`, default none: the peers that are believed when they say who the client is, by a PROXY header or by
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    pub trusted: Vec<IpRange>,
}

impl Listen {
    /// A listener without TLS, whose peers are the clients themselves.
    pub fn plain(bind: SocketAddr) -> Self {
        Self { bind, ice_tcp: false, tls: false, proxy: Proxy::Off, trusted: Vec::new() }
    }
}

/// Whether the connections of a listener begin with a PROXY header, version 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// They do not.
    Off,
    /// Those of trusted peers may.
    Optional,
    /// They must, and only trusted peers may connect; without one those may ask for health only.
    Required,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `certificates`: the first is for clients that name no host, or one that no certificate has.
    pub certificates: Vec<Certificate>,
    /// `min_version`, default `1.2`.
    pub min_version: TlsVersion,
    /// `acme`, default none: a further certificate that the door gets by itself.
    pub acme: Option<Acme>,
}

/// A certificate from an ACME server (RFC 8555), by TLS-ALPN-01 (RFC 8737).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// `directory`, default Let's Encrypt's: the server's directory, an `https://` URL.
    pub directory: String,
    /// `contact`, default none: `mailto:` addresses that the server may write to.
    pub contact: Vec<String>,
    /// `domains`: the host names of the one certificate, in lower case, none of them a wildcard.
    pub domains: Vec<String>,
    /// `root`, default the public authorities: a PEM file with those that the ACME server itself is known by.
    pub root: Option<PathBuf>,
    /// `acme` in `door.state_dir`: where account and certificate are kept.
    pub store: PathBuf,
}

/// One certificate with its chain, and its key; both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `cert`: the certificate, then its issuers.
    pub cert: PathBuf,
    /// `key`: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 and 1.3.
    V1_2,
    /// 1.3 only.
    V1_3,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `bind`, default `127.0.0.1:9090`. Any address but loopback needs a token, or callers with certificates.
    pub bind: SocketAddr,
    /// The bearer tokens, read from `token_file` or the variable that `token_env` names; none: nobody is asked for one.
    pub tokens: Vec<AdminToken>,
    /// `token_file`, which is read again when it changes.
    pub token_file: Option<PathBuf>,
    /// `tls_cert`, `tls_key` and `client_ca`, which are read again when they change; default none: plain HTTP.
    pub tls: Option<AdminTls>,
}

/// The admin listener's TLS; all of them PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminTls {
    /// `tls_cert`: the listener's certificate, then its issuers.
    pub cert: PathBuf,
    /// `tls_key`: its key.
    pub key: PathBuf,
    /// `client_ca`: only callers with a certificate of these authorities are let in.
    pub client_ca: Option<PathBuf>,
}

/// One bearer token of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// Who uses it, for the audit log.
    pub name: Arc<str>,
    /// The token itself.
    pub secret: Secret,
}

/// A value that never shows in logs or debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Health for the SLB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `bind`: an extra listener for health only, on a thread of its own.
    pub bind: Option<SocketAddr>,
    /// `probe_interval`, default 2 s, jittered by a fifth.
    pub probe_interval: Duration,
    /// `probe_timeout`, default 1 s.
    pub probe_timeout: Duration,
    /// `probe_path`: `Some` asks over HTTP (any answer counts as alive), `None` only connects. Default `/`.
    pub probe_path: Option<String>,
}

/// The cluster's MongoDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mongo {
    /// `uri`, as AMS's own `db.host`: `mongodb://…`.
    pub uri: Secret,
    /// `live_window`, default 20 s (10 s for AMS 2.8).
    pub live_window: Duration,
    /// `change_streams`, default true: use them where the server has them.
    pub change_streams: bool,
    /// `cache_streams`, default 1,000,000: most records that the cache keeps.
    pub cache_streams: u64,
}

/// Which apps exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Apps {
    /// App name → its settings.
    pub named: BTreeMap<AppName, App>,
    /// `"*"`: any other legal name that is not reserved, database = the lower-cased name.
    pub any: Option<App>,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct App {
    /// `database`; `None`: the lower-cased app name.
    pub database: Option<String>,
    /// `origins`: WebSocket `Origin`s that may connect; empty admits all.
    pub origins: Vec<String>,
}

/// App names that are never apps (design.md §4).
pub const RESERVED_APPS: [&str; 6] = ["admin", "local", "config", "clusterdb", "serverdb", "forebay"];

impl Apps {
    /// The settings of an app that exists.
    pub fn get(&self, app: &AppName) -> Option<&App> {
        self.named.get(app).or_else(|| {
            self.any.as_ref().filter(|_| !RESERVED_APPS.contains(&app.as_str().to_ascii_lowercase().as_str()))
        })
    }

    /// The database of an app that exists.
    pub fn database(&self, app: &AppName) -> Option<String> {
        let settings = self.get(app)?;
        Some(settings.database.clone().unwrap_or_else(|| app.as_str().to_ascii_lowercase()))
    }
}

/// Where nodes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// `discover`: also take nodes from `clusterdb.clusternode`. Default true where MongoDB is configured.
    pub discover: bool,
    /// `poll`, default 2 s: how often `clusternode` is read.
    pub poll: Duration,
    /// `http_port`, default 5080: the port of discovered nodes, which AMS does not store.
    pub http_port: u16,
    /// `permit`: address ranges from which a discovered node may be dialled. Default: the private ranges.
    pub permit: Vec<IpRange>,
    /// `[[nodes.static]]`
    pub fixed: Vec<StaticNode>,
    /// `[[nodes.rule]]`: the first that matches gives a discovered node its role and zone.
    pub rules: Vec<NodeRule>,
    /// `default_role`, default `both`: a discovered node that no rule matches.
    pub default_role: Role,
}

/// A node from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticNode {
    /// `name`
    pub id: NodeId,
    /// `address`: `IP:PORT`, or `IP` with `nodes.http_port`.
    pub address: SocketAddr,
    /// `role`
    pub role: Role,
    /// `zone`
    pub zone: Option<Zone>,
    /// `aliases`: other names under which records may know it.
    pub aliases: Vec<String>,
    /// `max_publishes`
    pub max_publishes: Option<u32>,
    /// `max_plays`
    pub max_plays: Option<u32>,
}

/// Role and zone by address range or name pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRule {
    /// `range`: an address range such as `10.0.1.0/24`.
    pub range: Option<IpRange>,
    /// `name`: a pattern with `*` on the node's id.
    pub name: Option<String>,
    /// `role`
    pub role: Role,
    /// `zone`
    pub zone: Option<Zone>,
    /// `max_publishes`
    pub max_publishes: Option<u32>,
    /// `max_plays`
    pub max_plays: Option<u32>,
}

/// An address range in CIDR notation; a bare address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    /// Any address in it.
    pub address: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

impl IpRange {
    /// Whether `ip` is inside; an IPv4-mapped IPv6 address counts as its IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let dropped = width - u32::from(self.prefix).min(width);
            a.checked_shr(dropped).unwrap_or(0) == b.checked_shr(dropped).unwrap_or(0)
        };
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

/// `[play]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Play {
    /// `wait`, default 2 s: how long a play waits for a stream that is not live yet.
    pub wait: Duration,
}

/// `[signaling]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signaling {
    /// `conference`, default `with-publisher`: whether a play with `userPublishId` goes to that publish's node.
    pub conference_with_publisher: bool,
    /// `give_up`, default 2.7 s: from a command to the node's first answer, inside the SDK's 3 s watchdog.
    pub give_up: Duration,
    /// `attempt`, default 1.2 s: the same for one node, while another one could be asked.
    pub attempt: Duration,
    /// `dial`, default 800 ms: TCP connect and WebSocket handshake with a node.
    pub dial: Duration,
    /// `stun_uri`, default empty: what `getIceServerConfig` answers.
    pub stun_uri: String,
    /// `turn_username`
    pub turn_username: String,
    /// `turn_credential`
    pub turn_credential: Secret,
    /// `max_message`, default 256 KiB: a larger message from a client closes it with 1009.
    pub max_message: usize,
    /// `max_to_node`, default 80 KiB: AMS's own limit; a larger message is refused, since it would end the shared link.
    pub max_to_node: usize,
}

/// `[media]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `mode`, default `relay`: how media travels.
    pub mode: MediaMode,
    /// `bind`, default `0.0.0.0`: the address of the relay's sockets, towards clients and towards nodes. `::` takes both
    /// families.
    pub bind: IpAddr,
    /// `ports`, default 5000 and 5001, one or two of them: the first that is free is the public UDP port. 0: any.
    pub ports: Vec<u16>,
    /// `external_ips`, default none: what clients are told instead of `bind`.
    pub external_ips: Vec<ExternalIp>,
    /// `threads`, default 1: relay threads, each with a socket of its own on the public port.
    pub threads: usize,
    /// `announce_private_candidate`, default true: whether nodes are told where the relay sends from.
    pub announce_private_candidate: bool,
    /// `allow_private_public_ip`: whether clients may be told a private address. Default true where `bind` is loopback.
    pub allow_private_public_ip: bool,
    /// `node_ports`, default 50000-60000: the UDP ports of the nodes.
    pub node_ports: RangeInclusive<u16>,
    /// `cloud_metadata`, default true: whether the cloud is asked for the public address, where neither `external_ips` nor
    /// this machine's own addresses name one.
    pub cloud_metadata: bool,
    /// `metadata_server`, default none: where the cloud's metadata is, instead of where each cloud has it.
    pub metadata_server: Option<SocketAddr>,
    /// `stun_server`, default none: `HOST:PORT` of the STUN server that is asked where no cloud answers.
    pub stun_server: Option<String>,
}

/// How media travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaMode {
    /// Through the door's one UDP port.
    Relay,
    /// Straight between clients and nodes: candidates pass untouched.
    Direct,
}

/// An address that clients reach although this machine may not have it: `PUBLIC` or `PUBLIC/BIND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalIp {
    /// What clients are told.
    pub public: IpAddr,
    /// The local address that it is mapped to; the pair counts only where the relay is bound to it or to all addresses.
    pub bind: Option<IpAddr>,
}

/// What clients are told of a listener that takes ICE-TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// These addresses, with the listener's port.
    These(Vec<IpAddr>),
    /// This machine's own address, which the routing table knows.
    Own,
    /// Nothing: no client could connect to it.
    Nothing,
}

impl Media {
    /// Whether clients may be told this address.
    pub fn may_tell(&self, ip: IpAddr) -> bool {
        self.allow_private_public_ip || is_global(ip)
    }

    /// What clients are told of a listener at `bind`: the external addresses that are for it, else its own. A bare
    /// external address is this machine's, so it is for every listener that others can reach at all.
    pub fn told_of(&self, bind: IpAddr) -> Told {
        let same_family = |ip: IpAddr| ip.is_ipv4() == bind.is_ipv4() || bind == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let is_for = |ip: &&ExternalIp| match ip.bind {
            Some(local) => bind.is_unspecified() || local == bind,
            None => !bind.is_loopback() || ip.public.is_loopback(),
        };
        let external = self.external_ips.iter().filter(is_for).map(|ip| ip.public);
        let external: Vec<IpAddr> = external.filter(|ip| same_family(*ip) && self.may_tell(*ip)).collect();
        if !external.is_empty() {
            Told::These(external)
        } else if bind.is_unspecified() {
            Told::Own
        } else if self.may_tell(bind) {
            Told::These(vec![bind])
        } else {
            Told::Nothing
        }
    }
}

/// `[http]`: what is forwarded to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `expose_rest`, default false: whether AMS's REST API of each app can be reached through the door.
    pub expose_rest: bool,
    /// `max_request_body`, default 10 MiB: a larger body is a 413.
    pub max_request_body: usize,
    /// `connect`, default 1 s: TCP connect to a node; another one is tried then.
    pub connect: Duration,
    /// `first_byte`, default 15 s: from a whole request to the head of the node's response, else a 504.
    pub first_byte: Duration,
    /// `idle`, default 30 s: between two pieces of a body, a node's or (while it uploads) a client's.
    pub idle: Duration,
    /// `client_idle`, default 60 s: a client that takes nothing of a response for so long loses it.
    pub client_idle: Duration,
    /// `keep_idle`, default 15 s: how long a connection to a node is kept for the next request.
    pub keep_idle: Duration,
    /// `max_idle`, default 64: connections kept so, per node.
    pub max_idle: usize,
    /// `max_connections`, default 2,000: connections at once, per node; beyond it a request is a 503.
    pub max_connections: usize,
    /// `cookie`, default true: viewers that take cookies stick to their edge by one.
    pub cookie: bool,
    /// `tunnels`, default 1,000: WebSockets that are passed to nodes untouched; beyond it one is a 503.
    pub tunnels: usize,
    /// `tunnel_idle`, default 2 min: such a WebSocket without a byte either way is ended.
    pub tunnel_idle: Duration,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `sessions`, default 20,000: above it `/healthz` is 503 and a new WebSocket is refused with 503.
    pub sessions: usize,
    /// `sessions_per_client`, default 1,000: seats of one client address, which may be a carrier's NAT.
    pub sessions_per_client: usize,
    /// `legs_per_session`, default 64.
    pub legs_per_session: usize,
    /// `messages_per_second`, default 100: sustained rate of one client; bursts of ten times that pass.
    pub messages_per_second: u32,
    /// `header_timeout`, default 5 s: a client that has not sent its request head by then is closed, and so is one that
    /// has not finished its TLS handshake.
    pub header_timeout: Duration,
    /// `idle_timeout`, default 75 s: a connection without a request for so long is closed.
    pub idle_timeout: Duration,
    /// `connections`, default 40,000: connections of one listener.
    pub connections: usize,
    /// `connections_per_client`, default 2,000: of one client address at one listener.
    pub connections_per_client: usize,
    /// `write_timeout`, default 10 s: a peer that takes no bytes for so long is closed.
    pub write_timeout: Duration,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// `lame_duck`, default 30 s: after SIGTERM, 503 on `/healthz` while everything is still served.
    pub lame_duck: Duration,
    /// `deadline`, default 60 s: after the lame duck, sessions are closed, spread over this time.
    pub deadline: Duration,
    /// `upgrade_deadline`, default 12 h: how long a generation may finish its sessions after it handed over to the next.
    pub upgrade_deadline: Duration,
}

/// `[door]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// `name`, default the host name.
    pub name: String,
    /// `public_url`, default none: scheme and host by which clients reach this very door, without a path.
    pub public_url: Option<String>,
    /// `state_dir`, default none: where the door keeps what it must remember without MongoDB.
    pub state_dir: Option<PathBuf>,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// `log`, default `info`: a `tracing` filter.
    pub log: String,
    /// `json`, default false.
    pub json: bool,
    /// `otlp_endpoint`, default none: where sessions' traces go, as OTLP over HTTP.
    pub otlp_endpoint: Option<HttpEndpoint>,
    /// `otlp_ca`, default the public authorities: a PEM file with those that an `https://` collector is known by.
    pub otlp_ca: Option<PathBuf>,
    /// `access_log`, default `redacted`: a line per finished session and request.
    pub access_log: AccessLog,
}

/// What a line of the access log shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// There are no lines.
    Off,
    /// Client addresses without their last part.
    Redacted,
    /// Whole client addresses. Secrets never show.
    Full,
}

/// A collector of traces: `http://HOST[:PORT][/PATH]`, or `https://…`; the path is `/v1/traces` where none is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpEndpoint {
    /// `https`.
    pub tls: bool,
    /// A name or an address, an IPv6 address without its brackets.
    pub host: String,
    /// Default 4318.
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
}

impl HttpEndpoint {
    /// Host and port as a request names them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for HttpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }
}

impl std::str::FromStr for HttpEndpoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (scheme, rest) = text.split_once("://").ok_or(())?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let legal = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\\\"<>".contains(&byte));
        let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || !legal(host) || !legal(path) || (bracketed.is_none() && host.contains(':')) {
            return Err(());
        }
        let port = port.map_or(Ok(4318), |port| port.parse().map_err(drop))?;
        let path = if path.is_empty() { "/v1/traces".to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host: host.to_owned(), port, path })
    }
}
