//! Conference rooms: which streams of a room are published here, and which elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{
    node::{Node, Shared},
    records::Unread,
};
use crate::domain::ids::StreamId;

/// How long another node may take to say who is in a room.
const ASK_LIMIT: Duration = Duration::from_millis(800);
/// Bytes of such an answer; what is longer is no answer.
const ANSWER_LIMIT: u64 = 64 * 1024;
/// Members of one room that are played; further ones are left out.
const MEMBERS: usize = 64;

/// The rooms of the streams that are published at one node.
pub(super) struct Rooms {
    members: Shared<StreamId, BTreeSet<StreamId>>,
    changed: watch::Sender<u64>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { members: Shared::default(), changed: watch::channel(0).0 }
    }
}

impl Rooms {
    /// A stream has media now; its room, if it has one, has it too.
    pub(super) fn joined(&self, node: &Arc<Node>, room: Option<&StreamId>, stream: &StreamId) {
        let Some(room) = room else { return };
        tracing::debug!(node = %node.options.id, %room, %stream, "joined a room");
        self.members.lock().entry(room.clone()).or_default().insert(stream.clone());
        self.changed.send_modify(|version| *version += 1);
    }

    /// A stream has ended. Says whether it was the last one of its room here.
    pub(super) fn left(&self, node: &Arc<Node>, room: Option<&StreamId>, stream: &StreamId) -> bool {
        let Some(room) = room else { return false };
        tracing::debug!(node = %node.options.id, %room, %stream, "left a room");
        let mut members = self.members.lock();
        let Some(streams) = members.get_mut(room) else { return false };
        streams.remove(stream);
        let empty = streams.is_empty();
        if empty {
            members.remove(room);
        }
        drop(members);
        self.changed.send_modify(|version| *version += 1);
        empty
    }

    /// The streams of a room that are published here.
    pub(super) fn members(&self, room: &StreamId) -> Vec<StreamId> {
        self.members.lock().get(room).map(|streams| streams.iter().cloned().collect()).unwrap_or_default()
    }

    /// Hears of every change of any room here.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// The streams of a room in the whole cluster, in the order of their names. AMS's nodes tell each other; these ask.
/// Without the store they do not know each other.
pub(super) async fn members_everywhere(node: &Arc<Node>, room: &StreamId) -> Result<BTreeSet<StreamId>, Unread> {
    let mut members: BTreeSet<StreamId> = node.rooms.members(room).into_iter().collect();
    let app = node.options.app.as_str();
    let others = node.records.other_nodes().await?;
    let asked = others.into_iter().map(|ip| ask(ip, node.address.port(), app, room));
    for answer in futures_util::future::join_all(asked).await {
        members.extend(answer);
    }
    while members.len() > MEMBERS {
        members.pop_last();
    }
    Ok(members)
}

async fn ask(ip: IpAddr, port: u16, app: &str, room: &StreamId) -> Vec<StreamId> {
    let asked = async {
        let mut stream = TcpStream::connect((ip, port)).await?;
        let request =
            format!("GET /{app}/demo/members?{room} HTTP/1.1\r\nHost: {ip}:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let Ok(Ok(answer)) = tokio::time::timeout(ASK_LIMIT, asked).await else { return Vec::new() };
    let text = String::from_utf8_lossy(&answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str::<BTreeMap<String, Vec<StreamId>>>(body)
        .ok()
        .and_then(|mut answer| answer.remove("members"))
        .unwrap_or_default()
}
