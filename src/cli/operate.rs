//! `forebay status`, `drain` and `undrain`: what operators do most, over the admin API of any door.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write},
    time::{Duration, Instant, SystemTime},
};

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{
    Drain, Exit, Status, Undrain,
    client::{Client, Failure, segment},
};

/// How often a drain that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Where nobody watches a terminal, progress is a line this often, and at every change of state.
const LINE: Duration = Duration::from_secs(10);
/// A door that is away for so long while a drain is waited for is given up; it may only be starting anew.
const AWAY: Duration = Duration::from_secs(30);
/// Nodes of one page.
const PAGE: usize = 1000;

/// `forebay status`
///
/// # Errors
/// The API does not answer, or says no.
pub async fn status(options: Status) -> Result<(), Failure> {
    let client = Client::new(&options.access)?;
    let door = client.get("/v1/door").await?;
    let nodes = all_nodes(&client).await?;
    let capacity = client.get("/v1/capacity").await?;
    if options.json {
        return print(&format!("{}\n", json!({ "door": door, "nodes": nodes, "capacity": capacity })));
    }
    print(&overview(&door, &nodes, &capacity))
}

/// `forebay drain`
///
/// # Errors
/// The API does not answer, or says no; the drain was withdrawn while it was waited for.
pub async fn drain(options: Drain) -> Result<(), Failure> {
    let client = Client::new(&options.access)?;
    let mut wish = Map::new();
    let mut add = |key: &str, value: Option<Value>| value.map(|value| wish.insert(key.to_owned(), value));
    add("deadline", options.deadline.map(Value::from));
    add("migrate", options.migrate.map(|migrate| migrate.as_str().into()));
    add("per_second", options.per_second.map(Value::from));
    add("force", options.force.then_some(Value::Bool(true)));
    let path = format!("/v1/nodes/{}", segment(&options.node));
    let node = client.ask(Method::PUT, &format!("{path}/drain"), Some(&Value::Object(wish))).await?;
    if !options.wait {
        return print(&format!("{}\n", progress(&node, SystemTime::now())));
    }
    let path = format!("/v1/nodes/{}", segment(word(&node["id"])));
    wait(&client, &path, node).await
}

/// `forebay undrain`
///
/// # Errors
/// The API does not answer, or says no.
pub async fn undrain(options: Undrain) -> Result<(), Failure> {
    let client = Client::new(&options.access)?;
    let path = format!("/v1/nodes/{}/drain", segment(&options.node));
    let node = client.ask(Method::DELETE, &path, None).await?;
    let text = match node["id"].as_str() {
        Some(id) => format!("{id}: {}, {}\n", word(&node["state"]), word(&node["reason"])),
        None => format!("{}: the drain is withdrawn; the node has left the cluster\n", options.node),
    };
    print(&text)
}

/// Shows progress until the node is drained. An interrupt ends the waiting, not the drain.
async fn wait(client: &Client, path: &str, mut node: Value) -> Result<(), Failure> {
    let mut screen = Screen::new();
    let mut heard = Instant::now();
    loop {
        screen.show(&progress(&node, SystemTime::now()), word(&node["state"]));
        if node["drain"].is_null() {
            screen.end();
            let text = format!("{}: the drain was withdrawn by somebody else", word(&node["id"]));
            return Err(Failure::new(Exit::Refused, text));
        }
        if node["state"] == "drained" {
            screen.end();
            return print(&format!("{}: drained\n", word(&node["id"])));
        }
        tokio::time::sleep(LOOK).await;
        match client.get(path).await {
            Ok(now) => (node, heard) = (now, Instant::now()),
            Err(failure) if failure.code.as_deref() == Some("unknown_node") => {
                screen.end();
                return print(&format!("{}: has left the cluster\n", word(&node["id"])));
            }
            Err(failure) if failure.exit == Exit::Unavailable && heard.elapsed() < AWAY => {}
            Err(failure) => {
                screen.end();
                return Err(failure);
            }
        }
    }
}

/// One line on a terminal, written over and over; lines now and then elsewhere.
struct Screen {
    is_terminal: bool,
    said: Option<(Instant, String)>,
}

impl Screen {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), said: None }
    }

    fn show(&mut self, line: &str, state: &str) {
        let mut stderr = std::io::stderr().lock();
        // Who has closed stderr does not want to know.
        if self.is_terminal {
            let _ = write!(stderr, "\r\x1b[K{line}");
            let _ = stderr.flush();
        } else if self.said.as_ref().is_none_or(|(at, said)| at.elapsed() >= LINE || said != state) {
            let _ = writeln!(stderr, "{line}");
            self.said = Some((Instant::now(), state.to_owned()));
        }
    }

    fn end(&self) {
        if self.is_terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// `edge-1: draining, 12 plays left (22 moved, 1 failed), at most 8m 12s`
fn progress(node: &Value, now: SystemTime) -> String {
    let drain = &node["drain"];
    let mut line = format!("{}: {}", word(&node["id"]), word(&node["state"]));
    if drain.is_null() {
        return line;
    }
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let legs = &drain["legs"];
    let (publishes, plays) = (count(&legs["publish"]), count(&legs["play"]));
    // Writing to a String does not fail.
    let _ = write!(line, ", {publishes} publishes and {plays} plays left");
    if let Some(streams) = drain["streams"].as_u64() {
        let _ = write!(line, ", {streams} live by AMS's records");
    }
    let _ = write!(line, " ({} moved, {} failed)", count(&drain["moved"]), count(&drain["failed"]));
    let deadline = drain["deadline"].as_str().and_then(|at| humantime::parse_rfc3339(at).ok());
    if let Some(left) = deadline.and_then(|at| at.duration_since(now).ok()).filter(|_| node["state"] != "drained") {
        let _ = write!(line, ", at most {}", humantime::format_duration(Duration::from_secs(left.as_secs())));
    }
    line
}

async fn all_nodes(client: &Client) -> Result<Vec<Value>, Failure> {
    let mut nodes = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/v1/nodes?limit={PAGE}{cursor}")).await?;
        nodes.extend(page["nodes"].as_array().into_iter().flatten().cloned());
        let Some(next) = page["next"].as_str() else { return Ok(nodes) };
        cursor = format!("&cursor={}", segment(next));
    }
}

/// The door, its nodes as a table, and what still fits.
fn overview(door: &Value, nodes: &[Value], capacity: &Value) -> String {
    let mut text = format!(
        "{}: {}, {} sessions, store {}, {} other doors\n\n",
        word(&door["name"]),
        word(&door["state"]),
        door["sessions"],
        word(&door["store"]["status"]),
        door["peers"].as_array().map_or(0, Vec::len),
    );
    let head = ["NODE", "ROLE", "ZONE", "STATE", "LOAD", "PUBLISHES", "PLAYS", "WHY"].map(str::to_owned);
    let percent = |load: &Value| format!("{:.0}%", load.as_f64().unwrap_or(0.0) * 100.0);
    let rows: Vec<[String; 8]> = nodes
        .iter()
        .map(|node| {
            [
                word(&node["id"]).to_owned(),
                word(&node["role"]).to_owned(),
                node["zone"].as_str().unwrap_or("-").to_owned(),
                word(&node["state"]).to_owned(),
                percent(&node["load"]["predicted"]),
                node["legs"]["publish"].to_string(),
                node["legs"]["play"].to_string(),
                word(&node["reason"]).to_owned(),
            ]
        })
        .collect();
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 8] = std::array::from_fn(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            4..=6 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let full = |kind: &str| match capacity[kind]["minutes_to_full"].as_f64() {
        Some(minutes) => format!(" (full in {minutes:.0} min at this rate)"),
        None => String::new(),
    };
    let _ = writeln!(
        text,
        "\n{} more publishes fit{}, {} more plays{}",
        capacity["publish"]["fit"],
        full("publish"),
        capacity["play"]["fit"],
        full("play")
    );
    text
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|why| Failure::new(Exit::Software, format!("stdout: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_left_and_for_how_long_at_most() {
        let now = humantime::parse_rfc3339("2026-05-04T03:00:00Z").unwrap();
        let mut node = json!({"id": "edge-1", "state": "draining", "drain": {
            "legs": {"publish": 0, "play": 12}, "streams": null, "moved": 22, "failed": 1,
            "deadline": "2026-05-04T03:08:12Z"}});
        let line = "edge-1: draining, 0 publishes and 12 plays left (22 moved, 1 failed), at most 8m 12s";
        assert_eq!(progress(&node, now), line);
        node["drain"]["deadline"] = Value::Null;
        node["drain"]["streams"] = 3.into();
        assert!(progress(&node, now).ends_with("plays left, 3 live by AMS's records (22 moved, 1 failed)"));
        node["drain"] = Value::Null;
        assert_eq!(progress(&node, now), "edge-1: draining");
    }

    #[test]
    fn the_overview_is_a_table_that_lines_up() {
        let node = |id: &str, state: &str| {
            json!({"id": id, "role": "edge", "zone": null, "state": state, "reason": "known since the door started",
                "load": {"predicted": 0.125}, "legs": {"publish": 0, "play": 7}})
        };
        let door = json!({"name": "door-1", "state": "ready", "sessions": 7, "store": {"status": "up"}, "peers": []});
        let capacity =
            json!({"publish": {"fit": 10, "minutes_to_full": null}, "play": {"fit": 90, "minutes_to_full": 12.4}});
        let text = overview(&door, &[node("edge-1", "serving"), node("a-long-name", "drained")], &capacity);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "door-1: ready, 7 sessions, store up, 0 other doors");
        assert_eq!(lines[2].find("STATE"), lines[3].find("serving"));
        assert_eq!(lines[3].find("serving"), lines[4].find("drained"));
        assert!(lines[3].contains("12%"), "{text}");
        assert_eq!(lines[6], "10 more publishes fit, 90 more plays (full in 12 min at this rate)");
    }
}
