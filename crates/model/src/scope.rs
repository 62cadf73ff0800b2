//! Scopes: the sets of paths a session may access.

use crate::{path::Path, pattern::Pattern};

/// Allowed patterns; empty = nothing. Most are a prefix: that path and everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    patterns: Vec<Pattern>,
    /// Paths that all patterns equal or lie below.
    heads: Vec<Path>,
}

impl Scope {
    /// The empty scope.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The scope of all paths.
    pub fn everything() -> Self {
        Self::of([Path::root()])
    }

    /// These paths and everything below them, without those that another covers.
    pub fn of(prefixes: impl IntoIterator<Item = Path>) -> Self {
        prefixes.into_iter().map(Pattern::subtree).collect()
    }

    /// Whether `path` lies in the scope.
    pub fn allows(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether every path `other` allows is allowed, too; compared pattern by pattern.
    pub fn covers(&self, other: &Self) -> bool {
        other.patterns.iter().all(|inner| self.patterns.iter().any(|outer| outer.covers(inner)))
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The paths that the scope lies at or below, none below another. A path below them is allowed only if
    /// [`Scope::allows`] is true for it.
    pub fn prefixes(&self) -> &[Path] {
        &self.heads
    }

    /// The patterns, none of which covers another.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The part of the scope at or below `root`.
    #[must_use]
    pub fn narrow(&self, root: &Path) -> Self {
        if root.is_root() {
            return self.clone();
        }
        self.patterns.iter().flat_map(|pattern| pattern.narrow(root)).collect()
    }
}

/// The patterns, without those that another covers.
impl FromIterator<Pattern> for Scope {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        let mut all: Vec<Pattern> = patterns.into_iter().collect();
        all.sort();
        all.dedup();
        // Prefixes are far more numerous than other patterns. In sorted order only the preceding prefix can
        // cover the next.
        let mut subtrees: Vec<Pattern> = Vec::with_capacity(all.len());
        let mut others: Vec<Pattern> = Vec::new();
        for pattern in all {
            if subtrees.last().is_some_and(|above| above.covers(&pattern)) {
                continue;
            }
            let kept = if pattern.as_subtree().is_some() { &mut subtrees } else { &mut others };
            kept.push(pattern);
        }
        let covered = |at: usize, pattern: &Pattern| {
            others.iter().enumerate().any(|(other, above)| other != at && above.covers(pattern))
        };
        // Patterns that cover each other are equal, and duplicates are removed above.
        let kept = others.iter().enumerate().filter(|(at, pattern)| !covered(*at, pattern));
        let mut kept: Vec<Pattern> = kept.map(|(_, pattern)| pattern.clone()).collect();
        kept.extend(subtrees.into_iter().filter(|pattern| !covered(usize::MAX, pattern)));
        kept.sort();
        // In sorted order, every path below a head comes after it.
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

    proptest::proptest! {
        #[test]
        fn scope_allows_what_its_patterns_match_without_redundancy(
            texts in proptest::collection::vec("(a|b|\\*|a\\*)(/(a|b|\\*)){0,2}(/\\*\\*)?", 0..8),
            below in "[ab](/[ab]){0,3}",
        ) {
            let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            let scope: Scope = patterns.iter().cloned().collect();
            let expected = patterns.iter().any(|pattern| pattern.matches(&path(&below)));
            proptest::prop_assert_eq!(scope.allows(&path(&below)), expected);
            for (at, pattern) in scope.patterns().iter().enumerate() {
                let others = scope.patterns().iter().enumerate().filter(|(other, _)| *other != at);
                proptest::prop_assert!(!others.into_iter().any(|(_, above)| above.covers(pattern)), "{:?}", scope);
                let under = |head: &Path| pattern.head().has_prefix(head);
                proptest::prop_assert_eq!(scope.prefixes().iter().filter(|head| under(head)).count(), 1);
            }
        }
    }

    #[test]
    fn prefixes_are_above_every_allowed_path() {
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
