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

    /// Newest first: the server's order of preference.
    pub(super) fn iter(self) -> impl Iterator<Item = Version> {
        Version::ALL.iter().copied().filter(move |version| self.0 & bit(*version) != 0)
    }

    /// The one of that name.
    pub(super) fn named(self, name: &[u8]) -> Option<&'static str> {
        self.iter().map(Version::alpn).find(|known| known.as_bytes() == name)
    }
}

fn bit(version: Version) -> u8 {
    1 << version as u8
}
