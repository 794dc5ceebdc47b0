//! Takes every inside address out of a description and puts the door's own in, line by line.

use std::{net::SocketAddr, ops::RangeInclusive};

use super::{
    Description, PublicCandidate, SdpError, Transport, candidate_lines,
    lines::{Line, lines},
    outline::{self, Form},
};

/// A node's description for its client. Each section with a transport of its own gets `ours` and an
/// `a=end-of-candidates`; with `ours` empty it gets neither, since they will be trickled. The [`Description`] has the
/// node's credentials and the ports that were acceptable: those of `node_ports`.
pub fn to_client(
    sdp: &str,
    ours: &[PublicCandidate],
    node_ports: &RangeInclusive<u16>,
) -> Result<(String, Description), SdpError> {
    rewrite(sdp, Form::Whole, Some(node_ports), &public_lines(ours))
}

/// A client's description for its node: with exactly one candidate, `private`, per section that has a transport of its
/// own, or with none. The [`Description`] has the client's credentials, and never a candidate.
pub fn to_node(sdp: &str, private: Option<SocketAddr>) -> Result<(String, Description), SdpError> {
    rewrite(sdp, Form::Whole, None, &private_lines(private))
}

/// The lines that a client gets, with `a=`.
pub(super) fn public_lines(ours: &[PublicCandidate]) -> Vec<String> {
    let mut added: Vec<String> = candidate_lines(ours, None).into_iter().map(|line| format!("a={line}")).collect();
    if !added.is_empty() {
        added.push("a=end-of-candidates".to_owned());
    }
    added
}

/// The line that a node gets, with `a=`.
pub(super) fn private_lines(private: Option<SocketAddr>) -> Vec<String> {
    let ours = private.map(|address| PublicCandidate { address, transport: Transport::Udp });
    candidate_lines(ours.as_slice(), None).into_iter().map(|line| format!("a={line}")).collect()
}

/// Rewrites a text and adds `added` to each section that has a transport of its own.
pub(super) fn rewrite(
    text: &str,
    form: Form,
    node_ports: Option<&RangeInclusive<u16>>,
    added: &[String],
) -> Result<(String, Description), SdpError> {
    let description = outline::read(text, form, node_ports)?;
    let mut out = Writer::new(text, added);
    let mut tagged = description.media.iter().map(|media| media.tagged);
    for line in lines(text) {
        match line.letter() {
            Some(b'm') => {
                out.end_section();
                out.begin_section(line, tagged.next().unwrap_or(false));
                out.put(&media(line).ok_or(SdpError::Malformed)?, line);
            }
            Some(b'o') => out.put(&origin(line.value()).ok_or(SdpError::Malformed)?, line),
            Some(b'c') => out.put("c=IN IP4 0.0.0.0", line),
            _ if line.is_any_of(&["candidate", "end-of-candidates", "remote-candidates"]) => {}
            _ if line.is_any_of(&["rtcp"]) => out.put("a=rtcp:9 IN IP4 0.0.0.0", line),
            _ => out.put(line.body, line),
        }
    }
    out.end_section();
    Ok((out.finish(), description))
}

/// `m=` with port 9, the one that means nothing (RFC 8840 §4.1.1); a rejected section stays rejected.
fn media(line: Line<'_>) -> Option<String> {
    let mut words = line.body.splitn(3, ' ');
    let (kind, port, rest) = (words.next()?, words.next()?, words.next()?);
    let port = if outline::port(port)? == 0 { port } else { "9" };
    Some(format!("{kind} {port} {rest}"))
}

/// `o=` with its name and numbers, and an address that says nothing.
fn origin(value: &str) -> Option<String> {
    let mut words = value.split_ascii_whitespace();
    let (name, id, version) = (words.next()?, words.next()?, words.next()?);
    Some(format!("o={name} {id} {version} IN IP4 127.0.0.1"))
}

struct Writer<'a> {
    text: &'a str,
    added: &'a [String],
    out: String,
    /// Where the present section's last line that is not blank ends.
    end: usize,
    /// The ending for added lines, if the present section gets any.
    section: Option<&'a str>,
    /// The ending for lines that have none of their own.
    ending: &'a str,
}

impl<'a> Writer<'a> {
    fn new(text: &'a str, added: &'a [String]) -> Self {
        let ending = lines(text).next().map(|line| line.ending).filter(|ending| !ending.is_empty()).unwrap_or("\r\n");
        let room = text.len() + added.iter().map(String::len).sum::<usize>();
        Self { text, added, out: String::with_capacity(room), end: 0, section: None, ending }
    }

    /// Writes `body` with the ending that `line` had.
    fn put(&mut self, body: &str, line: Line<'_>) {
        self.out.push_str(body);
        self.out.push_str(if line.ending.is_empty() { self.ending } else { line.ending });
        if !line.is_blank() {
            self.end = self.out.len();
        }
    }

    fn begin_section(&mut self, line: Line<'a>, tagged: bool) {
        let ending = if line.ending.is_empty() { self.ending } else { line.ending };
        self.section = tagged.then_some(ending);
    }

    fn end_section(&mut self) {
        let Some(ending) = self.section.take() else { return };
        let added: String = self.added.iter().flat_map(|line| [line, ending]).collect();
        self.out.insert_str(self.end, &added);
    }

    /// The text, which ends in a line ending if and only if the one that came did.
    fn finish(mut self) -> String {
        if !self.text.ends_with('\n') {
            let ending = lines(&self.out).last().map_or(0, |line| line.ending.len());
            self.out.truncate(self.out.len() - ending);
        }
        self.out
    }
}
