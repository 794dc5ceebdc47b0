//! From what is written to what holds: defaults, bounds, and what one key demands of another.
//!
//! A check that fails reports its problem and goes on with the default, so that the rest is checked too; the result
//! is used only if there was no problem at all.

mod access;
mod listen;
mod media;
mod nodes;

pub use access::admin_tokens;
pub use media::is_global;

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf, time::Duration};

use super::{
    AccessLog, Config, Door, Health, Http, Limits, Play, Problems, Secret, ShutdownConfig, Signaling, Telemetry,
    raw::{self, Raw},
    value::{Conference, Size},
};
use crate::{
    domain::{balance::BalanceSettings, ids::NodeId, limits::MAX_NODE_ID},
    telemetry::logs,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// Longest of all durations here; more is a slip of the unit.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The AMS SDK repeats an unanswered command after 3 s: an answer must be on its way before.
const SDK_WATCHDOG: Duration = Duration::from_secs(3);

/// Checks everything; the result counts only if `problems` stayed empty.
pub(super) fn check(raw: Raw, environment: &BTreeMap<String, String>, problems: &mut Problems) -> Config {
    let listen = listen::listen(raw.listen, problems);
    let door = door(raw.door, problems);
    let acme = raw.acme.map(|acme| listen::acme(acme, &door, problems));
    let tls = listen::tls(raw.tls, raw.certificates, acme, &listen, problems);
    let admin = access::admin(raw.admin, environment, problems);
    let health = health(raw.health, problems);
    listen::one_per_address(&listen, admin.bind, health.bind, problems);
    let mongo = raw.mongo.map(|mongo| access::mongo(mongo, problems));
    let apps = access::apps(raw.apps, problems);
    let balance = balance(&raw.publish, &raw.play, &raw.nodes, problems);
    let nodes = nodes::nodes(raw.nodes, raw.statics, raw.rules, mongo.is_some(), problems);
    let media = media::media(raw.media, problems);
    media::ice_tcp(&listen, &media, problems);
    Config {
        listen,
        tls,
        admin,
        health,
        mongo,
        apps,
        nodes,
        balance,
        play: Play { wait: within("play.wait", raw.play.wait, 2 * SECOND, Duration::ZERO, 60 * SECOND, problems) },
        signaling: signaling(raw.signaling, problems),
        media,
        http: http(raw.http, problems),
        limits: limits(raw.limits, problems),
        shutdown: shutdown(raw.shutdown, problems),
        door,
        telemetry: telemetry(raw.telemetry, problems),
    }
}

/// The given value if it is inside its bounds, else the default; outside is a problem.
fn within<T>(key: &str, given: Option<T>, default: T, low: T, high: T, problems: &mut Problems) -> T
where
    T: PartialOrd + Copy + Debug,
{
    match given {
        Some(value) if value < low || value > high => {
            problems.add(key, format!("{value:?} is out of bounds; write {low:?} to {high:?}"));
            default
        }
        Some(value) => value,
        None => default,
    }
}

fn health(raw: raw::RawHealth, problems: &mut Problems) -> Health {
    let path = raw.probe_path.unwrap_or_else(|| "/".to_owned());
    let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.is_empty() && (!path.starts_with('/') || !printable || path.len() > 1024) {
        problems.add("health.probe_path", "is no path; write one such as \"/\", or \"\" to only connect");
    }
    let (low, high) = (100 * MILLISECOND, 60 * SECOND);
    Health {
        bind: raw.bind,
        probe_interval: within("health.probe_interval", raw.probe_interval, 2 * SECOND, low, high, problems),
        probe_timeout: within("health.probe_timeout", raw.probe_timeout, SECOND, 10 * MILLISECOND, high, problems),
        probe_path: Some(path).filter(|path| !path.is_empty()),
    }
}

fn balance(
    publish: &raw::RawPublish,
    play: &raw::RawPlay,
    nodes: &raw::RawNodes,
    problems: &mut Problems,
) -> BalanceSettings {
    let default = BalanceSettings::default();
    let mut fraction = |key, given, default, low| within(key, given, default, low, 1.0, problems);
    let (publish_max_load, play_max_load) = (
        fraction("publish.max_load", publish.max_load, default.publish_max_load, 0.01),
        fraction("play.max_load", play.max_load, default.play_max_load, 0.01),
    );
    let (publish_cost_floor, play_cost_floor) = (
        fraction("publish.cost", publish.cost, default.publish_cost_floor, 0.000_001),
        fraction("play.cost", play.cost, default.play_cost_floor, 0.000_001),
    );
    let share_until = fraction("play.share_until", play.share_until, default.share_until, 0.0);
    BalanceSettings {
        publish_policy: publish.policy.unwrap_or(default.publish_policy),
        publish_max_load,
        play_max_load,
        share_until,
        epsilon: within("play.epsilon", play.epsilon, default.epsilon, 0.0, 100.0, problems),
        publish_cost_floor,
        play_cost_floor,
        slow_start: within("nodes.slow_start", nodes.slow_start, default.slow_start, Duration::ZERO, DAY, problems),
        probe_fall: within("nodes.probe_fall", nodes.probe_fall, default.probe_fall, 1, 100, problems),
        probe_rise: within("nodes.probe_rise", nodes.probe_rise, default.probe_rise, 1, 100, problems),
        breaker_failures: within(
            "nodes.breaker_failures",
            nodes.breaker_failures,
            default.breaker_failures,
            1,
            1000,
            problems,
        ),
        breaker_open: within("nodes.breaker_open", nodes.breaker_open, default.breaker_open, SECOND, DAY, problems),
    }
}

fn signaling(raw: raw::RawSignaling, problems: &mut Problems) -> Signaling {
    let low = 50 * MILLISECOND;
    let high = SDK_WATCHDOG - low;
    let give_up = within("signaling.give_up", raw.give_up, 2700 * MILLISECOND, low, high, problems);
    let attempt = within("signaling.attempt", raw.attempt, 1200 * MILLISECOND, low, high, problems);
    let dial = within("signaling.dial", raw.dial, 800 * MILLISECOND, low, high, problems);
    if attempt > give_up {
        problems.add("signaling.attempt", format!("{attempt:?} is above signaling.give_up {give_up:?}; lower it"));
    }
    if dial > attempt {
        problems.add("signaling.dial", format!("{dial:?} is above signaling.attempt {attempt:?}; lower it"));
    }
    let size = |given: Option<Size>| given.map(|size| size.0);
    let (kib, mib) = (1 << 10, 1 << 20);
    let max_message = within("signaling.max_message", size(raw.max_message), 256 * kib, 4 * kib, 16 * mib, problems);
    let max_to_node = within("signaling.max_to_node", size(raw.max_to_node), 80 * kib, 4 * kib, 16 * mib, problems);
    if max_to_node > max_message {
        let what = format!("{max_to_node} is above signaling.max_message {max_message}; lower it or raise the other");
        problems.add("signaling.max_to_node", what);
    }
    Signaling {
        conference_with_publisher: raw.conference.is_none_or(|to| to == Conference::WithPublisher),
        give_up,
        attempt,
        dial,
        stun_uri: raw.stun_uri.unwrap_or_default(),
        turn_username: raw.turn_username.unwrap_or_default(),
        turn_credential: Secret(raw.turn_credential.unwrap_or_default()),
        max_message,
        max_to_node,
    }
}

fn http(raw: raw::RawHttp, problems: &mut Problems) -> Http {
    let (low, high) = (50 * MILLISECOND, 600 * SECOND);
    let gib = 1 << 30;
    let size = raw.max_request_body.map(|size| size.0);
    let idle = within("http.idle", raw.idle, 30 * SECOND, SECOND, high, problems);
    Http {
        expose_rest: raw.expose_rest.unwrap_or(false),
        max_request_body: within("http.max_request_body", size, 10 << 20, 0, 1024 * gib, problems),
        connect: within("http.connect", raw.connect, SECOND, low, 60 * SECOND, problems),
        first_byte: within("http.first_byte", raw.first_byte, 15 * SECOND, low, high, problems),
        idle,
        client_idle: within("http.client_idle", raw.client_idle, 60 * SECOND, SECOND, DAY, problems),
        keep_idle: within("http.keep_idle", raw.keep_idle, 15 * SECOND, SECOND, high, problems),
        max_idle: within("http.max_idle", raw.max_idle, 64, 0, 100_000, problems),
        max_connections: within("http.max_connections", raw.max_connections, 2000, 1, 1_000_000, problems),
        cookie: raw.cookie.unwrap_or(true),
        tunnels: within("http.tunnels", raw.tunnels, 1000, 0, 1_000_000, problems),
        tunnel_idle: within("http.tunnel_idle", raw.tunnel_idle, 120 * SECOND, SECOND, DAY, problems),
    }
}

fn limits(raw: raw::RawLimits, problems: &mut Problems) -> Limits {
    let (low, high) = (100 * MILLISECOND, 600 * SECOND);
    let many = 10_000_000;
    Limits {
        sessions: within("limits.sessions", raw.sessions, 20_000, 1, many, problems),
        sessions_per_client: within("limits.sessions_per_client", raw.sessions_per_client, 1000, 1, many, problems),
        legs_per_session: within("limits.legs_per_session", raw.legs_per_session, 64, 1, 10_000, problems),
        messages_per_second: within("limits.messages_per_second", raw.messages_per_second, 100, 1, 1_000_000, problems),
        header_timeout: within("limits.header_timeout", raw.header_timeout, 5 * SECOND, low, high, problems),
        idle_timeout: within("limits.idle_timeout", raw.idle_timeout, 75 * SECOND, SECOND, DAY, problems),
        connections: within("limits.connections", raw.connections, 40_000, 1, many, problems),
        connections_per_client: within(
            "limits.connections_per_client",
            raw.connections_per_client,
            2000,
            1,
            many,
            problems,
        ),
        write_timeout: within("limits.write_timeout", raw.write_timeout, 10 * SECOND, low, high, problems),
    }
}

fn shutdown(raw: raw::RawShutdown, problems: &mut Problems) -> ShutdownConfig {
    let mut bounded = |key, given, default| within(key, given, default, Duration::ZERO, DAY, problems);
    ShutdownConfig {
        lame_duck: bounded("shutdown.lame_duck", raw.lame_duck, 30 * SECOND),
        deadline: bounded("shutdown.deadline", raw.deadline, 60 * SECOND),
        upgrade_deadline: bounded("shutdown.upgrade_deadline", raw.upgrade_deadline, DAY / 2),
    }
}

fn door(raw: raw::RawDoor, problems: &mut Problems) -> Door {
    let name = raw.name.unwrap_or_else(host_name);
    if let Err(why) = name.parse::<NodeId>() {
        problems.add("door.name", format!("{name:?}: {why}; use letters, digits and . _ : -"));
    }
    let public_url = raw.public_url.map(|url| url.trim_end_matches('/').to_ascii_lowercase());
    if public_url.as_deref().is_some_and(|url| !access::is_web_address(url)) {
        problems
            .add("door.public_url", "is no web address without a path; write one such as \"https://door-1.example\"");
    }
    let state_dir = raw.state_dir.map(PathBuf::from);
    if state_dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
        problems.add("door.state_dir", "is not an absolute path; write one such as \"/var/lib/forebay\"");
    }
    Door { name, public_url, state_dir }
}

/// This host's name with what a name may not hold replaced; `door` where it has none.
fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = kernel.trim().chars().take(MAX_NODE_ID).map(legal).collect();
    if name.is_empty() { "door".to_owned() } else { name }
}

fn telemetry(raw: raw::RawTelemetry, problems: &mut Problems) -> Telemetry {
    let log = raw.log.unwrap_or_else(|| "info".to_owned());
    if let Err(why) = logs::check_filter(&log) {
        problems.add("telemetry.log", format!("{why}; write one such as \"info\" or \"info,forebay::sessions=debug\""));
    }
    Telemetry {
        log,
        json: raw.json.unwrap_or(false),
        otlp_endpoint: raw.otlp_endpoint,
        otlp_ca: raw.otlp_ca.map(PathBuf::from),
        access_log: raw.access_log.unwrap_or(AccessLog::Redacted),
    }
}
