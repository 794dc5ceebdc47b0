//! A small client of the admin API.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use serde_json::Value;
use tokio::time::timeout;

use super::Exit;
use crate::{config, net::ask::Asker};

/// From the request to its whole answer; longer than the API's own limit.
const ANSWER: Duration = Duration::from_secs(35);
/// The largest answer that is read.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Where the admin API is, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Access {
    /// The admin API of any door of the cluster
    #[arg(long, value_name = "URL", env = "FOREBAY_ADMIN", default_value = "http://127.0.0.1:9090", value_parser = url)]
    pub admin: Uri,
    /// A file with the bearer token, if the API wants one (also: the variable FOREBAY_ADMIN_TOKEN)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The authorities that an https:// API is known by, as PEM [default: the public ones]
    #[arg(long, value_name = "FILE", env = "FOREBAY_ADMIN_CA")]
    pub ca: Option<PathBuf>,
    /// A certificate to show to the API, if it wants one, as PEM
    #[arg(long, value_name = "FILE", env = "FOREBAY_ADMIN_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", env = "FOREBAY_ADMIN_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The token itself, from the environment only: a command line can be read by others.
    #[arg(skip = std::env::var("FOREBAY_ADMIN_TOKEN").ok())]
    pub token: Option<String>,
}

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`
fn url(text: &str) -> Result<Uri, String> {
    let wrong = || "write http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:9090".to_owned();
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| wrong())?;
    let is_whole =
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && matches!(uri.path(), "" | "/");
    if is_whole { Ok(uri) } else { Err(wrong()) }
}

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to print.
    pub text: String,
    /// What to exit with.
    pub exit: Exit,
    /// The problem's word, if the API answered with one.
    pub code: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { text: text.into(), exit, code: None }
    }

    /// RFC 9457: what the API says, as it says it.
    fn problem(status: StatusCode, body: &Value) -> Self {
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NoPermission,
            StatusCode::CONFLICT => Exit::Refused,
            status if status.is_client_error() => Exit::Usage,
            _ => Exit::Unavailable,
        };
        let detail = body["detail"].as_str().unwrap_or("the admin API says no more");
        let code = body["code"].as_str().map(str::to_owned);
        Self { text: format!("{detail} ({})", status.as_u16()), exit, code }
    }
}

/// Asks the admin API.
#[derive(Debug)]
pub(super) struct Client {
    /// Without a slash at its end.
    base: String,
    asker: Asker,
    token: Option<String>,
}

impl Client {
    /// Reads the token and the certificates, where there are any.
    pub(super) fn new(access: &Access) -> Result<Self, Failure> {
        let text = match &access.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|why| Failure::new(Exit::Usage, format!("--token-file {}: {why}", file.display())))?,
            ),
            None => access.token.clone(),
        };
        let token = text.map(|text| config::admin_tokens(&text)).transpose();
        let token = token.map_err(|why| Failure::new(Exit::Usage, why))?;
        let token = token.and_then(|tokens| Some(tokens.into_iter().next()?.secret.0));
        let own = access.cert.as_deref().zip(access.key.as_deref());
        let asker = Asker::new(access.ca.as_deref(), own);
        let asker = asker.map_err(|why| Failure::new(Exit::Usage, why.to_string()))?;
        Ok(Self { base: access.admin.to_string().trim_end_matches('/').to_owned(), asker, token })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// Asks, and returns the body of a good answer.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let unreachable = |why: String| {
            Failure::new(Exit::Unavailable, format!("the admin API at {} does not answer: {why}", self.base))
        };
        let body = body.map_or_else(Bytes::new, |json| json.to_string().into());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|why| Failure::new(Exit::Usage, why.to_string()))?;
        let answer = timeout(ANSWER, self.asker.send(request, LARGEST_ANSWER)).await;
        let answer = answer.map_err(|_| unreachable(format!("no answer within {ANSWER:?}")))?;
        let (head, body) = answer.map_err(|why| unreachable(why.to_string()))?.into_parts();
        let status = head.status;
        let json = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or_default() };
        if status.is_success() {
            return if json.is_null() && status != StatusCode::NO_CONTENT {
                Err(unreachable("what answers there is no admin API of Forebay".into()))
            } else {
                Ok(json)
            };
        }
        Err(Failure::problem(status, &json))
    }
}

/// A name as part of a path (RFC 3986 §3.3).
pub(super) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_http_address_is_one() {
        for fine in ["http://127.0.0.1:9090", "https://door.internal", "http://[::1]:9090/"] {
            assert!(url(fine).is_ok(), "{fine}");
        }
        for wrong in ["127.0.0.1:9090", "ws://door", "http://", "http://door/v1/nodes", ""] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        assert_eq!(segment("10.0.0.1:5080"), "10.0.0.1:5080");
        assert_eq!(segment("../door drain?x"), "..%2Fdoor%20drain%3Fx");
    }
}
