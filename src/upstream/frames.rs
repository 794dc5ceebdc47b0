//! WebSocket frames ⇄ messages (RFC 6455 §5), holding nothing while nothing is under way.
//!
//! A library's codec keeps a read and a write buffer per socket, each as large as the largest message so far: after one
//! SDP each way an idle session had 43 KiB. Here a whole frame is taken straight out of the bytes that were read, and
//! only what is incomplete is kept. Sans-IO: bytes in, messages out.

use bytes::Bytes;

/// The largest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;
/// A frame says how large it will be before it is: no more than this is set aside on its word.
const TRUSTED: usize = 16 * 1024;

/// Which side of the connection this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The peer masks its frames, this side does not.
    Server,
    /// The other way round.
    Client,
}

/// What the peer said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// UTF-8.
    Text(Bytes),
    Binary,
    /// To be answered by a pong with the same bytes.
    Ping(Vec<u8>),
    Pong,
    /// To be answered by the same code, if there is one.
    Close(Option<u16>),
}

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// The peer broke RFC 6455.
    Protocol,
    /// A message larger than the bound.
    TooLarge,
}

/// Frames of one kind of peer, put together again.
#[derive(Debug)]
pub(super) struct Decoder {
    side: Side,
    /// Bytes that were read and not taken yet; empty and without memory between frames.
    kept: Vec<u8>,
    /// Of `kept`, what was taken since it was last filled.
    taken: usize,
    /// A message whose last fragment has not come.
    fragments: Option<Box<(Opcode, Vec<u8>)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    is_final: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    /// Bytes of the header itself.
    size: usize,
    /// Bytes of the payload.
    len: usize,
}

impl Decoder {
    /// `read_ahead` came with the handshake.
    pub(super) fn new(side: Side, read_ahead: &[u8]) -> Self {
        Self { side, kept: read_ahead.to_vec(), taken: 0, fragments: None }
    }

    /// Takes what was read, and returns the first whole message; [`Decoder::next`] has the others.
    pub(super) fn receive(&mut self, bytes: &[u8], max: usize) -> Result<Option<Message>, Violation> {
        if !self.kept.is_empty() {
            self.kept.drain(..std::mem::take(&mut self.taken));
            self.keep(bytes);
            return self.next(max);
        }
        let mut at = 0;
        let mut found = None;
        while found.is_none() {
            let Some((header, payload)) = self.frame(&bytes[at..], max)? else { break };
            at += header.size + header.len;
            found = self.message(header, payload, max)?;
        }
        if at < bytes.len() {
            self.keep(&bytes[at..]);
        }
        Ok(found)
    }

    /// The next whole message of what was received.
    pub(super) fn next(&mut self, max: usize) -> Result<Option<Message>, Violation> {
        while self.taken < self.kept.len() {
            let Some((header, payload)) = self.frame(&self.kept[self.taken..], max)? else { break };
            self.taken += header.size + header.len;
            if self.taken == self.kept.len() {
                (self.kept, self.taken) = (Vec::new(), 0);
            }
            if let Some(message) = self.message(header, payload, max)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.kept.capacity() == 0 {
            // Small beginnings: a header that promises much may come with nothing behind it.
            self.kept.reserve_exact(bytes.len().min(TRUSTED));
        }
        self.kept.extend_from_slice(bytes);
    }

    /// The frame at the start of `bytes`, its payload unmasked; `None` while it is incomplete.
    fn frame(&self, bytes: &[u8], max: usize) -> Result<Option<(Header, Vec<u8>)>, Violation> {
        let Some(header) = Header::parse(bytes)? else { return Ok(None) };
        if header.mask.is_some() != (self.side == Side::Server) {
            return Err(Violation::Protocol);
        }
        if header.len > max {
            return Err(Violation::TooLarge);
        }
        let Some(payload) = bytes.get(header.size..header.size + header.len) else { return Ok(None) };
        let mut payload = payload.to_vec();
        if let Some(mask) = header.mask {
            apply_mask(&mut payload, mask);
        }
        Ok(Some((header, payload)))
    }

    /// What a frame completes, if anything.
    fn message(&mut self, header: Header, payload: Vec<u8>, max: usize) -> Result<Option<Message>, Violation> {
        match header.opcode {
            Opcode::Ping => return Ok(Some(Message::Ping(payload))),
            Opcode::Pong => return Ok(Some(Message::Pong)),
            Opcode::Close => return Ok(Some(Message::Close(close_code(&payload)?))),
            Opcode::Continuation => {
                let Some(fragments) = &mut self.fragments else { return Err(Violation::Protocol) };
                if fragments.1.len() + payload.len() > max {
                    return Err(Violation::TooLarge);
                }
                fragments.1.extend_from_slice(&payload);
            }
            Opcode::Text | Opcode::Binary if self.fragments.is_some() => return Err(Violation::Protocol),
            opcode @ (Opcode::Text | Opcode::Binary) if header.is_final => return whole(opcode, payload).map(Some),
            opcode @ (Opcode::Text | Opcode::Binary) => self.fragments = Some(Box::new((opcode, payload))),
        }
        match self.fragments.take_if(|_| header.is_final) {
            Some(fragments) => whole(fragments.0, fragments.1).map(Some),
            None => Ok(None),
        }
    }
}

impl Header {
    /// The header at the start of `bytes`; `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::Protocol); // no extension was negotiated that would use these bits
        }
        let is_final = first & 0x80 != 0;
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation::Protocol),
        };
        let (len, mut size) = match second & 0x7f {
            126 => match bytes.get(2..4) {
                Some(len) => (u64::from(u16::from_be_bytes([len[0], len[1]])), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).map(<[u8; 8]>::try_from) {
                Some(Ok(len)) => (u64::from_be_bytes(len), 10),
                _ => return Ok(None),
            },
            len => (u64::from(len), 2),
        };
        let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        if is_control && (!is_final || len > MAX_CONTROL as u64) {
            return Err(Violation::Protocol);
        }
        let mut mask = None;
        if second & 0x80 != 0 {
            let Some(&[a, b, c, d]) = bytes.get(size..size + 4) else { return Ok(None) };
            mask = Some([a, b, c, d]);
            size += 4;
        }
        // What does not fit in memory is too large for every bound.
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Ok(Some(Self { is_final, opcode, mask, size, len }))
    }
}

fn whole(opcode: Opcode, payload: Vec<u8>) -> Result<Message, Violation> {
    if opcode != Opcode::Text {
        return Ok(Message::Binary);
    }
    std::str::from_utf8(&payload).map_err(|_| Violation::Protocol)?;
    Ok(Message::Text(payload.into()))
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match *payload {
        [] => Ok(None),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            // RFC 6455 §7.4: those that may be sent, registered ones and private ones.
            let is_legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let is_text = std::str::from_utf8(reason).is_ok();
            if is_legal && is_text { Ok(Some(code)) } else { Err(Violation::Protocol) }
        }
        [_] => Err(Violation::Protocol),
    }
}

/// Masks, or unmasks, which is the same.
fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

// === to the peer

/// Appends a text frame.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8], mask: Option<[u8; 4]>) {
    put(out, 1, text, mask);
}

/// Appends a ping.
pub(super) fn put_ping(out: &mut Vec<u8>, mask: Option<[u8; 4]>) {
    put(out, 9, &[], mask);
}

/// Appends the answer to a ping.
pub(super) fn put_pong(out: &mut Vec<u8>, payload: &[u8], mask: Option<[u8; 4]>) {
    put(out, 10, payload, mask);
}

/// Appends a close frame; a reason that does not fit is cut.
pub(super) fn put_close(out: &mut Vec<u8>, code: Option<u16>, reason: &'static str, mask: Option<[u8; 4]>) {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(MAX_CONTROL - 2)]);
    }
    put(out, 8, &payload, mask);
}

fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    out.reserve(payload.len() + 14);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..126), _) => out.push(masked | len),
        (_, Ok(len)) => {
            out.push(masked | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| mask));
    let from = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[from..], mask);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);
    const MAX: usize = 100_000;

    fn server() -> Decoder {
        Decoder::new(Side::Server, &[])
    }

    /// Everything that `bytes` say to a server, fed in pieces of `piece` bytes.
    fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<Message>, Violation> {
        let mut decoder = server();
        let mut messages = Vec::new();
        for bytes in bytes.chunks(piece.max(1)) {
            let mut next = decoder.receive(bytes, MAX)?;
            while let Some(message) = next {
                messages.push(message);
                next = decoder.next(MAX)?;
            }
        }
        Ok(messages)
    }

    fn text(text: &str) -> Message {
        Message::Text(text.as_bytes().to_vec().into())
    }

    /// A client's frame with a first byte of our own, such as one without the final bit.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, payload, MASK);
        bytes[0] = first;
        bytes
    }

    #[test]
    fn messages_of_every_length_form_come_back() {
        for len in [0, 1, 7, 8, 125, 126, 127, 65_535, 65_536] {
            let payload = "x".repeat(len);
            let mut bytes = Vec::new();
            put_text(&mut bytes, payload.as_bytes(), MASK);
            assert_eq!(decoded(&bytes, usize::MAX), Ok(vec![text(&payload)]), "{len}");
        }
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let mut decoder = server();
        let mut bytes = Vec::new();
        put_text(&mut bytes, &[b'x'; 7000], MASK);
        assert_eq!(decoder.receive(&bytes[..5000], MAX), Ok(None));
        assert!(decoder.receive(&bytes[5000..], MAX).unwrap().is_some());
        assert_eq!((decoder.kept.capacity(), decoder.taken), (0, 0));
    }

    #[test]
    fn fragments_make_one_message_and_control_frames_may_stand_between_them() {
        let bytes = [frame(0x01, b"he"), frame(0x89, b"?"), frame(0x00, b"ll"), frame(0x80, b"o")].concat();
        for piece in [1, 3, 100] {
            assert_eq!(decoded(&bytes, piece), Ok(vec![Message::Ping(b"?".to_vec()), text("hello")]), "{piece}");
        }
    }

    #[test]
    fn what_rfc_6455_forbids_is_a_violation() {
        let unmasked = {
            let mut bytes = Vec::new();
            put_text(&mut bytes, b"x", None);
            bytes
        };
        for (what, bytes) in [
            ("a reserved bit", frame(0xc1, b"x")),
            ("a reserved opcode", frame(0x83, b"x")),
            ("a fragmented ping", frame(0x09, b"x")),
            ("a large ping", frame(0x89, &[0; 126])),
            ("a continuation of nothing", frame(0x80, b"x")),
            ("a message inside another", [frame(0x01, b"x"), frame(0x81, b"x")].concat()),
            ("half a close code", frame(0x88, b"x")),
            ("a close code that may not be sent", frame(0x88, &1006u16.to_be_bytes())),
            ("text that is none", frame(0x81, &[0xff])),
            ("a client that does not mask", unmasked),
        ] {
            assert_eq!(decoded(&bytes, usize::MAX), Err(Violation::Protocol), "{what}");
        }
        let mut node = Decoder::new(Side::Client, &[]);
        assert_eq!(node.receive(&frame(0x81, b"x"), MAX), Err(Violation::Protocol), "a node that masks");
    }

    #[test]
    fn a_message_above_the_bound_is_refused_by_its_header_and_also_in_fragments() {
        let mut decoder = server();
        let promise = [0x81, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(decoder.receive(&promise, MAX), Err(Violation::TooLarge));
        assert_eq!(decoder.kept.capacity(), 0);
        let half = vec![b'x'; MAX / 2 + 1];
        assert_eq!(decoded(&[frame(0x01, &half), frame(0x80, &half)].concat(), usize::MAX), Err(Violation::TooLarge));
    }

    #[test]
    fn a_close_names_its_code_if_it_has_one() {
        let close = |code, reason| {
            let mut bytes = Vec::new();
            put_close(&mut bytes, code, reason, MASK);
            decoded(&bytes, usize::MAX).unwrap()
        };
        assert_eq!(close(None, ""), [Message::Close(None)]);
        assert_eq!(close(Some(1000), "bye"), [Message::Close(Some(1000))]);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_does_not_matter(
            texts in proptest::collection::vec("\\PC{0,300}", 0..8), mask: [u8; 4], piece in 1usize..700,
        ) {
            let mut bytes = Vec::new();
            for text in &texts {
                put_text(&mut bytes, text.as_bytes(), Some(mask));
            }
            let expected: Vec<_> = texts.iter().map(|sent| text(sent)).collect();
            prop_assert_eq!(decoded(&bytes, piece), Ok(expected));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..50, side: bool,
        ) {
            let mut decoder = Decoder::new(if side { Side::Server } else { Side::Client }, &[]);
            for bytes in bytes.chunks(piece) {
                let Ok(mut next) = decoder.receive(bytes, 300) else { break };
                while next.is_some() {
                    let Ok(more) = decoder.next(300) else { return Ok(()) };
                    next = more;
                }
            }
        }

        #[test]
        fn a_mask_taken_twice_is_none(payload in proptest::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
            let mut masked = payload.clone();
            apply_mask(&mut masked, mask);
            apply_mask(&mut masked, mask);
            prop_assert_eq!(masked, payload);
        }
    }
}
