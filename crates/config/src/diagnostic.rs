//! Problems with their remedies, worded for operators.

use std::fmt;

/// A problem with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// The problem: a clause, lower case, no full stop.
    pub problem: String,
    /// The remedy: an imperative clause, lower case, no full stop.
    pub remedy: String,
}

impl Diagnostic {
    /// Creates a problem with its remedy.
    pub fn new(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { problem: what.into(), remedy: todo.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}
