//! The protocol versions an endpoint speaks.

use relay_wire::lite::Version;

/// Some versions of the protocol, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions(u8);

impl Versions {
    /// All there are.
    pub(super) const ALL: Self = Self(u8::MAX);

    /// Those of `versions`, in whatever order; `None` if there are none.
    pub(super) fn of(versions: &[Version]) -> Option<Self> {
        let set = versions.iter().fold(0, |set, version| set | bit(*version));
        (set != 0).then_some(Self(set))
    }

    /// Their names, newest first: the server's order of preference. Older ones share one.
    pub(super) fn names(self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.iter().map(Version::alpn).collect();
        names.dedup();
        names
    }

    /// Whether there is one to be agreed on with a peer that names none.
    pub(super) fn has_unnamed(self) -> bool {
        self.iter().any(Version::has_legacy_setup)
    }

    /// The one of that name.
    pub(super) fn named(self, name: &[u8]) -> Option<&'static str> {
        self.iter().map(Version::alpn).find(|known| known.as_bytes() == name)
    }

    fn iter(self) -> impl Iterator<Item = Version> {
        Version::every().filter(move |version| self.0 & bit(*version) != 0)
    }
}

fn bit(version: Version) -> u8 {
    1 << version as u8
}
