//! What the relay's core costs per datagram, with ten thousand flows: media in either direction, a client's check, junk.
//! No datagram may allocate: above zero it fails. Run: `cargo bench --bench relay_core`.
#![allow(clippy::print_stdout)] // printing the figures is what it is for

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    net::SocketAddr,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use forebay::domain::{
    ids::SessionId,
    relay::{ClientKey, Command, Core, Credentials, RelaySettings, TransportId, TransportSpec, Verdict},
};

const FLOWS: u32 = 10_000;
const ROUNDS: u32 = 100;
const SERVER_PWD: &str = "server-password-of-22-x";
const CLIENT_PWD: &str = "client-password-of-22-x";

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[allow(unsafe_code, reason = "the only way to count allocations; it hands every call on")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> ExitCode {
    let now = Instant::now();
    let before = BYTES.load(Ordering::Relaxed);
    let mut core = Core::new(RelaySettings::default(), 1, now);
    for flow in 0..FLOWS {
        open(&mut core, flow, now);
    }
    let bytes = (BYTES.load(Ordering::Relaxed) - before) / u64::from(FLOWS);
    println!("{FLOWS} sessions with one flow: {bytes} bytes each, tables included");

    let rtp = [[0x80, 96].as_slice(), &[0; 1198]].concat();
    let checks: Vec<Vec<u8>> = (0..FLOWS).map(check).collect();
    let mut junk = checks[0].clone();
    junk[24] ^= 1;
    let (mut clean, mut nanos) = (true, 0u64);
    let mut measure = |what: &str, each: &mut dyn FnMut(u32, Instant) -> Verdict| {
        let (begun, allocations) = (Instant::now(), ALLOCATIONS.load(Ordering::Relaxed));
        for _ in 0..ROUNDS {
            for flow in 0..FLOWS {
                // Spread over time, so that no limit of rates is what is measured.
                nanos += 20_000;
                black_box(each(flow, now + Duration::from_nanos(nanos)));
            }
        }
        let took = begun.elapsed() / (ROUNDS * FLOWS);
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
        println!("{what}: {took:?} per datagram, {allocated} allocations");
        clean &= allocated == 0;
    };
    measure("media of a client", &mut |flow, now| core.from_client(client(flow), &rtp, now));
    measure("media of a node", &mut |flow, now| core.from_node(0, backend(flow), &rtp, now));
    measure("check of a client", &mut |flow, now| core.from_client(client(flow), &checks[flow as usize], now));
    measure("junk STUN", &mut |flow, now| core.from_client(ClientKey::Udp(backend(flow)), &junk, now));
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A transport whose client has validated its tuple.
fn open(core: &mut Core, flow: u32, now: Instant) {
    let id = TransportId(u64::from(flow));
    let credentials = |side: &str, pwd: &str| Credentials { ufrag: format!("{side}{flow:05}").into(), pwd: pwd.into() };
    let spec = TransportSpec {
        id,
        session: SessionId(id.0),
        line: 0,
        node: backend(flow).ip(),
        server: credentials("s", SERVER_PWD),
        client: Some(credentials("c", CLIENT_PWD)),
        backend_port: Some(backend(flow).port()),
        node_is_lite: false,
        bytes_per_second: None,
    };
    core.command(Command::Open(spec), now).expect("a legal transport");
    assert!(matches!(core.from_client(client(flow), &check(flow), now), Verdict::ToNode { pool: 0, .. }));
    let asked = message(0x0001, "c:s", CLIENT_PWD);
    assert_eq!(core.from_node(0, backend(flow), &asked, now), Verdict::ToClient(client(flow)));
    let answer = message(0x0101, "", CLIENT_PWD);
    assert!(matches!(core.from_client(client(flow), &answer, now), Verdict::ToNode { .. }));
    while core.poll_event().is_some() {}
}

fn client(flow: u32) -> ClientKey {
    let [_, _, high, low] = flow.to_be_bytes();
    ClientKey::Udp(SocketAddr::from(([203, 0, high, low], 40_000)))
}

fn backend(flow: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, 20], 50_000 + u16::try_from(flow).expect("ten thousand ports")))
}

fn check(flow: u32) -> Vec<u8> {
    message(0x0001, &format!("s{flow:05}:c{flow:05}"), SERVER_PWD)
}

fn message(kind: u16, username: &str, pwd: &str) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    if !username.is_empty() {
        attribute(&mut bytes, 0x0006, username.as_bytes());
    }
    set_length(&mut bytes, 24);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes()), &bytes);
    attribute(&mut bytes, 0x0008, tag.as_ref());
    set_length(&mut bytes, 8);
    let crc = crc32fast::hash(&bytes) ^ 0x5354_554e;
    attribute(&mut bytes, 0x8028, &crc.to_be_bytes());
    bytes
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    set_length(bytes, 0);
}

fn set_length(bytes: &mut [u8], more: usize) {
    let length = u16::try_from(bytes.len() - 20 + more).expect("short");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}
