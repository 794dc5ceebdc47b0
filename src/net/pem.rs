//! Certificates, keys and authorities in PEM files: read with errors that name the file, and seen when they change.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// A larger file is no certificate chain.
const LARGEST_FILE: u64 = 1 << 20;
/// How often files are worth a look. Certificates come through symbolic links, renames and network file systems, where
/// notifications are missed, and a look at a few files costs nothing.
pub const LOOK: Duration = Duration::from_secs(1);

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

impl CertificateError {
    fn unusable(path: &Path, why: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_path_buf(), why: why.into() }
    }
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who it is for: its subject's common name, if it has one.
    pub subject: Option<String>,
    /// The hosts that it is for, in lower case.
    pub names: Vec<String>,
    /// When it becomes valid.
    pub begins: SystemTime,
    /// When it is valid no more.
    pub expires: SystemTime,
}

/// Reads a certificate with its issuers, and its key.
///
/// # Errors
/// A file that cannot be read or used, or a key of another certificate.
pub fn read_pair(cert: &Path, key: &Path) -> Result<(Arc<CertifiedKey>, Facts), CertificateError> {
    let chain = certificates(cert)?;
    let facts = facts(&chain[0]).map_err(|why| CertificateError::unusable(cert, why))?;
    let private = PrivateKeyDer::from_pem_slice(&read_file(key)?);
    let private =
        private.map_err(|why| CertificateError::unusable(key, format!("holds no private key in PEM ({why})")))?;
    let pair = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider());
    let unfit = |why| CertificateError::unusable(key, format!("does not fit {} ({why})", cert.display()));
    Ok((Arc::new(pair.map_err(unfit)?), facts))
}

/// Reads the authorities that others are known by.
///
/// # Errors
/// A file that cannot be read, or holds anything but certificates of authorities.
pub fn authorities(path: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        let unfit = |why| CertificateError::unusable(path, format!("holds a certificate of no authority ({why})"));
        roots.add(authority).map_err(unfit)?;
    }
    Ok(roots)
}

/// The certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read_file(path)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|why| CertificateError::unusable(path, format!("is no PEM file ({why})")))?;
    if chain.is_empty() {
        let why = "holds no certificate; write PEM with -----BEGIN CERTIFICATE-----";
        return Err(CertificateError::unusable(path, why));
    }
    Ok(chain)
}

fn read_file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |why| CertificateError::Unreadable { path: path.to_path_buf(), why };
    let facts = fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > LARGEST_FILE {
        return Err(CertificateError::unusable(path, "is no file, or larger than 1 MiB"));
    }
    fs::read(path).map_err(unreadable)
}

/// Reads what a certificate says of itself.
///
/// # Errors
/// What is wrong with it.
pub fn facts(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|why| format!("its certificate cannot be read ({why})"))?;
    let names = parsed.subject_alternative_name().map_err(|why| format!("its names cannot be read ({why})"))?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let subject = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok()).map(str::to_owned);
    let time =
        |at: x509_parser::time::ASN1Time| UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or(0));
    let validity = parsed.validity();
    Ok(Facts { subject, names: names.collect(), begins: time(validity.not_before), expires: time(validity.not_after) })
}

/// What tells one state of a file from another, without reading it; `None` while it is not there. The time of the last
/// change of its status is in it, since a change of rights may be what makes it readable.
pub type Sign = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The signs of these files, in their order.
pub async fn signs(files: &[&Path]) -> Vec<Sign> {
    let mut signs = Vec::with_capacity(files.len());
    for file in files {
        signs.push(tokio::fs::metadata(file).await.ok().map(|facts| sign(&facts)));
    }
    signs
}

/// The same for who reads them next: taken afterwards, a change in between would never be seen.
pub fn signs_before_reading(files: &[&Path]) -> Vec<Sign> {
    files.iter().map(|file| fs::metadata(file).ok().map(|facts| sign(&facts))).collect()
}

fn sign(facts: &fs::Metadata) -> (u64, u64, u64, i64, i64, i64, i64) {
    (facts.dev(), facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec())
}
