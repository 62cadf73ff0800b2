//! Sources of values.

use std::{fmt, path::PathBuf};

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line: the flag, with its dashes.
    Flag(String),
    /// The environment: the variable.
    Variable(String),
    /// The file.
    File {
        /// The key as spelled in the file.
        key: String,
        /// Position of its value.
        at: Position,
    },
    /// The default.
    Default,
}

/// A value in use with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, dotted.
    pub key: &'static str,
    /// The value, in the notation of the file; a description without quotes for some defaults.
    pub value: String,
    /// Its source.
    pub source: Source,
}

/// Place of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A position in a file, or the whole file.
    File(PathBuf, Option<Position>),
    /// A flag or an environment variable.
    Named(String),
    /// No single place: something is missing, or several places contradict each other.
    Nowhere,
}

/// Position in a file, counted from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Position {
    /// Position of the byte at `offset` of `text`.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before.get(line_start..).unwrap_or_default().chars().count(),
        }
    }
}

impl Place {
    /// Line and column, for a place in a file.
    pub(super) fn position(&self) -> Option<Position> {
        if let Self::File(_, at) = self { *at } else { None }
    }
}

impl Source {
    /// Precedence: a lower rank is stronger.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Flag(_) => 0,
            Self::Variable(_) => 1,
            Self::File { .. } => 2,
            Self::Default => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { at, .. } => write!(f, "line {}", at.line),
            Self::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, Some(at)) => write!(f, "{}:{at}: ", file.display()),
            Self::File(file, None) => write!(f, "{}: ", file.display()),
            Self::Named(name) => write!(f, "{name}: "),
            Self::Nowhere => Ok(()),
        }
    }
}
