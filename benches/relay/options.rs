//! What is asked for on the command line.

use std::time::Duration;

pub(crate) const HELP: &str = "\
cargo bench --bench relay -- [throughput] [latency] [loss] [flood] [--quick] [--rounds N] [--turn MS] [--flows N] [--only TEXT] [--verbose]
  throughput  packets per second and core, interleaved and in bursts; allocations per packet
  latency     what the way through the relay adds, at 50,000 packets per second
  loss        packets lost at half of the speed (needs throughput)
  flood       media kept under a flood of junk
  --quick     3 short rounds with 1,000 flows: about half a minute, for a first look
  --rounds    turns of each measurement (7)
  --turn      milliseconds of each turn (500)
  --flows     flows that are open, of which 64 carry packets (10000)
  --only      of throughput, only lines with this text, such as \"200 B interleaved\"
  --verbose   every turn as it comes
Memory per flow is always measured. Needs Linux and two cores. Where others work on the machine, delays need `chrt -f 1` before
the program, or what is measured is how long the kernel lets others finish.
";

const PARTS: [&str; 4] = ["throughput", "latency", "loss", "flood"];

pub(crate) struct Options {
    parts: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
    pub(crate) flows: u16,
    pub(crate) only: String,
    pub(crate) verbose: bool,
}

impl Options {
    /// `None`: help is wanted, or needed.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let (mut rounds, mut turn, mut flows) = (7, 500, 10_000);
        let (mut parts, mut only, mut verbose) = (Vec::new(), String::new(), false);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => {} // cargo's own
                "--quick" => (rounds, turn, flows) = (3, 150, 1000),
                "--rounds" => rounds = args.next()?.parse().ok()?,
                "--turn" => turn = args.next()?.parse().ok()?,
                "--flows" => flows = args.next()?.parse().ok()?,
                "--only" => only = args.next()?,
                "--verbose" => verbose = true,
                part if PARTS.contains(&part) => parts.push(arg),
                _ => return None,
            }
        }
        if parts.is_empty() {
            parts = PARTS.map(str::to_owned).to_vec();
        }
        let is_sensible = (1..=100).contains(&rounds) && (50..=5000).contains(&turn) && (100..=16_000).contains(&flows);
        let turn = Duration::from_millis(turn);
        is_sensible.then_some(Self { parts, rounds, turn, flows, only, verbose })
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|asked| asked == part)
    }
}
