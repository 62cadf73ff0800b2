//! Where values come from.

use std::{fmt, path::PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line: the flag, with its dashes.
    Flag(String),
    /// The environment: the variable.
    Variable(String),
    /// The file.
    File {
        /// The key as it is spelled there.
        key: String,
        /// Where its value stands.
        at: Position,
    },
    /// Nothing was said.
    Default,
}

/// A value in use, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, dotted.
    pub key: &'static str,
    /// The value, as a file would say it; a name without quotes where nothing was said.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, or with all of it.
    File(PathBuf, Option<Position>),
    /// In a flag, or in an environment variable.
    Named(String),
    /// In no place: something is missing, or several places are at odds.
    Nowhere,
}

/// A place in a file, both counted from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Position {
    /// Where the byte at `offset` of `text` stands.
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
    /// The line and column, in a file.
    pub(super) fn position(&self) -> Option<Position> {
        if let Self::File(_, at) = self { *at } else { None }
    }
}

impl Source {
    /// Which goes first: less is stronger.
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
