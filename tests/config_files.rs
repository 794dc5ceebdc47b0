//! The files in `config/` are what they claim to be: they load, and the one that explains every key explains every key.

use std::{collections::BTreeMap, path::PathBuf};

use forebay::config::{Config, known_keys};

/// What stands behind a commented key that has no default but an example.
const EXAMPLE: &str = "# no default";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn explained() -> String {
    std::fs::read_to_string(directory().join("forebay.toml")).expect("config/forebay.toml is there")
}

/// A commented key or table header as the operator would uncomment it.
fn uncommented(line: &str) -> Option<&str> {
    let bare = line.strip_prefix('#')?;
    let key = bare.starts_with(|c: char| c.is_ascii_lowercase()) && bare.contains(" = ");
    (key || bare.starts_with('[')).then_some(bare)
}

#[test]
fn every_file_in_config_loads() {
    let mut loaded = 0;
    for entry in std::fs::read_dir(directory()).expect("config/ is there") {
        let path = entry.expect("config/ can be listed").path();
        assert_eq!(path.extension().and_then(|ending| ending.to_str()), Some("toml"), "{}", path.display());
        if let Err(problems) = Config::load(&path, &BTreeMap::new()) {
            panic!("{}:\n{problems}", path.display());
        }
        loaded += 1;
    }
    assert!(loaded >= 2, "forebay.toml and demo.toml are there");
}

#[test]
fn the_demo_starts_from_its_file() {
    let demo = Config::demo();
    assert_eq!(demo.listen[0].bind, "127.0.0.1:5080".parse::<std::net::SocketAddr>().expect("an address"));
    let names: Vec<&str> = demo.nodes.fixed.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(names, ["origin-1", "origin-2", "edge-1", "edge-2", "edge-3"]);
    assert!(demo.apps.get(&"LiveApp".parse().expect("a name")).is_some());
    assert!(demo.mongo.is_none());
}

#[test]
fn every_key_stands_in_the_explained_file_under_its_table() {
    let text = explained();
    let mut table = "";
    let mut explained: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().map(|line| uncommented(line).unwrap_or(line)) {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']);
        } else if table == "apps" && line.contains('{') {
            // An app's keys stand in its line.
            let keys = line.split(['{', ',']).filter_map(|part| part.split_once(" = "));
            explained.extend(keys.map(|(key, _)| (table, key.trim())));
        } else if let Some((key, _)) = line.split_once(" = ") {
            explained.push((table, key));
        }
    }
    for (table, keys) in known_keys() {
        for key in keys {
            assert!(explained.contains(&(table, key)), "{table}.{key} is not explained");
        }
    }
}

#[test]
fn the_stated_defaults_are_the_defaults() {
    let text = explained();
    let stated: String = text
        .lines()
        .map(|line| match uncommented(line) {
            Some(bare) if !line.ends_with(EXAMPLE) && !bare.starts_with('[') => format!("{bare}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let shipped = Config::from_toml_str(&text).expect("it loads");
    let spelled_out = Config::from_toml_str(&stated).expect("it loads with every default spelled out");
    assert_eq!(shipped, spelled_out);
    assert_ne!(text, stated);
}

#[test]
fn the_examples_are_valid_values() {
    let everything: String = explained()
        .lines()
        .filter(|line| !line.contains("token_file"))
        .map(|line| format!("{}\n", uncommented(line).unwrap_or(line)))
        .collect();
    let environment = BTreeMap::from([("FOREBAY_ADMIN_TOKEN".to_owned(), "token".to_owned())]);
    let config = Config::from_toml_with(&everything, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.nodes.fixed.len(), config.nodes.rules.len()), (1, 1));
    assert!(config.health.bind.is_some() && !config.admin.tokens.is_empty());
}

#[test]
fn the_readme_names_every_metric_as_it_is() {
    let row = |metric: &forebay::telemetry::metrics::Described| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help)
    };
    let metrics = forebay::telemetry::metrics::Metrics::new();
    let rows: String = metrics.describe().iter().map(row).collect();
    let table = format!("| metric | kind | labels | says |\n|---|---|---|---|\n{rows}");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&table), "README.md shall hold this table:\n{table}");
}
