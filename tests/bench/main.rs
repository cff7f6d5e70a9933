//! `make bench`: what the agent takes, beside the least that the same work can take, measured in the same run.
//!
//! Each row has our figure, the bare limit's, their ratio and what the ratio must be. Absolute times say much of the machine and little of the
//! agent; ratios are what is to be kept. Names of rows as arguments choose some.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../fake-engine/engine.rs"]
mod engine;

mod bare;
mod crowd;
mod latency;
mod memory;
mod quiet;
mod report;
mod runs;
mod stage;
mod storm;
mod table;

use table::Table;

/// Measures some rows and adds them.
type Measure = fn(&mut Table);

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let rows: [(&str, Measure); 8] = [
        ("report", report::measure),
        ("latency", latency::measure),
        ("quiet", quiet::measure),
        ("storm", storm::measure),
        ("memory", memory::measure),
        ("runs", runs::measure),
        ("crowd", crowd::engines),
        ("agents", crowd::agents),
    ];
    let mut table = Table::new();
    for (name, measure) in rows {
        if chosen.is_empty() || chosen.iter().any(|one| one == name) {
            eprintln!("measuring: {name}");
            measure(&mut table);
        }
    }
    print!("{table}");
    if !table.all_met() {
        std::process::exit(1);
    }
}
