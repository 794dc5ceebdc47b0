//! Sees certificate files change, and has them read again.
//!
//! It looks rather than listens: certificates come through symbolic links, renames and network file systems, where
//! notifications are missed, and a look at a few files costs nothing.

use std::{os::unix::fs::MetadataExt, time::Duration};

use super::Tls;
use crate::config::{self, Certificate};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another, without reading it; `None` while it is not there. The time of the last
/// change of its status is in it, since a change of rights may be what makes it readable.
type Sign = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Tls {
    /// Looks at the files, for ever.
    pub(super) async fn look(&self) -> std::convert::Infallible {
        let mut source = self.0.source.load_full();
        let mut seen = signs(&source.certificates).await;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.0.source.load_full();
            let signs = signs(&now.certificates).await;
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

async fn signs(certificates: &[Certificate]) -> Vec<Sign> {
    let mut signs = Vec::with_capacity(certificates.len() * 2);
    for file in certificates.iter().flat_map(|certificate| [&certificate.cert, &certificate.key]) {
        let facts = tokio::fs::metadata(file).await.ok();
        signs.push(facts.map(|facts| {
            (
                facts.dev(),
                facts.ino(),
                facts.len(),
                facts.mtime(),
                facts.mtime_nsec(),
                facts.ctime(),
                facts.ctime_nsec(),
            )
        }));
    }
    signs
}
