//! TLS-ALPN-01 (RFC 8737): what an ACME server is shown that comes to see whether a host is the door's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, NoServerSessionStorage},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The ALPN name of the challenge.
const ACME_TLS: &[u8] = b"acme-tls/1";

/// Challenges that wait for their server, by host: as many as an order has names.
#[derive(Debug, Default)]
pub(super) struct Challenges(Mutex<HashMap<String, Arc<ServerConfig>>>);

/// A challenge that is being shown. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    challenges: &'a Challenges,
    host: String,
}

impl Challenges {
    /// Shows the digest of the key authorization to who asks for `host` as RFC 8737 §3 says.
    pub(super) fn show(&self, host: &str, digest: &[u8; 32]) -> Result<Shown<'_>, String> {
        let config = config(host, digest).map_err(|error| error.to_string())?;
        self.lock().insert(host.to_owned(), Arc::new(config));
        Ok(Shown { challenges: self, host: host.to_owned() })
    }

    /// What to answer this client, if it is an ACME server that comes for a challenge.
    pub(super) fn answer(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut offered = hello.alpn()?;
        if !offered.any(|name| name == ACME_TLS) {
            return None;
        }
        self.lock().get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<ServerConfig>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.challenges.lock().remove(&self.host);
    }
}

fn config(host: &str, digest: &[u8; 32]) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not `from_der`, which refuses a certificate with the critical extension that this is all about.
    let key = aws_lc_rs::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
