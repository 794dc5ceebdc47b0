//! The sections of a description, who shares a transport with whom, and the credentials of each.

use std::ops::RangeInclusive;

use super::{
    Credentials, Description, MAX_CANDIDATES, MAX_SDP, MAX_SECTIONS, Media, MediaKind, NodeCandidate, PWD_CHARS,
    SdpError, UFRAG_CHARS, acceptable,
    lines::{Line, lines},
    parse_candidate,
};

/// Whether a text stands alone or adds to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An offer or answer: each section in use has credentials.
    Whole,
    /// `application/trickle-ice-sdpfrag`: may be candidates only.
    Fragment,
}

/// Reads what the relay needs. `node_ports` is `None` for a client's text, whose candidates count for nothing.
pub(super) fn read(text: &str, form: Form, node_ports: Option<&RangeInclusive<u16>>) -> Result<Description, SdpError> {
    if text.len() > MAX_SDP {
        return Err(SdpError::TooLarge);
    }
    let outline = Outline::read(text)?;
    let leads = outline.leads();
    let mut transports = Transports::default();
    // The tagged ones first, bundle by bundle: the first of them is what a bundled session uses.
    for lead in outline.in_group_order(&leads) {
        transports.index_of(outline.ice(lead), form)?;
    }
    let mut media = Vec::with_capacity(outline.sections.len());
    for (at, section) in outline.sections.iter().enumerate() {
        let transport = match leads[at] {
            None => None,
            Some(lead) => match transports.index_of(outline.ice(at), Form::Fragment)? {
                Some(own) => Some(own),
                None => transports.index_of(outline.ice(lead), form)?,
            },
        };
        media.push(Media {
            kind: section.kind,
            mid: section.mid.map(Into::into),
            transport,
            tagged: leads[at] == Some(at),
        });
    }
    if form == Form::Whole && transports.found.is_empty() {
        return Err(SdpError::NoCredentials);
    }
    let candidates = node_ports.map(|ports| outline.candidates(ports)).unwrap_or_default();
    Ok(Description { transports: transports.found, candidates, media })
}

#[derive(Default)]
struct Transports {
    found: Vec<Credentials>,
}

impl Transports {
    /// Finds or adds these credentials; `None` where there are none and none are needed.
    fn index_of(&mut self, ice: Ice<'_>, form: Form) -> Result<Option<usize>, SdpError> {
        let (ufrag, pwd) = match (ice, form) {
            (Ice { ufrag: Some(ufrag), pwd: Some(pwd) }, _) => (ufrag, pwd),
            (_, Form::Fragment) => return Ok(None),
            (_, Form::Whole) => return Err(SdpError::NoCredentials),
        };
        match self.found.iter().position(|one| &*one.ufrag == ufrag) {
            Some(index) if &*self.found[index].pwd == pwd => Ok(Some(index)),
            Some(_) => Err(SdpError::BadCredentials),
            None => {
                self.found.push(Credentials { ufrag: ufrag.into(), pwd: pwd.into() });
                Ok(Some(self.found.len() - 1))
            }
        }
    }
}

#[derive(Default)]
struct Outline<'a> {
    groups: Vec<Vec<&'a str>>,
    session: Ice<'a>,
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    kind: MediaKind,
    port: u16,
    mid: Option<&'a str>,
    bundle_only: bool,
    ice: Ice<'a>,
    candidates: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ice<'a> {
    ufrag: Option<&'a str>,
    pwd: Option<&'a str>,
}

impl<'a> Outline<'a> {
    fn read(text: &'a str) -> Result<Self, SdpError> {
        let mut outline = Self::default();
        let mut candidates = 0usize;
        for line in lines(text).filter(|line| !line.is_blank()) {
            match line.letter().ok_or(SdpError::Malformed)? {
                b'm' if outline.sections.len() == MAX_SECTIONS => return Err(SdpError::TooManySections),
                b'm' => outline.sections.push(Section::open(line.value()).ok_or(SdpError::Malformed)?),
                b'a' => {
                    candidates += usize::from(line.is_any_of(&["candidate"]));
                    outline.attribute(line)?;
                }
                _ => {}
            }
        }
        if candidates > MAX_CANDIDATES { Err(SdpError::TooManyCandidates) } else { Ok(outline) }
    }

    fn attribute(&mut self, line: Line<'a>) -> Result<(), SdpError> {
        let Some((name, value)) = line.attribute() else { return Ok(()) };
        let section = self.sections.last_mut();
        match (name, section) {
            ("ice-ufrag", section) => {
                let ice = section.map_or(&mut self.session, |section| &mut section.ice);
                set(&mut ice.ufrag, value, &UFRAG_CHARS)
            }
            ("ice-pwd", section) => {
                let ice = section.map_or(&mut self.session, |section| &mut section.ice);
                set(&mut ice.pwd, value, &PWD_CHARS)
            }
            ("group", None) => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && self.groups.len() < MAX_SECTIONS {
                    self.groups.push(words.take(MAX_SECTIONS).collect());
                }
                Ok(())
            }
            ("mid", Some(section)) => {
                section.mid = section.mid.or(Some(value));
                Ok(())
            }
            ("bundle-only", Some(section)) => {
                section.bundle_only = true;
                Ok(())
            }
            ("candidate", Some(section)) => {
                section.candidates.push(line.body);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// For each section the one whose transport it uses: itself, the tagged one of its bundle, or none if rejected.
    fn leads(&self) -> Vec<Option<usize>> {
        let mut leads: Vec<Option<usize>> =
            (0..self.sections.len()).map(|at| self.sections[at].is_used().then_some(at)).collect();
        let mut bundled = vec![false; self.sections.len()];
        for group in &self.groups {
            let members: Vec<usize> = group.iter().filter_map(|mid| self.with_mid(mid)).collect();
            let Some(lead) = members.iter().copied().find(|at| !bundled[*at] && self.sections[*at].port != 0) else {
                continue;
            };
            for at in members.into_iter().filter(|at| self.sections[*at].is_used()) {
                if !std::mem::replace(&mut bundled[at], true) {
                    leads[at] = Some(lead);
                }
            }
        }
        leads
    }

    fn with_mid(&self, mid: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.mid == Some(mid))
    }

    /// The sections that lead, those that lead a bundle first, in the order of the groups.
    fn in_group_order(&self, leads: &[Option<usize>]) -> Vec<usize> {
        let is_lead = |at: &usize| leads[*at] == Some(*at);
        let grouped = self.groups.iter().flatten().filter_map(|mid| self.with_mid(mid)).filter(is_lead);
        let mut order: Vec<usize> = Vec::new();
        for at in grouped.chain((0..leads.len()).filter(is_lead)) {
            if !order.contains(&at) {
                order.push(at);
            }
        }
        order
    }

    /// A section's credentials, or those that the session level gives to every section without its own.
    fn ice(&self, section: usize) -> Ice<'a> {
        let own = self.sections[section].ice;
        Ice { ufrag: own.ufrag.or(self.session.ufrag), pwd: own.pwd.or(self.session.pwd) }
    }

    fn candidates(&self, node_ports: &RangeInclusive<u16>) -> Vec<NodeCandidate> {
        let mut found: Vec<NodeCandidate> = Vec::new();
        for (at, section) in self.sections.iter().enumerate() {
            for line in &section.candidates {
                let Some(mut one) = parse_candidate(line).and_then(|one| acceptable(&one, node_ports)) else {
                    continue;
                };
                one.section = Some(at);
                one.ufrag = self.ice(at).ufrag.map(Into::into).or(one.ufrag);
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
        found
    }
}

impl<'a> Section<'a> {
    /// Reads `audio 9 UDP/TLS/RTP/SAVPF 111`.
    fn open(value: &'a str) -> Option<Self> {
        let mut words = value.split(' ');
        let kind = match words.next()? {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            "application" => MediaKind::Application,
            "" => return None,
            _ => MediaKind::Other,
        };
        let port = port(words.next()?)?;
        words.next()?;
        Some(Self { kind, port, mid: None, bundle_only: false, ice: Ice::default(), candidates: Vec::new() })
    }

    /// RFC 8843 §6: a `bundle-only` section has port 0 and is in use all the same.
    fn is_used(&self) -> bool {
        self.port != 0 || self.bundle_only
    }
}

/// Reads the port of an `m=` line, which may say how many follow (`5000/2`).
pub(super) fn port(word: &str) -> Option<u16> {
    let (port, count) = word.split_once('/').unwrap_or((word, "1"));
    let number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?;
    number(count)?;
    number(port)
}

/// Takes a credential that is legal and, if it stands twice, the same both times.
fn set<'a>(slot: &mut Option<&'a str>, value: &'a str, chars: &RangeInclusive<usize>) -> Result<(), SdpError> {
    // RFC 8839 §5.4 has the first four; libwebrtc also takes the others, for stacks that write them.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-=#_".contains(&byte);
    if !chars.contains(&value.len()) || !value.bytes().all(legal) || slot.is_some_and(|before| before != value) {
        return Err(SdpError::BadCredentials);
    }
    *slot = Some(value);
    Ok(())
}
