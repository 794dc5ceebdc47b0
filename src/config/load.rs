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

    /// What `forebay demo --mongo` starts from.
    ///
    /// # Errors
    /// `mongo.uri`, if it is none.
    pub fn demo_on(mongo: &str) -> Result<Self, Problems> {
        Self::from_toml_with(DEMO, &BTreeMap::from([("FOREBAY_MONGO__URI".to_owned(), mongo.to_owned())]))
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

/// Every table of the file with its keys, lists of tables and the apps included: what documentation must name.
pub fn known_keys() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    raw::TABLES.into_iter().chain(raw::FILE_ONLY)
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

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::RESERVED_APPS,
        domain::{
            balance::{BalanceSettings, PublishPolicy},
            ids::Role,
        },
    };

    /// The least that a door can run with.
    const LEAST: &str = "[apps]\nLiveApp = {}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n";

    fn good(text: &str) -> Config {
        Config::from_toml_str(text).unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
    }

    fn bad(text: &str) -> String {
        Config::from_toml_str(text).expect_err(text).to_string()
    }

    fn with_environment(text: &str, pairs: &[(&str, &str)]) -> Result<Config, Problems> {
        let environment = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Config::from_toml_with(text, &environment)
    }

    #[test]
    fn what_is_not_written_is_the_documented_default() {
        let config = good(LEAST);
        assert_eq!(config.listen[0].bind, "0.0.0.0:5080".parse::<SocketAddr>().unwrap());
        assert_eq!(config.admin.bind, "127.0.0.1:9090".parse::<SocketAddr>().unwrap());
        assert_eq!(config.balance, BalanceSettings::default());
        assert_eq!(config.play.wait, Duration::from_secs(2));
        assert_eq!(config.media.node_ports, 50_000..=60_000);
        assert_eq!((config.media.ports.as_slice(), config.media.threads), ([5000, 5001].as_slice(), 1));
        assert!(config.nodes.discover, "with MongoDB, AMS's own list is read");
        assert!(!config.nodes.permit.iter().any(|range| range.contains("127.0.0.1".parse().unwrap())));
        assert!(!config.nodes.permit.iter().any(|range| range.contains("100.100.100.200".parse().unwrap())));
        assert_eq!(config.mongo.unwrap().live_window, Duration::from_secs(20));
    }

    #[test]
    fn every_problem_is_told_at_once_by_its_key() {
        let problems = bad("
            [[listen]]
            bind = \"localhost:5080\"
            [admin]
            bind = \"0.0.0.0:9090\"
            [health]
            probe_intervall = \"2s\"
            probe_timeout = 1
            [tls]
            min_version = \"1.1\"
            [apps]
            admin = {}
            LiveApp = { database = \"a.b\", origin = [] }
            [nodes]
            discover = true
            [[nodes.static]]
            address = \"ams-1.example\"
            [[nodes.static]]
            role = \"orign\"
            [play]
            epsilon = \"much\"
            wait = \"2 parsecs\"
            [media]
            mode = \"relais\"
            [signaling]
            give_up = \"5s\"
            ");
        for (key, hint) in [
            ("listen[0].bind", "IP:PORT"),
            ("admin.bind", "token_file"),
            ("health.probe_intervall", "did you mean `probe_interval`"),
            ("health.probe_timeout", "\"2s\""),
            ("tls.min_version", "\"1.2\""),
            ("apps.admin", "reserved"),
            ("apps.LiveApp.database", "no database name"),
            ("apps.LiveApp.origin", "did you mean `origins`"),
            ("nodes.discover", "[mongo]"),
            ("nodes.static[0].address", "host name"),
            ("nodes.static[1].address", "missing"),
            ("nodes.static[1].role", "\"origin\""),
            ("play.epsilon", "0.25"),
            ("play.wait", "\"2s\""),
            ("media.mode", "\"relay\""),
            ("signaling.give_up", "out of bounds"),
        ] {
            let line = problems.lines().find(|line| line.starts_with(&format!("{key}: ")));
            assert!(line.is_some_and(|line| line.contains(hint)), "{key} ({hint}) is not in\n{problems}");
        }
        assert_eq!(problems.lines().count(), 16, "and nothing else:\n{problems}");
    }

    #[test]
    fn tables_of_what_is_not_built_are_unknown_keys() {
        for table in ["[http]\nhttp3 = true", "[media]\nice_tcp = true"] {
            let problems = bad(&format!("{LEAST}{table}"));
            assert!(problems.contains("unknown key"), "{problems}");
        }
    }

    #[test]
    fn a_text_that_is_not_toml_is_told_by_its_lines() {
        let problems = bad("[apps]\nLiveApp = {}\n[play\nwait = = 2\n");
        assert!(problems.lines().all(|line| line.starts_with("line ") && line.contains("not TOML")), "{problems}");
        assert!(problems.contains("line 3") && problems.contains("line 4"), "{problems}");
        assert!(bad("[play]\nwait = \"1s\"\nwait = \"2s\"").contains("line 3"));
    }

    #[test]
    fn an_environment_variable_wins_over_the_file_and_is_checked_as_strictly() {
        let text = format!("{LEAST}[play]\nwait = \"2s\"\n");
        let config = with_environment(
            &text,
            &[
                ("FOREBAY_PLAY__WAIT", "1s"),
                ("FOREBAY_MONGO__URI", "mongodb://other"),
                ("FOREBAY_NODES__PERMIT", "10.0.0.0/8, 127.0.0.0/8"),
                ("FOREBAY_PUBLISH__POLICY", "hash"),
                ("FOREBAY_PLAY__SHARE_UNTIL", "0"),
                ("FOREBAY_TELEMETRY__JSON", "true"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.play.wait, Duration::from_secs(1));
        assert_eq!(config.mongo.unwrap().uri.0, "mongodb://other");
        assert_eq!(config.nodes.permit.len(), 2);
        assert_eq!(config.balance.publish_policy, PublishPolicy::Hash);
        assert!(config.balance.share_until.abs() < f32::EPSILON && config.telemetry.json);

        let problems = with_environment(LEAST, &[("FOREBAY_PLAY__WAIT", "soon")]).unwrap_err().to_string();
        assert!(problems.contains("play.wait") && problems.contains("FOREBAY_PLAY__WAIT"), "{problems}");
    }

    #[test]
    fn the_environment_alone_can_name_the_mongodb() {
        let config = with_environment("[apps]\n\"*\" = {}\n", &[("FOREBAY_MONGO__URI", "10.0.0.5:27017")]).unwrap();
        assert_eq!(config.mongo.unwrap().uri.0, "mongodb://10.0.0.5:27017", "as AMS reads db.host");
    }

    #[test]
    fn admin_beyond_loopback_wants_a_token_and_a_token_is_never_shown() {
        let open = format!("{LEAST}[admin]\nbind = \"0.0.0.0:9090\"\n");
        assert!(bad(&open).contains("admin.bind: 0.0.0.0:9090 is not a loopback address"));
        let named = format!("{open}token_env = \"FOREBAY_ADMIN_TOKEN\"\n");
        assert!(bad(&named).contains("no variable FOREBAY_ADMIN_TOKEN"));
        let config = with_environment(&named, &[("FOREBAY_ADMIN_TOKEN", " s3cret \n")]).unwrap();
        assert_eq!(config.admin.tokens[0].secret.0, "s3cret");
        let config = with_environment(&named, &[("FOREBAY_ADMIN_TOKEN", "# two\nci: c1==\n\nops: 0p5\n")]).unwrap();
        let tokens = config.admin.tokens.iter().map(|token| (&*token.name, token.secret.0.as_str()));
        assert_eq!(tokens.collect::<Vec<_>>(), [("ci", "c1=="), ("ops", "0p5")]);
        assert!(!format!("{config:?}").contains("s3cret"));
        for weak in ["", "two words"] {
            let problems = with_environment(&named, &[("FOREBAY_ADMIN_TOKEN", weak)]).unwrap_err().to_string();
            assert!(problems.starts_with("admin.token_env: the token") && !problems.contains("words"), "{problems}");
        }
        assert!(bad(&format!("{open}token_file = \"/nonexistent/token\"\n")).contains("admin.token_file"));
    }

    #[test]
    fn a_collector_is_an_address_of_http_or_https() {
        let with = |endpoint: &str| format!("{LEAST}[telemetry]\notlp_endpoint = \"{endpoint}\"\n");
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://otel.internal", "http://otel.internal:4318/v1/traces"),
            ("http://[::1]:80/otlp/v1/traces", "http://[::1]:80/otlp/v1/traces"),
            ("https://otel.example:443/v1/traces", "https://otel.example:443/v1/traces"),
        ] {
            assert_eq!(good(&with(text)).telemetry.otlp_endpoint.unwrap().to_string(), shown);
        }
        for text in ["127.0.0.1:4318", "otel://otel", "http://", "http://a b", "http://h:x", "http://u@h", "http://::1"]
        {
            assert!(bad(&with(text)).starts_with("telemetry.otlp_endpoint: "), "{text}");
        }
    }

    #[test]
    fn secrets_are_in_no_problem() {
        let problems = bad("[apps]\nLiveApp = {}\n[mongo]\nuri = \"postgres://me:hunter2@db\"\n");
        assert!(problems.contains("mongo.uri") && !problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn a_star_admits_every_app_but_the_reserved_ones() {
        let config = good(&LEAST.replace("LiveApp = {}", "\"*\" = {}\nlive = { database = \"livedb\" }"));
        assert_eq!(config.apps.database(&"Other".parse().unwrap()).as_deref(), Some("other"));
        assert_eq!(config.apps.database(&"live".parse().unwrap()).as_deref(), Some("livedb"));
        for reserved in RESERVED_APPS {
            assert_eq!(config.apps.get(&reserved.parse().unwrap()), None, "{reserved}");
        }
    }

    #[test]
    fn nodes_are_named_by_configuration_or_by_address_and_never_alike() {
        let statics = "[apps]\nLiveApp = {}\n[[nodes.static]]\naddress = \"10.0.0.1\"\nrole = \"origin\"\n\
                       [[nodes.static]]\naddress = \"10.0.0.2:5080\"\n[[nodes.static]]\naddress = \"10.0.0.2:6080\"\n";
        let config = good(statics);
        let named: Vec<String> =
            config.nodes.fixed.iter().map(|node| format!("{} {}", node.id, node.address)).collect();
        assert_eq!(named, ["10.0.0.1 10.0.0.1:5080", "10.0.0.2:5080 10.0.0.2:5080", "10.0.0.2:6080 10.0.0.2:6080"]);
        assert_eq!((config.nodes.fixed[0].role, config.nodes.fixed[1].role), (Role::Origin, Role::Both));
        assert!(!config.nodes.discover);

        let twice = format!("{statics}[[nodes.static]]\naddress = \"10.0.0.1:5080\"\nname = \"10.0.0.2:5080\"\n");
        let problems = bad(&twice);
        assert!(problems.contains("nodes.static[3].name: the name 10.0.0.2:5080 is already taken by"), "{problems}");
        assert!(problems.contains("nodes.static[3].address: the address 10.0.0.1:5080"), "{problems}");
    }

    #[test]
    fn two_rooms_on_one_port_are_told_before_either_is_bound() {
        let problems = bad(&format!("{LEAST}[admin]\nbind = \"127.0.0.1:5080\"\n[health]\nbind = \"10.0.0.1:5081\"\n"));
        assert_eq!(problems, "admin.bind: 127.0.0.1:5080 is already taken by listen[0].bind; choose another port");
        good(&format!("{LEAST}[[listen]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n"));
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem_under_its_name() {
        let problems = Config::load(Path::new("/nonexistent/forebay.toml"), &BTreeMap::new()).unwrap_err();
        assert_eq!(problems.as_slice()[0].key, "/nonexistent/forebay.toml");
        assert!(Config::load(Path::new("/"), &BTreeMap::new()).is_err());
    }

    /// A value of any kind under any key: right, nearly right and nonsense.
    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "bind",
            "wait",
            "uri",
            "permit",
            "address",
            "role",
            "static",
            "rule",
            "epsilon",
            "mode",
            "node_ports",
            "\"*\"",
            "max_message",
            "sessions",
            "origins",
            "database",
            "token_env",
            "log",
            "name",
            "aliases",
            "x",
            "probe_path",
        ]);
        let value = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            Just("-1.5e300".to_owned()),
            Just("nan".to_owned()),
            Just("1979-05-27T07:32:00Z".to_owned()),
            Just("[[[]], {}]".to_owned()),
            "[ -~]{0,12}".prop_map(|text| format!("{:?}", text.replace(['\\', '"', '\''], ""))),
            prop::sample::select(vec!["\"10.0.0.0/8\"", "\"2s\"", "true", "{}", "\"::/129\"", "\"9-1\"", "\"256KiB\""])
                .prop_map(str::to_owned),
        ];
        (key, value).prop_map(|(key, value)| format!("{key} = {value}"))
    }

    fn document() -> impl Strategy<Value = String> {
        let header = prop::sample::select(vec![
            "",
            "[[listen]]",
            "[admin]",
            "[health]",
            "[mongo]",
            "[apps]",
            "[apps.LiveApp]",
            "[nodes]",
            "[[nodes.static]]",
            "[[nodes.rule]]",
            "[publish]",
            "[play]",
            "[signaling]",
            "[media]",
            "[limits]",
            "[shutdown]",
            "[door]",
            "[telemetry]",
            "[nonsense]",
        ]);
        let table = (header, prop::collection::vec(line(), 0..4));
        prop::collection::vec(table, 0..6).prop_map(|tables| {
            tables.iter().map(|(header, lines)| format!("{header}\n{}\n", lines.join("\n"))).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn no_text_whatsoever_panics_the_loader(text in "\\PC{0,200}") {
            let _ = Config::from_toml_str(&text);
        }

        #[test]
        fn no_document_panics_the_loader_and_a_refusal_always_has_a_reason(text in document()) {
            if let Err(problems) = Config::from_toml_str(&text) {
                prop_assert!(!problems.as_slice().is_empty());
                prop_assert!(problems.as_slice().iter().all(|problem| !problem.key.is_empty() && !problem.text.is_empty()));
            }
        }

        #[test]
        fn no_environment_panics_the_loader(table in "[A-Z]{0,9}", key in "[A-Z_]{0,12}", text in "\\PC{0,30}") {
            let _ = with_environment(LEAST, &[(&format!("FOREBAY_{table}__{key}"), &text), ("FOREBAY_PLAY__WAIT", &text)]);
        }
    }
}
