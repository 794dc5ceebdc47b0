//! The admin API and the commands on top of it, against the program as operators run it.

mod commands;
mod events;
mod mutual_tls;
mod reading;
mod saturation;
mod traces;

use serde_json::Value;

use crate::support::process::{Process, http};

const DEMO: [&str; 7] = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"];

/// What the API answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

/// Asks the admin API of a door.
async fn ask(door: &Process, method: &str, path: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = http(door.admin(), &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") };
    Answer { status, head: head.to_lowercase(), body }
}
