//! Which ICE ufrags this relay's transports answer to: asked for a connection that may be another generation's.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{
    ids::SessionId,
    relay::{Command, TransportId},
};

/// The ufrags of all transports that were opened and not closed.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Transports by ufrag; AMS's ufrags are random, but nobody promises that two never meet.
    ufrags: HashMap<Box<str>, usize>,
    /// As many as sessions have open: each ends with its session at the latest.
    transports: HashMap<TransportId, (SessionId, Box<str>)>,
    sessions: HashMap<SessionId, Vec<TransportId>>,
}

impl Known {
    /// Notes what a command opens or closes.
    pub(super) fn note(&self, command: &Command) {
        match command {
            Command::Open(spec) => self.lock().open(spec.id, spec.session, &spec.server.ufrag),
            Command::Close(id) => self.lock().close(*id),
            Command::CloseSession(session) => {
                let mut inner = self.lock();
                for id in inner.sessions.get(session).cloned().unwrap_or_default() {
                    inner.close(id);
                }
            }
            Command::SetClient { .. } | Command::SetBackend { .. } => {}
        }
    }

    /// Whether a transport answers to it.
    pub(super) fn has(&self, ufrag: &str) -> bool {
        self.lock().ufrags.contains_key(ufrag)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn open(&mut self, id: TransportId, session: SessionId, ufrag: &str) {
        self.close(id);
        *self.ufrags.entry(ufrag.into()).or_default() += 1;
        self.transports.insert(id, (session, ufrag.into()));
        self.sessions.entry(session).or_default().push(id);
    }

    fn close(&mut self, id: TransportId) {
        let Some((session, ufrag)) = self.transports.remove(&id) else { return };
        if let Some(count) = self.ufrags.get_mut(&ufrag) {
            *count -= 1;
            if *count == 0 {
                self.ufrags.remove(&ufrag);
            }
        }
        if let Some(transports) = self.sessions.get_mut(&session) {
            transports.retain(|held| *held != id);
            if transports.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::relay::{Credentials, TransportSpec};

    fn open(id: u64, session: u64, ufrag: &str) -> Command {
        Command::Open(TransportSpec {
            id: TransportId(id),
            session: SessionId(session),
            line: 0,
            succeeds: None,
            node: [10, 0, 0, 1].into(),
            server: Credentials { ufrag: ufrag.into(), pwd: "x".repeat(22).into() },
            client: None,
            backend_port: None,
            node_is_lite: false,
            bytes_per_second: None,
        })
    }

    #[test]
    fn a_ufrag_is_known_while_any_transport_has_it() {
        let known = Known::default();
        for (id, session, ufrag) in [(1, 1, "a"), (2, 1, "b"), (3, 2, "a")] {
            known.note(&open(id, session, ufrag));
        }
        assert!(known.has("a") && known.has("b") && !known.has("c"));
        known.note(&Command::CloseSession(SessionId(1)));
        assert!(known.has("a") && !known.has("b"));
        known.note(&Command::Close(TransportId(3)));
        known.note(&Command::Close(TransportId(3)));
        assert!(!known.has("a"));
        let inner = known.lock();
        assert!(inner.transports.is_empty() && inner.sessions.is_empty());
    }
}
