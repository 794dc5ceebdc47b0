//! SDP as lines that add up to the text again: nothing is trimmed, joined or normalised.

/// One line with the ending that it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The line without its ending.
    pub(super) body: &'a str,
    /// `\r\n`, `\n`, or nothing at the end of the text.
    pub(super) ending: &'a str,
}

/// The lines of a text, in order; concatenated they are the text.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(whole);
        let body = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        let ending = &line[body.len()..];
        rest = after;
        Some(Line { body, ending })
    })
}

impl<'a> Line<'a> {
    /// The letter before `=`, or `None` for what is no line of SDP: neither is one with a lone CR or a NUL inside, which
    /// would end the line or the text for some parsers only.
    pub(super) fn letter(&self) -> Option<u8> {
        match self.body.as_bytes() {
            [letter @ b'a'..=b'z', b'=', rest @ ..] if !rest.contains(&0) && !rest.contains(&b'\r') => Some(*letter),
            _ => None,
        }
    }

    /// What follows `=`; empty for what is no line of SDP.
    pub(super) fn value(&self) -> &'a str {
        self.body.get(2..).unwrap_or_default()
    }

    /// Whether there is nothing on it but spaces.
    pub(super) fn is_blank(&self) -> bool {
        self.body.bytes().all(|byte| b" \t".contains(&byte))
    }

    /// Name and value of an `a=` line; the value of a flag is empty.
    pub(super) fn attribute(&self) -> Option<(&'a str, &'a str)> {
        let attribute = self.body.strip_prefix("a=")?;
        Some(attribute.split_once(':').unwrap_or((attribute, "")))
    }

    /// Whether it is one of these attributes, also where a parser laxer than the grammar would see one.
    pub(super) fn is_any_of(&self, names: &[&str]) -> bool {
        let Some(attribute) = self.body.strip_prefix("a=") else { return false };
        let name = attribute.trim_ascii_start().split([':', ' ', '\t']).next().unwrap_or_default();
        names.iter().any(|one| one.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_line_keeps_its_own_ending() {
        let found: Vec<_> = lines("v=0\r\ns=-\n\r\na=x\r\r\na=y\r").map(|line| (line.body, line.ending)).collect();

        assert_eq!(found, [("v=0", "\r\n"), ("s=-", "\n"), ("", "\r\n"), ("a=x\r", "\r\n"), ("a=y\r", "")]);
    }

    #[test]
    fn attributes_have_a_name_and_a_value() {
        let attribute = |body| Line { body, ending: "" }.attribute();

        assert_eq!(attribute("a=mid:0"), Some(("mid", "0")));
        assert_eq!(attribute("a=rtcp-mux"), Some(("rtcp-mux", "")));
        assert_eq!(attribute("m=audio 9"), None);
        assert!(Line { body: "a= Candidate 1", ending: "" }.is_any_of(&["candidate"]));
        assert_eq!(Line { body: "a=x\ra=candidate:1", ending: "" }.letter(), None);
        assert!(!Line { body: "a=candidates:1", ending: "" }.is_any_of(&["candidate"]));
    }

    proptest! {
        #[test]
        fn lines_add_up_to_the_text(text in "([a-z]=|[\r\n]|\\PC){0,40}") {
            let whole: String = lines(&text).flat_map(|line| [line.body, line.ending]).collect();

            prop_assert_eq!(whole, text);
        }
    }
}
