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
    /// Whether a client's request, authenticated for this transport, reads otherwise to the node; if so, it stands in
    /// `translated`.
    pub(super) fn translate_to_node(&mut self, transport: u32, bytes: &[u8]) -> bool {
        let Some(Transport { masked: Some(own), .. }) = self.transports.get(transport) else { return false };
        let Ok(message) = Message::parse(bytes) else { return false };
        let Some((_, client)) = message.ufrags() else { return false };
        let username = [own.ufrag.as_bytes(), b":", client].concat();
        let said = message.translated(Some(&username), &Key::new(&own.pwd));
        self.keep_translated(said)
    }

    /// Whether a node's STUN on this path reads otherwise to its client; if so, it stands in `translated`.
    pub(super) fn translate_to_client(&mut self, path: Path, bytes: &[u8]) -> bool {
        let said = self.masked_on(path).find_map(|transport| in_clients_words(transport, &Message::parse(bytes).ok()?));
        said.is_some_and(|said| self.keep_translated(said))
    }

    /// The transports whose node has two names and may be speaking on this path: generations share a port.
    fn masked_on(&self, path: Path) -> impl Iterator<Item = &Transport> {
        let flow = match self.by_path.get(&path) {
            Some(Slot::Flow(flow)) => Some(&self.flows[*flow]),
            Some(Slot::Tombstone(_)) | None => None,
        };
        let session = flow.and_then(|flow| self.sessions.get(&self.transports[flow.transport].session));
        let transports = session.into_iter().flat_map(|session| &session.transports);
        let transports = transports.map(|index| &self.transports[*index]);
        transports.filter(move |transport| transport.masked.is_some() && transport.backend == Some(path.backend))
    }

    fn keep_translated(&mut self, said: Vec<u8>) -> bool {
        let fits = said.len() <= MAX_DATAGRAM;
        if fits {
            self.translated = said;
        }
        fits
    }
}

/// What a node's message is to a client that knows the node by its other name.
fn in_clients_words(transport: &Transport, message: &Message<'_>) -> Option<Vec<u8>> {
    let Transport { server, masked: Some(own), client, .. } = transport else { return None };
    match message.kind() {
        Kind::Request => {
            let ((client_ufrag, named), key) = (message.ufrags()?, client.as_ref()?.key());
            let is_own = named == own.ufrag.as_bytes() && message.is_authentic(&key);
            let username = [client_ufrag, b":", server.ufrag.as_bytes()].concat();
            is_own.then(|| message.translated(Some(&username), &key))
        }
        Kind::Success | Kind::Error => {
            let is_own = message.is_authentic(&Key::new(&own.pwd));
            is_own.then(|| message.translated(None, &Key::new(&server.pwd)))
        }
        Kind::Indication => None,
    }
}
