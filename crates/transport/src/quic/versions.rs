//! Enabled protocol versions of an endpoint.

use relay_wire::Version;

/// Non-empty set of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VersionSet(u32);

impl VersionSet {
    /// All versions.
    pub(super) const ALL: Self = Self(u32::MAX);

    /// Creates the set of `versions`, in any order; `None` if empty.
    pub(super) fn of(versions: &[Version]) -> Option<Self> {
        let set = versions.iter().fold(0, |set, version| set | bit(*version));
        (set != 0).then_some(Self(set))
    }

    /// Returns the ALPN names, newest first, which is the server's preference. Legacy versions share one name.
    pub(super) fn names(self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.iter().map(Version::alpn).collect();
        names.dedup();
        names
    }

    /// Returns whether a version can be negotiated with a peer that offers no name.
    pub(super) fn has_unnamed(self) -> bool {
        self.iter().any(Version::has_legacy_setup)
    }

    /// Returns the ALPN name equal to `name`, if enabled.
    pub(super) fn named(self, name: &[u8]) -> Option<&'static str> {
        self.iter().map(Version::alpn).find(|known| known.as_bytes() == name)
    }

    fn iter(self) -> impl Iterator<Item = Version> {
        Version::every().filter(move |version| self.0 & bit(*version) != 0)
    }
}

fn bit(version: Version) -> u32 {
    1 << version.ordinal()
}
