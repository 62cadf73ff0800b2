//! Signature algorithms of tokens.

use std::{fmt, str::FromStr};

/// Signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1). `none` is not among them and therefore cannot be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Key type of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Secret,
    Rsa,
    Curve(Curve),
}

/// Elliptic curve (RFC 7518 §6.2, RFC 8037 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    Ed25519,
}

impl Curve {
    /// Returns the `crv` of its keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// Returns the `kty` of its keys.
    pub(crate) fn kind(self) -> &'static str {
        if self.has_y() { "EC" } else { "OKP" }
    }

    /// Returns the length of a coordinate or private value in bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::P384 => 48,
            Self::P256 | Self::Ed25519 => 32,
        }
    }

    /// Returns whether a public key has two coordinates.
    pub(crate) fn has_y(self) -> bool {
        self != Self::Ed25519
    }
}

/// The name is not that of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown algorithm; supported are {}", Algorithm::NAMES)]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Least algorithm in the derived order.
    pub(crate) const FIRST: Self = Self::HS256;

    /// All algorithms.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Names of all algorithms, for messages.
    pub const NAMES: &str =
        "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA";

    /// Returns the name used as `alg` in headers and keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Returns whether the verification key can also sign, so that keys have no public half.
    pub fn is_symmetric(self) -> bool {
        self.family() == Family::Secret
    }

    /// Returns the algorithm of a public key without `alg`: RS256 for RSA, the default of identity providers, or the
    /// only algorithm of the curve. `None` for a secret: HMAC is never assumed.
    pub(crate) fn of_key(kty: &str, crv: Option<&str>) -> Option<Self> {
        let is_of = |algorithm: &Self| match algorithm.family() {
            Family::Curve(curve) => (curve.kind(), Some(curve.name())) == (kty, crv),
            Family::Rsa => kty == "RSA" && *algorithm == Self::RS256,
            Family::Secret => false,
        };
        Self::ALL.into_iter().find(is_of)
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Secret,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => Family::Rsa,
            Self::ES256 => Family::Curve(Curve::P256),
            Self::ES384 => Family::Curve(Curve::P384),
            Self::EdDSA => Family::Curve(Curve::Ed25519),
        }
    }
}

/// Parses a name, case-sensitively (RFC 7515 §4.1.1).
impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
