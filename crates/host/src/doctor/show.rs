//! Output of the findings, as text or JSON.

use std::fmt;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::verdict::CheckVerdict;

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
    pub(super) verdict: CheckVerdict,
}

/// Findings of all checks. `Display` has colours (ANSI); the stream removes them where they are not wanted.
#[derive(Clone, Debug)]
pub struct DoctorReport {
    /// Findings in the order of the checks.
    pub(super) findings: Vec<Finding>,
}

impl DoctorReport {
    /// Counts warnings and failures.
    fn counts(&self) -> (usize, usize) {
        let count = |is: fn(&CheckVerdict) -> bool| self.findings.iter().filter(|f| is(&f.verdict)).count();
        (
            count(|verdict| matches!(verdict, CheckVerdict::Warn(_))),
            count(|verdict| matches!(verdict, CheckVerdict::Fail(_))),
        )
    }

    /// Whether a check found what prevents a relay from running.
    pub fn has_failure(&self) -> bool {
        self.counts().1 > 0
    }

    /// Report as one JSON object.
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self.findings.iter().map(Finding::json).collect();
        let (warnings, failures) = self.counts();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "checks": checks,
            "warnings": warnings,
            "failures": failures,
        })
    }
}

/// Coloured status of a check, padded to its column.
fn label(verdict: &CheckVerdict) -> String {
    let (word, colour) = match verdict {
        CheckVerdict::Ok(_) => ("ok", AnsiColor::Green),
        CheckVerdict::Warn(_) => ("warn", AnsiColor::Yellow),
        CheckVerdict::Fail(_) => ("fail", AnsiColor::Red),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{word:<6}{style:#}")
}

impl Finding {
    fn json(&self) -> Value {
        let (status, what, todo) = match &self.verdict {
            CheckVerdict::Ok(what) => ("ok", what, None),
            CheckVerdict::Warn(trouble) => ("warn", &trouble.problem, Some(&trouble.remedy)),
            CheckVerdict::Fail(trouble) => ("fail", &trouble.problem, Some(&trouble.remedy)),
        };
        json!({ "check": self.check, "status": status, "what": what, "todo": todo })
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict } in &self.findings {
            let word = label(verdict);
            match verdict {
                CheckVerdict::Ok(what) => writeln!(f, "  {word}{check:<NAME_COLUMNS$}{what}")?,
                CheckVerdict::Warn(trouble) | CheckVerdict::Fail(trouble) => {
                    writeln!(f, "  {word}{check:<NAME_COLUMNS$}{}", trouble.problem)?;
                    writeln!(f, "{:INDENT$}-> {}", "", trouble.remedy)?;
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
