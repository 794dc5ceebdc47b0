//! The files in `config/` are what they claim to be: they load, and the one that explains every key explains every key.

use std::{collections::BTreeMap, path::PathBuf};

use forebay::config::{Config, Proxy, known_keys};

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
    assert!(loaded >= 4, "forebay.toml, demo.toml and those for Alibaba Cloud are there");
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

fn loaded(name: &str) -> Config {
    Config::load(&directory().join(name), &BTreeMap::new()).unwrap_or_else(|problems| panic!("{name}:\n{problems}"))
}

#[test]
fn behind_an_slb_only_its_own_addresses_say_who_the_client_is() {
    let config = loaded("alibaba-behind-slb.toml");
    let [http, tls] = &config.listen[..] else { panic!("a plain listener and one with TLS") };
    assert!(!http.tls && http.proxy == Proxy::Off);
    assert!(tls.tls && tls.proxy == Proxy::Required);
    for listen in &config.listen {
        let trusts = |ip: [u8; 4]| listen.trusted.iter().any(|range| range.contains(ip.into()));
        assert!(trusts([100, 64, 0, 7]) && trusts([10, 0, 100, 9]), "CLB's range and the ALB's vSwitches");
        assert!(!trusts([10, 0, 1, 1]) && !trusts([8, 8, 8, 8]));
        assert!(!listen.ice_tcp, "media goes past the load balancer");
    }
    // NLB looks away after two probes at 10 s.
    assert!(config.health.bind.is_some() && config.shutdown.lame_duck.as_secs() >= 20);
}

#[test]
fn instead_of_an_slb_a_door_has_a_name_of_its_own_and_takes_media_over_tcp() {
    let config = loaded("alibaba-instead-of-slb.toml");
    let [public, local] = &config.listen[..] else { panic!("a public listener and a local one") };
    assert!(public.tls && public.ice_tcp && public.bind.port() == 443 && public.trusted.is_empty());
    assert!(local.bind.ip().is_loopback());
    assert_eq!(config.door.public_url.as_deref(), Some("https://door-1.live.example"));
    assert_eq!(config.media.external_ips.len(), 1);
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

#[test]
fn dashboards_and_alerts_use_only_metrics_that_exist_with_labels_that_they_have() {
    let metrics = forebay::telemetry::metrics::Metrics::new();
    let samples: BTreeMap<String, &[&str]> = metrics
        .describe()
        .iter()
        .flat_map(|metric| {
            let suffixes: &[&str] = match metric.kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes.iter().map(|suffix| (format!("{}{suffix}", metric.name), metric.labels))
        })
        .collect();
    for file in ["deploy/alerts.yaml", "deploy/grafana/forebay.json"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap().replace("\\\"", "\"");
        let mut found = 0;
        for (at, _) in text.match_indices("forebay_") {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if text[..at].ends_with(word) {
                continue;
            }
            let (name, rest) = text[at..].split_at(text[at..].find(|c| !word(c)).unwrap());
            let labels = samples.get(name).unwrap_or_else(|| panic!("{file}: there is no {name}"));
            found += 1;
            let Some(selector) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
            for matcher in selector.0.split(',') {
                let label = matcher.trim().split(['=', '!']).next().unwrap();
                assert!(label == "instance" || labels.contains(&label), "{file}: {name} has no label {label:?}");
            }
        }
        assert!(found > 10, "{file} uses {found} metrics");
    }
    let dashboard = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/forebay.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(dashboard).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
    let alerts = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alerts.yaml")).unwrap();
    for part in ["expr: ", "for: ", "severity: ", "summary: "] {
        let (alerts, parts) = (alerts.matches("- alert: ").count(), alerts.matches(part).count());
        assert_eq!(parts, alerts, "each alert has its {part}");
    }
}
