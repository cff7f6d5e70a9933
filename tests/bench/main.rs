//! `make bench`: what the agent takes, beside the least that the same work can take, and beside what people use today.
//!
//! Both are measured in the same run, in turns where times are compared, and several times: absolute times say much of the machine and little of
//! the agent, ratios are what is to be kept. Names of measurements as arguments choose some.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../fake-engine/engine.rs"]
mod engine;
// The tests' kit is whole; not all of it is needed here.
#[allow(unused_imports, unused_macros)]
#[path = "../it/kit/mod.rs"]
mod kit;

mod bare;
mod crowd;
mod latency;
mod memory;
mod quiet;
mod real;
mod recorder;
mod report;
mod runs;
mod stage;
mod storm;
mod table;
mod today;

use rustix::process::{Resource, getrlimit, setrlimit};
use table::Table;

/// Measures something and adds its rows.
type Measure = fn(&mut Table);

const MEASURES: [(&str, Measure); 10] = [
    ("report", report::measure),
    ("latency", latency::measure),
    ("real", real::measure),
    ("quiet", quiet::measure),
    ("storm", storm::measure),
    ("memory", memory::measure),
    ("runs", runs::measure),
    ("today", today::measure),
    ("engines", crowd::engines),
    ("agents", crowd::agents),
];

/// What `make bench > BENCH.md` begins with.
const HEAD: &str = "# The last run of `make bench`

Each figure stands beside another of the same run: `bare loop` and `bare spawning` are the least that the same work can take, straight loops over
the same sockets without any of the agent's layers; the others are what people use today. Absolute times say much of the machine, ratios little.
Times are medians of several, taken in turns.
";

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    // A thousand engines, and an agent for them, have many sockets.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let machine = table::machine();
    let mut table = Table::default();
    let mut all = 0.0;
    let before = table::stolen();
    for (name, measure) in MEASURES {
        if chosen.is_empty() || chosen.iter().any(|one| one == name) {
            eprintln!("measuring: {name}");
            let took = stage::timed(|| measure(&mut table));
            eprintln!("  in {took:.0} s");
            all += took;
        }
    }
    let after = table::stolen();
    let stolen = 100.0 * (after.0 - before.0) / (after.1 - before.1).max(1.0);
    println!(
        "{HEAD}\n{machine} Measured in {all:.0} s, in which the host gave {stolen:.1} % of the processors to others.\n\n{table}"
    );
}
