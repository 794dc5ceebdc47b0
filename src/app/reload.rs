//! Puts another configuration in force, whole or not at all: no session ends, and what cannot change is named.

use std::path::Path;

use super::door::Rooms;
use crate::{
    config::{Config, Problems, process_environment},
    front::{Settings, Tls, TlsError},
    telemetry::logs::LogError,
};

/// Why the configuration in force stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// It has problems, or would change what cannot change: all of them, a line each.
    #[error("{0}")]
    Problems(Problems),
    #[error("tls.certificates")]
    Tls(#[from] TlsError),
    #[error("telemetry.log")]
    Log(#[from] LogError),
}

impl Rooms {
    /// Reads the file anew and puts what it says in force.
    pub(super) fn reload(&mut self, file: &Path) -> Result<(), ReloadError> {
        let new = Config::load(file, &process_environment()).map_err(ReloadError::Problems)?;
        let fixed = self.config.now().cannot_become(&new);
        if !fixed.is_empty() {
            return Err(ReloadError::Problems(fixed));
        }
        // First what can fail, so that what has failed has changed nothing.
        match &self.tls {
            Some(tls) => tls.reload(&new.tls)?,
            None if new.listen.iter().any(|listen| listen.tls) => {
                let tls = Tls::open(&new.tls, &self.metrics)?;
                tls.watch(&self.shutdown);
                self.tls = Some(tls);
            }
            None => {}
        }
        // An operator may have set another filter meanwhile: his stays, unless the file has changed its own.
        let is_other = self.config.now().telemetry.log != new.telemetry.log;
        if let Some(logs) = self.logs.as_ref().filter(|_| is_other) {
            logs.set(&new.telemetry.log)?;
        }
        self.front.apps.store(new.apps.clone().into());
        self.front.http.store(new.http.clone().into());
        self.registry.reconfigure(&new);
        self.sessions.reconfigure(&new);
        self.prober.reconfigure(&new.health);
        for (listening, listen) in self.listening.iter().zip(&new.listen) {
            listening.reload(Settings::new(listen, &new.limits, self.tls.as_ref(), self.sink.as_ref()));
        }
        self.config.replace(new);
        Ok(())
    }
}
