//! The table that is printed: Markdown, one row a figure.

use std::fmt;

use crate::stage;

/// All rows so far.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// A figure of ours, perhaps beside another that was measured with it, and what it must reach.
pub struct Row {
    what: String,
    ours: f64,
    unit: &'static str,
    other: Option<(&'static str, f64)>,
    goal: Goal,
}

/// Of the ratio where there is another figure, else of ours.
#[derive(Clone, Copy)]
enum Goal {
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// Begins a row; it has no goal yet.
pub fn row(what: impl Into<String>, ours: f64, unit: &'static str) -> Row {
    Row {
        what: what.into(),
        ours,
        unit,
        other: None,
        goal: Goal::None,
    }
}

impl Row {
    /// Beside this.
    pub fn beside(mut self, whose: &'static str, figure: f64) -> Row {
        self.other = Some((whose, figure));
        self
    }

    pub fn at_most(mut self, goal: f64) -> Row {
        self.goal = Goal::AtMost(goal);
        self
    }

    pub fn at_least(mut self, goal: f64) -> Row {
        self.goal = Goal::AtLeast(goal);
        self
    }

    fn verdict(&self) -> &'static str {
        let value = match self.other {
            Some((_, other)) => self.ours / other,
            None => self.ours,
        };
        let met = match self.goal {
            Goal::None => return "",
            Goal::AtMost(goal) => value <= goal,
            Goal::AtLeast(goal) => value >= goal,
        };
        if met { "met" } else { "**missed**" }
    }
}

impl Table {
    pub fn add(&mut self, row: Row) {
        eprintln!("  {row}");
        self.rows.push(row);
    }

    /// A line below the table.
    pub fn note(&mut self, text: String) {
        eprintln!("  {text}");
        self.notes.push(text);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = shown(self.ours, self.unit);
        let (other, ratio) = match self.other {
            Some((whose, figure)) => (
                format!("{} ({whose})", shown(figure, self.unit)),
                format!("{:.2}", self.ours / figure),
            ),
            None => Default::default(),
        };
        let unit = if self.other.is_some() { "x" } else { self.unit };
        let goal = match self.goal {
            Goal::None => String::new(),
            Goal::AtMost(goal) => format!("at most {}", bound(goal, unit)),
            Goal::AtLeast(goal) => format!("at least {}", bound(goal, unit)),
        };
        let (what, verdict) = (&self.what, self.verdict());
        write!(
            f,
            "| {what} | {ours} | {other} | {ratio} | {goal} | {verdict} |"
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| what | ours | beside it | ratio | must be | verdict |\n|---|--:|--:|--:|---|---|"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        let missed = self.rows.iter().filter(|row| row.verdict() == "**missed**");
        writeln!(
            f,
            "- {} rows, {} of them missed",
            self.rows.len(),
            missed.count()
        )
    }
}

/// With three digits that count.
fn shown(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    bound(format!("{value:.digits$}"), unit)
}

fn bound(value: impl fmt::Display, unit: &str) -> String {
    format!("{value} {unit}").trim_end().to_owned()
}

/// Where all this was measured, and what.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    let binary = stage::binary();
    let root = env!("CARGO_MANIFEST_DIR");
    let binary = binary.strip_prefix(root).unwrap_or(&binary).display();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "Machine: {cores} cores of {processor}, Linux {kernel}, {load} processes of others at its start. Agent: `{binary}`."
    )
}

/// Of the processors' time since the machine began: what its host gave to other machines, and all of it; in ticks (`/proc/stat`, see proc(5)).
pub fn stolen() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = all
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // What guests took stands in the first two as well.
    (
        ticks.get(7).copied().unwrap_or(0.0),
        ticks.iter().take(8).sum(),
    )
}
