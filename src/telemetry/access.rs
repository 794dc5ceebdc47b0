//! The access log: one line (target `forebay::access`) per finished session and request.
//!
//! Secrets never show; how much of a client's address does, `telemetry.access_log` says.

use std::{net::IpAddr, time::Duration};

use crate::{
    config::AccessLog as Shows,
    domain::{
        ids::{AppName, NodeId, SessionId},
        redact,
    },
};

/// Writes the lines. Clones are the same log.
#[derive(Debug, Clone, Copy)]
pub struct AccessLog(Shows);

/// A finished request.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// The route's pattern.
    pub route: &'static str,
    /// Its method.
    pub method: &'a str,
    /// Path with query, as it was asked for; what is secret in it is hidden here.
    pub target: &'a str,
    /// The answer's status.
    pub status: u16,
    /// Who asked.
    pub client: IpAddr,
    /// Whether the client came over TLS.
    pub tls: bool,
    /// The node that answered, with the rule that chose it; the door itself has none.
    pub node: Option<(&'a NodeId, &'static str)>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the request's head to the answer's head.
    pub first_byte: Duration,
    /// From the request's head to the answer's end.
    pub took: Duration,
    /// How it ended: `done`, or why not.
    pub end: &'static str,
}

/// A finished session.
#[derive(Debug)]
pub struct SessionLine<'a> {
    /// Its id.
    pub session: SessionId,
    /// Its app.
    pub app: &'a AppName,
    /// Path with query that it was opened with.
    pub target: &'a str,
    /// Who it was.
    pub client: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Its legs, each as `kind:stream@node`.
    pub legs: &'a str,
    /// How long it was open.
    pub took: Duration,
    /// Why it ended.
    pub end: &'static str,
}

impl AccessLog {
    /// A log that shows so much.
    pub fn new(shows: Shows) -> Self {
        Self(shows)
    }

    /// Whether there are lines at all.
    pub fn is_on(self) -> bool {
        self.0 != Shows::Off
    }

    fn client(self, ip: IpAddr) -> Option<String> {
        match self.0 {
            Shows::Off => None,
            Shows::Redacted => Some(redact::address(ip)),
            Shows::Full => Some(ip.to_canonical().to_string()),
        }
    }

    /// A request is over.
    pub fn request(self, line: &RequestLine<'_>) {
        let Some(client) = self.client(line.client) else { return };
        tracing::info!(
            target: "forebay::access",
            route = line.route,
            method = line.method,
            path = %redact::target(line.target),
            status = line.status,
            client,
            tls = line.tls,
            node = line.node.map(|(node, _)| tracing::field::display(node)),
            rule = line.node.map(|(_, rule)| rule),
            bytes_in = line.bytes_in,
            bytes_out = line.bytes_out,
            first_byte_ms = millis(line.first_byte),
            took_ms = millis(line.took),
            end = line.end,
            "request"
        );
    }

    /// A session is over.
    pub fn session(self, line: &SessionLine<'_>) {
        let Some(client) = self.client(line.client) else { return };
        tracing::info!(
            target: "forebay::access",
            session = %line.session,
            app = %line.app,
            path = %redact::target(line.target),
            client,
            tls = line.tls,
            legs = line.legs,
            took_ms = millis(line.took),
            end = line.end,
            "session"
        );
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
