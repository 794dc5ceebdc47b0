//! The file as it is written: every table with its keys, each key absent or of its type; nothing is judged here.
//!
//! A table is read key by key rather than all at once, so that one wrong value does not hide the next: unknown keys
//! and wrong types of the whole file are reported together.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use toml::{Table, Value};

use super::{
    AccessLog, ExternalIp, HttpEndpoint, IpRange, MediaMode, Proxy, TlsVersion,
    environment::Overrides,
    problems::Problems,
    value::{Conference, FromGiven, Given, NodeAddress, Ports, Size},
};
use crate::domain::{
    balance::PublishPolicy,
    ids::{NodeId, Role, Zone},
};

/// A table of the file.
trait RawTable: Default {
    /// Its keys, as written.
    const KEYS: &'static [&'static str];

    /// Takes one key's value; `None` if there is no such key.
    fn put(&mut self, key: &str, given: Given<'_>) -> Option<Result<(), String>>;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident { $($key:ident: $value:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $table {
            $(pub(super) $key: Option<$value>,)+
        }

        impl RawTable for $table {
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];

            fn put(&mut self, key: &str, given: Given<'_>) -> Option<Result<(), String>> {
                match key {
                    $(stringify!($key) => Some(<$value>::read(given).map(|value| self.$key = Some(value))),)+
                    _ => None,
                }
            }
        }
    )+};
}

tables! {
    /// `[[listen]]`
    RawListen { bind: SocketAddr, ice_tcp: bool, tls: bool, proxy: Proxy, trusted: Vec<IpRange> }
    /// `[tls]`
    RawTls { min_version: TlsVersion }
    /// `[tls.acme]`
    RawAcme { directory: String, contact: Vec<String>, domains: Vec<String>, root: String }
    /// `[[tls.certificates]]`
    RawCertificate { cert: String, key: String }
    /// `[admin]`
    RawAdmin {
        bind: SocketAddr,
        token_file: String,
        token_env: String,
        tls_cert: String,
        tls_key: String,
        client_ca: String,
    }
    /// `[health]`
    RawHealth { bind: SocketAddr, probe_interval: Duration, probe_timeout: Duration, probe_path: String }
    /// `[mongo]`
    RawMongo { uri: String, live_window: Duration, change_streams: bool, cache_streams: u64 }
    /// One app of `[apps]`
    RawApp { database: String, origins: Vec<String> }
    /// `[nodes]`
    RawNodes {
        discover: bool, poll: Duration, http_port: u16, permit: Vec<IpRange>, default_role: Role, slow_start: Duration,
        probe_fall: u32, probe_rise: u32, breaker_failures: u32, breaker_open: Duration,
    }
    /// `[[nodes.static]]`
    RawStatic {
        name: NodeId, address: NodeAddress, role: Role, zone: Zone, aliases: Vec<String>, max_publishes: u32,
        max_plays: u32,
    }
    /// `[[nodes.rule]]`
    RawRule { range: IpRange, name: String, role: Role, zone: Zone, max_publishes: u32, max_plays: u32 }
    /// `[publish]`
    RawPublish { policy: PublishPolicy, max_load: f32, cost: f32 }
    /// `[play]`
    RawPlay { wait: Duration, max_load: f32, share_until: f32, epsilon: f32, cost: f32 }
    /// `[signaling]`
    RawSignaling {
        conference: Conference, give_up: Duration, attempt: Duration, dial: Duration, stun_uri: String,
        turn_username: String, turn_credential: String, max_message: Size, max_to_node: Size,
    }
    /// `[media]`
    RawMedia {
        mode: MediaMode, bind: IpAddr, ports: Vec<u16>, external_ips: Vec<ExternalIp>, threads: usize,
        announce_private_candidate: bool, allow_private_public_ip: bool, node_ports: Ports, cloud_metadata: bool,
        metadata_server: SocketAddr, stun_server: String,
    }
    /// `[http]`
    RawHttp {
        expose_rest: bool, max_request_body: Size, connect: Duration, first_byte: Duration, idle: Duration,
        client_idle: Duration, keep_idle: Duration, max_idle: usize, max_connections: usize, cookie: bool,
        tunnels: usize, tunnel_idle: Duration,
    }
    /// `[limits]`
    RawLimits {
        sessions: usize, sessions_per_client: usize, legs_per_session: usize, messages_per_second: u32,
        header_timeout: Duration, idle_timeout: Duration, write_timeout: Duration, connections: usize,
        connections_per_client: usize,
    }
    /// `[shutdown]`
    RawShutdown { lame_duck: Duration, deadline: Duration, upgrade_deadline: Duration }
    /// `[door]`
    RawDoor { name: String, public_url: String, state_dir: String }
    /// `[telemetry]`
    RawTelemetry { log: String, json: bool, otlp_endpoint: HttpEndpoint, otlp_ca: String, access_log: AccessLog }
}

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) listen: Vec<RawListen>,
    pub(super) tls: RawTls,
    pub(super) certificates: Vec<RawCertificate>,
    /// `None`: there is no such table.
    pub(super) acme: Option<RawAcme>,
    pub(super) admin: RawAdmin,
    pub(super) health: RawHealth,
    /// `None`: there is no such table, so the registry lives in this process.
    pub(super) mongo: Option<RawMongo>,
    pub(super) apps: BTreeMap<String, RawApp>,
    pub(super) nodes: RawNodes,
    pub(super) statics: Vec<RawStatic>,
    pub(super) rules: Vec<RawRule>,
    pub(super) publish: RawPublish,
    pub(super) play: RawPlay,
    pub(super) signaling: RawSignaling,
    pub(super) media: RawMedia,
    pub(super) http: RawHttp,
    pub(super) limits: RawLimits,
    pub(super) shutdown: RawShutdown,
    pub(super) door: RawDoor,
    pub(super) telemetry: RawTelemetry,
}

/// The tables whose keys an environment variable may set, with those keys.
pub(super) const TABLES: [(&str, &[&str]); 14] = [
    ("tls", RawTls::KEYS),
    ("admin", RawAdmin::KEYS),
    ("health", RawHealth::KEYS),
    ("mongo", RawMongo::KEYS),
    ("nodes", RawNodes::KEYS),
    ("publish", RawPublish::KEYS),
    ("play", RawPlay::KEYS),
    ("signaling", RawSignaling::KEYS),
    ("media", RawMedia::KEYS),
    ("http", RawHttp::KEYS),
    ("limits", RawLimits::KEYS),
    ("shutdown", RawShutdown::KEYS),
    ("door", RawDoor::KEYS),
    ("telemetry", RawTelemetry::KEYS),
];

/// The tables that only the file can hold: lists of tables, and apps, whose names are case-sensitive.
pub(super) const FILE_ONLY: [(&str, &[&str]); 6] = [
    ("listen", RawListen::KEYS),
    ("tls.certificates", RawCertificate::KEYS),
    ("tls.acme", RawAcme::KEYS),
    ("apps", RawApp::KEYS),
    ("nodes.static", RawStatic::KEYS),
    ("nodes.rule", RawRule::KEYS),
];

/// Reads the parsed file and what the environment overrides.
pub(super) fn read(mut file: Table, overrides: &Overrides, problems: &mut Problems) -> Raw {
    let mut reader = Reader { overrides, problems };
    let (mut statics, mut rules) = (None, None);
    if let Some(Value::Table(nodes)) = file.get_mut("nodes") {
        (statics, rules) = (nodes.remove("static"), nodes.remove("rule"));
    }
    let (mut certificates, mut acme) = (None, None);
    if let Some(Value::Table(tls)) = file.get_mut("tls") {
        (certificates, acme) = (tls.remove("certificates"), tls.remove("acme"));
    }
    let has_mongo = file.contains_key("mongo") || overrides.of("mongo").next().is_some();
    let raw = Raw {
        listen: reader.list("listen", file.remove("listen")),
        tls: reader.table("tls", file.remove("tls")),
        certificates: reader.list("tls.certificates", certificates),
        acme: acme.map(|acme| reader.keys("tls.acme", acme)),
        admin: reader.table("admin", file.remove("admin")),
        health: reader.table("health", file.remove("health")),
        mongo: has_mongo.then(|| reader.table("mongo", file.remove("mongo"))),
        apps: reader.apps(file.remove("apps")),
        nodes: reader.table("nodes", file.remove("nodes")),
        statics: reader.list("nodes.static", statics),
        rules: reader.list("nodes.rule", rules),
        publish: reader.table("publish", file.remove("publish")),
        play: reader.table("play", file.remove("play")),
        signaling: reader.table("signaling", file.remove("signaling")),
        media: reader.table("media", file.remove("media")),
        http: reader.table("http", file.remove("http")),
        limits: reader.table("limits", file.remove("limits")),
        shutdown: reader.table("shutdown", file.remove("shutdown")),
        door: reader.table("door", file.remove("door")),
        telemetry: reader.table("telemetry", file.remove("telemetry")),
    };
    let known: Vec<&'static str> =
        TABLES.iter().chain(&FILE_ONLY).map(|(name, _)| *name).filter(|name| !name.contains('.')).collect();
    for name in file.keys() {
        problems.unknown(name.clone(), name, &known);
    }
    raw
}

struct Reader<'a> {
    overrides: &'a Overrides,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Reads a table and then what the environment says of it, which wins.
    fn table<T: RawTable>(&mut self, path: &'static str, value: Option<Value>) -> T {
        let mut table = match value {
            Some(value) => self.keys(path, value),
            None => T::default(),
        };
        for (key, variable, text) in self.overrides.of(path) {
            if let Some(Err(why)) = table.put(key, Given::Text(text)) {
                self.problems.add(format!("{path}.{key}"), format!("{why} (in the environment variable {variable})"));
            }
        }
        table
    }

    /// Reads a list of tables.
    fn list<T: RawTable>(&mut self, path: &str, value: Option<Value>) -> Vec<T> {
        match value {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                items.into_iter().enumerate().map(|(nth, item)| self.keys(&format!("{path}[{nth}]"), item)).collect()
            }
            Some(_) => {
                self.problems.add(path, format!("is not a list of tables; write [[{path}]]"));
                Vec::new()
            }
        }
    }

    fn apps(&mut self, value: Option<Value>) -> BTreeMap<String, RawApp> {
        match value {
            None => BTreeMap::new(),
            Some(Value::Table(apps)) => {
                apps.into_iter().map(|(name, app)| (name.clone(), self.keys(&format!("apps.{name}"), app))).collect()
            }
            Some(_) => {
                self.problems.add("apps", "is not a table; write [apps] and one line per app such as `LiveApp = {}`");
                BTreeMap::new()
            }
        }
    }

    /// Reads one table's keys, all of them.
    fn keys<T: RawTable>(&mut self, path: &str, value: Value) -> T {
        let mut table = T::default();
        let Value::Table(keys) = value else {
            self.problems.add(path, format!("is not a table; its keys are {}", T::KEYS.join(", ")));
            return table;
        };
        for (key, value) in &keys {
            match table.put(key, Given::Toml(value)) {
                Some(Ok(())) => {}
                Some(Err(why)) => self.problems.add(format!("{path}.{key}"), why),
                None => self.problems.unknown(format!("{path}.{key}"), key, T::KEYS),
            }
        }
        table
    }
}
