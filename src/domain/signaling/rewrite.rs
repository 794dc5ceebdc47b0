//! Reads or replaces one string field of a message; every other byte stays as it came.
//!
//! AMS's SDPs and candidates are strings inside JSON objects. A field that stands twice is not touched: the door and
//! its reader could each believe another one of the two.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The decoded value of the object's own field `field`. `None` if `json` is no object, the field is absent, stands
/// twice or is not a string. Borrows where nothing is escaped.
pub fn string_field<'a>(json: &'a [u8], field: &str) -> Option<Cow<'a, str>> {
    let raw = raw_field(json, field)?;
    let quoted = raw.strip_prefix('"')?.strip_suffix('"')?;
    if quoted.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(quoted)) }
}

/// The message with the value of `field` replaced by `with`, escaped as JSON needs it. `None` as for [`string_field`].
pub fn replace_string_field(json: &[u8], field: &str, with: &str) -> Option<Vec<u8>> {
    let raw = raw_field(json, field).filter(|raw| raw.starts_with('"'))?;
    let Range { start, end } = range_in(json, raw)?;
    let with = serde_json::to_vec(with).ok()?;
    Some([&json[..start], &with, &json[end..]].concat())
}

/// The value as it stands in `json`.
fn raw_field<'a>(json: &'a [u8], field: &str) -> Option<&'a str> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let found = Field(field).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    found.map(RawValue::get)
}

/// Where `part`, which was borrowed from `whole`, stands in it.
fn range_in(whole: &[u8], part: &str) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let range = start..start.checked_add(part.len())?;
    (whole.get(range.clone())? == part.as_bytes()).then_some(range)
}

/// Walks an object for one of its keys.
struct Field<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Key(self.0))? {
            if !is_it {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value::<&'de RawValue>()?).is_some() {
                return Err(A::Error::custom("a field stands twice"));
            }
        }
        Ok(found)
    }
}

/// Compares a key without keeping it.
struct Key<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const MESSAGE: &str = concat!(
        r#" {"command":"takeConfiguration", "sdp" : "v=0\r\no=- \/x\u0041" ,"type":"offer","#,
        r#""n":1.0e2,"label":[{"sdp":"no"}]} "#
    );

    #[test]
    fn the_field_is_replaced_and_every_other_byte_stays() {
        let out = replace_string_field(MESSAGE.as_bytes(), "sdp", "a\r\n\"b\\").unwrap();

        let expected = MESSAGE.replace(r#""v=0\r\no=- \/x\u0041""#, r#""a\r\n\"b\\""#);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_field_is_read_unescaped_and_borrowed_where_it_can_be() {
        assert_eq!(string_field(MESSAGE.as_bytes(), "sdp").as_deref(), Some("v=0\r\no=- /xA"));
        assert!(matches!(string_field(MESSAGE.as_bytes(), "type"), Some(Cow::Borrowed("offer"))));
        assert_eq!(string_field(br#"{"s\u0064p":"x"}"#, "sdp").as_deref(), Some("x"), "an escaped key is that key");
        assert_eq!(string_field(br#"{"candidate":""}"#, "candidate").as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_string_or_not_there_once_is_not_touched() {
        for json in [
            r#"{"sdp":null}"#,
            r#"{"sdp":{"sdp":"x"}}"#,
            r#"{"sdp":["x"]}"#,
            r#"{"type":"x"}"#,
            r#"{"sdp":"x","s\u0064p":"y"}"#,
            r#"["sdp","x"]"#,
            r#"{"sdp":"x"} trailing"#,
            r#"{"sdp":"x""#,
            r#"{"sdp":"\ud800"}"#,
            "\"sdp\"",
            "",
        ] {
            assert_eq!(string_field(json.as_bytes(), "sdp"), None, "{json}");
        }
        assert_eq!(replace_string_field(br#"{"sdp":1}"#, "sdp", "x"), None);
        assert_eq!(replace_string_field(br#"{"sdp":"x","sdp":"y"}"#, "sdp", "x"), None);
        assert_eq!(string_field(b"{\"sdp\":\"\xff\"}", "sdp"), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            before in "\\PC{0,20}",
            old in "[\\PC\r\n\t\"]{0,20}",
            new in "[\\PC\r\n\t\"\0]{0,20}",
            last in "\\PC{0,20}",
        ) {
            let message = json!({"a": before, "sdp": old, "z": [last]});
            let json = message.to_string();
            let read = |json: &[u8]| string_field(json, "sdp").map(Cow::into_owned);
            prop_assert_eq!(read(json.as_bytes()), Some(old.clone()));

            let out = replace_string_field(json.as_bytes(), "sdp", &new).unwrap();
            prop_assert_eq!(read(&out), Some(new));
            let mut whole: Value = serde_json::from_slice(&out).unwrap();
            whole["sdp"] = old.clone().into();
            prop_assert_eq!(whole, message);
            let back = replace_string_field(&out, "sdp", &old).unwrap();
            prop_assert_eq!(String::from_utf8(back).unwrap(), json);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            cut in 0..MESSAGE.len(),
            at in 0..MESSAGE.len(),
            with: u8,
        ) {
            let mut broken = MESSAGE.as_bytes().to_vec();
            broken[at] = with;
            for json in [&bytes, &broken, &broken[..cut]] {
                prop_assert_eq!(string_field(json, "sdp").is_some(), replace_string_field(json, "sdp", "x").is_some());
            }
        }
    }
}
