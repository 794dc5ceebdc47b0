//! The admin API while clients take all that the door has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{DEMO, ask};
use crate::support::{cluster::eventually, process::Process};

/// Connections that ask as fast as they are answered.
const GREEDY: usize = 48;
/// Requests that each of them has under way.
const AT_ONCE: usize = 64;
/// Questions of an operator meanwhile.
const QUESTIONS: usize = 40;
/// An operator who waits longer believes that the door is dead.
const PATIENT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_answered_while_clients_take_all_that_the_door_has() {
    let door = Process::start(&DEMO).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut greedy = JoinSet::new();
    for _ in 0..GREEDY {
        let (mut stream, answered) = (TcpStream::connect(door.http()).await.unwrap(), Arc::clone(&answered));
        greedy.spawn(async move {
            let requests = "GET /LiveApp/none HTTP/1.1\r\nHost: x\r\n\r\n".repeat(AT_ONCE);
            let mut read = vec![0; 64 * 1024];
            // Answers are not parsed: as many bytes as come are followed by as many requests, give or take.
            while stream.write_all(requests.as_bytes()).await.is_ok() {
                match stream.read(&mut read).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => answered.fetch_add(bytes, Ordering::Relaxed),
                };
            }
        });
    }
    let busy = |bytes: usize| answered.load(Ordering::Relaxed) > bytes;
    eventually("the door is busy", async || busy(1 << 20)).await;
    let mut slowest = Duration::ZERO;
    for nth in 0..QUESTIONS {
        let (before, begun) = (answered.load(Ordering::Relaxed), Instant::now());
        let path = ["/v1/nodes", "/v1/capacity", "/v1/door", "/v1/nodes/edge-1"][nth % 4];
        assert_eq!(ask(&door, "GET", path, "").await.status, 200, "{path}");
        let explained = r#"{"app":"LiveApp","stream":"s","kind":"publish"}"#;
        let head = format!(
            "POST /v1/explain HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}",
            explained.len()
        );
        let answer = crate::support::process::http(door.admin(), &format!("{head}\r\n\r\n{explained}")).await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        slowest = slowest.max(begun.elapsed());
        eventually("the door is still busy", async || busy(before)).await;
    }
    greedy.shutdown().await;
    println!("{QUESTIONS} questions beside {GREEDY} greedy connections: at most {slowest:?} each");
    assert!(slowest < PATIENT, "{slowest:?}");
}
