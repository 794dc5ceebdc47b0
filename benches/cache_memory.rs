//! What a million cached records cost. Fills the cache as look-ups do and prints resident bytes per record; above the
//! budget it fails. Run: `cargo bench --bench cache_memory`.
#![allow(clippy::print_stdout)] // printing the figure is what it is for

use std::process::ExitCode;

use forebay::{
    clock,
    config::Config,
    domain::ids::StreamKey,
    registry::{Backing, Registry, memory::MemoryDb},
    shutdown::Shutdown,
};
use serde_json::{Value, json};

const RECORDS: u64 = 1_000_000;
const BUDGET_MB: u64 = 300;
/// The page size of every machine that this is run on; `statm` counts pages.
const PAGE: u64 = 4096;

/// The store holds one record at a time and pushes nothing, so that what grows is the cache alone.
const SETTINGS: &str = r#"
    [mongo]
    uri = "mongodb://127.0.0.1:1"
    change_streams = false
    cache_streams = 1000000
    [apps]
    LiveApp = {}
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::from_toml_str(SETTINGS).expect("the settings are legal");
    let (db, shutdown) = (MemoryDb::default(), Shutdown::new());
    let registry = Registry::start(&config, Backing::Memory(db.clone()), &shutdown).await.expect("it starts");
    let before = resident();
    let begun = clock::now();
    for n in 0..RECORDS {
        let key = StreamKey { app: "LiveApp".parse().expect("legal"), stream: name(n).parse().expect("legal") };
        let Value::Object(record) = record(n) else { unreachable!("an object") };
        db.set_broadcast(&key, record, true);
        assert!(registry.look_up(&key).await.live().is_some(), "record {n} is found");
        db.delete_broadcast(&key);
    }
    let took = clock::now() - begun;
    let cached = registry.store_state().cached_records;
    let bytes = resident().saturating_sub(before);
    let (each, mb) = (bytes / cached.max(1), bytes / 1_000_000);
    println!("{cached} records cached in {took:.1?}: {each} bytes each, {mb} MB of {BUDGET_MB} MB");
    shutdown.stop();
    if cached == RECORDS && mb <= BUDGET_MB { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A stream id as people choose them.
fn name(n: u64) -> String {
    format!("camera-{n:07}")
}

/// A live record; every tenth belongs to a room.
fn record(n: u64) -> Value {
    let now = clock::wall_ms();
    let room = if n.is_multiple_of(10) { format!("room-{}", n / 1000) } else { String::new() };
    json!({
        "status": "broadcasting", "originAdress": format!("10.0.1.{}", n % 200), "updateTime": now, "startTime": now,
        "virtual": false, "mainTrackStreamId": room, "_id": { "$oid": format!("{:024x}", u128::from(n) * 0x1_0000_0001) }
    })
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("its second field");
    pages * PAGE
}
