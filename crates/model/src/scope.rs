//! A set of path prefixes: what a session may touch, before anyone asks why.

use crate::path::Path;

/// Prefixes that are allowed; empty = nothing. A prefix allows itself and all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<Path>);

impl Scope {
    /// Nothing is allowed.
    pub fn nothing() -> Self {
        Self(Vec::new())
    }

    /// Everything is allowed.
    pub fn everything() -> Self {
        Self(vec![Path::root()])
    }

    /// These prefixes, minus those that another already covers.
    pub fn of(prefixes: impl IntoIterator<Item = Path>) -> Self {
        let mut all: Vec<Path> = prefixes.into_iter().collect();
        all.sort();
        all.dedup();
        let mut kept: Vec<Path> = Vec::with_capacity(all.len());
        for path in all {
            if !kept.last().is_some_and(|above| path.has_prefix(above)) {
                kept.push(path);
            }
        }
        Self(kept)
    }

    /// Whether `path` lies in the scope.
    pub fn allows(&self, path: &Path) -> bool {
        self.0.iter().any(|prefix| path.has_prefix(prefix))
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The prefixes, none of which covers another.
    pub fn prefixes(&self) -> &[Path] {
        &self.0
    }

    /// The part of the scope that lies in `root`: grants below it, or all of it.
    #[must_use]
    pub fn narrow(&self, root: &Path) -> Self {
        if self.allows(root) {
            return Self(vec![root.clone()]);
        }
        Self(self.0.iter().filter(|prefix| prefix.has_prefix(root)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Path {
        Path::parse(raw).unwrap()
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
}
