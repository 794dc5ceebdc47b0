//! A door whose public listeners are the thing under test: certificates made here, TLS clients that see what they get,
//! and a stand-in for a node that notes whom the door brings.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::{
    cluster::{PATIENCE, eventually},
    mongod::TempDir,
    process::{Process, http},
};

/// A certificate that signs itself, with its key.
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
    pub der: CertificateDer<'static>,
}

impl Identity {
    /// For these hosts, from the year 2020 to the end of `until`.
    pub fn new(names: &[&str], until: i32) -> Self {
        let key = KeyPair::generate().expect("a key pair");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("host names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        let cert = params.self_signed(&key).expect("it signs itself");
        Self { cert_pem: cert.pem(), key_pem: key.serialize_pem(), der: cert.der().clone() }
    }

    /// For somebody of this name at these hosts, as `issuer` says.
    pub fn issued(subject: &str, hosts: &[&str], issuer: &Issuer<'_, KeyPair>) -> Self {
        let key = KeyPair::generate().expect("a key pair");
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name.push(DnType::CommonName, subject);
        let cert = params.signed_by(&key, issuer).expect("the authority signs");
        Self { cert_pem: cert.pem(), key_pem: key.serialize_pem(), der: cert.der().clone() }
    }

    /// Writes both files; returns their entry of `tls.certificates`.
    pub fn write(&self, dir: &Path, name: &str) -> String {
        let [cert, key] = files(dir, name);
        put(&cert, &self.cert_pem);
        put(&key, &self.key_pem);
        format!("{{ cert = {cert:?}, key = {key:?} }}")
    }
}

/// An authority of this name, as PEM and as what signs.
pub fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key pair");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).expect("it signs itself").pem();
    (pem, Issuer::new(params, key))
}

/// The files of [`Identity::write`].
pub fn files(dir: &Path, name: &str) -> [PathBuf; 2] {
    [dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))]
}

/// Replaces a file as tools for certificates do: whole, by renaming.
pub fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("the directory is writable");
    fs::rename(&new, file).expect("it can be replaced");
}

/// A running `forebay serve` with several listeners. Its log is printed if the test fails.
pub struct FrontDoor {
    process: Process,
    /// Where they are, in the order of the configuration.
    pub at: Vec<SocketAddr>,
    pub dir: TempDir,
}

impl Deref for FrontDoor {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the door's log:\n{}", self.log());
        }
    }
}

impl FrontDoor {
    /// Starts a door with one listener per text, each with its keys but `bind`, and further tables.
    pub async fn serve(dir: TempDir, listen: &[&str], tables: &str) -> Self {
        let file = dir.path().join("forebay.toml");
        let listeners: String =
            listen.iter().map(|keys| format!("[[listen]]\nbind = \"127.0.0.1:0\"\n{keys}\n")).collect();
        let node =
            if tables.contains("[[nodes.static]]") { "" } else { "[[nodes.static]]\naddress = \"127.0.0.1:9\"\n" };
        let text = format!(
            "{listeners}[admin]\nbind = \"127.0.0.1:0\"\n[apps]\nLiveApp = {{}}\n[media]\nmode = \"direct\"\n{tables}\n{node}"
        );
        fs::write(&file, text).expect("the temporary directory is writable");
        let process = Process::start(&["serve", "--config", file.to_str().expect("a path of ASCII")]).await;
        let mut door = Self { process, at: Vec::new(), dir };
        eventually("every listener says where it is", async || {
            door.at = door.log().lines().filter_map(listening).collect();
            door.at.len() == listen.len()
        })
        .await;
        door
    }

    /// Waits until a sample of the metrics is at least `least`.
    pub async fn until_metric(&self, name: &str, least: f64) {
        eventually(&format!("{name} is {least}"), async || self.metric(name).await.is_some_and(|value| value >= least))
            .await;
    }

    /// How many connections ended for `reason`.
    pub async fn ended_for(&self, reason: &str) -> f64 {
        self.metric(&ended(reason)).await.expect("the reason is one of the metric's")
    }

    /// Waits until so many connections have ended for `reason`.
    pub async fn until_ended_for(&self, reason: &str, least: f64) {
        self.until_metric(&ended(reason), least).await;
    }

    /// Whether the plain listener `nth` still serves.
    pub async fn is_well(&self, nth: usize) -> bool {
        http(&self.at[nth].to_string(), "GET /healthz HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200")
    }
}

fn ended(reason: &str) -> String {
    format!("forebay_connections_ended_total{{reason=\"{reason}\"}}")
}

fn listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening")?;
    rest.split_whitespace().find_map(|word| word.strip_prefix("address=")?.parse().ok())
}

/// Trusts whatever certificate it gets: the test looks at it itself.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
    /// Set where the certificate has an extension that the library refuses to verify a signature beside.
    is_blind: bool,
}

impl Anyone {
    fn verified(
        &self,
        result: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.is_blind { Ok(HandshakeSignatureValid::assertion()) } else { result }
    }
}

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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        self.verified(rustls::crypto::verify_tls12_signature(message, cert, signed, known))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        self.verified(rustls::crypto::verify_tls13_signature(message, cert, signed, known))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a TLS client offers.
pub fn client(versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
    config(versions, alpn, false)
}

/// An ACME server's client for TLS-ALPN-01.
pub fn challenger() -> Arc<ClientConfig> {
    Arc::new(config(rustls::ALL_VERSIONS, &["acme-tls/1"], true))
}

fn config(versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&str], is_blind: bool) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone { provider, is_blind }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// The usual client: TLS 1.3 or 1.2.
pub fn any_client(alpn: &[&str]) -> Arc<ClientConfig> {
    Arc::new(client(rustls::ALL_VERSIONS, alpn))
}

/// Shakes hands on a connection, asking for `name`.
pub async fn shake_hands(
    stream: TcpStream,
    name: &str,
    client: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    let shaken = timeout(PATIENCE, TlsConnector::from(Arc::clone(client)).connect(name, stream)).await;
    shaken.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Connects and shakes hands.
pub async fn tls(at: SocketAddr, name: &str, client: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    shake_hands(TcpStream::connect(at).await?, name, client).await
}

/// The certificate that a client was shown.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a server shows one")[0].clone().into_owned()
}

/// Opens a WebSocket of `LiveApp` on whatever carries it.
pub async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let opened = timeout(PATIENCE, client_async("ws://live.example/LiveApp/websocket", stream)).await;
    opened.expect("an answer in time").expect("the door takes sessions").0
}

/// Says `ping` and waits for the door's `pong`.
pub async fn ping<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    socket.send(Message::text(r#"{"command":"ping"}"#)).await.expect("the socket is open");
    let answer = timeout(PATIENCE, async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return text,
                Some(Ok(_)) => {}
                other => panic!("no pong: {other:?}"),
            }
        }
    });
    assert!(answer.await.expect("a pong in time").contains("pong"));
}

/// Everything until the door closes; what came before a reset counts.
pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = [0; 16 * 1024];
        while let Ok(size) = stream.read(&mut chunk).await {
            if size == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..size]);
        }
    };
    timeout(PATIENCE, read).await.expect("the door closes");
    bytes
}

/// Sends bytes and returns all that comes back until the door closes.
pub async fn exchange(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    // A door that has closed already has said all it wants to.
    let _ = stream.write_all(bytes).await;
    String::from_utf8_lossy(&read_all(&mut stream).await).into_owned()
}

/// Stands in for a node: answers probes, and notes the head of each WebSocket that the door opens.
pub struct NotingNode {
    pub address: SocketAddr,
    heads: mpsc::UnboundedReceiver<String>,
}

impl NotingNode {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (note, heads) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let note = note.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let _ = stream
                        .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                        .await;
                    if head.to_ascii_lowercase().contains("upgrade: websocket") {
                        let _ = note.send(head);
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// Its entry in a configuration. That it refuses every link is no reason to leave it alone.
    pub fn table(&self) -> String {
        format!(
            "[[nodes.static]]\nname = \"only\"\naddress = \"{}\"\n[nodes]\nslow_start = \"0s\"\nbreaker_failures = 1000\n",
            self.address
        )
    }

    /// Has a session publish, and returns what the door tells the node of its client: `X-Real-IP`, `X-Forwarded-Proto`.
    pub async fn told_of<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut WebSocketStream<S>,
    ) -> (String, String) {
        while self.heads.try_recv().is_ok() {}
        socket.send(Message::text(r#"{"command":"publish","streamId":"s"}"#)).await.expect("the socket is open");
        let head = timeout(PATIENCE, self.heads.recv()).await.expect("the door dials in time").expect("the node runs");
        let value = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map_or_else(String::new, |(_, value)| value.to_owned())
        };
        (value("x-real-ip"), value("x-forwarded-proto"))
    }
}

/// A wait that is what is tested: how long a client pauses.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
