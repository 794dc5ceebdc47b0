//! The two names of a node: a leg that was moved keeps, towards its client, the ICE credentials of the node that it was
//! opened on, and its new node has others. What either says to the other is said in the other's words.
//!
//! ```text
//! client ── request  USERNAME shown:client, signed shown ──► USERNAME own:client, signed own ──► node
//! client ── response signed client ─────────────────────── as it is ──────────────────────────► node
//! client ◄─ USERNAME client:shown, signed client ◄── request  USERNAME client:own, signed client ── node
//! client ◄─ signed shown ◄────────────────────────── response signed own ──────────────────────── node
//! ```
//!
//! Nothing is vouched for that was not verified: what does not carry its own side's signature passes as it is, and whom it
//! is for finds it wanting.

use super::{
    Core,
    core::Slot,
    flow::Path,
    settings::MAX_DATAGRAM,
    stun::{Key, Kind, Message},
    transport::Transport,
};

impl Core {
    /// Whether a client's STUN reads otherwise to the node on this path; if so, it stands in `translated`.
    pub(super) fn translate_to_node(&mut self, path: Path, bytes: &[u8]) -> bool {
        let Some((Transport { server, masked: Some(own), .. }, message)) = self.masked_on(path, bytes) else {
            return false;
        };
        let Some((named, client)) = message.ufrags().filter(|_| message.kind() == Kind::Request) else { return false };
        if named != server.ufrag.as_bytes() || !message.is_authentic(&Key::new(&server.pwd)) {
            return false;
        }
        let username = [own.ufrag.as_bytes(), b":", client].concat();
        let said = message.translated(Some(&username), &Key::new(&own.pwd));
        self.keep_translated(said)
    }

    /// Whether a node's STUN on this path reads otherwise to its client; if so, it stands in `translated`.
    pub(super) fn translate_to_client(&mut self, path: Path, bytes: &[u8]) -> bool {
        let Some((Transport { server, masked: Some(own), client, .. }, message)) = self.masked_on(path, bytes) else {
            return false;
        };
        let said = match message.kind() {
            Kind::Request => {
                let (Some((client_ufrag, named)), Some(client)) = (message.ufrags(), client) else { return false };
                let key = client.key();
                if named != own.ufrag.as_bytes() || !message.is_authentic(&key) {
                    return false;
                }
                let username = [client_ufrag, b":", server.ufrag.as_bytes()].concat();
                message.translated(Some(&username), &key)
            }
            Kind::Success | Kind::Error if message.is_authentic(&Key::new(&own.pwd)) => {
                message.translated(None, &Key::new(&server.pwd))
            }
            Kind::Success | Kind::Error | Kind::Indication => return false,
        };
        self.keep_translated(said)
    }

    /// The transport on a path and the message, where the transport's node has two names.
    fn masked_on<'a, 'b>(&'a self, path: Path, bytes: &'b [u8]) -> Option<(&'a Transport, Message<'b>)> {
        let Some(Slot::Flow(flow)) = self.by_path.get(&path) else { return None };
        let flow = &self.flows[*flow];
        let transport = flow.old.filter(|old| old.path == path).map_or(flow.transport, |old| old.transport);
        let transport = self.transports.get(transport).filter(|transport| transport.masked.is_some())?;
        Some((transport, Message::parse(bytes).ok()?))
    }

    fn keep_translated(&mut self, said: Vec<u8>) -> bool {
        let fits = said.len() <= MAX_DATAGRAM;
        if fits {
            self.translated = said;
        }
        fits
    }
}
