//! The walls between the rooms of the house, as code: which room may use which, and which file may name which crate.
//!
//! Each table below is one sentence of the design. The checker reads `src/` as text, so a wall holds for code that is
//! compiled out as well, and the last tests feed it sources that break each rule to prove that it would notice.

#[path = "support/rust_source.rs"]
mod rust_source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rust_source::{NamedPath, Token};

/// Rooms that every room but `domain` may use.
const OPEN: &[&str] = &["domain", "config", "telemetry", "clock", "net", "shutdown"];

/// Every room, with what it may use besides itself and (unless it is `domain`) the open rooms.
const ROOMS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("front", &["sessions", "upstream", "health"]),
    ("sessions", &["registry", "upstream", "media"]),
    ("registry", &[]),
    ("upstream", &[]),
    ("media", &[]),
    ("health", &["registry", "upstream"]),
    ("admin", &["registry", "sessions", "health", "media"]),
    ("config", &[]),
    ("telemetry", &[]),
    ("demo", &["registry"]),
    ("clock", &[]),
    ("net", &[]),
    ("shutdown", &[]),
    // The one file that knows all rooms.
    ("app", &["cli", "front", "sessions", "registry", "upstream", "media", "health", "admin", "demo"]),
    ("cli", &["demo"]),
    ("main", &["app", "cli"]),
    ("lib", &[]),
];

/// All that `domain` may name of other crates.
const DOMAIN_CRATES: &[&str] =
    &["std", "core", "alloc", "bytes", "serde", "serde_json", "thiserror", "aws_lc_rs", "crc32fast"];

/// Crates that only some places may name; a place is the beginning of a path below `src/`.
const CRATE_WALLS: &[(&[&str], &[&str])] = &[
    (&["mongodb", "bson"], &["registry/mongo"]),
    (&["tungstenite", "tokio_tungstenite"], &["front/ws.rs", "upstream/connect.rs", "demo/"]),
    (&["webrtc", "rtc"], &["media/", "health/probe.rs", "demo/"]),
];

/// Parts of the domain that a room must not lean on, with the reason.
const PATH_WALLS: &[(&str, &str, &str)] = &[
    ("demo", "domain::session", "the demo's nodes must not share a misunderstanding with the door"),
    ("demo", "domain::routing", "the demo's nodes must not share a misunderstanding with the door"),
    ("demo", "domain::relay", "the demo's nodes must not share a misunderstanding with the door"),
];

/// The one file that may hold `unsafe`.
const UNSAFE_FILE: &str = "media/socket.rs";

#[test]
fn every_file_keeps_to_what_its_room_may_use() {
    let house = House::on_disk();
    let broken = house.broken_walls();
    assert!(broken.is_empty(), "{} broken walls:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_room_on_disk_is_in_the_table_and_has_files() {
    let house = House::on_disk();
    let broken = house.broken_rooms();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_library_root_is_a_list_of_the_rooms_on_disk() {
    let house = House::on_disk();
    let broken = house.broken_root();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What the checks look at: sources by their path below `src/`, directories there, and the manifest's crates.
struct House {
    sources: BTreeMap<String, String>,
    directories: BTreeSet<String>,
    dependencies: BTreeSet<String>,
    dev_only: BTreeSet<String>,
}

impl House {
    fn on_disk() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let src = root.join("src");
        let mut files = Vec::new();
        collect_sources(&src, &mut files);
        let below_src = |path: &Path| {
            let relative = path.strip_prefix(&src).expect("the walk started at src");
            relative.to_str().expect("source paths are ASCII").to_owned()
        };
        let sources = files.iter().map(|path| (below_src(path), read(path))).collect();
        let entries = std::fs::read_dir(&src).expect("src can be listed").map(|entry| entry.expect("an entry").path());
        let directories = entries.filter(|path| path.is_dir()).map(|path| below_src(&path)).collect();
        let manifest: toml::Table = read(&root.join("Cargo.toml")).parse().expect("Cargo.toml is TOML");
        let (dependencies, dev_only) = crates_of(&manifest);
        Self { sources, directories, dependencies, dev_only }
    }

    fn broken_walls(&self) -> Vec<String> {
        let tests = self.test_files();
        let mut broken = Vec::new();
        for (file, source) in &self.sources {
            let tokens = rust_source::tokens(source);
            let module = module_of(file);
            for mut path in rust_source::paths(&tokens, &module) {
                path.in_tests |= tests.contains(file);
                broken.extend(self.judge(file, &path).map(|why| format!("src/{file}:{}: {why}", path.line)));
            }
            broken.extend(unsafe_words(file, &tokens));
        }
        broken
    }

    /// The rule that `path` breaks where it stands, if any.
    fn judge(&self, file: &str, path: &NamedPath) -> Option<String> {
        let room = room_of(file);
        let root = path.segments[0].as_str();
        match root {
            "crate" => return judge_inside(room, path),
            "forebay" if room == "main" => return judge_inside(room, path),
            "forebay" => return Some("names `forebay`, which inside the library is `crate`".to_owned()),
            _ => {}
        }
        for (crates, places) in CRATE_WALLS {
            if crates.contains(&root) && !places.iter().any(|place| file.starts_with(place)) {
                return Some(format!("names `{root}`, which only {} may", places.join(", ")));
            }
        }
        if room == "domain" && self.is_crate(root) && !DOMAIN_CRATES.contains(&root) {
            let excused = path.in_tests && self.dev_only.contains(root);
            return (!excused)
                .then(|| format!("names `{root}`; the domain may name only {}", DOMAIN_CRATES.join(", ")));
        }
        None
    }

    fn is_crate(&self, name: &str) -> bool {
        matches!(name, "std" | "core" | "alloc") || self.dependencies.contains(name) || self.dev_only.contains(name)
    }

    /// Files that are declared under `#[cfg(test)]` (`mod tests;`) and so are test code as a whole.
    fn test_files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (file, source) in &self.sources {
            let modules = rust_source::declared_modules(&rust_source::tokens(source));
            for (name, _) in modules.into_iter().filter(|(_, in_tests)| *in_tests) {
                let base = module_of(file).join("/");
                found.insert(format!("{base}/{name}.rs"));
                found.insert(format!("{base}/{name}/mod.rs"));
            }
        }
        found
    }

    fn broken_rooms(&self) -> Vec<String> {
        let in_table = |room: &str| ROOMS.iter().any(|(name, _)| *name == room);
        let rooms: BTreeSet<&str> = self.sources.keys().map(|file| room_of(file)).collect();
        let strangers = rooms.iter().filter(|room| !in_table(room));
        let strangers =
            strangers.map(|room| format!("src/{room}: no row of the table in tests/architecture.rs has this room"));
        let has_files = |room: &str| self.sources.contains_key(&format!("{room}/mod.rs"));
        let empty = self.directories.iter().filter(|room| !has_files(room));
        strangers.chain(empty.map(|room| format!("src/{room}: a room without a mod.rs"))).collect()
    }

    fn broken_root(&self) -> Vec<String> {
        let Some(source) = self.sources.get("lib.rs") else {
            return vec!["src/lib.rs is missing".to_owned()];
        };
        let tokens = rust_source::tokens(source);
        let listed: BTreeSet<String> =
            rust_source::declared_modules(&tokens).into_iter().map(|(name, _)| name).collect();
        let rooms = self.sources.keys().map(|file| room_of(file)).filter(|room| !matches!(*room, "lib" | "main"));
        let rooms: BTreeSet<String> = rooms.map(str::to_owned).collect();
        let mut broken: Vec<String> = rooms
            .symmetric_difference(&listed)
            .map(|room| format!("`{room}` is only on one side: disk or lib.rs"))
            .collect();
        let items = ["fn", "struct", "enum", "trait", "impl", "use", "const", "static", "type", "macro_rules"];
        let item = tokens.iter().find(|token| items.contains(&token.text.as_str()));
        broken
            .extend(item.map(|token| format!("src/lib.rs:{}: `{}` in what is a module list", token.line, token.text)));
        broken
    }
}

/// Holds a path inside the crate against the table.
fn judge_inside(room: &str, path: &NamedPath) -> Option<String> {
    let Some(target) = path.segments.get(1).map(String::as_str).filter(|name| !matches!(*name, "*" | "self")) else {
        return Some("takes the whole crate: name a room".to_owned());
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return None; // a room that the table lacks is its own test's business
    };
    let open = room != "domain" && OPEN.contains(&target);
    if target != room && !open && !allowed.contains(&target) {
        return Some(format!(
            "`{room}` uses `{}`, which its row of the table does not allow",
            path.segments.join("::")
        ));
    }
    let inside = path.segments[1..].join("::");
    let below = |wall: &str| inside.strip_prefix(wall).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let wall = PATH_WALLS.iter().find(|(who, wall, _)| *who == room && below(wall));
    wall.map(|(_, wall, why)| format!("`{room}` uses `{wall}`: {why}"))
}

fn unsafe_words<'a>(file: &'a str, tokens: &'a [Token]) -> impl Iterator<Item = String> + 'a {
    let found = tokens.iter().filter(move |token| token.text == "unsafe" && file != UNSAFE_FILE);
    found.map(move |token| format!("src/{file}:{}: `unsafe`, which only src/{UNSAFE_FILE} may hold", token.line))
}

/// `front/ws.rs` and `front/mod.rs` are of room `front`, `app/mod.rs` is room `app`.
fn room_of(file: &str) -> &str {
    file.split('/').next().map_or(file, |first| first.trim_end_matches(".rs"))
}

/// The module path of a file: `["front", "ws"]` for `front/ws.rs`, nothing for the two roots.
fn module_of(file: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if parts.last() == Some(&"mod") || matches!(parts[..], ["lib"] | ["main"]) {
        parts.pop();
    }
    parts
}

/// The manifest's crates as code names them: those of the product, and those that only tests have.
fn crates_of(manifest: &toml::Table) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = |section: &str| -> BTreeSet<String> {
        let table = manifest.get(section).and_then(toml::Value::as_table);
        table.into_iter().flat_map(|table| table.keys()).map(|name| name.replace('-', "_")).collect()
    };
    let product = names("dependencies");
    let dev_only = names("dev-dependencies").difference(&product).cloned().collect();
    (product, dev_only)
}

fn collect_sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory of sources can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The checker is itself under test: each broken rule must be seen, and what only looks like one must not.
mod the_checker {
    use super::*;

    /// A house with these sources, and with the crates that the rules speak of.
    fn house(sources: &[(&str, &str)]) -> House {
        let text = |(file, source): &(&str, &str)| ((*file).to_owned(), (*source).to_owned());
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        House {
            sources: sources.iter().map(text).collect(),
            directories: BTreeSet::new(),
            dependencies: set(&["tokio", "mongodb", "serde", "tokio_tungstenite", "webrtc", "rtc", "tracing"]),
            dev_only: set(&["proptest", "str0m"]),
        }
    }

    #[track_caller]
    fn assert_broken(file: &str, source: &str, expected: &str) {
        let broken = house(&[(file, source)]).broken_walls();
        assert_eq!(broken.len(), 1, "{file}: {source}: {broken:?}");
        assert!(broken[0].contains(expected), "{}", broken[0]);
    }

    #[track_caller]
    fn assert_kept(file: &str, source: &str) {
        assert_eq!(house(&[(file, source)]).broken_walls(), Vec::<String>::new(), "{file}: {source}");
    }

    #[test]
    fn sees_an_import_that_the_table_lacks() {
        assert_broken("front/ws.rs", "use crate::registry::Cache;", "`front` uses `crate::registry::Cache`");
        assert_broken("registry/cache.rs", "pub use crate::upstream::connect as dial;", "`registry` uses");
        assert_broken("sessions/actor.rs", "use crate::demo::Node;", "`sessions` uses");
        assert_broken("front/mod.rs", "use crate::admin;", "`front` uses");
    }

    #[test]
    fn sees_a_room_inside_a_group() {
        let source = "use crate::{config::Config, domain::{ids::NodeId, balance::Node}, sessions::{self as s}};";
        assert_kept("front/http.rs", source);
        assert_broken("registry/cache.rs", source, "crate::sessions::self");
    }

    #[test]
    fn sees_a_path_in_an_expression_or_a_signature() {
        assert_broken("media/worker.rs", "fn f() { crate::registry::open(1..2); }", "media/worker.rs:1");
        assert_broken("media/worker.rs", "fn f(x: &'a crate::upstream::Link) {}", "crate::upstream::Link");
        assert_broken("health/mod.rs", "macro_rules! m { () => { $crate::sessions::go() } }", "crate::sessions::go");
    }

    #[test]
    fn sees_a_way_out_through_super() {
        assert_broken("front/ws.rs", "use super::super::registry::Cache;", "crate::registry::Cache");
        assert_broken("front/ws.rs", "mod inner { use super::super::super::media::X; }", "crate::media::X");
        assert_broken("app.rs", "use super::*;", "the whole crate");
        assert_kept("front/ws.rs", "mod inner { use super::super::http::X; } use super::http::Y; use self::z::Z;");
    }

    #[test]
    fn sees_the_whole_crate_taken_at_once() {
        assert_broken("front/ws.rs", "use crate as house;", "the whole crate");
        assert_broken("front/ws.rs", "use crate::*;", "the whole crate");
        assert_broken("front/ws.rs", "use crate::{self};", "the whole crate");
        assert_kept("front/ws.rs", "pub(crate) fn f() {}");
    }

    #[test]
    fn sees_the_library_named_from_inside() {
        assert_broken("front/ws.rs", "use forebay::domain::ids::NodeId;", "inside the library");
        assert_kept("main.rs", "use forebay::cli::Cli; fn main() { forebay::app::run(); }");
        assert_broken("main.rs", "use forebay::registry::Cache;", "`main` uses");
    }

    #[test]
    fn sees_the_domain_reaching_out() {
        assert_broken("domain/routing.rs", "use crate::config::Config;", "`domain` uses");
        assert_broken("domain/routing.rs", "use tokio::time::sleep;", "names `tokio`");
        assert_broken("domain/routing.rs", "fn f() { tracing::info!(\"x\"); }", "names `tracing`");
        assert_broken("domain/routing.rs", "fn f() { ::tracing::info!(\"x\"); }", "names `tracing`");
        assert_kept("domain/routing.rs", "use std::time::Instant; #[derive(serde::Serialize)] struct X;");
    }

    #[test]
    fn lets_tests_of_the_domain_use_crates_that_only_tests_have() {
        let tests = |body: &str| format!("#[cfg(test)] mod tests {{ {body} }}");
        assert_kept("domain/ids.rs", &tests("use super::*; use proptest::prelude::*;"));
        assert_broken("domain/ids.rs", "use proptest::prelude::*;", "names `proptest`");
        assert_broken("domain/ids.rs", &tests("#[tokio::test] async fn f() {}"), "names `tokio`");
        assert_broken("domain/ids.rs", &(tests("") + "use proptest::prelude::*;"), "names `proptest`");
        let apart =
            [("domain/ids.rs", "#[cfg(test)] mod tests;"), ("domain/ids/tests.rs", "use proptest::prelude::*;")];
        assert_eq!(house(&apart).broken_walls(), Vec::<String>::new());
    }

    #[test]
    fn sees_a_crate_outside_its_place() {
        assert_broken("registry/cache.rs", "use mongodb::Client;", "only registry/mongo may");
        assert_broken("app.rs", "use {std::fmt, mongodb as db};", "only registry/mongo may");
        assert_broken("front/http.rs", "fn f(x: tokio_tungstenite::Stream) {}", "names `tokio_tungstenite`");
        assert_broken("upstream/http.rs", "use rtc::rtp;", "names `rtc`");
        assert_kept("registry/mongo.rs", "use mongodb::{Client, bson::doc};");
        assert_kept("registry/mongo/watch.rs", "use mongodb::Client;");
        assert_kept("upstream/connect.rs", "use tokio_tungstenite::client_async;");
        assert_kept("demo/peer.rs", "use webrtc::x; use rtc::y;");
        assert_kept("config/mod.rs", "fn f(url: Url) { self.mongodb.uri(); store::mongodb::open(); }");
    }

    #[test]
    fn sees_the_demo_leaning_on_the_doors_own_mind() {
        assert_broken("demo/node.rs", "use crate::domain::{ids::NodeId, session::Session};", "`domain::session`");
        assert_broken("demo/node.rs", "use crate::domain::routing;", "`domain::routing`");
        assert_kept("demo/node.rs", "use crate::domain::{record::Record, sessions_by_name};");
    }

    #[test]
    fn sees_unsafe_code() {
        assert_broken("net.rs", "fn f() { unsafe { g() } }", "`unsafe`");
        assert_kept("media/socket.rs", "unsafe fn f() {}");
        assert_kept("net.rs", "#![forbid(unsafe_code)]");
    }

    #[test]
    fn reads_neither_comments_nor_literals() {
        let quiet = [
            "// use crate::registry::X;\n//! [`crate::registry`]",
            "/* outer /* use crate::registry::X; */ unsafe */",
            r###"const A: &str = "use crate::registry::X; \" unsafe"; const B: &[u8] = br#"crate::registry::"unsafe"#;"###,
            r"const Q: char = '\''; const R: char = '\u{1F600}'; const S: char = '/'; fn f<'unsafe_>() {}",
        ];
        for source in quiet {
            assert_kept("front/ws.rs", source);
            let then = format!("{source}\nuse crate::registry::X;");
            assert_broken("front/ws.rs", &then, "`front` uses");
        }
    }

    #[test]
    fn sees_strange_and_empty_rooms() {
        let mut strange =
            house(&[("lib.rs", "pub mod front; pub mod cellar;"), ("front/mod.rs", ""), ("cellar.rs", "")]);
        strange.directories.extend(["front".to_owned(), "media".to_owned()]);
        let broken = strange.broken_rooms();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].starts_with("src/cellar:"), "{}", broken[0]);
        assert!(broken[1].starts_with("src/media: a room without"), "{}", broken[1]);
    }

    #[test]
    fn sees_a_root_that_is_more_or_less_than_the_rooms() {
        let good = house(&[("lib.rs", "//! Docs.\n#![deny(x)]\npub mod app;\n"), ("app.rs", ""), ("main.rs", "")]);
        assert_eq!(good.broken_root(), Vec::<String>::new());
        let unlisted = house(&[("lib.rs", "pub mod app;"), ("app.rs", ""), ("net.rs", "")]);
        assert_eq!(unlisted.broken_root().len(), 1);
        let busy = house(&[("lib.rs", "pub mod app;\npub use app::run;"), ("app.rs", "")]);
        assert_eq!(busy.broken_root().len(), 1);
    }
}
