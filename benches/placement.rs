//! What one placement costs, with its reasons, from a warm book (design.md §7: at most 2 µs with 1,000 nodes, 500 ns with
//! 10). Each size runs beside a bare pass over as many loads, so that figures of different machines can be compared.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use forebay::domain::{
    balance::{BalanceSettings, Book, NodeSpec, Placement, Report, Request, Want},
    ids::{Kind, NodeAddr, Role, StreamKey},
};

/// Streams that requests take turns with: enough that no branch learns one of them.
const STREAMS: usize = 1024;
/// Placements between two of which the book is brought back to where it began.
const ROUND: u64 = 256;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("placement");
    for nodes in [10, 100, 1_000] {
        bare_pass(&mut group, nodes);
        place(&mut group, "publish", nodes, Kind::Publish, |_| Want::Publish);
        place(&mut group, "play", nodes, Kind::Play, |_| Want::Play { origin_zone: None, origin: None });
        place(&mut group, "play_in_zone", nodes, Kind::Play, |book| Want::Play {
            origin_zone: book.view().nodes[0].spec.zone.clone(),
            origin: None,
        });
    }
    group.finish();
    criterion.final_summary();
}

/// The least that any choice by load does: look at each load once.
fn bare_pass(group: &mut BenchmarkGroup<'_, WallTime>, nodes: usize) {
    let loads: Vec<u32> = book(nodes).view().nodes.iter().map(|node| (node.load.predicted * 1e6) as u32).collect();
    group.bench_with_input(BenchmarkId::new("bare_pass", nodes), &loads, |bencher, loads| {
        bencher.iter(|| black_box(loads).iter().copied().min());
    });
}

/// Placements that reserve, each with its reasons built and dropped.
fn place(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, nodes: usize, kind: Kind, want: impl Fn(&Book) -> Want) {
    let streams: Vec<StreamKey> = (0..STREAMS).map(stream).collect();
    let now = Instant::now();
    let mut book = book(nodes);
    let want = want(&book);
    let mut seed = 0u64;
    group.bench_function(BenchmarkId::new(name, nodes), |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            let mut left = rounds;
            while left > 0 {
                let batch = left.min(ROUND);
                let mut placed = Vec::with_capacity(batch as usize);
                let begin = Instant::now();
                for _ in 0..batch {
                    seed += 1;
                    let stream = &streams[seed as usize % STREAMS];
                    let placement: Placement = book
                        .place(
                            &Request {
                                stream,
                                want: want.clone(),
                                rule: "bench",
                                kind: Some(kind),
                                exclude: &[],
                                seed,
                            },
                            now,
                        )
                        .expect("a third of the load leaves room");
                    placed.push(placement.node.clone());
                    drop(black_box(placement));
                }
                spent += begin.elapsed();
                // What is open goes on costing: an ever fuller cluster would be another cluster.
                for node in placed {
                    book.leg_ended(&node, kind, now);
                }
                left -= batch;
            }
            spent
        });
    });
}

fn stream(n: usize) -> StreamKey {
    StreamKey {
        app: "LiveApp".parse().expect("a legal name"),
        stream: format!("stream-number-{n}").parse().expect("a legal name"),
    }
}

/// A warm book: every node takes either kind and has reported a load of its own, in three zones.
fn book(nodes: usize) -> Book {
    let now = Instant::now();
    let mut book = Book::new(BalanceSettings::default());
    let specs: Vec<NodeSpec> = (0..nodes)
        .map(|n| NodeSpec {
            id: format!("node-{n}").parse().expect("a legal name"),
            address: NodeAddr(([10, 0, (n / 250) as u8, (n % 250) as u8], 5080).into()),
            role: Role::Both,
            zone: Some(format!("zone-{}", n % 3).parse().expect("a legal name")),
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: None,
        })
        .collect();
    book.set_nodes(specs.clone(), now);
    for (n, spec) in specs.iter().enumerate() {
        let cpu = (n * 7919 % 601) as f32 / 1000.0;
        book.report(&spec.id, Report { cpu: Some(cpu), memory: None, at: now });
    }
    book
}
