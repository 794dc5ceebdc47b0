//! What only time ends: silent flows, superseded generations, half-open transports, tombstones; and what only time
//! shows: stalls. Each sweep looks at one slice of the tables, so that no packet waits for all of them.

use super::{
    Core, EventKind, FlowEnd, TransportEnd,
    core::nanos,
    settings::SWEEP_SLICES,
    transport::{Media, Transport},
};

impl Core {
    pub(super) fn sweep(&mut self, now: u64) {
        while self.tombstones.front().is_some_and(|oldest| oldest.until <= now) {
            self.forget_oldest_tombstone();
        }
        let slice = self.slice;
        self.slice = (slice + 1) % SWEEP_SLICES;
        for index in (slice..self.flows.end()).step_by(SWEEP_SLICES as usize) {
            self.sweep_flow(index, now);
        }
        for index in (slice..self.transports.end()).step_by(SWEEP_SLICES as usize) {
            self.sweep_transport(index, now);
        }
    }

    fn sweep_flow(&mut self, index: u32, now: u64) {
        let consent = nanos(self.settings.consent);
        if self.flows.get(index).is_some_and(|flow| now.saturating_sub(flow.last_stun) >= consent) {
            self.close_flow(index, FlowEnd::Consent, now);
        }
    }

    fn sweep_transport(&mut self, index: u32, now: u64) {
        let Some(transport) = self.transports.get(index) else { return };
        let Transport { ends, ready, first_stun, media, .. } = *transport;
        if ends.is_some_and(|ends| ends <= now) {
            return self.end_transport(index, TransportEnd::Superseded, now);
        }
        let half_open = nanos(self.settings.half_open);
        if first_stun.is_none() && ready.is_some_and(|ready| now.saturating_sub(ready) >= half_open) {
            return self.end_transport(index, TransportEnd::HalfOpen, now);
        }
        // A generation that handed over has no media of its own to miss.
        if let Media::Flowing { last } = media
            && ends.is_none()
            && now.saturating_sub(last) >= nanos(self.settings.stall)
        {
            self.transports[index].media = Media::Stalled { last };
            self.transports[index].stalls += 1;
            self.stats.stalls += 1;
            self.say(index, EventKind::Stalled);
        }
    }
}
