//! Broadcast paths: `a/b/c`, normalised once, compared per segment.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::limits;

/// A normalised path: no empty segment, no leading or trailing slash; empty is the root.
///
/// Cheap to clone. Ordered so that everything under a prefix is contiguous (`a`, `a/b`, `a0`
/// sort with `/` lowest).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Arc<str>);

/// Reason for refusing a string as a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`limits::PATH_BYTES`].
    #[error("path is longer than {} bytes", limits::PATH_BYTES)]
    TooLong,
    /// More segments than [`limits::PATH_SEGMENTS`].
    #[error("path has more than {} segments", limits::PATH_SEGMENTS)]
    TooManySegments,
}

impl Path {
    /// The root, prefix of every path.
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// Normalises `raw`: trims slashes and collapses runs of them.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if raw.len() > limits::PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let segments = raw.split('/').filter(|s| !s.is_empty());
        if segments.clone().count() > limits::PATH_SEGMENTS {
            return Err(PathError::TooManySegments);
        }
        let mut out = String::with_capacity(raw.len());
        for segment in segments {
            if !out.is_empty() {
                out.push('/');
            }
            out.push_str(segment);
        }
        Ok(Self(out.into()))
    }

    /// The normalised text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends `suffix`. Errors when the result exceeds a limit.
    pub fn join(&self, suffix: &Path) -> Result<Self, PathError> {
        if self.is_root() {
            return Ok(suffix.clone());
        }
        if suffix.is_root() {
            return Ok(self.clone());
        }
        Self::parse(&format!("{self}/{suffix}"))
    }

    /// Remainder of `self` below `prefix`; `None` when `prefix` is not above it. `live` is not above `lively`.
    pub fn strip_prefix(&self, prefix: &Path) -> Option<&str> {
        if prefix.is_root() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(prefix.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// Whether `self` is `prefix` or lies below it.
    pub fn has_prefix(&self, prefix: &Path) -> bool {
        self.strip_prefix(prefix).is_some()
    }
}

impl Ord for Path {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// For hash maps: hash and equality agree with those of the text. The order does not, so an ordered map must be
/// searched by `Path`.
impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Path {
        Path::parse(raw).unwrap()
    }

    #[test]
    fn slashes_are_trimmed_and_collapsed() {
        assert_eq!(path("//a///b/").as_str(), "a/b");
        assert!(path("///").is_root());
    }

    #[test]
    fn prefixes_are_compared_per_segment() {
        assert_eq!(path("live/cam").strip_prefix(&path("live")), Some("cam"));
        assert_eq!(path("live").strip_prefix(&path("live")), Some(""));
        assert_eq!(path("lively").strip_prefix(&path("live")), None);
        assert_eq!(path("x").strip_prefix(&Path::root()), Some("x"));
    }

    #[test]
    fn everything_below_a_prefix_is_contiguous() {
        let mut all = [path("a0"), path("a/z"), path("a"), path("a!"), path("b")];
        all.sort();
        assert_eq!(all.map(|p| p.as_str().to_owned()), ["a", "a/z", "a!", "a0", "b"]);
    }

    #[test]
    fn limits_hold_and_one_past_is_refused() {
        let long = "x".repeat(limits::PATH_BYTES);
        assert!(Path::parse(&long).is_ok());
        assert_eq!(Path::parse(&format!("{long}x")), Err(PathError::TooLong));
        let deep = vec!["x"; limits::PATH_SEGMENTS].join("/");
        assert!(Path::parse(&deep).is_ok());
        assert_eq!(Path::parse(&format!("{deep}/x")), Err(PathError::TooManySegments));
        assert_eq!(path(&deep).join(&path("x")), Err(PathError::TooManySegments));
    }
}
