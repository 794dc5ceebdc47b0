//! `[[listen]]` and `[tls]`: where clients come in, and what they and the peers before them may say.

use std::{net::SocketAddr, path::PathBuf};

use crate::config::{
    Certificate, Listen, Problems, Proxy, Tls, TlsVersion,
    raw::{RawCertificate, RawListen, RawTls},
};

const DEFAULT: &str = "0.0.0.0:5080";
/// Most certificates; each is kept in memory, parsed.
const MOST_CERTIFICATES: usize = 1000;

pub(super) fn listen(raw: Vec<RawListen>, problems: &mut Problems) -> Vec<Listen> {
    let default = DEFAULT.parse().expect("a literal address");
    if raw.is_empty() {
        return vec![Listen::plain(default)];
    }
    let several = raw.len() > 1;
    raw.into_iter().enumerate().map(|(nth, listen)| one(nth, listen, several, default, problems)).collect()
}

fn one(nth: usize, raw: RawListen, several: bool, default: SocketAddr, problems: &mut Problems) -> Listen {
    // A problem with the value itself is already told; two listeners without one would collide.
    let key = format!("listen[{nth}].bind");
    if raw.bind.is_none() && several && !problems.as_slice().iter().any(|problem| problem.key == key) {
        problems.add(key, format!("is missing; write one such as \"{DEFAULT}\""));
    }
    let listen = Listen {
        bind: raw.bind.unwrap_or(default),
        ice_tcp: raw.ice_tcp.unwrap_or(false),
        tls: raw.tls.unwrap_or(false),
        proxy: raw.proxy.unwrap_or(Proxy::Off),
        trusted: raw.trusted.unwrap_or_default(),
    };
    if listen.proxy != Proxy::Off {
        if listen.trusted.is_empty() {
            let what = "needs to know from whom a header is believed; write the load balancer's addresses into \
                        `trusted`, such as [\"100.64.0.0/10\"]";
            problems.add(format!("listen[{nth}].proxy"), what);
        }
        if listen.ice_tcp {
            let what = "cannot be where a load balancer writes PROXY headers: clients are told this door's own address \
                        and connect to it themselves; give ICE-TCP a listener of its own";
            problems.add(format!("listen[{nth}].ice_tcp"), what);
        }
    }
    listen
}

pub(super) fn tls(raw: RawTls, certificates: Vec<RawCertificate>, listen: &[Listen], problems: &mut Problems) -> Tls {
    if certificates.len() > MOST_CERTIFICATES {
        let what = format!("has {} certificates; at most {MOST_CERTIFICATES} are kept", certificates.len());
        problems.add("tls.certificates", what);
    }
    let mut checked = Vec::with_capacity(certificates.len());
    for (nth, certificate) in certificates.into_iter().enumerate() {
        let mut file = |name: &str, given: Option<String>| {
            let key = format!("tls.certificates[{nth}].{name}");
            match given {
                Some(path) => Some(PathBuf::from(path)),
                None => {
                    if !problems.as_slice().iter().any(|problem| problem.key == key) {
                        problems.add(key, "is missing; write the path of a PEM file");
                    }
                    None
                }
            }
        };
        if let (Some(cert), Some(key)) = (file("cert", certificate.cert), file("key", certificate.key)) {
            checked.push(Certificate { cert, key });
        }
    }
    let wants = listen.iter().position(|listen| listen.tls);
    let told = problems.as_slice().iter().any(|problem| problem.key.starts_with("tls.certificates"));
    if let Some(nth) = wants.filter(|_| checked.is_empty() && !told) {
        let what = "needs a certificate; write [tls] with certificates = [{ cert = \"…\", key = \"…\" }]";
        problems.add(format!("listen[{nth}].tls"), what);
    }
    Tls { certificates: checked, min_version: raw.min_version.unwrap_or(TlsVersion::V1_2) }
}

/// Two rooms on one port would fail at start only, one of them with "address in use".
pub(super) fn one_per_address(
    listen: &[Listen],
    admin: SocketAddr,
    health: Option<SocketAddr>,
    problems: &mut Problems,
) {
    let public = listen.iter().enumerate().map(|(nth, listen)| (format!("listen[{nth}].bind"), listen.bind));
    let others = [Some(("admin.bind".to_owned(), admin)), health.map(|bind| ("health.bind".to_owned(), bind))];
    let all: Vec<_> = public.chain(others.into_iter().flatten()).collect();
    for (nth, (key, bind)) in all.iter().enumerate() {
        let clash = all[..nth].iter().find(|(_, other)| {
            let same_ip = other.ip() == bind.ip() || other.ip().is_unspecified() || bind.ip().is_unspecified();
            same_ip && other.is_ipv4() == bind.is_ipv4() && other.port() == bind.port() && bind.port() != 0
        });
        if let Some((other, _)) = clash {
            problems.add(key, format!("{bind} is already taken by {other}; choose another port"));
        }
    }
}
