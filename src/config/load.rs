//! From a file, a text or nothing at all to a checked [`Config`].

use std::{collections::BTreeMap, path::Path};

use super::{Config, Problems, check, environment::Overrides, raw};

/// The settings of `forebay demo`.
const DEMO: &str = include_str!("../../config/demo.toml");

/// A larger file is refused unread; the example with every key explained has 20 KiB.
const LARGEST_FILE: u64 = 4 << 20;

impl Config {
    /// Reads `path`, lets `environment` override it, and checks the whole.
    ///
    /// # Errors
    /// Every problem at once, by key; a file that cannot be read is one under its own name.
    pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let text = read_file(path).map_err(|why| {
            let mut problems = Problems::default();
            problems.add(path.display().to_string(), why);
            problems
        })?;
        Self::from_toml_with(&text, environment)
    }

    /// Checks a text in TOML; no environment.
    ///
    /// # Errors
    /// Every problem at once, by key.
    pub fn from_toml_str(text: &str) -> Result<Self, Problems> {
        Self::from_toml_with(text, &BTreeMap::new())
    }

    /// Checks a text in TOML with the environment's overrides.
    ///
    /// # Errors
    /// Every problem at once, by key.
    pub fn from_toml_with(text: &str, environment: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let file = parse(text, &mut problems);
        let overrides = Overrides::read(environment, &mut problems);
        // Half a file would only add problems that are none.
        let Some(file) = file else { return Err(problems) };
        let raw = raw::read(file, &overrides, &mut problems);
        let config = check::check(raw, environment, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What `forebay demo` starts from: `config/demo.toml`.
    pub fn demo() -> Self {
        Self::from_toml_str(DEMO).expect("config/demo.toml is loaded by a test")
    }
}

/// This process's environment as [`Config::load`] wants it; what is not UTF-8 is left out.
pub fn process_environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))).collect()
}

fn read_file(path: &Path) -> Result<String, String> {
    let facts = std::fs::metadata(path).map_err(|why| format!("cannot be read ({why}); name a file that can"))?;
    if facts.is_dir() || facts.len() > LARGEST_FILE {
        return Err("is a directory or larger than 4 MiB; name a configuration file".into());
    }
    std::fs::read_to_string(path).map_err(|why| format!("cannot be read ({why}); name a TOML file in UTF-8"))
}

/// Parses the text; every syntax error is a problem under its line.
fn parse(text: &str, problems: &mut Problems) -> Option<toml::Table> {
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(line_of(text, error.span()), format!("is not TOML: {}", error.message().replace('\n', ", ")));
    }
    if !errors.is_empty() {
        return None;
    }
    match toml::from_str(text) {
        Ok(table) => Some(table),
        Err(error) => {
            problems.add(line_of(text, error.span()), error.message().replace('\n', ", "));
            None
        }
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let before = text.as_bytes().get(..span.map_or(0, |span| span.start)).unwrap_or_default();
    format!("line {}", 1 + before.iter().filter(|byte| **byte == b'\n').count())
}
