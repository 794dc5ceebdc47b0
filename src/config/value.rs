//! How one value is written: durations, sizes, addresses and words, from TOML or from an environment variable.
//!
//! Errors say what is wrong and what to write instead; the caller puts the key in front.

use std::{net::IpAddr, net::SocketAddr, ops::RangeInclusive, time::Duration};

use toml::Value;

use super::{AccessLog, ExternalIp, HttpEndpoint, IpRange, MediaMode, Proxy, TlsVersion};
use crate::domain::{
    balance::PublishPolicy,
    ids::{NodeId, Role, Zone},
};

/// What an operator gave for one key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    /// A value of the file.
    Toml(&'a Value),
    /// The text of an environment variable.
    Text(&'a str),
}

impl<'a> Given<'a> {
    /// The text, where the value is one.
    fn text(self, wanted: &str) -> Result<&'a str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml(Value::String(text)) => Ok(text),
            Self::Toml(other) => Err(format!("is {}; write {wanted}", article(other.type_str()))),
        }
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" | "inline table" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

/// Can be read from what an operator gave.
pub(super) trait FromGiven: Sized {
    /// Reads it, or says what is wrong and what to write instead.
    fn read(given: Given<'_>) -> Result<Self, String>;
}

impl FromGiven for String {
    fn read(given: Given<'_>) -> Result<Self, String> {
        given.text("a text in quotes").map(str::to_owned)
    }
}

impl FromGiven for bool {
    fn read(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Toml(Value::Boolean(value)) => Ok(*value),
            Given::Text("true") => Ok(true),
            Given::Text("false") => Ok(false),
            Given::Toml(_) | Given::Text(_) => Err("is not a truth value; write true or false, without quotes".into()),
        }
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl FromGiven for $number {
            fn read(given: Given<'_>) -> Result<Self, String> {
                let number = match given {
                    Given::Toml(Value::Integer(number)) => Some(*number),
                    Given::Text(text) => text.trim().replace('_', "").parse().ok(),
                    Given::Toml(_) => None,
                };
                let number = number.ok_or("is not a whole number; write one without quotes or unit")?;
                Self::try_from(number).map_err(|_| format!("{number} is out of range; write 0 to {}", Self::MAX))
            }
        }
    )*};
}
whole_numbers!(u16, u32, u64, usize);

impl FromGiven for f32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "settings are fractions like 0.25"
    )]
    fn read(given: Given<'_>) -> Result<Self, String> {
        let number = match given {
            Given::Toml(Value::Float(number)) => Some(*number as f32),
            Given::Toml(Value::Integer(number)) => Some(*number as f32),
            Given::Text(text) => text.trim().parse().ok(),
            Given::Toml(_) => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| "is not a number; write one such as 0.25".into())
    }
}

impl FromGiven for Duration {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "a duration in quotes such as \"2s\" or \"500ms\"";
        let text = given.text(WANTED)?;
        humantime::parse_duration(text.trim()).map_err(|why| format!("{text:?} is no duration ({why}); write {WANTED}"))
    }
}

/// A number of bytes: an integer, or a text such as `"256KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

impl FromGiven for Size {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "a number of bytes, or a text such as \"256KiB\" or \"1MiB\"";
        if let Given::Toml(Value::Integer(bytes)) = given {
            return usize::try_from(*bytes).map(Self).map_err(|_| format!("{bytes} is no size; write {WANTED}"));
        }
        let text = given.text(WANTED)?.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit: Option<usize> = match unit.trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = number.parse::<usize>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| format!("{text:?} is no size; write {WANTED}"))
    }
}

impl FromGiven for SocketAddr {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "an address and a port such as \"0.0.0.0:5080\" or \"[::]:5080\"";
        let text = given.text(WANTED)?.trim();
        text.parse().map_err(|_| format!("{text:?} is not IP:PORT; write {WANTED}"))
    }
}

impl FromGiven for IpAddr {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "an address without a port such as \"0.0.0.0\" or \"10.0.0.5\"";
        let text = given.text(WANTED)?.trim();
        text.parse().map_err(|_| format!("{text:?} is no address; write {WANTED}"))
    }
}

impl FromGiven for ExternalIp {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "an address such as \"198.51.100.10\", or with the local one \"198.51.100.10/10.0.0.5\"";
        let text = given.text(WANTED)?.trim();
        let (public, bind) = text.split_once('/').map_or((text, None), |(public, bind)| (public, Some(bind)));
        let address = |text: &str| text.parse::<IpAddr>().map(|ip| ip.to_canonical());
        let (Ok(public), Ok(bind)) = (address(public), bind.map(address).transpose()) else {
            return Err(format!("{text:?} is no address; write {WANTED}"));
        };
        Ok(Self { public, bind })
    }
}

/// Where a node is: an address, and a port unless `nodes.http_port` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeAddress {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
}

impl FromGiven for NodeAddress {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "an address such as \"10.0.1.11\" or \"10.0.1.11:5080\"";
        let text = given.text(WANTED)?.trim();
        let whole = text.parse::<SocketAddr>().map(|at| Self { ip: at.ip(), port: Some(at.port()) });
        let address = whole.or_else(|_| text.parse().map(|ip| Self { ip, port: None })).map_err(|_| {
            let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
            let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            let named = named && host.bytes().any(|b| b.is_ascii_alphabetic());
            match named {
                true => format!(
                    "{text:?} is a host name, and names are not resolved (a node must not move under its streams); \
                     write {WANTED}, and the name under `aliases` if AMS's records use it"
                ),
                false => format!("{text:?} is no address; write {WANTED}"),
            }
        })?;
        if address.ip.is_unspecified() || address.ip.is_multicast() || address.port == Some(0) {
            return Err(format!("{text:?} cannot be dialled; write {WANTED}"));
        }
        Ok(address)
    }
}

impl FromGiven for HttpEndpoint {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "the address of a collector such as \"http://127.0.0.1:4318\"";
        let text = given.text(WANTED)?.trim();
        text.parse().map_err(|()| format!("{text:?} is none; write {WANTED}"))
    }
}

impl FromGiven for IpRange {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "a range such as \"10.0.1.0/24\"";
        let text = given.text(WANTED)?.trim();
        parse_range(text).ok_or_else(|| format!("{text:?} is no address range; write {WANTED}"))
    }
}

/// Reads CIDR notation; a bare address is a range of one, an IPv4-mapped range is its IPv4 range.
fn parse_range(text: &str) -> Option<IpRange> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|p| *p <= width)?,
        Some(_) => return None,
        None => width,
    };
    match address.to_canonical() {
        mapped @ IpAddr::V4(_) if width == 128 => Some(IpRange { address: mapped, prefix: prefix.checked_sub(96)? }),
        address => Some(IpRange { address, prefix }),
    }
}

/// UDP ports from the first to the last: `"50000-60000"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports(pub(super) RangeInclusive<u16>);

impl FromGiven for Ports {
    fn read(given: Given<'_>) -> Result<Self, String> {
        const WANTED: &str = "the first and the last port such as \"50000-60000\"";
        let text = given.text(WANTED)?.trim();
        let ends = text
            .split_once('-')
            .and_then(|(low, high)| Some((low.trim().parse::<u16>().ok()?, high.trim().parse::<u16>().ok()?)));
        let (low, high) = ends.ok_or_else(|| format!("{text:?} is no port range; write {WANTED}"))?;
        if low == 0 || low > high {
            return Err(format!("{text:?} has no ports in it; write {WANTED}, the lower one first"));
        }
        Ok(Self(low..=high))
    }
}

macro_rules! names {
    ($($name:ty),*) => {$(
        impl FromGiven for $name {
            fn read(given: Given<'_>) -> Result<Self, String> {
                let text = given.text("a name in quotes")?;
                text.parse().map_err(|why| format!("{text:?}: {why}; use letters, digits and . _ : -"))
            }
        }
    )*};
}
names!(NodeId, Zone);

macro_rules! words {
    ($($of:ty: $($word:literal => $value:expr),+;)*) => {$(
        impl FromGiven for $of {
            fn read(given: Given<'_>) -> Result<Self, String> {
                const WORDS: &str = concat!("one of" $(, " \"", $word, "\"")+);
                let text = given.text(WORDS)?;
                match text {
                    $($word => Ok($value),)+
                    _ => Err(format!("{text:?} is not known here; write {WORDS}")),
                }
            }
        }
    )*};
}

/// Where a play goes that names a publish of its own session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conference {
    WithPublisher,
    Edge,
}

words! {
    Role: "origin" => Self::Origin, "edge" => Self::Edge, "both" => Self::Both;
    PublishPolicy: "least-loaded" => Self::LeastLoaded, "two-choices" => Self::TwoChoices,
        "round-robin" => Self::RoundRobin, "hash" => Self::Hash;
    Conference: "with-publisher" => Self::WithPublisher, "edge" => Self::Edge;
    AccessLog: "off" => Self::Off, "redacted" => Self::Redacted, "full" => Self::Full;
    Proxy: "off" => Self::Off, "optional" => Self::Optional, "required" => Self::Required;
    TlsVersion: "1.2" => Self::V1_2, "1.3" => Self::V1_3;
    MediaMode: "relay" => Self::Relay, "direct" => Self::Direct;
}

/// Most entries of one list; a longer one is a problem.
const LONGEST_LIST: usize = 10_000;

impl<T: FromGiven> FromGiven for Vec<T> {
    fn read(given: Given<'_>) -> Result<Self, String> {
        let items: Vec<Result<T, String>> = match given {
            Given::Toml(Value::Array(items)) if items.len() > LONGEST_LIST => {
                return Err(format!("has {} entries; at most {LONGEST_LIST} are read", items.len()));
            }
            Given::Toml(Value::Array(items)) => items.iter().map(|item| T::read(Given::Toml(item))).collect(),
            Given::Toml(other) => {
                return Err(format!("is {}; write a list such as [\"a\", \"b\"]", article(other.type_str())));
            }
            // In an environment variable: comma-separated.
            Given::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| T::read(Given::Text(item))).collect()
            }
        };
        let wrong: Vec<&str> = items.iter().filter_map(|item| item.as_ref().err().map(String::as_str)).collect();
        if wrong.is_empty() { Ok(items.into_iter().flatten().collect()) } else { Err(wrong.join("; and ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromGiven>(text: &str) -> Result<T, String> {
        T::read(Given::Text(text))
    }

    #[test]
    fn sizes_and_durations_are_read_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("512", 512), ("256KiB", 262_144), ("1 MiB", 1 << 20)] {
            assert_eq!(read::<Size>(text), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(Size::read(Given::Toml(&Value::Integer(7))), Ok(Size(7)));
        for bad in ["", "KiB", "1KB", "-1", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(read::<Size>(bad).is_err(), "{bad}");
        }
        assert_eq!(read::<Duration>("1m 500ms"), Ok(Duration::from_millis(60_500)));
        assert!(read::<Duration>("5").unwrap_err().contains("\"2s\""), "a number without a unit teaches the unit");
        assert!(Duration::read(Given::Toml(&Value::Integer(5))).unwrap_err().contains("an integer"));
    }

    #[test]
    fn a_range_holds_its_addresses_whatever_family_it_is_written_in() {
        let range = read::<IpRange>("10.0.1.7/24").unwrap();
        assert!(range.contains("10.0.1.255".parse().unwrap()));
        assert!(range.contains("::ffff:10.0.1.1".parse().unwrap()));
        assert!(!range.contains("10.0.2.1".parse().unwrap()));
        assert_eq!(read::<IpRange>("::ffff:10.0.0.0/104"), read::<IpRange>("10.0.0.0/8"));
        assert!(read::<IpRange>("::/0").unwrap().contains("fd00::1".parse().unwrap()));
        for bad in ["10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "::ffff:10.0.0.0/90", "a/8"] {
            assert!(read::<IpRange>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_address_is_an_address_and_a_host_name_is_told_why_not() {
        let at = read::<NodeAddress>("10.0.0.1").unwrap();
        assert_eq!((at.ip, at.port), ("10.0.0.1".parse().unwrap(), None));
        assert_eq!(read::<NodeAddress>("[fd00::1]:5080").unwrap().port, Some(5080));
        assert!(read::<NodeAddress>("ams-1.example:5080").unwrap_err().contains("host name"));
        assert!(read::<NodeAddress>("10.0.0:5080").unwrap_err().contains("no address"));
        assert!(read::<NodeAddress>("0.0.0.0:5080").unwrap_err().contains("cannot be dialled"));
    }

    #[test]
    fn a_list_names_every_wrong_entry() {
        let why = read::<Vec<IpRange>>("10.0.0.0/8, x, y").unwrap_err();
        assert!(why.contains("\"x\"") && why.contains("\"y\""), "{why}");
        assert_eq!(read::<Vec<IpRange>>("").unwrap(), []);
    }

    #[test]
    fn an_external_address_may_name_the_local_one() {
        let pair = read::<ExternalIp>("198.51.100.10/10.0.0.5").unwrap();
        assert_eq!(pair.bind, Some("10.0.0.5".parse().unwrap()));
        assert_eq!(read::<ExternalIp>("2001:db8::1").unwrap().bind, None);
        for bad in ["", "/", "198.51.100.10/", "198.51.100.10/24", "198.51.100.10:5000", "door.example"] {
            assert!(read::<ExternalIp>(bad).is_err(), "{bad}");
        }
    }
}
