//! A certificate that the door gets by itself: ordered, proven by TLS-ALPN-01, kept in `door.state_dir`, renewed when a
//! third of its life is left. What fails is tried again, ever less often; until then the old certificate serves.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use tokio::time::{sleep, timeout};

use super::{Tls, acme_http::AcmeHttp, certificates::Loaded, challenge::Challenges};
use crate::{
    clock,
    config::{self, Acme},
    net::{
        ask::Asker,
        pem::{self, CertificateError, Facts},
    },
};

/// After a failed order; doubled with each further one up to [`REST_MAX`]. Let's Encrypt allows five failures an hour.
const REST: Duration = Duration::from_secs(15 * 60);
/// See [`REST`].
const REST_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// After an order that brought a certificate, whatever life that has: a server with a wrong clock is not asked on and on.
const REST_ISSUED: Duration = Duration::from_secs(60 * 60);
/// How long at most until it is looked again: wall clocks are set, machines sleep.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// A whole order.
const ORDER: Duration = Duration::from_secs(300);
/// How long the server may take for one step of it.
const STEP: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

/// Why an order brought nothing.
#[derive(Debug, thiserror::Error)]
enum AcmeError {
    #[error("the ACME server refused or did not answer")]
    Server(#[from] instant_acme::Error),
    #[error("the ACME server offers no TLS-ALPN-01 for {0}")]
    NoChallenge(String),
    #[error("{0} is not proven: {1:?}")]
    NotProven(String, AuthorizationStatus),
    #[error("the order is {0:?}")]
    NotReady(OrderStatus),
    #[error("the challenge's certificate could not be made: {0}")]
    Challenge(String),
    #[error("{path}")]
    Store { path: PathBuf, source: io::Error },
    #[error("the authorities of the ACME server cannot be used")]
    Authorities(#[from] CertificateError),
    #[error("the stored account is none")]
    Account(#[from] serde_json::Error),
    #[error("not within {ORDER:?}")]
    TimedOut,
}

/// Adds the stored certificate, if there is one. One that cannot be used is as good as none: it will be ordered again.
pub(super) fn add_stored(loaded: &mut Loaded, acme: Option<&Acme>) {
    let Some(acme) = acme else { return };
    let stored = stored(acme);
    match pem::read_pair(&stored.cert, &stored.key) {
        Ok((key, facts)) => loaded.add(key, facts, &stored.cert),
        Err(error) => tracing::info!(%error, "no certificate from the ACME server yet"),
    }
}

/// Where the certificate is kept, with its key in the same file: so both change at once.
fn stored(acme: &Acme) -> config::Certificate {
    let file = acme.store.join("certificate.pem");
    config::Certificate { cert: file.clone(), key: file }
}

fn facts_of(certificate: &config::Certificate) -> Option<Facts> {
    pem::read_pair(&certificate.cert, &certificate.key).ok().map(|(_, facts)| facts)
}

impl Tls {
    /// Orders and renews, for ever.
    pub(super) async fn renew(&self) -> std::convert::Infallible {
        let mut rest = REST;
        loop {
            let source = self.0.source.load_full();
            let Some(acme) = &source.acme else {
                self.0.changed.notified().await;
                continue;
            };
            let wait = due(facts_of(&stored(acme)).as_ref(), &acme.domains, clock::wall());
            if !wait.is_zero() {
                self.wait(wait.min(LOOK)).await;
                continue;
            }
            let issued = timeout(ORDER, self.order(acme)).await.unwrap_or(Err(AcmeError::TimedOut));
            self.0.metrics.acme_ordered(issued.is_ok());
            match issued {
                Ok(()) => {
                    tracing::info!(domains = ?acme.domains, "the ACME server has issued a certificate");
                    self.reread(&source).await;
                    rest = REST;
                    self.wait(REST_ISSUED).await;
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                    tracing::warn!(%error, %cause, again_after = ?rest, "no certificate from the ACME server");
                    self.wait(rest).await;
                    rest = (rest * 2).min(REST_MAX);
                }
            }
        }
    }

    /// Waits so long, or until the configuration changes.
    async fn wait(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.0.changed.notified() => {}
        }
    }

    async fn order(&self, acme: &Acme) -> Result<(), AcmeError> {
        make_dir(&acme.store)?;
        let account = account(acme).await?;
        let names: Vec<Identifier> = acme.domains.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        prove(&mut order, &self.0.challenges).await?;
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&STEP).await?;
        keep(&stored(acme).cert, format!("{key}\n{chain}").as_bytes())
    }
}

/// Proves each name of an order that is not proven yet, and waits until the server has seen it.
async fn prove(order: &mut Order, challenges: &Challenges) -> Result<(), AcmeError> {
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(AcmeError::NotProven(name, other)),
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or_else(|| AcmeError::NoChallenge(name.clone()))?;
        let digest = challenge.key_authorization().digest();
        let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        shown.push(challenges.show(&name, digest).map_err(AcmeError::Challenge)?);
        challenge.set_ready().await?;
    }
    match order.poll_ready(&STEP).await? {
        OrderStatus::Ready => Ok(()),
        other => Err(AcmeError::NotReady(other)),
    }
}

/// The account at this server, made if there is none yet.
async fn account(acme: &Acme) -> Result<Account, AcmeError> {
    let http = AcmeHttp(Asker::new(acme.root.as_deref(), None)?);
    let builder = Account::builder_with_http(Box::new(http));
    // An account is one server's.
    let file = acme.store.join(format!("account-{:08x}.json", crc32fast::hash(acme.directory.as_bytes())));
    match fs::read(&file) {
        Ok(stored) => {
            let credentials: AccountCredentials = serde_json::from_slice(&stored)?;
            Ok(builder.from_credentials(credentials).await?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
            let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
            let (account, credentials) = builder.create(&new, acme.directory.clone(), None).await?;
            keep(&file, &serde_json::to_vec(&credentials)?)?;
            Ok(account)
        }
        Err(source) => Err(AcmeError::Store { path: file, source }),
    }
}

/// How long until a certificate for `domains` is to be ordered; zero: now.
fn due(stored: Option<&Facts>, domains: &[String], now: SystemTime) -> Duration {
    let Some(facts) = stored else { return Duration::ZERO };
    if !domains.iter().all(|domain| facts.names.contains(domain)) {
        return Duration::ZERO;
    }
    let life = facts.expires.duration_since(facts.begins).unwrap_or_default();
    (facts.expires - life / 3).duration_since(now).unwrap_or_default()
}

fn make_dir(dir: &Path) -> Result<(), AcmeError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| AcmeError::Store { path: dir.to_path_buf(), source })
}

/// Writes a file that nobody else may read, whole or not at all.
fn keep(file: &Path, bytes: &[u8]) -> Result<(), AcmeError> {
    let new = file.with_extension("new");
    let write = || {
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        to.write_all(bytes)?;
        to.sync_all()?;
        fs::rename(&new, file)
    };
    write().map_err(|source| AcmeError::Store { path: file.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_life_is_left_or_a_name_is_missing() {
        let begins = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let names = vec!["a.example".to_owned(), "b.example".to_owned()];
        let facts = Facts { subject: None, names: names.clone(), begins, expires: begins + 90 * DAY };
        let after = |days: u32| due(Some(&facts), &names, begins + days * DAY);
        assert_eq!((after(0), after(59), after(60), after(95)), (60 * DAY, DAY, Duration::ZERO, Duration::ZERO));
        assert_eq!(due(None, &names, begins), Duration::ZERO);
        assert_eq!(due(Some(&facts), &names[..1], begins), 60 * DAY);
        assert_eq!(due(Some(&facts), &["c.example".to_owned()], begins), Duration::ZERO);
    }

    #[test]
    fn what_is_kept_is_for_nobody_else_and_replaced_whole() {
        use std::os::unix::fs::PermissionsExt;

        let dir = std::env::temp_dir().join(format!("forebay-acme-{}", std::process::id()));
        make_dir(&dir).unwrap();
        let file = dir.join("certificate.pem");
        for text in ["one", "another"] {
            keep(&file, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
