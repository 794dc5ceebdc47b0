//! A new binary takes over: nobody is refused, nobody is lost, and when it fails nothing has happened.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay::{
    demo::ClusterOptions,
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};
use serde_json::json;
use tokio::{task::JoinHandle, time::interval};

use crate::support::{
    ams_client::{Leg, Plan, Socket, SocketReport, Stack},
    cluster::{Door, Nodes, door_text, eventually},
    process::http,
    systemd::Manager,
    webrtc_peer,
};

/// A new session begins this often.
const PACE: Duration = Duration::from_millis(20);

async fn nodes() -> Nodes {
    let options = ClusterOptions { origins: 1, edges: 0, ..ClusterOptions::default() };
    Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await
}

/// A process that the test did not start itself. Killed when dropped.
struct Generation {
    ready: BTreeMap<String, String>,
}

impl Generation {
    /// The one that takes over from a door.
    async fn after(door: &mut Door) -> Self {
        let pid = door.pid();
        door.signal("USR2");
        let ready = door.process().next_ready().await;
        assert_ne!(ready["pid"], pid.to_string());
        Self { ready }
    }

    fn signal(&self, name: &str) -> bool {
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &self.ready["pid"]]).output();
        sent.expect("kill runs").status.success()
    }

    /// Whether the process is there; one that has ended and that nobody waits for is not.
    fn is_there(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.ready["pid"])).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

/// Clients that come all the time: each connects, is answered, and goes.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Load {
    fn on(door: &Door) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopping, counted, url, health) =
            (Arc::clone(&stop), Arc::clone(&served), door.url(), door.http().to_owned());
        let task = tokio::spawn(async move {
            let (mut beats, mut clients) = (interval(PACE), Vec::new());
            while !stopping.load(Ordering::Relaxed) {
                beats.tick().await;
                let (url, health, counted) = (url.clone(), health.clone(), Arc::clone(&counted));
                clients.push(tokio::spawn(async move {
                    let socket = Socket::open(&url).await.map_err(|why| format!("refused: {why}"))?;
                    ping(&socket).await;
                    let answer = http(&health, "GET /healthz HTTP/1.0\r\n\r\n").await;
                    counted.fetch_add(1, Ordering::Relaxed);
                    if answer.contains(" 200 ") { Ok(()) } else { Err(answer) }
                }));
            }
            let mut troubles = Vec::new();
            for client in clients {
                troubles.extend(client.await.expect("a client does not panic").err());
            }
            troubles
        });
        Self { stop, served, task }
    }

    /// Waits until so many more were served.
    async fn until_served(&self, more: usize) {
        let target = self.served.load(Ordering::Relaxed) + more;
        eventually("clients are served", async || self.served.load(Ordering::Relaxed) >= target).await;
    }

    /// Ends it; nobody had any trouble.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let troubles = self.task.await.expect("the load does not panic");
        assert!(troubles.is_empty(), "{} clients in trouble: {troubles:?}", troubles.len());
        self.served.load(Ordering::Relaxed)
    }
}

async fn ping(socket: &Socket) {
    let pongs = |report: &SocketReport| report.messages.iter().filter(|said| said["command"] == "pong").count();
    let before = pongs(&socket.report());
    socket.say(json!({ "command": "ping" }));
    socket.until("a pong", |report| pongs(report) > before).await;
}

async fn metric(address: &str, name: &str) -> Option<f64> {
    let text = http(address, "GET /metrics HTTP/1.0\r\n\r\n").await;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A publisher and a viewer with their media, and clients that want nothing.
struct Clients {
    publisher: Socket,
    viewer: Socket,
    _publish: Leg,
    play: Leg,
    idle: Vec<Socket>,
}

impl Clients {
    async fn of(door: &Door) -> Self {
        let publisher = door.open().await;
        let publish = publisher.begin(Plan::publish("s"), webrtc_peer::stack);
        publish.until_has("publish_started").await;
        let viewer = door.open().await;
        let play = viewer.begin(Plan::play("s"), webrtc_peer::stack);
        play.until_more_video(5).await;
        Self { publisher, viewer, _publish: publish, play, idle: door.open_many(20).await }
    }

    /// Their sockets are up, and so is their media.
    async fn are_all_served(&self) {
        for socket in self.idle.iter().chain([&self.publisher, &self.viewer]) {
            ping(socket).await;
            assert!(socket.report().closed.is_none());
        }
        self.play.until_more_video(5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_under_load_refuses_nobody_and_loses_no_session() {
    let (nodes, manager) = (nodes().await, Manager::new());
    let mut door = Door::serve(&nodes.tables(false), &[("NOTIFY_SOCKET", manager.path())]).await;
    let clients = Clients::of(&door).await;
    let load = Load::on(&door);
    load.until_served(25).await;

    let new = Generation::after(&mut door).await;
    load.until_served(50).await;

    assert_eq!((&new.ready["http"], &new.ready["admin"]), (&door.ready["http"], &door.ready["admin"]));
    assert_ne!(new.ready["media"], door.ready["media"], "each generation has a media port of its own");
    eventually("systemd knows who it is now", async || {
        manager.until("MAINPID=").await.contains(&format!("MAINPID={}", new.ready["pid"]))
    })
    .await;
    // The sessions of before go on where they are, with their media and what they still want.
    clients.are_all_served().await;
    let again = clients.idle[0].begin(Plan::play("s"), webrtc_peer::stack);
    again.until_more_video(5).await;
    // New ones are the new process's, and so is the admin API.
    let late = door.open().await;
    let admin = door.admin().to_owned();
    assert!(metric(&admin, "forebay_sessions_open").await.is_some_and(|open| (1.0..20.0).contains(&open)));
    assert_eq!(metric(&admin, "forebay_predecessor").await, Some(1.0));
    println!("{} clients came and went", load.end().await);

    drop((again, clients));
    assert_eq!(door.process().ended(Duration::from_secs(30)).await, Some(0), "the old one ends with its last session");
    eventually("the new one knows", async || metric(&admin, "forebay_predecessor").await == Some(0.0)).await;
    ping(&late).await;
    assert!(new.signal("INT"));
    eventually("it ends", async || !new.is_there()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_refuse_nobody_and_lose_no_session() {
    let nodes = nodes().await;
    let text = door_text(&nodes.tables(false));
    let door = Door::serve_text(&text, &[]).await;
    let clients = Clients::of(&door).await;
    let load = Load::on(&door);
    let other = text.replace("LiveApp = {}\n", "LiveApp = {}\nOther = {}\n");

    for (reloads, text) in [&other, &text, &other, &text].into_iter().enumerate() {
        load.until_served(15).await;
        door.rewrite(text);
        let taken = Some(f64::from(u32::try_from(reloads + 1).unwrap()));
        eventually("it is in force", async || {
            door.metric("forebay_config_reloads_total{result=\"taken\"}").await == taken
        })
        .await;
    }
    load.until_served(15).await;

    println!("{} clients came and went over four reloads", load.end().await);
    clients.are_all_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_fails_leaves_everything_as_it_was() {
    let nodes = nodes().await;
    let door = Door::serve(&nodes.tables(false), &[]).await;
    let client = door.open().await;
    let load = Load::on(&door);
    door.rewrite("[listen]\nnonsense = 1\n");

    door.signal("USR2");

    eventually("it says so", async || door.log().contains("the upgrade failed")).await;
    assert!(door.log().contains("78"), "with the exit code: {}", door.log());
    load.until_served(10).await;
    load.end().await;
    ping(&client).await;
    assert_eq!(door.metric("forebay_upgrades_total{result=\"failed\"}").await, Some(1.0));
    assert_eq!(door.health().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_tcp_connections_find_the_generation_of_their_session() {
    let nodes = nodes().await;
    let text = door_text(&nodes.tables(false)).replacen(
        "bind = \"127.0.0.1:0\"\n",
        "bind = \"127.0.0.1:0\"\nice_tcp = true\n",
        1,
    );
    let mut door = Door::serve_text(&text, &[]).await;
    let (publisher, viewer) = (door.open().await, door.open().await);
    let new = Generation::after(&mut door).await;
    eventually("the old one has let go", async || door.log().contains("handed over")).await;

    // The old generation's sessions bring their media to the port that the new one has now.
    let tcp: Stack = webrtc_peer::tcp_stack;
    let publish = publisher.begin(Plan::publish("over-tcp"), tcp);
    publish.until_has("publish_started").await;
    let play = viewer.begin(Plan::play("over-tcp"), tcp);
    play.until_more_video(20).await;
    let admin = door.admin().to_owned();
    assert_eq!(metric(&admin, "forebay_media_tcp_connections").await, Some(0.0), "none of them is the new one's");

    // And the new generation's sessions bring theirs to itself.
    let late = door.open().await;
    let also = late.begin(Plan::play("over-tcp"), tcp);
    also.until_more_video(20).await;
    assert_eq!(metric(&admin, "forebay_media_tcp_connections").await, Some(1.0));
    drop(new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_has_handed_over_still_ends_when_it_is_told_to() {
    let nodes = nodes().await;
    let mut door = Door::serve(&nodes.tables(false), &[("FOREBAY_SHUTDOWN__DEADLINE", "1s")]).await;
    let old = door.open_many(5).await;
    let new = Generation::after(&mut door).await;
    eventually("the old one has let go", async || door.log().contains("handed over")).await;
    let late = door.open().await;

    door.signal("TERM");

    assert_eq!(door.process().ended(Duration::from_secs(20)).await, Some(0));
    for socket in &old {
        eventually("it is closed", async || socket.report().closed.is_some()).await;
    }
    ping(&late).await;
    drop(new);
}
