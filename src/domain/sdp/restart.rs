//! What WHIP and WHEP say about ICE beside whole descriptions: candidates that come later, and restarts (RFC 9725 §4.3).

use super::{
    Credentials, MAX_SDP, SdpError,
    lines::lines,
    outline::{self, Form},
};

/// A client's `application/trickle-ice-sdpfrag`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// The ICE generation that it speaks of, where it says so.
    pub credentials: Option<Credentials>,
    /// `candidate:…`, each with the mid of the section that it stands in. At most [`super::MAX_CANDIDATES`].
    pub candidates: Vec<(Option<String>, String)>,
}

/// Reads a client's fragment.
///
/// # Errors
/// It is not SDP, is too large, or has malformed credentials.
pub fn read_frag(frag: &str) -> Result<Fragment, SdpError> {
    let mut description = outline::read(frag, Form::Fragment, None)?;
    let credentials = session_credentials(frag).or_else(|| description.transports.drain(..).next());
    let (mut candidates, mut mids, mut section) = (Vec::new(), Vec::new(), 0usize);
    for line in lines(frag) {
        match line.letter() {
            Some(b'm') => {
                mids.push(None);
                section = mids.len();
            }
            Some(b'a') => match line.attribute() {
                Some(("mid", mid)) if section > 0 => mids[section - 1] = Some(mid.trim().to_owned()),
                Some(("candidate", value)) => candidates.push((section, format!("candidate:{}", value.trim()))),
                _ => {}
            },
            _ => {}
        }
    }
    let with_mid =
        |(section, candidate): (usize, String)| (section.checked_sub(1).and_then(|at| mids[at].clone()), candidate);
    Ok(Fragment { credentials, candidates: candidates.into_iter().map(with_mid).collect() })
}

/// A fragment may name its generation before any section, and have none.
fn session_credentials(frag: &str) -> Option<Credentials> {
    let session = || lines(frag).take_while(|line| line.letter() != Some(b'm'));
    let value = |name: &str| session().find_map(|line| line.attribute().filter(|(own, _)| *own == name));
    Some(Credentials { ufrag: value("ice-ufrag")?.1.into(), pwd: value("ice-pwd")?.1.into() })
}

/// The offer of an ICE restart: `offer` in the next version, with these credentials and no candidates.
///
/// # Errors
/// `offer` is not SDP.
pub fn restarted(offer: &str, credentials: &Credentials) -> Result<String, SdpError> {
    outline::read(offer, Form::Whole, None)?;
    let mut out = String::with_capacity(offer.len());
    for line in lines(offer) {
        let body = match (line.letter(), line.attribute()) {
            (Some(b'o'), _) => next_version(line.value()).ok_or(SdpError::Malformed)?,
            (_, Some(("ice-ufrag", _))) => format!("a=ice-ufrag:{}", credentials.ufrag),
            (_, Some(("ice-pwd", _))) => format!("a=ice-pwd:{}", credentials.pwd),
            _ if line.is_any_of(&["candidate", "end-of-candidates", "remote-candidates"]) => continue,
            _ => line.body.to_owned(),
        };
        out.push_str(&body);
        out.push_str(line.ending);
    }
    Ok(out)
}

/// `sdp` with these credentials in place of its own, wherever it has some.
pub fn renamed(sdp: &str, credentials: &Credentials) -> String {
    let mut out = String::with_capacity(sdp.len());
    for line in lines(sdp) {
        match line.attribute() {
            Some(("ice-ufrag", _)) => out.extend(["a=ice-ufrag:", &credentials.ufrag]),
            Some(("ice-pwd", _)) => out.extend(["a=ice-pwd:", &credentials.pwd]),
            _ => out.push_str(line.body),
        }
        out.push_str(line.ending);
    }
    out
}

/// `o=` with its version one higher (RFC 3264 §8).
fn next_version(origin: &str) -> Option<String> {
    let mut words: Vec<String> = origin.split_ascii_whitespace().map(str::to_owned).collect();
    let version = words.get_mut(2)?;
    *version = version.parse::<u64>().ok()?.wrapping_add(1).to_string();
    Some(format!("o={}", words.join(" ")))
}

/// The fragment that answers an ICE restart, out of the description that answers its offer.
///
/// # Errors
/// `answer` is not SDP, or has no credentials.
pub fn answered_frag(answer: &str) -> Result<String, SdpError> {
    let description = outline::read(answer, Form::Whole, None)?;
    let leads = description.media.iter().position(|media| media.tagged).ok_or(SdpError::NoCredentials)?;
    let credentials = description.media[leads].transport.and_then(|at| description.transports.get(at));
    let credentials = credentials.ok_or(SdpError::NoCredentials)?;
    let session = lines(answer).take_while(|line| line.letter() != Some(b'm'));
    let mut out: Vec<String> =
        session.filter(|line| line.is_any_of(&["ice-lite"])).map(|line| line.body.to_owned()).collect();
    out.extend([format!("a=ice-ufrag:{}", credentials.ufrag), format!("a=ice-pwd:{}", credentials.pwd)]);
    let wanted = |line: &super::lines::Line<'_>| {
        line.letter() == Some(b'm') || line.is_any_of(&["mid", "candidate", "end-of-candidates"])
    };
    let section = sections(answer).nth(leads).unwrap_or_default();
    out.extend(lines(section).filter(wanted).map(|line| line.body.to_owned()));
    Ok(out.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect())
}

/// The description with these candidates (`candidate:…`) in the section that leads, and no more to come.
///
/// # Errors
/// `sdp` is not SDP, or becomes too large.
pub fn with_candidates(sdp: &str, candidates: &[String]) -> Result<String, SdpError> {
    let description = outline::read(sdp, Form::Whole, None)?;
    let leads = description.media.iter().position(|media| media.tagged).ok_or(SdpError::NoCredentials)?;
    let mut out = lines(sdp)
        .take_while(|line| line.letter() != Some(b'm'))
        .flat_map(|line| [line.body, line.ending])
        .collect::<String>();
    for (at, section) in sections(sdp).enumerate() {
        if at != leads {
            out.push_str(section);
            continue;
        }
        for line in lines(section).filter(|line| !line.is_any_of(&["end-of-candidates"]) && !line.is_blank()) {
            out.push_str(line.body);
            out.push_str("\r\n");
        }
        out.extend(candidates.iter().map(|one| format!("a={one}\r\n")));
        out.push_str("a=end-of-candidates\r\n");
    }
    if out.len() > MAX_SDP { Err(SdpError::TooLarge) } else { Ok(out) }
}

/// Whether a description has a candidate.
pub fn has_candidates(sdp: &str) -> bool {
    lines(sdp).any(|line| line.is_any_of(&["candidate"]))
}

/// The mid of the section that leads, and its index.
pub fn leading(sdp: &str) -> Option<(Option<String>, usize)> {
    let description = outline::read(sdp, Form::Whole, None).ok()?;
    let at = description.media.iter().position(|media| media.tagged)?;
    Some((description.media[at].mid.as_deref().map(str::to_owned), at))
}

/// The m-sections as text.
fn sections(sdp: &str) -> impl Iterator<Item = &str> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in lines(sdp) {
        if line.letter() == Some(b'm') {
            starts.push(at);
        }
        at += line.body.len() + line.ending.len();
    }
    let ends = starts.clone().into_iter().skip(1).chain([sdp.len()]);
    starts.into_iter().zip(ends.collect::<Vec<_>>()).map(|(start, end)| &sdp[start..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFER: &str = include_str!("../../../tests/golden/sdp/chromium-offer.sdp");
    const ANSWER: &str = include_str!("../../../tests/golden/sdp/str0m-answer.sdp");
    const TRICKLE: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
        a=end-of-candidates\r\n";

    #[test]
    fn a_fragment_is_read_with_its_generation_and_its_candidates() {
        let frag = read_frag(TRICKLE).unwrap();
        assert_eq!(frag.credentials.as_ref().map(|own| &*own.ufrag), Some("EsAw"));
        let [(mid, candidate)] = &frag.candidates[..] else { panic!("{frag:?}") };
        assert_eq!(mid.as_deref(), Some("0"));
        assert!(candidate.starts_with("candidate:1387637174 1 udp"), "{candidate}");

        let only_credentials = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";
        assert!(read_frag(only_credentials).unwrap().credentials.is_some());
        assert_eq!(read_frag("m=audio 9 RTP/AVP 0\r\na=mid:0\r\n").unwrap(), Fragment::default());
        assert_eq!(read_frag("not a fragment"), Err(SdpError::Malformed));
        assert_eq!(read_frag("a=ice-ufrag:x\r\n"), Err(SdpError::BadCredentials));
    }

    #[test]
    fn a_restart_offers_the_same_with_new_credentials() {
        let credentials = Credentials { ufrag: "NewU".into(), pwd: "NewPasswordOfTwentyTwo".into() };
        let again = restarted(OFFER, &credentials).unwrap();

        let described = outline::read(&again, Form::Whole, None).unwrap();
        assert_eq!(described.transports, [credentials]);
        assert_eq!(described.media, outline::read(OFFER, Form::Whole, None).unwrap().media);
        assert!(!has_candidates(&again));
        let version = |sdp: &str| sdp.lines().nth(1).unwrap().split(' ').nth(2).unwrap().parse::<u64>().unwrap();
        assert_eq!(version(&again), version(OFFER) + 1);
    }

    #[test]
    fn the_answer_to_a_restart_is_what_its_description_says_of_ice() {
        let frag = answered_frag(ANSWER).unwrap();
        let described = outline::read(ANSWER, Form::Whole, None).unwrap();

        let read = read_frag(&frag).unwrap();
        assert_eq!(read.credentials.as_ref(), described.transports.first());
        assert_eq!(frag.matches("m=").count(), 1, "{frag}");
        assert!(!frag.contains("fingerprint") && !frag.contains("rtpmap"), "{frag}");
    }

    #[test]
    fn late_candidates_join_the_section_that_leads_and_are_the_last() {
        let bare: String = OFFER
            .lines()
            .filter(|line| !line.starts_with("a=candidate") && !line.starts_with("a=end-of"))
            .flat_map(|line| [line, "\r\n"])
            .collect();
        let ours = ["candidate:1 1 udp 2130706431 198.51.100.10 5000 typ host".to_owned()];
        let whole = with_candidates(&bare, &ours).unwrap();

        assert_eq!(whole.matches("a=candidate:1 1 udp").count(), 1);
        let first = sections(&whole).next().unwrap();
        assert!(first.ends_with("5000 typ host\r\na=end-of-candidates\r\n"), "{first}");
        assert_eq!(sections(&whole).count(), sections(&bare).count());
        assert_eq!(leading(&whole), Some((Some("0".to_owned()), 0)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((a=ice-ufrag:|a=ice-pwd:|m=audio 9 X 0|a=mid:|a=candidate:|o=- 1 1|v=0)[ -~]{0,30}\r?\n){0,12}") {
            let credentials = Credentials { ufrag: "NewU".into(), pwd: "NewPasswordOfTwentyTwo".into() };
            let _ = (read_frag(&text), restarted(&text, &credentials), answered_frag(&text));
            let _ = (with_candidates(&text, &["candidate:1".to_owned()]), leading(&text));
        }
    }
}
