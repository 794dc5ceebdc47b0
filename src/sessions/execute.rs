//! Output → IO.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    actor::{Actor, Pending, loss},
    story::What,
};
use crate::{
    domain::{
        ids::NodeId,
        session::{Ask, Input, LinkLoss, Output, Ticket},
        signaling::Text,
    },
    upstream::{self, Dial, SocketEnd},
};

impl<C> Actor<C>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Carries out one output. A socket that fails here becomes the session's next input.
    pub(super) fn execute(&mut self, output: Output) {
        match output {
            Output::ToClient(text) => {
                let Some(client) = &mut self.client else { return };
                self.client_dirty = true;
                self.shared.metrics.message_out();
                let sent = client.feed(&text);
                self.client_sent(sent);
            }
            Output::PingClient => {
                let Some(client) = &mut self.client else { return };
                self.client_dirty = true;
                client.feed_ping();
            }
            Output::ToNode(node, text) => self.send_to_node(&node, &text),
            Output::Dial(node) => self.dial(node),
            Output::HangUp(node) => self.hang_up(&node),
            Output::Place(ticket, ask) => self.place(ticket, ask),
            Output::Release(ticket) => self.release(ticket),
            Output::Relay(command) => self.span.in_scope(|| self.shared.relay(command)),
            Output::Fact(fact) => {
                if let Some(what) = What::of_fact(&fact) {
                    self.desk.tell(what);
                }
                self.span.in_scope(|| self.shared.report(&self.app, fact));
            }
            Output::Close(reason) => self.closed = Some(reason),
        }
    }

    /// Sends what was fed since the last flush.
    pub(super) async fn flush(&mut self) {
        for at in (0..self.links.len()).rev() {
            let link = &mut self.links[at];
            if std::mem::take(&mut link.dirty)
                && let Err(end) = link.socket.flush().await
            {
                self.link_failed(at, end);
            }
        }
        if std::mem::take(&mut self.client_dirty)
            && let Some(client) = &mut self.client
        {
            let sent = client.flush().await;
            self.client_sent(sent);
        }
        // What failed above is told now; its consequences are flushed in the next turn.
        while let Some(output) = self.session.poll_output() {
            self.execute(output);
        }
        self.show_legs();
    }

    /// Brings the session's card up to date, if its legs have changed.
    pub(super) fn show_legs(&mut self) {
        let revision = self.session.revision();
        if std::mem::replace(&mut self.shown, revision) != revision {
            self.desk.set_legs(self.session.legs());
        }
    }

    fn client_sent(&mut self, sent: Result<(), SocketEnd>) {
        if let Err(end) = sent {
            let reason = self.client_ended(end);
            self.session.handle(Input::ClientGone(reason), crate::clock::now());
        }
    }

    fn send_to_node(&mut self, node: &NodeId, text: &Text) {
        let Some(at) = self.links.iter().position(|link| link.node == *node) else { return };
        let link = &mut self.links[at];
        link.dirty = true;
        if let Err(end) = link.socket.feed(text) {
            self.link_failed(at, end);
        }
    }

    fn link_failed(&mut self, at: usize, end: SocketEnd) {
        let link = self.links.swap_remove(at);
        self.session.handle(Input::LinkDown(link.node, loss(end)), crate::clock::now());
    }

    fn dial(&mut self, node: NodeId) {
        let Some(address) = self.shared.router.registry().snapshot().get(&node).map(|node| node.spec.address) else {
            return self.session.handle(Input::LinkDown(node, LinkLoss::Connect), crate::clock::now());
        };
        let rules = self.shared.rules.load();
        let dial = upstream::dial(Dial {
            address,
            path: self.path.clone(),
            client: self.address.0.ip(),
            host: self.host.clone(),
            tls: self.tls,
            limit: rules.dial,
            limits: rules.link_limits,
        });
        self.pending.push(Pending::Dialling(node, crate::clock::now(), Box::pin(dial)));
    }

    /// Ends a link. Its close handshake runs on its own, bounded, so that the session need not wait for it.
    fn hang_up(&mut self, node: &NodeId) {
        self.pending.retain(|pending| !matches!(pending, Pending::Dialling(dialled, ..) if dialled == node));
        if let Some(at) = self.links.iter().position(|link| link.node == *node) {
            let socket = self.links.swap_remove(at).socket;
            self.shared.shutdown.spawn(socket.close(1000, ""));
        }
    }

    fn place(&mut self, ticket: Ticket, ask: Ask) {
        let (shared, app, asked, seed) = (self.shared.clone(), self.app.clone(), ask.clone(), fastrand::u64(..));
        let play_wait = self.shared.rules.load().play_wait;
        let placing = async move { shared.router.place(&app, &asked, seed, play_wait).await };
        self.pending.push(Pending::Placing(ticket, ask, Box::pin(placing)));
    }

    fn release(&mut self, ticket: Ticket) {
        self.pending.retain(|pending| !matches!(pending, Pending::Placing(placing, ..) if *placing == ticket));
        self.seats.retain(|(seated, ..)| *seated != ticket);
    }

    /// Ends the client's socket, after what is still queued for it.
    pub(super) async fn close(mut self: Box<Self>) {
        let Some(reason) = self.closed else { return };
        self.desk.close(reason);
        self.pending.clear();
        self.seats.clear();
        if let Some(client) = self.client.take() {
            client.close(reason.code(), reason.as_str()).await;
        }
    }
}
