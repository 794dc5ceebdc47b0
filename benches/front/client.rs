//! Connections of the driver: opened, used once, kept.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Tls,
    Http2,
    /// A WebSocket over TLS.
    Session,
}

/// An open one.
pub(crate) enum Connection {
    Plain { _stream: TcpStream },
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(crate) fn is_resumed(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}

/// What a client offers; without `resumes` it keeps no tickets.
pub(crate) fn config(alpn: &[&str], resumes: bool) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Opens a connection and has one request answered on it.
pub(crate) async fn open(at: SocketAddr, kind: Kind, config: &Arc<ClientConfig>) -> io::Result<Connection> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    if kind == Kind::Plain {
        get(&mut stream).await?;
        return Ok(Connection::Plain { _stream: stream });
    }
    let name = ServerName::try_from("bench.example").map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    match kind {
        Kind::Plain | Kind::Tls => get(&mut stream).await?,
        Kind::Http2 => get_http2(&mut stream).await?,
        Kind::Session => upgrade(&mut stream).await?,
    }
    Ok(Connection::Tls(Box::new(stream)))
}

async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: bench.example\r\n\r\n").await?;
    until(stream, b"alive\n").await
}

async fn upgrade(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let request = "GET /LiveApp/websocket HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    until(stream, b"\r\n\r\n").await
}

/// Preface, empty SETTINGS, and HEADERS of `GET /livez` in HPACK's static table and literals.
async fn get_http2(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let block = b"\x82\x87\x04\x06/livez\x41\x01x";
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap_or(0), 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    stream.write_all(&bytes).await?;
    until(stream, b"alive\n").await
}

/// Reads until these bytes are the last ones, or are followed by frames of HTTP/2 only.
async fn until(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> io::Result<()> {
    let mut seen = Vec::with_capacity(1024);
    while !seen.windows(end.len()).any(|window| window == end) {
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The bench is about the server's side: the client believes everything.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
