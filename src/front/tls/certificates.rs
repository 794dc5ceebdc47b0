//! Certificates with their keys: read from PEM files, chosen by name, replaced all at once.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use rustls::{
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate};

use crate::{clock, config, telemetry::metrics::Metrics};

/// A larger file is no certificate chain.
const LARGEST_FILE: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// The certificate has expired.
    #[error("{path}: expired at {at}")]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When, in RFC 3339.
        at: String,
    },
}

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
            let (key, facts) = read_one(certificate)?;
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

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The hosts that it is for, in lower case.
    pub names: Vec<String>,
    pub begins: SystemTime,
    pub expires: SystemTime,
}

/// Reads a certificate with its key.
pub(super) fn read_one(of: &config::Certificate) -> Result<(Arc<CertifiedKey>, Facts), CertificateError> {
    let unusable = |path: &Path, why: String| CertificateError::Unusable { path: path.to_path_buf(), why };
    let pem = read_file(&of.cert)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| unusable(&of.cert, format!("is no PEM file ({why})")))?;
    let Some(leaf) = chain.first() else {
        return Err(unusable(&of.cert, "holds no certificate; write PEM with -----BEGIN CERTIFICATE-----".to_owned()));
    };
    let facts = facts(leaf).map_err(|why| unusable(&of.cert, why))?;
    let key = PrivateKeyDer::from_pem_slice(&read_file(&of.key)?);
    let key = key.map_err(|why| unusable(&of.key, format!("holds no private key in PEM ({why})")))?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    let key = key.map_err(|why| unusable(&of.key, format!("does not fit {} ({why})", of.cert.display())))?;
    Ok((Arc::new(key), facts))
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |why| CertificateError::Unreadable { path: path.to_path_buf(), why };
    let facts = fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > LARGEST_FILE {
        let why = "is no file, or larger than 1 MiB".to_owned();
        return Err(CertificateError::Unusable { path: path.to_path_buf(), why });
    }
    fs::read(path).map_err(unreadable)
}

fn facts(leaf: &CertificateDer<'_>) -> Result<Facts, String> {
    use x509_parser::prelude::FromDer;

    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|why| format!("its certificate cannot be read ({why})"))?;
    let names = parsed.subject_alternative_name().map_err(|why| format!("its names cannot be read ({why})"))?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let names = names.collect();
    let time =
        |at: x509_parser::time::ASN1Time| UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0));
    let validity = parsed.validity();
    Ok(Facts { names, begins: time(validity.not_before), expires: time(validity.not_after) })
}
