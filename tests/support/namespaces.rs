//! Two networks with one cable between them, as network namespaces: for tests of who can reach whom.

use std::process::Command;

/// Two namespaces that share nothing but a cable; both are gone when dropped.
pub struct Namespaces {
    pub door: String,
    pub client: String,
}

impl Namespaces {
    /// The door's end of the cable.
    pub const DOOR: &str = "10.77.0.1";
    /// The client's.
    pub const CLIENT: &str = "10.77.0.2";

    /// # Panics
    ///
    /// Where this machine does not let the test make namespaces: it needs root and iproute2.
    pub fn new() -> Self {
        let id = format!("{:x}", fastrand::u32(..));
        let made = Self { door: format!("forebay-door-{id}"), client: format!("forebay-client-{id}") };
        for name in [&made.door, &made.client] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        ip(&["-n", &made.door, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", &made.client]);
        for (name, address, end) in [(&made.door, Self::DOOR, "out"), (&made.client, Self::CLIENT, "in")] {
            ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", end]);
            ip(&["-n", name, "link", "set", end, "up"]);
        }
        made
    }

    /// From here on no UDP gets over the cable towards the door: it is lost without a word, as at many a firewall.
    pub fn lose_udp(&self) {
        // Rules are asked in order; the one that finds the door's own addresses stands first unless it is moved.
        let rule = |words: &[&str]| ip(&[&["-n", &self.door, "rule"], words].concat());
        rule(&["add", "pref", "10", "lookup", "local"]);
        rule(&["del", "pref", "0"]);
        rule(&["add", "pref", "5", "iif", "out", "ipproto", "udp", "blackhole"]);
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.door, &self.client] {
            // One that was never made needs no deleting.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output();
    let done = done.unwrap_or_else(|error| panic!("this test needs iproute2's `ip`: {error}"));
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "this test needs to make network namespaces, so root; ip {args:?}: {why}");
}
