//! Clients: hand-made requests on kept connections, each timed.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// No single request takes longer; a load that hangs is a failure.
const STEP: Duration = Duration::from_secs(20);
/// What is read at a time.
const BUFFER: usize = 256 * 1024;

/// What a turn has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Each request's time, in ns.
    pub(crate) times: Vec<u64>,
    /// Bytes of bodies.
    pub(crate) bytes: u64,
}

/// A percentile of the times, in ms.
pub(crate) fn percentile(seen: &Seen, percent: usize) -> f64 {
    let mut times = seen.times.clone();
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

/// So many connections that ask again as soon as they are answered.
pub(crate) async fn busy(to: SocketAddr, path: &'static str, connections: usize, turn: Duration) -> io::Result<Seen> {
    let mut clients = JoinSet::new();
    let mut all = Vec::new();
    for nth in 0..connections {
        all.push(Client::open(to, path, nth).await?);
    }
    let end = Instant::now() + turn;
    for mut client in all {
        clients.spawn(async move {
            let mut seen = Seen::default();
            while Instant::now() < end {
                client.ask(&mut seen).await?;
            }
            io::Result::Ok(seen)
        });
    }
    let mut sum = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let seen = seen.map_err(io::Error::other)??;
        sum.times.extend(seen.times);
        sum.bytes += seen.bytes;
    }
    Ok(sum)
}

/// Asks at a steady pace, each time on a new connection, as load balancers do; the connect counts.
pub(crate) async fn paced(to: SocketAddr, path: &'static str, pace: Duration, turn: Duration) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let end = Instant::now() + turn;
    let mut ticks = tokio::time::interval(pace);
    while Instant::now() < end {
        ticks.tick().await;
        let begun = Instant::now();
        Client::open(to, path, 0).await?.ask(&mut Seen::default()).await?;
        seen.times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(seen)
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    async fn open(to: SocketAddr, path: &str, nth: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) viewer/{nth}\r\n\
             Accept: */*\r\nAccept-Encoding: identity\r\nReferer: https://bench.example/play.html\r\n\r\n"
        );
        Ok(Self { stream, request: request.into_bytes(), buffer: vec![0; BUFFER] })
    }

    async fn ask(&mut self, seen: &mut Seen) -> io::Result<()> {
        let begun = Instant::now();
        let bytes = timeout(STEP, self.exchange()).await.map_err(|_| io::Error::other("a request hangs"))??;
        seen.times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        seen.bytes += bytes as u64;
        Ok(())
    }

    /// One request and its answer, which has a length.
    async fn exchange(&mut self) -> io::Result<usize> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        let (head, length) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::Error::other("closed"));
            }
            filled += read;
            if let Some(end) = self.buffer[..filled].windows(4).position(|at| at == b"\r\n\r\n") {
                break (end + 4, content_length(&self.buffer[..end])?);
            }
        };
        let mut left = length.saturating_sub(filled - head);
        while left > 0 {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::Error::other("closed inside a body"));
            }
            left = left.saturating_sub(read);
        }
        Ok(length)
    }
}

fn content_length(head: &[u8]) -> io::Result<usize> {
    let head = std::str::from_utf8(head).map_err(io::Error::other)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("not a 200: {head}")));
    }
    let line =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    line.and_then(|length| length.trim().parse().ok()).ok_or_else(|| io::Error::other(format!("no length: {head}")))
}
