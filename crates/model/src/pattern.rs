//! Path patterns as written in grants: `room/*/cam`, `anon/**`.
//!
//! The syntax is that of deployed tokens and auth servers (`moq-pattern` 0.1): segments between single slashes,
//! each of them
//!
//! - text: that segment, compared byte by byte;
//! - `*`: any one segment;
//! - `a*b`: one segment that begins with `a` and ends with `b`;
//! - `**`: any number of segments, including none; at most once in a pattern.
//!
//! A pattern is exact: `foo` is that path alone, `foo/**` is it and all below it, the empty pattern is
//! the root alone.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{
    limits,
    path::{Path, PathError},
};

/// A set of paths. Two patterns that allow the same paths are equal. Patterns below a subtree sort right after
/// it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    /// Segments before the first that is not plain text.
    head: Path,
    rest: Rest,
}

/// Part of a pattern after its head.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Rest {
    Anything,
    Nothing,
    /// Starts with a segment that is not plain text; a `**` is placed before an adjacent `*`.
    Segments(Arc<[PatternSegment]>),
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum PatternSegment {
    Text(Arc<str>),
    One,
    Part { start: Arc<str>, end: Arc<str> },
    Run,
}

/// Reason for refusing a text as a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A slash at the start or end, or two in a row.
    #[error("a pattern has no empty segment: no slash at its start or end, and no two in a row")]
    EmptySegment,
    /// A segment with more than one `*` that is not `**`.
    #[error("a segment has at most one `*`, or is `**`")]
    Stars,
    /// More than one `**`.
    #[error("a pattern has at most one `**`")]
    Runs,
    /// The plain part is not a valid path.
    #[error(transparent)]
    Path(#[from] PathError),
}

type Parts<'a> = SmallVec<[&'a str; 8]>;

impl Pattern {
    /// `path` and all below it.
    pub fn subtree(path: Path) -> Self {
        Self { head: path, rest: Rest::Anything }
    }

    /// `path` alone.
    pub fn exact(path: Path) -> Self {
        Self { head: path, rest: Rest::Nothing }
    }

    /// Parses the text of a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > limits::PATH_BYTES {
            return Err(PathError::TooLong.into());
        }
        let segments =
            parts(text).iter().map(|part| PatternSegment::parse(part)).collect::<Result<Vec<_>, _>>()?;
        if segments.iter().filter(|segment| **segment == PatternSegment::Run).count() > 1 {
            return Err(PatternError::Runs);
        }
        Ok(Self::build(&Path::root(), &segments)?)
    }

    /// The pattern moved below `root`, in absolute paths. Errors when every such path exceeds a limit.
    pub fn under(&self, root: &Path) -> Result<Self, PathError> {
        Ok(Self { head: root.join(&self.head)?, rest: self.rest.clone() })
    }

    /// The pattern relative to `root`; `None` when its head does not lie at or below `root`.
    pub fn within(&self, root: &Path) -> Option<Self> {
        let head = Path::parse(self.head.strip_prefix(root)?).ok()?;
        Some(Self { head, rest: self.rest.clone() })
    }

    /// Whether the set contains `path`.
    pub fn matches(&self, path: &Path) -> bool {
        let Some(below) = path.strip_prefix(&self.head) else { return false };
        match &self.rest {
            Rest::Nothing => below.is_empty(),
            Rest::Anything => true,
            Rest::Segments(segments) => all_match(segments, &parts(below)),
        }
    }

    /// Whether the set contains every path of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        match &self.rest {
            Rest::Nothing => self == other,
            Rest::Anything => other.head.has_prefix(&self.head),
            Rest::Segments(ours) if other.head == self.head => covers(ours, other.rest.segments()),
            Rest::Segments(_) if !other.head.has_prefix(&self.head) => false,
            Rest::Segments(_) => covers(&self.segments(), &other.segments()),
        }
    }

    /// The paths of the set at or below `root`, as patterns of absolute paths. More than one when a `**` may
    /// end within the root or continue below it.
    pub fn narrow(&self, root: &Path) -> Vec<Self> {
        if self.head.has_prefix(root) {
            return vec![self.clone()];
        }
        let Some(deeper) = root.strip_prefix(&self.head) else { return Vec::new() };
        match &self.rest {
            Rest::Nothing => Vec::new(),
            Rest::Anything => vec![Self::subtree(root.clone())],
            // A pattern longer than any path matches none.
            Rest::Segments(segments) => left_over(segments, &parts(deeper))
                .iter()
                .filter_map(|segments| Self::build(root, segments).ok())
                .collect(),
        }
    }

    /// The path that every path of the set equals or lies below.
    pub fn head(&self) -> &Path {
        &self.head
    }

    /// The path, if the set is that path and everything below it.
    pub fn as_subtree(&self) -> Option<&Path> {
        (self.rest == Rest::Anything).then_some(&self.head)
    }

    /// `head` followed by `segments`, in canonical form.
    fn build(head: &Path, segments: &[PatternSegment]) -> Result<Self, PathError> {
        let fixed = segments.iter().filter(|segment| **segment != PatternSegment::Run).count();
        if parts(head.as_str()).len() + fixed > limits::PATH_SEGMENTS {
            return Err(PathError::TooManySegments);
        }
        let plain = segments.iter().take_while(|segment| matches!(segment, PatternSegment::Text(_))).count();
        let (plain, rest) = segments.split_at(plain);
        let plain: Vec<&str> = plain
            .iter()
            .filter_map(|segment| if let PatternSegment::Text(text) = segment { Some(&**text) } else { None })
            .collect();
        let head = head.join(&Path::parse(&plain.join("/"))?)?;
        let mut rest = rest.to_vec();
        if let Some(run) = rest.iter().position(|segment| *segment == PatternSegment::Run) {
            let ones =
                rest.iter().take(run).rev().take_while(|segment| **segment == PatternSegment::One).count();
            rest.swap(run - ones, run);
        }
        let rest = match rest.as_slice() {
            [] => Rest::Nothing,
            [PatternSegment::Run] => Rest::Anything,
            _ => Rest::Segments(rest.into()),
        };
        Ok(Self { head, rest })
    }

    fn segments(&self) -> Vec<PatternSegment> {
        let mut all: Vec<PatternSegment> =
            parts(self.head.as_str()).iter().map(|part| PatternSegment::Text((*part).into())).collect();
        all.extend_from_slice(self.rest.segments());
        all
    }
}

impl Rest {
    fn segments(&self) -> &[PatternSegment] {
        match self {
            Self::Anything => &[PatternSegment::Run],
            Self::Nothing => &[],
            Self::Segments(segments) => segments,
        }
    }
}

impl PatternSegment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(match text {
            "" => return Err(PatternError::EmptySegment),
            "*" => Self::One,
            "**" => Self::Run,
            _ => match text.split_once('*') {
                None => Self::Text(text.into()),
                Some((_, end)) if end.contains('*') => return Err(PatternError::Stars),
                Some((start, end)) => Self::Part { start: start.into(), end: end.into() },
            },
        })
    }

    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Text(text) => **text == *part,
            Self::One => true,
            Self::Part { start, end } => {
                part.strip_prefix(&**start).is_some_and(|rest| rest.ends_with(&**end))
            }
            Self::Run => false,
        }
    }

    /// Whether every segment matched by `other` is matched, too. Runs (`**`) are handled by the caller.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Run) => false,
            (_, Self::Text(text)) => self.matches(text),
            (Self::One, _) => true,
            (Self::Part { start, end }, Self::Part { start: from, end: to }) => {
                from.starts_with(&**start) && to.ends_with(&**end)
            }
            _ => false,
        }
    }
}

/// The segments of a path or pattern; none for the root.
fn parts(text: &str) -> Parts<'_> {
    if text.is_empty() { Parts::new() } else { text.split('/').collect() }
}

/// Splits at the run (`**`): the segments before it, and those after it; `None` without a run.
fn halves(segments: &[PatternSegment]) -> (&[PatternSegment], Option<&[PatternSegment]>) {
    let mut halves = segments.split(|segment| *segment == PatternSegment::Run);
    (halves.next().unwrap_or_default(), halves.next())
}

fn all_match(segments: &[PatternSegment], parts: &[&str]) -> bool {
    let (front, back) = halves(segments);
    let fits = match back {
        None => parts.len() == front.len(),
        Some(back) => parts.len() >= front.len() + back.len(),
    };
    let ends = back.unwrap_or_default().iter().rev().zip(parts.iter().rev());
    fits && front.iter().zip(parts).chain(ends).all(|(segment, part)| segment.matches(part))
}

fn covers(ours: &[PatternSegment], theirs: &[PatternSegment]) -> bool {
    let ((front, back), (their_front, their_back)) = (halves(ours), halves(theirs));
    // Their shortest path must be long enough for ours, and if their lengths vary, ours must vary, too.
    let count = |front: &[PatternSegment], back: Option<&[PatternSegment]>| {
        front.len() + back.unwrap_or_default().len()
    };
    let (least, theirs_least) = (count(front, back), count(their_front, their_back));
    match (back, their_back) {
        (None, Some(_)) => false,
        (None, None) => {
            least == theirs_least && front.iter().zip(their_front).all(|(ours, other)| ours.covers(other))
        }
        (Some(back), None) => {
            let ends = back.iter().rev().zip(their_front.iter().rev());
            least <= theirs_least
                && front.iter().zip(their_front).chain(ends).all(|(ours, other)| ours.covers(other))
        }
        (Some(back), Some(their_back)) => {
            // Their run matches anything, so beyond their ends ours must match anything.
            let within = |ours: Option<&PatternSegment>, other: Option<&PatternSegment>| match (ours, other) {
                (Some(ours), Some(other)) => ours.covers(other),
                (Some(ours), None) => *ours == PatternSegment::One,
                (None, _) => true,
            };
            least <= theirs_least
                && (0..front.len()).all(|at| within(front.get(at), their_front.get(at)))
                && (1..=back.len()).all(|at| within(from_end(back, at), from_end(their_back, at)))
        }
    }
}

fn from_end(segments: &[PatternSegment], at: usize) -> Option<&PatternSegment> {
    segments.len().checked_sub(at).and_then(|index| segments.get(index))
}

/// Every remainder of `segments` after `parts` have been matched at the front.
fn left_over(segments: &[PatternSegment], parts: &[&str]) -> Vec<Vec<PatternSegment>> {
    let (front, back) = halves(segments);
    let taken = front.len().min(parts.len());
    if !front.iter().zip(parts).all(|(segment, part)| segment.matches(part)) {
        return Vec::new();
    }
    let parts = parts.get(taken..).unwrap_or_default();
    match back {
        None if parts.is_empty() => vec![segments.get(taken..).unwrap_or_default().to_vec()],
        None => Vec::new(),
        Some(_) if parts.is_empty() => vec![segments.get(taken..).unwrap_or_default().to_vec()],
        Some(back) => {
            // Either the run continues below, or the last parts match the first segments behind it.
            let mut all = vec![[&[PatternSegment::Run], back].concat()];
            for ours in 1..=back.len().min(parts.len()) {
                let (first, left) = back.split_at(ours);
                let last = parts.get(parts.len() - ours..).unwrap_or_default();
                if first.iter().zip(last).all(|(segment, part)| segment.matches(part)) {
                    all.push(left.to_vec());
                }
            }
            all
        }
    }
}

impl fmt::Display for PatternSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::One => f.write_str("*"),
            Self::Part { start, end } => write!(f, "{start}*{end}"),
            Self::Run => f.write_str("**"),
        }
    }
}

/// The text of the pattern. A literal `*` in a path looks like a wildcard.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.segments().iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            write!(f, "{slash}{segment}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests;
