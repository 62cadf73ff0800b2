//! Protocol versions of all dialects, as far as code above the codec needs to know them: names and preference.

use crate::lite;

/// Protocol version of a session. Versions compare by preference: the greater one is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version of moq-lite.
    Lite(lite::Version),
}

impl Version {
    /// Versions with their own ALPN name, preferred first.
    pub const ALL: &'static [Self] = &[
        Self::Lite(lite::Version::V06),
        Self::Lite(lite::Version::V05),
        Self::Lite(lite::Version::V04),
        Self::Lite(lite::Version::V03),
    ];

    /// Versions negotiated in the SETUP exchange on the session's first stream, preferred first.
    pub const LEGACY: &'static [Self] = &[Self::Lite(lite::Version::V02), Self::Lite(lite::Version::V01)];

    /// Version that stands for all of [`Self::LEGACY`] in a list of enabled versions.
    pub const ANY_LEGACY: Self = Self::Lite(lite::Version::V02);

    /// Name in ALPN and in subprotocols that the versions of [`Self::LEGACY`] share.
    pub const LEGACY_ALPN: &'static str = lite::legacy::ALPN;

    /// Returns all versions, preferred first.
    pub fn every() -> impl DoubleEndedIterator<Item = Self> + Clone {
        Self::ALL.iter().chain(Self::LEGACY).copied()
    }

    /// Returns the name of the version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lite(version) => version.name(),
        }
    }

    /// Returns the name in ALPN and in WebTransport and WebSocket subprotocols. The versions of
    /// [`Self::LEGACY`] share one name.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Lite(version) => version.alpn(),
        }
    }

    /// Returns the version that an ALPN name selects; `None` for unknown and shared names.
    pub fn from_alpn(alpn: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.alpn() == alpn)
    }

    /// Whether the version is negotiated in the SETUP exchange, and not by ALPN.
    pub const fn has_legacy_setup(self) -> bool {
        match self {
            Self::Lite(version) => version.has_legacy_setup(),
        }
    }

    /// Number of the version in a set of versions, below 32.
    pub const fn ordinal(self) -> u32 {
        match self {
            Self::Lite(version) => version as u32,
        }
    }
}

impl From<lite::Version> for Version {
    fn from(version: lite::Version) -> Self {
        Self::Lite(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_listed_in_order_of_preference() {
        let every: Vec<Version> = Version::every().collect();
        let lite: Vec<Version> = lite::Version::every().map(Version::from).collect();
        assert_eq!(every, lite);
        assert!(every.is_sorted_by(|one, other| one > other));
        assert_eq!(Version::LEGACY.first(), Some(&Version::ANY_LEGACY));
    }

    #[test]
    fn ordinals_are_distinct_bits_of_a_set() {
        let set = Version::every().fold(0_u32, |set, version| set | (1 << version.ordinal()));
        assert_eq!(set.count_ones() as usize, Version::every().count());
    }

    #[test]
    fn own_names_select_their_version_and_the_shared_none() {
        for version in Version::ALL {
            assert_eq!(Version::from_alpn(version.alpn()), Some(*version));
            assert!(!version.has_legacy_setup());
        }
        assert_eq!(Version::from_alpn(Version::LEGACY_ALPN), None);
        assert!(Version::LEGACY.iter().all(|version| version.alpn() == Version::LEGACY_ALPN));
    }
}
