//! The configuration in force, and what of it cannot change while the door runs.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Config, Listen, Problems};

/// What is said of a key that cannot change.
const FIXED: &str = "cannot change while the door runs; restart it, or let a new process take over (SIGUSR2)";

/// The configuration in force. A clone is the same one; a reload replaces it whole.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Config>>);

impl Live {
    /// The first one.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// As it is at this moment.
    pub fn now(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts another one in force. Whoever has read the old one keeps it as long as he likes.
    pub fn replace(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}

impl Config {
    /// What stands between this configuration, in force, and `new`: every key that differs and cannot change while the
    /// door runs. Empty: `new` may replace it.
    pub fn cannot_become(&self, new: &Self) -> Problems {
        let mut problems = Problems::default();
        if self.listen.len() == new.listen.len() {
            for (nth, (old, new)) in self.listen.iter().zip(&new.listen).enumerate() {
                for key in fixed_of(old, new) {
                    problems.add(format!("listen[{nth}].{key}"), FIXED);
                }
            }
        } else {
            problems.add("listen", format!("the number of listeners {FIXED}"));
        }
        for (name, app) in &self.apps.named {
            // What is known of its streams came from there.
            if self.mongo.is_some() && new.apps.named.get(name).is_some_and(|new| new.database != app.database) {
                problems.add(format!("apps.{name}.database"), FIXED);
            }
        }
        let (media, http, door) = (&self.media, &self.http, &self.door);
        for (key, differs) in [
            ("admin.bind", self.admin.bind != new.admin.bind),
            ("admin.token_file", self.admin.token_file != new.admin.token_file),
            ("admin.token_env", self.admin.token_file.is_none() && self.admin.tokens != new.admin.tokens),
            ("admin.tls_cert", self.admin.tls != new.admin.tls),
            ("health.bind", self.health.bind != new.health.bind),
            ("mongo", self.mongo != new.mongo),
            ("media.mode", media.mode != new.media.mode),
            ("media.bind", media.bind != new.media.bind),
            ("media.ports", media.ports != new.media.ports),
            ("media.external_ips", media.external_ips != new.media.external_ips),
            ("media.threads", media.threads != new.media.threads),
            (
                "media.announce_private_candidate",
                media.announce_private_candidate != new.media.announce_private_candidate,
            ),
            ("media.allow_private_public_ip", media.allow_private_public_ip != new.media.allow_private_public_ip),
            ("media.node_ports", media.node_ports != new.media.node_ports),
            ("http.connect", http.connect != new.http.connect),
            ("http.first_byte", http.first_byte != new.http.first_byte),
            ("http.idle", http.idle != new.http.idle),
            ("http.client_idle", http.client_idle != new.http.client_idle),
            ("http.keep_idle", http.keep_idle != new.http.keep_idle),
            ("http.max_idle", http.max_idle != new.http.max_idle),
            ("http.max_connections", http.max_connections != new.http.max_connections),
            ("http.tunnels", http.tunnels != new.http.tunnels),
            ("door.name", door.name != new.door.name),
            ("door.public_url", door.public_url != new.door.public_url),
            ("door.state_dir", door.state_dir != new.door.state_dir),
            ("telemetry.json", self.telemetry.json != new.telemetry.json),
            ("telemetry.otlp_endpoint", self.telemetry.otlp_endpoint != new.telemetry.otlp_endpoint),
            ("telemetry.otlp_ca", self.telemetry.otlp_ca != new.telemetry.otlp_ca),
            ("telemetry.access_log", self.telemetry.access_log != new.telemetry.access_log),
        ] {
            if differs {
                problems.add(key, FIXED);
            }
        }
        problems
    }
}

/// The keys of one listener that differ and cannot change: what clients were told of it stays true.
fn fixed_of(old: &Listen, new: &Listen) -> impl Iterator<Item = &'static str> {
    let bind = (old.bind != new.bind).then_some("bind");
    let ice_tcp = (old.ice_tcp != new.ice_tcp).then_some("ice_tcp");
    bind.into_iter().chain(ice_tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str =
        "[[listen]]\nbind = \"127.0.0.1:5080\"\n[apps]\nLiveApp = {}\n[mongo]\nuri = \"mongodb://10.0.0.1\"\n";

    fn config(text: &str) -> Config {
        Config::from_toml_str(text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn keys(text: &str) -> Vec<String> {
        let problems = config(BASE).cannot_become(&config(text));
        problems.as_slice().iter().map(|problem| problem.key.clone()).collect()
    }

    #[test]
    fn what_can_change_is_no_problem() {
        let more = "[nodes]\npoll = \"1s\"\n[[nodes.static]]\naddress = \"10.0.0.9\"\nrole = \"edge\"\n[play]\nwait = \
                    \"1s\"\n[limits]\nsessions = 5\n[signaling]\nstun_uri = \"stun:a\"\n[shutdown]\ndeadline = \"5s\"\n\
                    [telemetry]\nlog = \"debug\"\n";
        assert_eq!(keys(&format!("{BASE}{more}")), Vec::<String>::new());
        assert_eq!(keys(&BASE.replace("LiveApp", "Other")), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_change_is_named_all_at_once() {
        let text = BASE.replace("5080", "5090").replace("10.0.0.1", "10.0.0.2");
        let text =
            format!("{text}[media]\nports = [6000, 6001]\n[door]\nname = \"other\"\n[admin]\nbind = \"127.0.0.1:1\"\n");
        assert_eq!(keys(&text), ["listen[0].bind", "admin.bind", "mongo", "media.ports", "door.name"]);
        assert_eq!(keys(&format!("[[listen]]\nbind = \"127.0.0.1:1\"\n{BASE}")), ["listen"]);
    }

    #[test]
    fn a_reader_keeps_what_it_read() {
        let live = Live::new(config(BASE));
        let before = live.now();
        live.replace(config(&BASE.replace("LiveApp", "Other")));
        assert_ne!(*before, *live.now());
    }
}
