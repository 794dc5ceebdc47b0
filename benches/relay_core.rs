//! What the relay's core costs per datagram, with ten thousand flows: media in either direction, a client's check, junk.
//! No datagram may allocate: above zero it fails. Run: `cargo bench --bench relay_core`.
#![allow(clippy::print_stdout)] // printing the figures is what it is for

#[path = "support/allocations.rs"]
mod allocations;
#[path = "support/stun.rs"]
mod stun;

use std::{
    hint::black_box,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use forebay::domain::{
    ids::SessionId,
    relay::{ClientKey, Command, Core, Credentials, RelaySettings, TransportId, TransportSpec, Verdict},
};

const FLOWS: u32 = 10_000;
const ROUNDS: u32 = 100;
const SERVER_PWD: &str = "server-password-of-22-x";
const CLIENT_PWD: &str = "client-password-of-22-x";

fn main() -> ExitCode {
    let now = Instant::now();
    let before = allocations::bytes();
    let mut core = Core::new(RelaySettings::default(), 1, now);
    for flow in 0..FLOWS {
        open(&mut core, flow, now);
    }
    let bytes = (allocations::bytes() - before) / u64::from(FLOWS);
    println!("{FLOWS} sessions with one flow: {bytes} bytes each, tables included");

    let rtp = [[0x80, 96].as_slice(), &[0; 1198]].concat();
    let checks: Vec<Vec<u8>> = (0..FLOWS).map(check).collect();
    let mut junk = checks[0].clone();
    junk[24] ^= 1;
    let (mut clean, mut nanos) = (true, 0u64);
    let mut measure = |what: &str, each: &mut dyn FnMut(u32, Instant) -> Verdict| {
        let (begun, before) = (Instant::now(), allocations::count());
        for _ in 0..ROUNDS {
            for flow in 0..FLOWS {
                // Spread over time, so that no limit of rates is what is measured.
                nanos += 20_000;
                black_box(each(flow, now + Duration::from_nanos(nanos)));
            }
        }
        let took = begun.elapsed() / (ROUNDS * FLOWS);
        let allocated = allocations::count() - before;
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
        succeeds: None,
        node: backend(flow).ip(),
        server: credentials("s", SERVER_PWD),
        client: Some(credentials("c", CLIENT_PWD)),
        backend_port: Some(backend(flow).port()),
        node_is_lite: false,
        bytes_per_second: None,
    };
    core.command(Command::Open(spec), now).expect("a legal transport");
    assert!(matches!(core.from_client(client(flow), &check(flow), now), Verdict::ToNode { pool: 0, .. }));
    let asked = stun::check("c:s", false, CLIENT_PWD);
    assert_eq!(core.from_node(0, backend(flow), &asked, now), Verdict::ToClient(client(flow)));
    let answer = stun::answer(CLIENT_PWD);
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
    stun::check(&format!("s{flow:05}:c{flow:05}"), false, SERVER_PWD)
}
