//! What one batch has to send, in line and grouped into runs that one message can carry (UDP segmentation offload).
//!
//! A run is datagrams of one socket to one destination, all of one length, of which only the last may be shorter: the
//! kernel cuts the message back into just these. Packets to one destination keep their order; nothing else has one.

use std::net::SocketAddr;

use super::wire::SOCKETS;

/// Datagrams of one run: what every kernel with segmentation takes.
const MOST_SEGMENTS: u16 = 64;
/// Bytes of one run: what one IP packet could hold, less its headers.
const MOST_BYTES: u32 = 65_535 - 48;
/// Largest datagram of a run of several: what fits an Ethernet frame over IPv6. Larger ones travel alone.
const LARGEST_SEGMENT: u16 = 1452;
/// Runs that are looked back at for one that goes on. A longer way back would cost more than the call that it saves.
const LOOK_BACK: usize = 16;
/// The end of a run's chain.
const NONE: u32 = u32::MAX;

/// Datagrams of one socket to one destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) socket: u8,
    pub(super) to: SocketAddr,
    /// How many.
    pub(super) segments: u16,
    /// Length of each but the last.
    pub(super) size: u16,
    bytes: u32,
    /// Ends in a shorter one.
    complete: bool,
    first: u32,
    last: u32,
}

/// A batch's outgoing datagrams, by their place in what was received.
#[derive(Debug)]
pub(super) struct Line {
    entries: Vec<(u32, u32)>,
    runs: Vec<Run>,
    used: u16,
}

impl Line {
    /// An empty line that holds `most` datagrams without growing.
    pub(super) fn with_capacity(most: usize) -> Self {
        Self { entries: Vec::with_capacity(most), runs: Vec::with_capacity(most), used: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.runs.clear();
        self.used = 0;
    }

    /// Puts the received datagram `nth`, `len` bytes long, in line; `segmented`: it may share a message.
    pub(super) fn push(&mut self, nth: usize, len: usize, socket: usize, to: SocketAddr, segmented: bool) {
        let (nth, len) = (u32_of(nth), u16::try_from(len).unwrap_or(u16::MAX));
        let entry = u32_of(self.entries.len());
        self.entries.push((nth, NONE));
        self.used |= 1 << socket;
        let socket = u8::try_from(socket).expect("a thread has nine sockets");
        if segmented {
            let newest = self.runs.iter_mut().rev().take(LOOK_BACK).find(|run| run.socket == socket && run.to == to);
            if let Some(run) = newest.filter(|run| run.takes(len)) {
                run.bytes += u32::from(len);
                run.segments += 1;
                run.complete = len < run.size;
                self.entries[run.last as usize].1 = entry;
                run.last = entry;
                return;
            }
        }
        let bytes = u32::from(len);
        self.runs.push(Run { socket, to, segments: 1, size: len, bytes, complete: false, first: entry, last: entry });
    }

    /// Whether this socket has anything to send.
    pub(super) fn uses(&self, socket: usize) -> bool {
        self.used & (1 << socket) != 0
    }

    /// How many runs there are, of all sockets.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn run(&self, nth: usize) -> &Run {
        &self.runs[nth]
    }

    /// The received datagrams of a run, in order.
    pub(super) fn datagrams(&self, run: &Run) -> impl Iterator<Item = usize> + '_ {
        let mut next = run.first;
        std::iter::from_fn(move || {
            let (nth, after) = *self.entries.get(next as usize)?;
            next = after;
            Some(nth as usize)
        })
    }
}

impl Run {
    fn takes(&self, len: u16) -> bool {
        let fits = self.size <= LARGEST_SEGMENT && len <= self.size && len > 0;
        fits && !self.complete && self.segments < MOST_SEGMENTS && self.bytes + u32::from(len) <= MOST_BYTES
    }
}

fn u32_of(count: usize) -> u32 {
    u32::try_from(count).expect("a batch has thousands at most")
}

const _: () = assert!(SOCKETS <= 16, "`used` has a bit per socket");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    /// Each run as its socket, port, and the datagrams in it.
    fn runs(line: &Line) -> Vec<(u8, u16, Vec<usize>)> {
        let shown = |run: &Run| (run.socket, run.to.port(), line.datagrams(run).collect());
        (0..line.runs()).map(|nth| shown(line.run(nth))).collect()
    }

    fn line(datagrams: &[(usize, usize, u16)]) -> Line {
        let mut line = Line::with_capacity(8);
        for (nth, (len, socket, port)) in datagrams.iter().enumerate() {
            line.push(nth, *len, *socket, to(*port), true);
        }
        line
    }

    #[test]
    fn equal_datagrams_to_one_place_share_a_message_and_a_shorter_one_ends_it() {
        let line = line(&[(1200, 0, 1), (1200, 0, 2), (1200, 0, 1), (300, 0, 1), (300, 0, 1), (1200, 1, 1)]);
        assert_eq!(runs(&line), [(0, 1, vec![0, 2, 3]), (0, 2, vec![1]), (0, 1, vec![4]), (1, 1, vec![5])]);
        assert!(line.uses(0) && line.uses(1) && !line.uses(2));
    }

    #[test]
    fn what_could_not_be_cut_back_travels_alone() {
        let mut alone = Line::with_capacity(4);
        alone.push(0, 1200, 0, to(1), false);
        alone.push(1, 1200, 0, to(1), false);
        assert_eq!(alone.runs(), 2);
        assert_eq!(line(&[(1480, 0, 1), (1480, 0, 1)]).runs(), 2, "larger than a frame");
        assert_eq!(line(&[(300, 0, 1), (1200, 0, 1)]).runs(), 2, "only a shorter one may follow");
        assert_eq!(line(&[(100, 0, 1); 65]).runs(), 2, "64 segments");
        assert_eq!(line(&[(1452, 0, 1); 46]).runs(), 2, "64 KiB");
    }

    proptest! {
        #[test]
        fn every_datagram_goes_once_where_it_should_and_in_order(
            datagrams in prop::collection::vec((1usize..1500, 0usize..SOCKETS, 1u16..30), 0..200),
        ) {
            let line = line(&datagrams);
            let mut seen = vec![0; datagrams.len()];
            let mut last = std::collections::BTreeMap::new();
            for (socket, port, run) in runs(&line) {
                for nth in run {
                    seen[nth] += 1;
                    prop_assert_eq!((datagrams[nth].1, datagrams[nth].2), (usize::from(socket), port));
                    prop_assert!(last.insert((socket, port), nth).is_none_or(|before| before < nth));
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
            for nth in 0..line.runs() {
                let run = line.run(nth);
                let lens: Vec<usize> = line.datagrams(run).map(|nth| datagrams[nth].0).collect();
                prop_assert_eq!(lens.len(), usize::from(run.segments));
                let (end, body) = lens.split_last().unwrap();
                prop_assert!(body.iter().all(|len| *len == usize::from(run.size)) && *end <= usize::from(run.size));
            }
        }
    }
}
