//! Output of the findings, as text or JSON.

use std::fmt;

use serde_json::{Value, json};

use super::verdict::Verdict;

/// Columns of the names of checks.
const NAME_COLUMNS: usize = 14;
/// Column where the text of a finding begins.
const INDENT: usize = 2 + 6 + NAME_COLUMNS;

/// A check and its verdict.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// Short name of the check.
    pub(super) check: &'static str,
    /// Result of the check.
    pub(super) verdict: Verdict,
}

/// All findings.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Findings in the order of the checks.
    pub(super) findings: Vec<Finding>,
    /// Whether to use colour.
    pub(super) colour: bool,
}

impl Report {
    /// Counts warnings and failures.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |is: fn(&Verdict) -> bool| self.findings.iter().filter(|f| is(&f.verdict)).count();
        (
            count(|verdict| matches!(verdict, Verdict::Warn(_))),
            count(|verdict| matches!(verdict, Verdict::Fail(_))),
        )
    }

    /// Report as one JSON object.
    pub(super) fn json(&self) -> Value {
        let checks: Vec<Value> = self.findings.iter().map(Finding::json).collect();
        let (warnings, failures) = self.counts();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "checks": checks,
            "warnings": warnings,
            "failures": failures,
        })
    }

    fn word(&self, verdict: &Verdict) -> String {
        let (word, code) = match verdict {
            Verdict::Ok(_) => ("ok", 32),
            Verdict::Warn(_) => ("warn", 33),
            Verdict::Fail(_) => ("fail", 31),
        };
        let word = format!("{word:<6}");
        if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word }
    }
}

impl Finding {
    fn json(&self) -> Value {
        let (status, what, todo) = match &self.verdict {
            Verdict::Ok(what) => ("ok", what, None),
            Verdict::Warn(trouble) => ("warn", &trouble.what, Some(&trouble.todo)),
            Verdict::Fail(trouble) => ("fail", &trouble.what, Some(&trouble.todo)),
        };
        json!({ "check": self.check, "status": status, "what": what, "todo": todo })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict } in &self.findings {
            let word = self.word(verdict);
            match verdict {
                Verdict::Ok(what) => writeln!(f, "  {word}{check:<NAME_COLUMNS$}{what}")?,
                Verdict::Warn(trouble) | Verdict::Fail(trouble) => {
                    writeln!(f, "  {word}{check:<NAME_COLUMNS$}{}", trouble.what)?;
                    writeln!(f, "{:INDENT$}-> {}", "", trouble.todo)?;
                }
            }
        }
        let (warnings, failures) = self.counts();
        writeln!(f)?;
        match (warnings, failures) {
            (0, 0) => writeln!(f, "All is well."),
            _ => writeln!(f, "{}, {}.", some(warnings, "warning"), some(failures, "failure")),
        }
    }
}

fn some(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
