//! An offer as far as an answer to it needs it, borrowed from its text.

use super::super::{
    Credentials, Description, MediaKind, SdpError,
    lines::{Line, lines},
    outline::{self, Form},
};

/// One side's offer.
#[derive(Debug)]
pub(super) struct Offer<'a> {
    /// Who uses which transport.
    pub(super) description: Description,
    /// What stands before the first section.
    session: Vec<Line<'a>>,
    /// In the order of the text, as many as `description.media`.
    pub(super) sections: Vec<Section<'a>>,
}

/// One m-section.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) kind: MediaKind,
    /// `audio`, `video`, `application`, as it stands.
    pub(super) word: &'a str,
    /// `UDP/TLS/RTP/SAVPF`
    pub(super) protocol: &'a str,
    /// Payload types, or `webrtc-datachannel`.
    pub(super) formats: Vec<&'a str>,
    lines: Vec<Line<'a>>,
}

/// Who may send in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) sends: bool,
    pub(super) receives: bool,
}

/// Which side of the DTLS handshake is offered (RFC 8842).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) active: bool,
    pub(super) passive: bool,
}

impl<'a> Offer<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, SdpError> {
        let description = outline::read(text, Form::Whole, None)?;
        let (mut session, mut sections) = (Vec::new(), Vec::<Section<'a>>::new());
        for line in lines(text).filter(|line| !line.is_blank()) {
            if line.letter() == Some(b'm') {
                let kind = description.media.get(sections.len()).map_or(MediaKind::Other, |media| media.kind);
                sections.push(Section::open(kind, line.value()).ok_or(SdpError::Malformed)?);
            } else {
                sections.last_mut().map_or(&mut session, |section| &mut section.lines).push(line);
            }
        }
        Ok(Self { description, session, sections })
    }

    /// The credentials of a section in use.
    pub(super) fn credentials(&self, section: usize) -> Option<&Credentials> {
        self.description.transports.get(self.description.media.get(section)?.transport?)
    }

    /// Values of an attribute that the section has, or, where it has none, the session.
    pub(super) fn inherited(&self, section: usize, name: &str) -> Vec<&'a str> {
        let own: Vec<_> = self.sections.get(section).into_iter().flat_map(|section| section.values(name)).collect();
        if own.is_empty() { values(&self.session, name).collect() } else { own }
    }

    /// Whether the session itself has this attribute.
    pub(super) fn has(&self, name: &str) -> bool {
        values(&self.session, name).next().is_some()
    }

    /// The name, id and version of `o=`.
    pub(super) fn origin(&self) -> Option<String> {
        let origin = self.session.iter().find(|line| line.letter() == Some(b'o'))?;
        let words: Vec<_> = origin.value().split_ascii_whitespace().take(3).collect();
        (words.len() == 3).then(|| words.join(" "))
    }

    /// Which BUNDLE group a section is in.
    pub(super) fn bundle_of(&self, section: usize) -> Option<usize> {
        let mid = self.sections.get(section)?.mid()?;
        let groups = values(&self.session, "group").map(|group| group.split_ascii_whitespace());
        groups.map(|mut words| words.next() == Some("BUNDLE") && words.any(|word| word == mid)).position(|is_in| is_in)
    }

    pub(super) fn setup(&self, section: usize) -> Setup {
        let (active, passive) = match self.inherited(section, "setup").first() {
            Some(&"active") => (true, false),
            Some(&"passive") => (false, true),
            // RFC 8842 §5.2: an offer says `actpass`.
            _ => (true, true),
        };
        Setup { active, passive }
    }
}

impl<'a> Section<'a> {
    fn open(kind: MediaKind, value: &'a str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let (word, _port, protocol) = (words.next()?, words.next()?, words.next()?);
        Some(Self { kind, word, protocol, formats: words.collect(), lines: Vec::new() })
    }

    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        values(&self.lines, name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Values of an attribute that begins with this payload type, or with `*`, without it.
    pub(super) fn of_format(&self, name: &str, payload_type: u8) -> impl Iterator<Item = &'a str> {
        self.values(name).filter_map(move |value| {
            let (format, rest) = value.split_once(' ')?;
            (format == "*" || format.parse() == Ok(payload_type)).then(|| rest.trim())
        })
    }

    pub(super) fn mid(&self) -> Option<&'a str> {
        self.values("mid").next()
    }

    pub(super) fn direction(&self) -> Direction {
        let (sends, receives) = match () {
            () if self.has("sendonly") => (true, false),
            () if self.has("recvonly") => (false, true),
            () if self.has("inactive") => (false, false),
            () => (true, true),
        };
        Direction { sends, receives }
    }

    /// Header extensions: the number, and what it stands for. Those for one direction only are left out.
    pub(super) fn extensions(&self) -> Vec<(&'a str, &'a str)> {
        self.values("extmap").filter_map(|value| value.split_once(' ')).collect()
    }
}

fn values<'l, 'a>(lines: &'l [Line<'a>], name: &str) -> impl Iterator<Item = &'a str> + use<'l, 'a> {
    let name = name.to_owned();
    lines.iter().filter_map(move |line| {
        let (own, value) = line.attribute()?;
        (own == name).then(|| value.trim())
    })
}
