//! How the process itself fares: reloads of its configuration, upgrades, the generation before it.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{metrics::gauge::Gauge, registry::Unit};

use super::{Book, Counters, Held, Metrics, Ratios, Word, word};

#[derive(Debug)]
pub(super) struct LifeMetrics {
    reloads: Counters<1>,
    reload_time: Ratios<1>,
    upgrades: Counters<1>,
    predecessor: Gauge,
}

impl LifeMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let when = "when the configuration was last read anew, in seconds since 1970";
        Self {
            reloads: book.counters(
                "config_reloads",
                &["result"],
                "reloads of the configuration, by what became of them",
            ),
            reload_time: book.add_unit("config_reload_timestamp", "gauge", &["result"], when, Unit::Seconds),
            upgrades: book.counters("upgrades", &["result"], "handovers to a new process, by what became of them"),
            predecessor: book.gauge("predecessor", "1 while the generation before this one finishes its sessions"),
        }
    }
}

impl Metrics {
    /// The configuration was read anew, with `result`.
    pub fn config_reloaded(&self, result: Word) {
        let life = &self.0.life;
        life.reloads.get_or_create(&[word("result", result)]).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        life.reload_time.get_or_create(&[word("result", result)]).set(now.as_secs_f64());
    }

    /// An upgrade ended, with `result`.
    pub fn upgraded(&self, result: Word) {
        self.0.life.upgrades.get_or_create(&[word("result", result)]).inc();
    }

    /// The generation before this one is there until the guard drops.
    pub fn predecessor_there(&self) -> Held {
        Held::new(self.0.life.predecessor.clone())
    }
}
