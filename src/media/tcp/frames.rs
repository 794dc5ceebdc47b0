//! RFC 4571 framing: each datagram of an ICE-TCP connection stands behind its length in two bytes.

use bytes::{Bytes, BytesMut};

/// Longest frame that is taken, in bytes: what the relay passes on as one datagram.
pub(super) const MAX_FRAME: usize = 1500;
/// Bytes of a frame's length.
pub(super) const PREFIX: usize = 2;

/// The connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadFrame;

/// Takes frames out of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    /// Where the next bytes are to be read into: room for a whole frame at least.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.0.reserve(PREFIX + MAX_FRAME);
        &mut self.0
    }

    /// The next whole frame; `None` until more bytes came. Empty frames mean nothing (RFC 4571 §2) and are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, BadFrame> {
        loop {
            let [high, low, rest @ ..] = &self.0[..] else { return Ok(None) };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length > MAX_FRAME {
                return Err(BadFrame);
            }
            if rest.len() < length {
                return Ok(None);
            }
            let frame = self.0.split_to(PREFIX + length).freeze().split_off(PREFIX);
            if !frame.is_empty() {
                return Ok(Some(frame));
            }
        }
    }
}

/// Appends a datagram as a frame; `datagram` is at most [`MAX_FRAME`] long.
pub(super) fn put(datagram: &[u8], into: &mut Vec<u8>) {
    let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(&datagram[..usize::from(length)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames, bytes: &[u8]) -> Result<Vec<Vec<u8>>, BadFrame> {
        frames.room().extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(frame) = frames.next()? {
            found.push(frame.to_vec());
        }
        Ok(found)
    }

    #[test]
    fn coalesced_frames_come_out_one_by_one_and_empty_ones_not_at_all() {
        let mut frames = Frames::default();
        assert_eq!(all(&mut frames, b"\0\x02ab\0\0\0\0\0\x01c\0\x03d").unwrap(), [&b"ab"[..], b"c"]);
        assert_eq!(all(&mut frames, b"ef").unwrap(), [b"def"]);
    }

    #[test]
    fn the_longest_frame_passes_and_one_byte_more_ends_the_connection() {
        let mut longest = Vec::new();
        put(&[7; MAX_FRAME], &mut longest);
        assert_eq!(all(&mut Frames::default(), &longest).unwrap(), [[7; MAX_FRAME]]);
        assert_eq!(all(&mut Frames::default(), &1501u16.to_be_bytes()), Err(BadFrame), "before its bytes are there");
    }

    proptest! {
        #[test]
        fn what_was_framed_comes_out_however_the_stream_is_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..8),
            cuts in prop::collection::vec(1usize..300, 0..16),
        ) {
            let mut stream = Vec::new();
            datagrams.iter().for_each(|datagram| put(datagram, &mut stream));
            let (mut frames, mut found, mut rest) = (Frames::default(), Vec::new(), &stream[..]);
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                found.extend(all(&mut frames, now).unwrap());
                rest = later;
            }
            found.extend(all(&mut frames, rest).unwrap());
            prop_assert_eq!(found, datagrams);
        }

        #[test]
        fn no_bytes_make_it_panic_or_a_frame_too_long(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            for frame in all(&mut Frames::default(), &bytes).unwrap_or_default() {
                prop_assert!((1..=MAX_FRAME).contains(&frame.len()));
            }
        }
    }
}
