//! `[[listen]]` and `[tls]`: where clients come in, and what they and the peers before them may say.

use std::{net::SocketAddr, path::PathBuf};

use crate::config::{
    Acme, Certificate, Door, Listen, Problems, Proxy, Tls, TlsVersion,
    raw::{RawAcme, RawCertificate, RawListen, RawTls},
};

const DEFAULT: &str = "0.0.0.0:5080";
/// Most certificates; each is kept in memory, parsed.
const MOST_CERTIFICATES: usize = 1000;
/// Let's Encrypt puts at most so many names into a certificate.
const MOST_DOMAINS: usize = 100;
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

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

pub(super) fn tls(
    raw: RawTls,
    certificates: Vec<RawCertificate>,
    acme: Option<Acme>,
    listen: &[Listen],
    problems: &mut Problems,
) -> Tls {
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
    if let Some(nth) = wants.filter(|_| checked.is_empty() && acme.is_none() && !told) {
        let what = "needs a certificate; write [tls] with certificates = [{ cert = \"…\", key = \"…\" }]";
        problems.add(format!("listen[{nth}].tls"), what);
    }
    Tls { certificates: checked, min_version: raw.min_version.unwrap_or(TlsVersion::V1_2), acme }
}

pub(super) fn acme(raw: RawAcme, door: &Door, problems: &mut Problems) -> Acme {
    let directory = raw.directory.unwrap_or_else(|| LETS_ENCRYPT.to_owned());
    if !directory
        .strip_prefix("https://")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_graphic()) && !rest.is_empty())
    {
        problems
            .add("tls.acme.directory", format!("{directory:?} is no https:// URL; write one such as {LETS_ENCRYPT:?}"));
    }
    let contact = raw.contact.unwrap_or_default();
    for (nth, contact) in contact.iter().enumerate().filter(|(_, contact)| !contact.starts_with("mailto:")) {
        let what = "is no address; write one such as \"mailto:ops@example.com\"";
        problems.add(format!("tls.acme.contact[{nth}]"), format!("{contact:?} {what}"));
    }
    let domains: Vec<String> = raw.domains.unwrap_or_default().iter().map(|name| name.to_ascii_lowercase()).collect();
    if domains.is_empty() || domains.len() > MOST_DOMAINS {
        problems.add(
            "tls.acme.domains",
            format!("has no host name, or more than {MOST_DOMAINS}; write such as [\"live.example\"]"),
        );
    }
    for (nth, domain) in domains.iter().enumerate().filter(|(_, domain)| !is_host_name(domain)) {
        let what = "is no host name; TLS-ALPN-01 proves neither wildcards nor addresses";
        problems.add(format!("tls.acme.domains[{nth}]"), format!("{domain:?} {what}"));
    }
    let store = door.state_dir.as_ref().map(|dir| dir.join("acme"));
    if store.is_none() {
        problems.add("tls.acme", "needs door.state_dir, where account and certificate are kept");
    }
    Acme { directory, contact, domains, root: raw.root.map(PathBuf::from), store: store.unwrap_or_default() }
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let legal = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && legal && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label) && !is_address
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn checked(listen: &str, tables: &str) -> Result<Config, String> {
        let text =
            format!("[[listen]]\n{listen}\n[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n{tables}");
        Config::from_toml_str(&text).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_proxy_header_is_believed_of_named_peers_and_goes_without_ice_tcp() {
        let good = checked("proxy = \"required\"\ntrusted = [\"100.64.0.0/10\", \"10.0.0.7\"]", "").unwrap();
        assert_eq!((good.listen[0].proxy, good.listen[0].trusted.len()), (Proxy::Required, 2));
        for proxy in ["required", "optional"] {
            let problems = checked(&format!("proxy = \"{proxy}\""), "").unwrap_err();
            assert!(problems.starts_with("listen[0].proxy: needs to know"), "{problems}");
            let both = format!("proxy = \"{proxy}\"\ntrusted = [\"10.0.0.0/8\"]\nice_tcp = true");
            let problems = checked(&both, "").unwrap_err();
            assert!(problems.starts_with("listen[0].ice_tcp: cannot be where"), "{problems}");
        }
        assert!(
            checked("trusted = [\"10.0.0.0/8\"]\nice_tcp = true", "").is_ok(),
            "forwarded headers are another matter"
        );
    }

    #[test]
    fn tls_needs_a_certificate_and_a_certificate_two_files() {
        let files = "[tls]\ncertificates = [{ cert = \"/a.pem\", key = \"/a.key\" }]\n";
        let config = checked("tls = true", files).unwrap();
        assert_eq!(config.tls.certificates, [Certificate { cert: "/a.pem".into(), key: "/a.key".into() }]);
        assert!(checked("tls = true", "").unwrap_err().starts_with("listen[0].tls: needs a certificate"));
        let problems = checked("tls = true", "[[tls.certificates]]\ncert = \"/a.pem\"\n").unwrap_err();
        assert!(problems.starts_with("tls.certificates[0].key: is missing"), "{problems}");
        assert!(checked("", "[tls]\nmin_version = \"1.3\"\n").is_ok(), "nobody uses it yet");
    }

    #[test]
    fn acme_names_hosts_and_has_a_place_to_keep_what_it_gets() {
        let acme = |keys: &str, door: &str| checked("tls = true", &format!("[tls.acme]\n{keys}\n{door}"));
        let door = "[door]\nstate_dir = \"/var/lib/forebay\"\n";
        let good =
            acme("domains = [\"Live.example\"]\ncontact = [\"mailto:a@b.example\"]", door).unwrap().tls.acme.unwrap();
        assert_eq!((good.domains[0].as_str(), good.store.to_str()), ("live.example", Some("/var/lib/forebay/acme")));
        assert!(good.directory.starts_with("https://") && good.root.is_none());
        for (keys, door, key) in [
            ("domains = [\"live.example\"]", "", "tls.acme: needs door.state_dir"),
            ("domains = []", door, "tls.acme.domains: "),
            ("domains = [\"*.example.com\"]", door, "tls.acme.domains[0]: "),
            ("domains = [\"10.0.0.1\"]", door, "tls.acme.domains[0]: "),
            ("domains = [\"a.b\", \"-x.y\"]", door, "tls.acme.domains[1]: "),
            ("domains = [\"a.b\"]\ndirectory = \"http://x\"", door, "tls.acme.directory: "),
            ("domains = [\"a.b\"]\ncontact = [\"me\"]", door, "tls.acme.contact[0]: "),
        ] {
            let problems = acme(keys, door).unwrap_err();
            assert!(problems.starts_with(key), "{keys}: {problems}");
        }
    }
}
