//! `FOREBAY_<TABLE>__<KEY>`: the environment's say in the configuration.
//!
//! Lists of tables (`listen`, `nodes.static`, `nodes.rule`) and `apps` cannot be set this way. A variable with two
//! underscores must name a known table and key. One without them is not ours (Kubernetes sets `FOREBAY_SERVICE_HOST`
//! for a service called forebay), unless it is a known key with one underscore too few.

use std::collections::BTreeMap;

use super::{
    problems::Problems,
    raw::{FILE_ONLY, TABLES},
};

const PREFIX: &str = "FOREBAY_";

/// What the environment overrides.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// (table, key) → (variable, text)
    set: BTreeMap<(&'static str, &'static str), (String, String)>,
}

impl Overrides {
    /// Takes this process's variables, or a test's.
    pub(super) fn read(environment: &BTreeMap<String, String>, problems: &mut Problems) -> Self {
        let mut overrides = Self::default();
        for (variable, text) in environment {
            let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
            match rest.split_once("__") {
                Some((table, key)) => overrides.take(variable, table, key, text, problems),
                None => warn_of_a_slip(variable, rest, problems),
            }
        }
        overrides
    }

    /// A table's overridden keys: (key, variable, text).
    pub(super) fn of(&self, table: &str) -> impl Iterator<Item = (&'static str, &str, &str)> {
        let keys = self.set.iter().filter(move |((of, _), _)| *of == table);
        keys.map(|((_, key), (variable, text))| (*key, variable.as_str(), text.as_str()))
    }

    fn take(&mut self, variable: &str, table: &str, key: &str, text: &str, problems: &mut Problems) {
        let (table, key) = (table.to_ascii_lowercase(), key.to_ascii_lowercase());
        let only_file = |name: &str| FILE_ONLY.iter().any(|(only, _)| *only == name);
        if only_file(&table) || (table == "nodes" && (key.starts_with("static") || key.starts_with("rule"))) {
            let what = "lists of tables and apps cannot be set by the environment; write them in the file";
            problems.add(variable, what);
            return;
        }
        let Some((table, keys)) = TABLES.iter().find(|(name, _)| *name == table) else {
            let known: Vec<&'static str> = TABLES.iter().map(|(name, _)| *name).collect();
            problems.unknown(variable.to_owned(), &table, &known);
            return;
        };
        match keys.iter().find(|known| **known == key) {
            Some(key) => {
                self.set.insert((*table, *key), (variable.to_owned(), text.to_owned()));
            }
            None => problems.unknown(variable.to_owned(), &key, keys),
        }
    }
}

/// `FOREBAY_MONGO_URI` was meant to be `FOREBAY_MONGO__URI`.
fn warn_of_a_slip(variable: &str, rest: &str, problems: &mut Problems) {
    let Some((table, key)) = rest.split_once('_') else { return };
    let Some((table, keys)) = TABLES.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)) else { return };
    if let Some(key) = keys.iter().find(|known| known.eq_ignore_ascii_case(key)) {
        let meant = format!("{PREFIX}{}__{}", table.to_ascii_uppercase(), key.to_ascii_uppercase());
        problems.add(variable, format!("has one underscore between table and key; did you mean {meant}?"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Overrides, String) {
        let environment = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut problems = Problems::default();
        let overrides = Overrides::read(&environment, &mut problems);
        (overrides, problems.to_string())
    }

    #[test]
    fn a_variable_names_a_table_and_a_key() {
        let (overrides, problems) = read(&[("FOREBAY_MONGO__URI", "mongodb://m"), ("HOME", "/")]);
        assert_eq!(problems, "");
        assert_eq!(overrides.of("mongo").collect::<Vec<_>>(), [("uri", "FOREBAY_MONGO__URI", "mongodb://m")]);
        assert_eq!(overrides.of("play").count(), 0);
    }

    #[test]
    fn a_variable_that_would_be_ignored_is_a_problem() {
        for (variable, hint) in [
            ("FOREBAY_MONGA__URI", "did you mean `mongo`"),
            ("FOREBAY_PLAY__WIAT", "did you mean `wait`"),
            ("FOREBAY_LISTEN__BIND", "cannot be set by the environment"),
            ("FOREBAY_NODES__STATIC", "cannot be set by the environment"),
            ("FOREBAY_APPS__LIVEAPP", "cannot be set by the environment"),
            ("FOREBAY_MONGO_URI", "did you mean FOREBAY_MONGO__URI"),
        ] {
            let (_, problems) = read(&[(variable, "x")]);
            assert!(problems.starts_with(variable) && problems.contains(hint), "{problems}");
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_called_forebay_is_not_ours() {
        for variable in ["FOREBAY_SERVICE_HOST", "FOREBAY_PORT", "FOREBAY_PORT_5080_TCP", "FOREBAY_NODES_PORT"] {
            let (_, problems) = read(&[(variable, "tcp://10.0.0.1:5080")]);
            assert_eq!(problems, "", "{variable}");
        }
    }
}
