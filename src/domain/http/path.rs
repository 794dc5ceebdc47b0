//! A request's path in one spelling, so that no rule can be walked around by writing the same path differently.
//!
//! Tomcat, behind the door, decodes escapes, drops path parameters (`;x`) and resolves dot segments before it maps a path
//! to a servlet. The door does the same first, and sends on what it has judged: nobody decides by another spelling.

use std::borrow::Cow;

/// Why a path is refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("the path is not absolute")]
    NotAbsolute,
    /// A percent sign without two hexadecimal digits, or an escape of an escape.
    #[error("the path has an escape that cannot be read")]
    Escape,
    /// A slash, backslash, semicolon or control character, escaped or not, where it would mean different things to
    /// different readers; or a byte outside ASCII.
    #[error("the path has a character that does not belong there")]
    Character,
    /// `..` leads out of the root.
    #[error("the path leads above the root")]
    AboveRoot,
}

/// The path with unreserved characters unescaped, all other escapes in capitals, path parameters dropped, double slashes
/// single and dot segments resolved. Most paths are that already and are borrowed.
///
/// # Errors
/// [`BadPath`], where readers could disagree about what the path means.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    if !raw.starts_with('/') {
        return Err(BadPath::NotAbsolute);
    }
    if is_normal(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut path = String::with_capacity(raw.len());
    let mut segments = raw[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        // Tomcat drops parameters before it looks for dot segments: `/..;x/` is `/../` to it.
        let segment = unescape(segment.split(';').next().unwrap_or(segment))?;
        match &*segment {
            "" | "." => {}
            ".." => path.truncate(path.rfind('/').ok_or(BadPath::AboveRoot)?),
            name => {
                path.push('/');
                path.push_str(name);
                continue;
            }
        }
        if is_last {
            path.push('/');
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(Cow::Owned(path))
}

/// Whether a path that begins with a slash is in its one spelling already.
fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        let is_slash = byte == b'/';
        if after_slash && (is_slash || byte == b'.') || !(is_slash || is_plain(byte)) {
            return false;
        }
        after_slash = is_slash;
    }
    true
}

/// Whether a byte stands for itself in a segment (RFC 3986 `pchar` without `;`).
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,=:@".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// One segment with its escapes in one spelling.
fn unescape(segment: &str) -> Result<Cow<'_, str>, BadPath> {
    if segment.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(segment));
    }
    let mut plain = String::with_capacity(segment.len() + 8);
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            push(&mut plain, byte, false)?;
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(digit), bytes.next().and_then(digit)) else {
            return Err(BadPath::Escape);
        };
        push(&mut plain, high << 4 | low, true)?;
    }
    // `%25` is a percent sign; where two digits follow, a second reader would see another escape.
    let twice = plain.match_indices("%25").any(|(at, _)| {
        let next = plain.as_bytes().get(at + 3..at + 5);
        next.is_some_and(|next| next.iter().all(u8::is_ascii_hexdigit))
    });
    if twice { Err(BadPath::Escape) } else { Ok(Cow::Owned(plain)) }
}

fn push(plain: &mut String, byte: u8, escaped: bool) -> Result<(), BadPath> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    match byte {
        b'/' | b'\\' | b';' | 0..0x20 | 0x7f => return Err(BadPath::Character),
        0x80.. if !escaped => return Err(BadPath::Character),
        _ if is_unreserved(byte) || (!escaped && is_plain(byte)) => plain.push(char::from(byte)),
        _ => {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)]));
            plain.extend(['%', high, low]);
        }
    }
    Ok(())
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_judged_and_sent_on_as_the_same_one() {
        for (raw, normal) in [
            ("/", "/"),
            ("/LiveApp/streams/s.m3u8", "/LiveApp/streams/s.m3u8"),
            ("/LiveApp/./streams//s.m3u8", "/LiveApp/streams/s.m3u8"),
            ("/LiveApp/streams/../rest/v2", "/LiveApp/rest/v2"),
            ("/LiveApp/streams/..;/rest/v2", "/LiveApp/rest/v2"),
            ("/LiveApp/;x=1/rest;jsessionid=A/v2;", "/LiveApp/rest/v2"),
            ("/LiveApp/%72%65st/v2", "/LiveApp/rest/v2"),
            ("/LiveApp/%2e%2E/%2e/other", "/other"),
            ("/LiveApp/a%c3%a4%20b", "/LiveApp/a%C3%A4%20b"),
            ("/LiveApp/a{b}|\"", "/LiveApp/a%7Bb%7D%7C%22"),
            ("/LiveApp/100%25", "/LiveApp/100%25"),
            ("/LiveApp/..", "/"),
            ("/LiveApp/streams/.", "/LiveApp/streams/"),
            ("/LiveApp/streams/..", "/LiveApp/"),
            ("//", "/"),
            ("/LiveApp/", "/LiveApp/"),
            ("/LiveApp/.hidden/a.b..c", "/LiveApp/.hidden/a.b..c"),
        ] {
            assert_eq!(normalise(raw).as_deref(), Ok(normal), "{raw}");
        }
    }

    #[test]
    fn a_path_that_readers_could_disagree_about_is_refused() {
        for (raw, why) in [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("LiveApp", BadPath::NotAbsolute),
            ("/a%2frest", BadPath::Character),
            ("/a%5Crest", BadPath::Character),
            ("/a\\rest", BadPath::Character),
            ("/a%00", BadPath::Character),
            ("/a%0d%0aHost:x", BadPath::Character),
            ("/a%3Bx", BadPath::Character),
            ("/a\u{e4}", BadPath::Character),
            ("/a%7f", BadPath::Character),
            ("/a%", BadPath::Escape),
            ("/a%2", BadPath::Escape),
            ("/a%zz", BadPath::Escape),
            ("/a%252e%252e/b", BadPath::Escape),
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%2e%2e;x/b", BadPath::AboveRoot),
        ] {
            assert_eq!(normalise(raw), Err(why), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_stays_as_it_is_and_has_nothing_left_to_resolve(raw in "/[a-c./;%252eE5fF ]{0,24}") {
            if let Ok(path) = normalise(&raw) {
                let again = normalise(&path);
                prop_assert_eq!(again.as_deref(), Ok(&*path));
                prop_assert!(path.starts_with('/') && !path.contains("//") && !path.contains(';'));
                prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
