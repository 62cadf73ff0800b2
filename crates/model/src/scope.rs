//! What a session may touch, before anyone asks why: a set of paths.

use crate::{path::Path, pattern::Pattern};

/// Patterns that are allowed; empty = nothing. Most are a prefix: that path and all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    patterns: Vec<Pattern>,
    /// What the patterns lie at or below.
    heads: Vec<Path>,
}

impl Scope {
    /// Nothing is allowed.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Everything is allowed.
    pub fn everything() -> Self {
        Self::of([Path::root()])
    }

    /// These paths with all below them, minus those that another already covers.
    pub fn of(prefixes: impl IntoIterator<Item = Path>) -> Self {
        prefixes.into_iter().map(Pattern::subtree).collect()
    }

    /// Whether `path` lies in the scope.
    pub fn allows(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether all that `other` allows is allowed, pattern by pattern.
    pub fn covers(&self, other: &Self) -> bool {
        other.patterns.iter().all(|inner| self.patterns.iter().any(|outer| outer.covers(inner)))
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The paths that the scope lies at or below, none of which is below another. What is below them is
    /// allowed only as far as [`Scope::allows`] says.
    pub fn prefixes(&self) -> &[Path] {
        &self.heads
    }

    /// The patterns, none of which covers another.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The part of the scope that lies in `root`: grants below it, or all of it.
    #[must_use]
    pub fn narrow(&self, root: &Path) -> Self {
        self.patterns.iter().flat_map(|pattern| pattern.narrow(root)).collect()
    }
}

/// The patterns, minus those that another already covers.
impl FromIterator<Pattern> for Scope {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        let mut all: Vec<Pattern> = patterns.into_iter().collect();
        all.sort();
        all.dedup();
        let mut kept: Vec<Pattern> = Vec::with_capacity(all.len());
        for pattern in all {
            if !kept.iter().any(|above| above.covers(&pattern)) {
                kept.retain(|other| !pattern.covers(other));
                kept.push(pattern);
            }
        }
        // In order, whatever lies below a head comes after it.
        let mut heads: Vec<Path> = Vec::with_capacity(kept.len());
        for pattern in &kept {
            if !heads.last().is_some_and(|above| pattern.head().has_prefix(above)) {
                heads.push(pattern.head().clone());
            }
        }
        Self { patterns: kept, heads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Path {
        Path::parse(raw).unwrap()
    }

    fn scope(patterns: &[&str]) -> Scope {
        patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn covered_prefixes_are_dropped() {
        let scope = Scope::of([path("a/b"), path("a"), path("ab"), path("a!")]);
        assert_eq!(scope.prefixes(), [path("a"), path("a!"), path("ab")]);
        assert!(scope.allows(&path("a/x/y")));
        assert!(!scope.allows(&path("b")));
    }

    #[test]
    fn narrowing_keeps_the_overlap() {
        let scope = Scope::of([path("anon")]);
        assert_eq!(scope.narrow(&Path::root()), scope);
        assert_eq!(scope.narrow(&path("anon/room")).prefixes(), [path("anon/room")]);
        assert!(scope.narrow(&path("other")).is_empty());
    }

    #[test]
    fn covered_patterns_are_dropped_in_any_order() {
        for order in [["a", "a/**", "*/x"], ["*/x", "a/**", "a"], ["a/**", "*/x", "a/x"]] {
            assert_eq!(scope(&order), scope(&["a/**", "*/x"]), "{order:?}");
        }
        assert_eq!(scope(&["a/x", "**"]), Scope::everything());
    }

    #[test]
    fn prefixes_are_above_all_that_is_allowed() {
        let scope = scope(&["room/*/cam", "room/a/b", "live", "other/**"]);
        assert_eq!(scope.prefixes(), [path("live"), path("other"), path("room")]);
        assert!(scope.allows(&path("room/x/cam")) && scope.allows(&path("live")));
        assert!(!scope.allows(&path("room/x")) && !scope.allows(&path("live/x")));
    }

    #[test]
    fn a_scope_covers_a_narrower_one() {
        assert!(scope(&["a/**", "b"]).covers(&scope(&["a/x", "b"])));
        assert!(!scope(&["a/**"]).covers(&scope(&["a/x", "b"])));
        assert!(Scope::nothing().covers(&Scope::nothing()));
        assert!(!Scope::nothing().covers(&scope(&["a"])));
    }
}
