//! Certificates with their keys: chosen by name, replaced all at once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    clock, config,
    net::pem::{self, CertificateError, Facts},
    telemetry::metrics::Metrics,
};

/// All certificates of one reading.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// For clients that name no host, or one that no certificate has; `None`: they are sent away.
    default: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.com` by `example.com`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    /// When each expires, with its file.
    expiries: Vec<(SystemTime, PathBuf)>,
}

impl Loaded {
    /// Reads all of them, or says what is wrong with the first that is.
    pub(super) fn read(certificates: &[config::Certificate]) -> Result<Self, CertificateError> {
        let mut loaded = Self::default();
        for certificate in certificates {
            let (key, facts) = pem::read_pair(&certificate.cert, &certificate.key)?;
            loaded.add(key, facts, &certificate.cert);
        }
        Ok(loaded)
    }

    /// Adds one that is read already. Where two have a name, the first is its certificate.
    pub(super) fn add(&mut self, key: Arc<CertifiedKey>, facts: Facts, file: &Path) {
        self.default.get_or_insert_with(|| Arc::clone(&key));
        self.expiries.push((facts.expires, file.to_path_buf()));
        for name in facts.names {
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_insert_with(|| Arc::clone(&key)),
                None => self.exact.entry(name).or_insert_with(|| Arc::clone(&key)),
            };
        }
    }

    /// When the first expires.
    pub(super) fn expiry(&self) -> Option<SystemTime> {
        self.expiries.iter().map(|(at, _)| *at).min()
    }

    pub(super) fn warn_if_expired(&self) {
        if let Err(error) = self.refuse_if_expired() {
            tracing::warn!(%error, "clients will refuse this certificate");
        }
    }

    pub(super) fn refuse_if_expired(&self) -> Result<(), CertificateError> {
        let now = clock::wall();
        match self.expiries.iter().find(|(at, _)| *at <= now) {
            Some((at, path)) => Err(CertificateError::Expired {
                path: path.clone(),
                at: humantime::format_rfc3339_seconds(*at).to_string(),
            }),
            None => Ok(()),
        }
    }

    /// The certificate for a host, if one is; `name` is in lower case.
    fn of(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        // A wildcard stands for one label (RFC 6125 §6.4.3).
        let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
        self.exact.get(name).or_else(wildcard)
    }
}

/// Gives each client the certificate of the host that it names.
#[derive(Debug)]
pub(super) struct Resolver {
    loaded: ArcSwap<Loaded>,
    metrics: Metrics,
}

impl Resolver {
    pub(super) fn new(loaded: Loaded, metrics: Metrics) -> Self {
        metrics.tls_expiry(loaded.expiry());
        Self { loaded: ArcSwap::from_pointee(loaded), metrics }
    }

    pub(super) fn replace(&self, loaded: Loaded) {
        self.metrics.tls_expiry(loaded.expiry());
        self.loaded.store(Arc::new(loaded));
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.load();
        let Some(name) = hello.server_name() else { return loaded.default.clone() };
        // rustls has checked that it is a host name; it hands it over as the client wrote it.
        let found = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => loaded.of(&name.to_ascii_lowercase()),
            false => loaded.of(name),
        };
        if found.is_none() {
            self.metrics.tls_unknown_name();
        }
        found.or(loaded.default.as_ref()).cloned()
    }
}
