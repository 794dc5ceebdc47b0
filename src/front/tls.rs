//! TLS of the public listeners: one provider, certificates chosen by the host that the client names, tickets instead of
//! sessions kept here.
//!
//! ```text
//! files ─► watch ─┐
//! ACME ─► acme ───┴─► Tls::reload ─► Resolver (all certificates at once) ◄─ handshakes
//!            └──────► challenge ◄─ handshakes of the ACME server
//! ```

mod acme;
mod acme_http;
mod certificates;
mod challenge;
mod watch;

use std::{fmt, io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{Acceptor, NoServerSessionStorage, ProducesTickets},
    version::{TLS12, TLS13},
};
use tokio::{net::TcpStream, sync::Notify};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use self::{
    certificates::{Loaded, Resolver},
    challenge::Challenges,
};
use crate::{
    config::{self, TlsVersion},
    net::pem::{self, CertificateError, Sign},
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// The ALPN name of HTTP/2.
pub(super) const H2: &[u8] = b"h2";

/// What `[tls]` has become. A clone is the same one.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    server: ArcSwap<ServerConfig>,
    resolver: Arc<Resolver>,
    /// Kept over reloads, so that clients may resume. It changes its keys every six hours by itself.
    tickets: Arc<dyn ProducesTickets>,
    /// As configured last.
    source: ArcSwap<config::Tls>,
    /// The files as they were when they were read first.
    opened: Vec<Sign>,
    /// Told when `source` changes.
    changed: Notify,
    /// What an ACME server is shown that asks for it.
    challenges: Challenges,
    metrics: Metrics,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&*self.0.source.load()).finish()
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The provider refused what is configured.
    #[error("TLS could not be set up")]
    Provider(#[from] rustls::Error),
}

impl Tls {
    /// Reads the certificates. One that has expired is served all the same, with a warning: clients may know why.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn open(config: &config::Tls, metrics: &Metrics) -> Result<Self, TlsError> {
        let opened = pem::signs_before_reading(&watch::files(&config.certificates));
        let mut loaded = Loaded::read(&config.certificates)?;
        loaded.warn_if_expired();
        acme::add_stored(&mut loaded, config.acme.as_ref());
        let resolver = Arc::new(Resolver::new(loaded, metrics.clone()));
        let tickets = aws_lc_rs::Ticketer::new()?;
        let server = server_config(config.min_version, &resolver, &tickets)?;
        Ok(Self(Arc::new(Inner {
            server: ArcSwap::from_pointee(server),
            resolver,
            tickets,
            source: ArcSwap::from_pointee(config.clone()),
            opened,
            changed: Notify::new(),
            challenges: Challenges::default(),
            metrics: metrics.clone(),
        })))
    }

    /// Takes other settings for connections from now on, all of them or none; what is connected stays.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a certificate that has expired: everything stays as it was.
    pub fn reload(&self, config: &config::Tls) -> Result<(), TlsError> {
        let done = self.try_reload(config);
        self.0.metrics.tls_reloaded(done.is_ok());
        done
    }

    fn try_reload(&self, config: &config::Tls) -> Result<(), TlsError> {
        let mut loaded = Loaded::read(&config.certificates)?;
        loaded.refuse_if_expired()?;
        acme::add_stored(&mut loaded, config.acme.as_ref());
        let server = server_config(config.min_version, &self.0.resolver, &self.0.tickets)?;
        self.0.resolver.replace(loaded);
        self.0.server.store(Arc::new(server));
        self.0.source.store(Arc::new(config.clone()));
        self.0.changed.notify_one();
        Ok(())
    }

    /// Keeps the certificates up to date until the process ends: reads files again that have changed, and has an ACME
    /// server renew what came from it.
    pub fn watch(&self, shutdown: &Shutdown) {
        let (tls, ending) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = ending.stopping() => {}
                never = tls.look() => match never {},
                never = tls.renew() => match never {},
            }
        });
    }

    /// The handshake; `None`: it was all that an ACME server wanted.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        if let Some(config) = self.0.challenges.answer(&hello.client_hello()) {
            // The server looks at the certificate and goes.
            return hello.into_stream(config).await.map(|_| None);
        }
        let stream = hello.into_stream(self.0.server.load_full()).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        self.0.metrics.tls_handshake(resumed);
        Ok(Some(stream))
    }
}

fn server_config(
    min_version: TlsVersion,
    resolver: &Arc<Resolver>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let versions = match min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12][..],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(resolver) as _);
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets);
    Ok(config)
}
