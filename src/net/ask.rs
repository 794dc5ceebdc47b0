//! A request of the door's own to somebody who is asked now and then: HTTP/1.1 on a connection for it alone, over TLS where
//! the address is `https`.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, Response, Uri,
    body::Body,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, client::ResolvesClientCert, crypto::aws_lc_rs, sign::SingleCertAndKey};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::pem::{self, CertificateError};

/// From the look-up of the name to the connection, before its handshake.
const CONNECT: Duration = Duration::from_secs(5);

/// Whatever kept an answer from coming.
pub type AskError = Box<dyn std::error::Error + Send + Sync>;

/// Asks. A clone is the same one.
#[derive(Clone)]
pub struct Asker {
    tls: TlsConnector,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asker")
    }
}

impl Asker {
    /// Knows servers by the authorities in this file, or by the public ones, and shows them this certificate (its file, and
    /// its key's) if they want one.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn new(authorities: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Self, CertificateError> {
        let roots = match authorities {
            Some(file) => pem::authorities(file)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let own = own.map(|(cert, key)| pem::read_pair(cert, key)).transpose()?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let config = match own {
            Some((own, _)) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)) as Arc<dyn ResolvesClientCert>)
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends a request, whose URI is whole, and reads its answer of at most `largest` bytes. Whoever asks bounds the time.
    ///
    /// # Errors
    /// Nobody is there, or it is not who it should be, or what comes is no answer, or too large.
    pub async fn send<B>(&self, mut request: Request<B>, largest: usize) -> Result<Response<Bytes>, AskError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<AskError>,
    {
        let uri = request.uri().clone();
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{uri} is neither http nor https").into()),
        };
        let authority = uri.authority().ok_or("no authority")?.as_str();
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority)?);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        *request.uri_mut() = uri.path_and_query().map_or(Ok(Uri::default()), |path| path.as_str().parse())?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await;
        let stream = stream.map_err(|_| format!("no connection within {CONNECT:?}"))??;
        if !tls {
            return exchange(stream, request, largest).await;
        }
        let stream = self.tls.connect(ServerName::try_from(host)?, stream).await?;
        // A server that refuses our certificate says so only now (TLS 1.3).
        exchange(stream, request, largest).await.map_err(why_refused)
    }
}

/// What TLS had to say, rather than what HTTP made of it.
fn why_refused(error: AskError) -> AskError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(refused) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Box::new(refused.clone());
        }
        cause = error.source();
    }
    error
}

async fn exchange<S, B>(stream: S, request: Request<B>, largest: usize) -> Result<Response<Bytes>, AskError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<AskError>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, largest).collect().await?.to_bytes();
        Ok::<_, AskError>(Response::from_parts(parts, body))
    };
    // The connection is driven only while an answer is waited for: it ends with it.
    tokio::pin!(connection, exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}
