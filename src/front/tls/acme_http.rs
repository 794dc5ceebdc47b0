//! How an ACME server is asked: over HTTPS only, bounded in time and size.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use hyper::Request;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time::timeout;

use crate::net::ask::Asker;

/// From the look-up of the name to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer; certificate chains have below 20 KiB.
const LARGEST: usize = 1 << 20;

/// Speaks HTTPS with an ACME server.
#[derive(Clone)]
pub(super) struct AcmeHttp(pub(super) Asker);

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asker = self.0.clone();
        Box::pin(async move {
            if request.uri().scheme_str() != Some("https") {
                return Err(Error::Other(format!("{} is not https", request.uri()).into()));
            }
            let answer = timeout(LIMIT, asker.send(request, LARGEST)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}").into()));
            let (parts, body) = answer.map_err(Error::Other)?.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}
