//! The few requests that an ACME server gets: a connection each, bounded in time and size.

use std::{fs, future::Future, io, path::Path, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, Response, Uri,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// From the look-up of the name to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer; certificate chains have below 20 KiB.
const LARGEST: usize = 1 << 20;

/// Speaks HTTPS with an ACME server.
#[derive(Clone)]
pub(super) struct AcmeHttp {
    tls: TlsConnector,
}

impl AcmeHttp {
    /// Knows the server by the authorities in `root`, or by the public ones.
    pub(super) fn new(root: Option<&Path>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        match root {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(file) => {
                for authority in CertificateDer::pem_slice_iter(&fs::read(file)?) {
                    roots.add(authority.map_err(io::Error::other)?).map_err(io::Error::other)?;
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn send(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, BoxError> {
        let uri = request.uri().clone();
        let (host, port) = (uri.host().ok_or("no host")?, uri.port_u16().unwrap_or(443));
        if uri.scheme_str() != Some("https") {
            return Err(format!("{uri} is not https").into());
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await?;
        let stream = self.tls.connect(ServerName::try_from(bare.to_owned())?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let authority = uri.authority().ok_or("no authority")?.as_str();
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority)?);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        *request.uri_mut() = uri.path_and_query().map_or(Ok(Uri::default()), |path| path.as_str().parse())?;
        let exchange = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::from_parts(parts, body))
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
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = timeout(LIMIT, client.send(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}").into()));
            let (parts, body) = answer.map_err(Error::Other)?.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}
