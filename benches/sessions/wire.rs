//! Just enough WebSocket (RFC 6455) for both ends of a load: hand-made frames cost the machine less than a library's.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Frames that no side of a load sends; a larger one is a bug.
const MAX_FRAME: usize = 1 << 20;
/// A request or response head; the same.
const MAX_HEAD: usize = 16 * 1024;

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A connection and what was read from it too early.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    /// Clients mask, servers do not. The key is zero: unmasking costs the reader the same.
    masks: bool,
}

/// One frame; its payload is `payload(&frame)` until the next read.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    at: usize,
    len: usize,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, masks: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new(), start: 0, masks })
    }

    /// Everything up to and including the empty line; empty at the end of the connection.
    pub(crate) async fn read_head(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at + 4]).into_owned();
                self.start = at + 4;
                return Ok(head);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(bad("a head without end"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(String::new());
            }
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame, unmasked. Fragments do not occur in a load.
    pub(crate) async fn read_frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, masked)) = parse(&self.buffer[self.start..])? {
                let from = self.start;
                self.start += frame.at + frame.len;
                if masked {
                    let (head, body) = self.buffer[from..].split_at_mut(frame.at);
                    let key = &head[head.len() - 4..];
                    body[..frame.len].iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
                }
                return Ok(Frame { at: from + frame.at, ..frame });
            }
            self.buffer.drain(..std::mem::take(&mut self.start));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        &self.buffer[frame.at..frame.at + frame.len]
    }

    pub(crate) fn frame(&self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if self.masks { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => frame.push(mask | len as u8),
            len @ 126..0x1_0000 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        if self.masks {
            frame.extend_from_slice(&[0; 4]);
        }
        frame.extend_from_slice(payload);
        frame
    }

    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let frame = self.frame(opcode, payload);
        self.write(&frame).await
    }

    /// The next text; pings are answered on the way.
    pub(crate) async fn read_text(&mut self) -> io::Result<&[u8]> {
        loop {
            let frame = self.read_frame().await?;
            match frame.opcode {
                TEXT => return Ok(&self.buffer[frame.at..frame.at + frame.len]),
                PING => {
                    let payload = self.payload(&frame).to_vec();
                    self.send(PONG, &payload).await?;
                }
                PONG => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Frame, bool)>> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let masked = second & 0x80 != 0;
    let (len, mut at) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(len) => (usize::from(u16::from_be_bytes([len[0], len[1]])), 4),
            None => return Ok(None),
        },
        127 => return Err(bad("a frame that no side of a load sends")),
        len => (usize::from(len), 2),
    };
    at += if masked { 4 } else { 0 };
    if len > MAX_FRAME {
        return Err(bad("a frame that no side of a load sends"));
    }
    Ok((bytes.len() >= at + len).then_some((Frame { opcode: first & 0x0f, at, len }, masked)))
}

pub(crate) fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
