//! The table that is printed: Markdown, one row a figure.

use std::fmt;

use crate::stage;

/// All rows so far.
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    what: String,
    ours: String,
    limit: String,
    value: f64,
    goal: f64,
    /// The figure is to be at least the goal, not at most.
    at_least: bool,
    unit: &'static str,
}

impl Table {
    pub fn new() -> Table {
        Table {
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Our figure beside the limit's: the ratio is to be at most so much.
    pub fn ratio(&mut self, what: &str, ours: (f64, &str), limit: (f64, &str), at_most: f64) {
        self.push(
            what,
            shown(ours.0, ours.1),
            shown(limit.0, limit.1),
            ours.0 / limit.0,
            at_most,
            false,
            "x",
        );
    }

    /// The same where more is better: the ratio is to be at least so much.
    pub fn ratio_at_least(
        &mut self,
        what: &str,
        ours: (f64, &str),
        limit: (f64, &str),
        at_least: f64,
    ) {
        self.push(
            what,
            shown(ours.0, ours.1),
            shown(limit.0, limit.1),
            ours.0 / limit.0,
            at_least,
            true,
            "x",
        );
    }

    /// A figure that is to be at most so much.
    pub fn at_most(&mut self, what: &str, ours: f64, unit: &'static str, goal: f64) {
        self.push(
            what,
            shown(ours, unit),
            String::new(),
            ours,
            goal,
            false,
            unit,
        );
    }

    /// A figure that is to be at least so much.
    pub fn at_least(&mut self, what: &str, ours: f64, unit: &'static str, goal: f64) {
        self.push(
            what,
            shown(ours, unit),
            String::new(),
            ours,
            goal,
            true,
            unit,
        );
    }

    /// A line below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    pub fn all_met(&self) -> bool {
        self.rows.iter().all(Row::is_met)
    }

    #[allow(clippy::too_many_arguments)]
    fn push(
        &mut self,
        what: &str,
        ours: String,
        limit: String,
        value: f64,
        goal: f64,
        at_least: bool,
        unit: &'static str,
    ) {
        let row = Row {
            what: what.into(),
            ours,
            limit,
            value,
            goal,
            at_least,
            unit,
        };
        eprintln!("  {row}");
        self.rows.push(row);
    }
}

impl Row {
    fn is_met(&self) -> bool {
        match self.at_least {
            true => self.value >= self.goal,
            false => self.value <= self.goal,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = match self.limit.is_empty() {
            true => String::new(),
            false => format!("{:.2}", self.value),
        };
        let bound = if self.at_least { "at least" } else { "at most" };
        let met = if self.is_met() { "yes" } else { "**no**" };
        let goal = shown(self.goal, self.unit);
        write!(
            f,
            "| {} | {} | {} | {ratio} | {bound} {goal} | {met} |",
            self.what, self.ours, self.limit
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        writeln!(
            f,
            "Machine: {cores} cores, {}. Agent: `{}`.\n",
            stage::processor(),
            shown_binary()
        )?;
        writeln!(
            f,
            "| what | ours | bare limit | ratio | must be | met |\n|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}

fn shown_binary() -> String {
    let path = stage::binary();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    path.strip_prefix(root)
        .unwrap_or(&path)
        .display()
        .to_string()
}

fn shown(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    match unit {
        "x" => format!("{value}"),
        "" => format!("{value:.digits$}"),
        _ => format!("{value:.digits$} {unit}"),
    }
}
