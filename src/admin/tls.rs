//! TLS of the admin listener: its certificate, and whose certificates it wants from callers.

use std::{io, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    config::AdminTls,
    net::pem::{self, CertificateError, LOOK, Sign},
};

/// From the connection to the end of its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What `admin.tls_cert` and its neighbours have become.
pub(super) struct Tls {
    files: AdminTls,
    /// The files as they were when they were read first.
    opened: Vec<Sign>,
    server: ArcSwap<ServerConfig>,
}

impl Tls {
    pub(super) fn open(files: &AdminTls) -> Result<Self, CertificateError> {
        let opened = pem::signs_before_reading(&paths(files));
        Ok(Self { files: files.clone(), opened, server: ArcSwap::from_pointee(read(files)?) })
    }

    /// The handshake; also says whose certificate the caller has shown, if any was asked for.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Arc<str>>)> {
        let accepting = TlsAcceptor::from(self.server.load_full()).accept(stream);
        let stream = timeout(HANDSHAKE, accepting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // Without a common name it is still somebody whom the authority has let in.
        let name = shown.map(|shown| pem::facts(shown).ok().and_then(|facts| facts.subject));
        let name = name.map(|name| name.unwrap_or_else(|| "certificate".to_owned()).into());
        Ok((stream, name))
    }

    /// Reads the files again whenever they change, for ever. What cannot be used leaves the old ones in their place.
    pub(super) async fn watch(&self) {
        let files = paths(&self.files);
        let mut seen = self.opened.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let signs = pem::signs(&files).await;
            if signs == seen {
                continue;
            }
            seen = signs;
            match read(&self.files) {
                Ok(server) => {
                    self.server.store(Arc::new(server));
                    tracing::info!("the admin listener's certificates were read again");
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener's changed certificates are not used; the old ones stay");
                }
            }
        }
    }
}

fn paths(files: &AdminTls) -> Vec<&Path> {
    let AdminTls { cert, key, client_ca } = files;
    [Some(cert), Some(key), client_ca.as_ref()].into_iter().flatten().map(|file| &**file).collect()
}

fn read(files: &AdminTls) -> Result<ServerConfig, CertificateError> {
    let (own, _) = pem::read_pair(&files.cert, &files.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3");
    let builder = match &files.client_ca {
        Some(file) => builder.with_client_cert_verifier(callers(file)?),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

/// Lets in who shows a certificate of these authorities, and nobody else.
fn callers(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let roots = Arc::new(pem::authorities(file)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(aws_lc_rs::default_provider())).build();
    verifier.map_err(|why| CertificateError::Unusable { path: file.to_path_buf(), why: why.to_string() })
}
