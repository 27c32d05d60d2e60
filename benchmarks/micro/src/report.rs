//! The rows, as a table and as JSON. Owns names, units and whether a target is met; measures nothing.

use serde::Serialize;
use std::fmt::Write as _;

/// Which side of a target is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {}", number(bound)),
            Self::AtMost(bound) => format!("at most {}", number(bound)),
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// What was measured so far.
#[derive(Debug)]
pub(crate) struct Report {
    quick: bool,
    only: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(quick: bool, only: String) -> Self {
        Self {
            quick,
            only,
            rows: Vec::new(),
        }
    }

    /// `full`, or little enough that it takes no time worth mentioning.
    pub(crate) fn size(&self, full: usize) -> usize {
        if self.quick { (full / 100).clamp(1, 2000) } else { full }
    }

    /// How often a shape is run; the best run counts, because whatever else the machine does only ever adds.
    pub(crate) fn repeats(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Whether a row of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// Adds a row. A quick run is judged by no target.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, target: Option<Target>) {
        let judged = target.filter(|_| !self.quick);
        self.rows.push(Row {
            name: name.into(),
            value,
            unit,
            target: target.map(Target::text),
            met: judged.map(|target| target.is_met(value)),
        });
    }

    pub(crate) fn json(&self) -> String {
        let document =
            serde_json::json!({ "benchmark": "micro", "version": 1, "quick": self.quick, "rows": self.rows });
        format!("{document:#}\n")
    }

    /// The rows as a table that a README can take as it is.
    pub(crate) fn table(&self) -> String {
        let head = ["what", "figure", "unit", "target", "met"].map(str::to_owned);
        let cells = self.rows.iter().map(|row| {
            let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
            let target = row.target.clone().unwrap_or_default();
            [
                row.name.clone(),
                number(row.value),
                row.unit.to_owned(),
                target,
                met.to_owned(),
            ]
        });
        let lines: Vec<_> = std::iter::once(head).chain(cells).collect();
        let widths: [usize; 5] = std::array::from_fn(|i| lines.iter().map(|line| line[i].len()).max().unwrap_or(0));
        let mut out = String::new();
        for (i, [what, figure, unit, target, met]) in lines.iter().enumerate() {
            let [a, b, c, d, e] = widths;
            let _ = writeln!(out, "| {what:a$} | {figure:>b$} | {unit:c$} | {target:d$} | {met:e$} |");
            if i == 0 {
                let rule = |n| "-".repeat(n);
                let (a, b, c, d, e) = (rule(a), rule(b - 1), rule(c), rule(d), rule(e));
                let _ = writeln!(out, "| {a} | {b}: | {c} | {d} | {e} |");
            }
        }
        out
    }
}

/// A figure for people: three digits that say something, thousands apart.
fn number(value: f64) -> String {
    if value < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            ["0.5", "12.35", "1,234,568"],
            [0.5, 12.345_1, 1_234_567.8].map(number).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn a_quick_run_is_judged_by_no_target() {
        for quick in [true, false] {
            let mut report = Report::new(quick, String::new());
            report.add("x", 2.0, "ns", Some(Target::AtMost(1.0)));
            assert_eq!(report.rows[0].met, (!quick).then_some(false));
        }
    }
}
