//! A small ACME server (RFC 8555) that believes nothing: it checks nonces, URLs and signatures of every request, comes to
//! see TLS-ALPN-01 itself, and issues certificates of its own authority.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{
    CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustls::{ServerConfig, crypto::aws_lc_rs as provider};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::front::{authority, challenger, shown, tls};

/// The extension of RFC 8737, with a SHA-256 digest inside.
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";

/// A running server.
pub struct AcmeServer {
    at: SocketAddr,
    /// The authority by which it is known, in PEM; its certificates are of the same.
    pub root_pem: String,
    state: Arc<Mutex<State>>,
}

struct State {
    base: String,
    /// Where hosts are, once that is known, if anywhere: there is no DNS here.
    hosts_at: watch::Sender<Option<Option<SocketAddr>>>,
    issuer: Issuer<'static, KeyPair>,
    nonces: HashSet<String>,
    made: u64,
    /// By key identifier: the account's key, uncompressed, and its thumbprint.
    accounts: HashMap<String, (Vec<u8>, String)>,
    orders: Vec<Order>,
    /// What was asked that is not allowed.
    complaints: Vec<String>,
}

struct Order {
    names: Vec<String>,
    proven: Vec<bool>,
    failed: bool,
    certificate: Option<String>,
}

impl Drop for AcmeServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the ACME server's complaints: {:?}", self.complaints());
        }
    }
}

/// What is answered: status, further headers, body.
type Answer = Result<(StatusCode, Vec<(&'static str, String)>, Value), String>;

impl AcmeServer {
    /// Starts it on loopback.
    pub async fn start() -> Self {
        let (root_pem, issuer) = authority("test authority");
        let own_key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&own_key, &issuer).unwrap();
        let own_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], own_key)
            .unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            base: format!("https://{at}"),
            hosts_at: watch::Sender::new(None),
            issuer,
            nonces: HashSet::new(),
            made: 0,
            accounts: HashMap::new(),
            orders: Vec::new(),
            complaints: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| answer(Arc::clone(&state), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { at, root_pem, state }
    }

    pub fn directory(&self) -> String {
        format!("https://{}/directory", self.at)
    }

    /// Every host is here, or nowhere; challenges wait until that is known.
    pub fn hosts_are_at(&self, at: Option<SocketAddr>) {
        lock(&self.state).hosts_at.send_replace(Some(at));
    }

    /// What clients did wrong.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.state).complaints.clone()
    }

    /// Accounts that were made.
    pub fn accounts(&self) -> usize {
        lock(&self.state).accounts.len()
    }

    /// Certificates that were issued.
    pub fn issued(&self) -> usize {
        lock(&self.state).orders.iter().filter(|order| order.certificate.is_some()).count()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no handler panics")
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let answered = match path.as_str() {
        "/directory" => Ok((StatusCode::OK, Vec::new(), directory(&lock(&state).base))),
        "/nonce" => Ok((StatusCode::OK, Vec::new(), Value::Null)),
        _ => post(&state, &path, request).await,
    };
    let (status, headers, body) = answered.unwrap_or_else(|complaint| {
        lock(&state).complaints.push(complaint.clone());
        let problem = json!({ "type": "urn:ietf:params:acme:error:malformed", "detail": complaint, "status": 400 });
        (StatusCode::BAD_REQUEST, Vec::new(), problem)
    });
    let text = match body {
        Value::String(pem) => pem,
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut response = Response::builder().status(status).header("replay-nonce", lock(&state).nonce());
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(Bytes::from(text))).expect("headers are legal"))
}

fn directory(base: &str) -> Value {
    json!({
        "newNonce": format!("{base}/nonce"),
        "newAccount": format!("{base}/account"),
        "newOrder": format!("{base}/order"),
        "revokeCert": format!("{base}/revoke"),
        "keyChange": format!("{base}/key-change"),
    })
}

async fn post(state: &Arc<Mutex<State>>, path: &str, request: Request<Incoming>) -> Answer {
    if request.headers().get("content-type").is_none_or(|kind| kind != "application/jose+json") {
        return Err(format!("{path}: not a JWS"));
    }
    let body = request.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let (account, payload) = lock(state).open(path, &body)?;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let number = |nth: usize| parts.get(nth).and_then(|part| part.parse::<usize>().ok()).unwrap_or(usize::MAX);
    match parts[0] {
        "account" => Ok((StatusCode::CREATED, vec![("location", account)], json!({ "status": "valid" }))),
        "order" if parts.len() == 1 => lock(state).order(&payload),
        "order" => lock(state).shown_order(number(1)),
        "authorization" => lock(state).authorization(number(1), number(2)),
        "challenge" => {
            let (order, name) = (number(1), number(2));
            let (host, expected) = lock(state).key_authorization(&account, order, name)?;
            let mut hosts_at = lock(state).hosts_at.subscribe();
            let at = hosts_at.wait_for(Option::is_some).await.ok().and_then(|at| at.flatten());
            let proven = is_proven(at, &host, &expected).await;
            lock(state).judge(order, name, proven);
            Ok((StatusCode::OK, Vec::new(), challenge(&lock(state).base, order, name, "processing")))
        }
        "finalize" => lock(state).finalize(number(1), &payload),
        "certificate" => {
            let pem = lock(state).orders.get(number(1)).and_then(|order| order.certificate.clone());
            Ok((StatusCode::OK, Vec::new(), Value::String(pem.ok_or("no certificate yet")?)))
        }
        other => Err(format!("{other}: no such resource")),
    }
}

impl State {
    fn nonce(&mut self) -> String {
        self.made += 1;
        let nonce = format!("nonce-{}", self.made);
        self.nonces.insert(nonce.clone());
        nonce
    }

    /// Checks a JWS: its algorithm, nonce, URL, and the signature by the key that it names. Returns the account and what
    /// it says; a POST-as-GET says nothing.
    fn open(&mut self, path: &str, body: &[u8]) -> Result<(String, Value), String> {
        let jws: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let word = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (protected, payload) = (word(&jws, "protected"), word(&jws, "payload"));
        let header: Value = serde_json::from_slice(&from_base64(&protected)?).map_err(|error| error.to_string())?;
        if header["alg"] != "ES256" || header["url"] != format!("{}{path}", self.base).as_str() {
            return Err(format!("{path}: wrong algorithm or URL: {header}"));
        }
        if !self.nonces.remove(&word(&header, "nonce")) {
            return Err(format!("{path}: a nonce that is not fresh"));
        }
        let (account, key) = if path == "/account" {
            let (x, y) = (word(&header["jwk"], "x"), word(&header["jwk"], "y"));
            let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
            let thumbprint = to_base64(digest(&SHA256, thumbprint.as_bytes()).as_ref());
            let key = [&[4][..], &from_base64(&x)?, &from_base64(&y)?].concat();
            let account = format!("{}/account/{thumbprint}", self.base);
            self.accounts.insert(account.clone(), (key.clone(), thumbprint));
            (account, key)
        } else {
            let account = word(&header, "kid");
            let (key, _) = self.accounts.get(&account).ok_or_else(|| format!("{path}: no such account"))?;
            (account, key.clone())
        };
        let signature = from_base64(&word(&jws, "signature"))?;
        let signed = format!("{protected}.{payload}");
        let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed.as_bytes(), &signature);
        verified.map_err(|_| format!("{path}: a signature that is none"))?;
        let payload = from_base64(&payload)?;
        let payload = if payload.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&payload) };
        Ok((account, payload.map_err(|error| error.to_string())?))
    }

    fn order(&mut self, payload: &Value) -> Answer {
        let identifiers = payload["identifiers"].as_array().ok_or("an order of nothing")?;
        let names: Vec<String> = identifiers.iter().filter_map(|id| Some(id["value"].as_str()?.to_owned())).collect();
        let proven = vec![false; names.len()];
        self.orders.push(Order { names, proven, failed: false, certificate: None });
        let (_, _, body) = self.shown_order(self.orders.len() - 1)?;
        let location = format!("{}/order/{}", self.base, self.orders.len() - 1);
        Ok((StatusCode::CREATED, vec![("location", location)], body))
    }

    fn shown_order(&self, nth: usize) -> Answer {
        let order = self.orders.get(nth).ok_or("no such order")?;
        let status = match order {
            Order { failed: true, .. } => "invalid",
            Order { certificate: Some(_), .. } => "valid",
            Order { proven, .. } if proven.iter().all(|proven| *proven) => "ready",
            Order { .. } => "pending",
        };
        let base = &self.base;
        let names: Vec<Value> = order.names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let authorizations: Vec<String> =
            (0..names.len()).map(|name| format!("{base}/authorization/{nth}/{name}")).collect();
        let mut body = json!({
            "status": status, "identifiers": names, "authorizations": authorizations,
            "finalize": format!("{base}/finalize/{nth}"),
        });
        if order.certificate.is_some() {
            body["certificate"] = json!(format!("{base}/certificate/{nth}"));
        }
        Ok((StatusCode::OK, Vec::new(), body))
    }

    fn authorization(&self, order: usize, name: usize) -> Answer {
        let found = self.orders.get(order).ok_or("no such order")?;
        let host = found.names.get(name).ok_or("no such authorization")?;
        let status = if found.proven[name] { "valid" } else { "pending" };
        let challenges = [challenge(&self.base, order, name, status)];
        let body = json!({
            "status": status, "identifier": { "type": "dns", "value": host }, "challenges": challenges,
        });
        Ok((StatusCode::OK, Vec::new(), body))
    }

    /// The host to look at, and the digest that it shall show.
    fn key_authorization(&self, account: &str, order: usize, name: usize) -> Result<(String, Vec<u8>), String> {
        let host = self.orders.get(order).and_then(|order| order.names.get(name)).ok_or("no such challenge")?;
        let (_, thumbprint) = &self.accounts[account];
        let expected = digest(&SHA256, format!("token-{order}-{name}.{thumbprint}").as_bytes());
        Ok((host.clone(), expected.as_ref().to_vec()))
    }

    fn judge(&mut self, order: usize, name: usize, proven: bool) {
        let order = &mut self.orders[order];
        order.proven[name] = proven;
        order.failed |= !proven;
    }

    fn finalize(&mut self, nth: usize, payload: &Value) -> Answer {
        let csr = from_base64(payload["csr"].as_str().ok_or("no CSR")?)?;
        let (_, csr) = X509CertificationRequest::from_der(&csr).map_err(|error| error.to_string())?;
        let key = OfCsr(csr.certification_request_info.subject_pki.subject_public_key.data.to_vec());
        let order = self.orders.get_mut(nth).filter(|order| order.proven.iter().all(|proven| *proven));
        let order = order.ok_or("an order that is not ready")?;
        let mut params = CertificateParams::new(order.names.clone()).map_err(|error| error.to_string())?;
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2090, 1, 1);
        let issued = params.signed_by(&key, &self.issuer).map_err(|error| error.to_string())?;
        order.certificate = Some(issued.pem());
        self.shown_order(nth)
    }
}

fn challenge(base: &str, order: usize, name: usize, status: &str) -> Value {
    json!({
        "type": "tls-alpn-01", "url": format!("{base}/challenge/{order}/{name}"),
        "token": format!("token-{order}-{name}"), "status": status,
    })
}

/// The key that a CSR is for.
struct OfCsr(Vec<u8>);

impl PublicKeyData for OfCsr {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Whether the host shows what RFC 8737 §3 says: one certificate for it, with the digest in a critical extension.
async fn is_proven(at: Option<SocketAddr>, host: &str, expected: &[u8]) -> bool {
    let Some(at) = at else { return false };
    let Ok(stream) = tls(at, host, &challenger()).await else { return false };
    if stream.get_ref().1.alpn_protocol() != Some(b"acme-tls/1") {
        return false;
    }
    let shown = shown(&stream);
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&shown) else { return false };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| format!("{:?}", names.value.general_names)).unwrap_or_default();
    let extension = certificate.extensions().iter().find(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    // An octet string of 32 bytes.
    let is_right = |value: &[u8]| value.starts_with(&[4, 32]) && &value[2..] == expected;
    names == format!("[DNSName({host:?})]") && extension.is_some_and(|found| found.critical && is_right(found.value))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for sextet in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * sextet)) as usize & 63]));
        }
    }
    text
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let (mut group, mut bits) = (0u32, 0);
    for digit in text.bytes() {
        let value =
            ALPHABET.iter().position(|known| *known == digit).ok_or_else(|| format!("{text:?} is no base64url"))?;
        group = (group << 6 | u32::try_from(value).unwrap_or(0)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits & 0xff) as u8);
        }
    }
    Ok(bytes)
}
