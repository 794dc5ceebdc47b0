//! Sees certificate files change, and has them read again.

use std::path::Path;

use super::Tls;
use crate::{
    config::{self, Certificate},
    net::pem::{self, LOOK},
};

impl Tls {
    /// Looks at the files, for ever.
    pub(super) async fn look(&self) -> std::convert::Infallible {
        let mut source = self.0.source.load_full();
        let mut seen = self.0.opened.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.0.source.load_full();
            let signs = pem::signs(&files(&now.certificates)).await;
            if now == source && signs != seen {
                self.reread(&now).await;
            }
            (source, seen) = (now, signs);
        }
    }

    /// Has the certificates of this configuration read again.
    pub(super) async fn reread(&self, source: &config::Tls) {
        let (tls, config) = (self.clone(), source.clone());
        // Files are read where waiting for a disk holds up nobody.
        match tokio::task::spawn_blocking(move || tls.reload(&config)).await {
            Ok(Ok(())) => tracing::info!("certificates were read again"),
            Ok(Err(error)) => tracing::warn!(%error, "the changed certificates are not used; the old ones stay"),
            Err(error) => tracing::error!(%error, "reading certificates panicked; the old ones stay"),
        }
    }
}

/// Their files.
pub(super) fn files(certificates: &[Certificate]) -> Vec<&Path> {
    certificates.iter().flat_map(|certificate| [certificate.cert.as_path(), &certificate.key]).collect()
}
