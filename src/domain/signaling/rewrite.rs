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
