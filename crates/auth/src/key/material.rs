//! Key material.

use aws_lc_rs::{
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der},
    rand,
    rsa::{KeyPair as RsaKeyPair, KeyPairComponents, KeySize, PublicKeyComponents},
    signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Map, Value};

use super::{
    KeyError,
    crypto::{self, Signer, Verifier},
    text,
};
use crate::{
    Algorithm,
    algorithm::{Curve, Family},
    encoding,
    json::Object,
};

/// Shortest secret in bytes (RFC 7518 §3.2 for HS256).
const SECRET_BYTES: usize = 32;
/// Accepted sizes of RSA keys in bits (RFC 7518 §3.3 requires at least 2048).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// Longest public exponent in bytes; longer ones only make verifying expensive.
const EXPONENT_BYTES: usize = 4;

/// Material of a key. Not `Debug`, since it contains secrets.
#[derive(Clone)]
pub(super) enum Material {
    Secret(Vec<u8>),
    Curve { curve: Curve, public: Vec<u8>, private: Option<Vec<u8>> },
    Rsa { n: Vec<u8>, e: Vec<u8>, private: Option<Box<RsaPrivate>> },
}

/// Private RSA parameters, in the order of [`RSA_PRIVATE`] (RFC 7518 §6.3.2).
type RsaPrivate = [Vec<u8>; RSA_PRIVATE.len()];
const RSA_PRIVATE: [&str; 6] = ["d", "p", "q", "dp", "dq", "qi"];

impl Material {
    pub(super) fn read(object: &Object, algorithm: Algorithm) -> Result<Self, KeyError> {
        let kty = text(object, "kty")?.unwrap_or("oct");
        match algorithm.family() {
            Family::Curve(curve) if (kty, text(object, "crv")?) == (curve.kind(), Some(curve.name())) => {
                Self::read_curve(object, curve)
            }
            Family::Rsa if kty == "RSA" => Self::read_rsa(object),
            Family::Secret if kty == "oct" => {
                let secret = required(object, "k")?;
                if secret.len() < SECRET_BYTES {
                    return Err(KeyError::ShortSecret(secret.len()));
                }
                Ok(Self::Secret(secret))
            }
            _ => Err(KeyError::Family(algorithm)),
        }
    }

    fn read_curve(object: &Object, curve: Curve) -> Result<Self, KeyError> {
        let sized = |name, bytes: Vec<u8>| {
            if bytes.len() == curve.bytes() { Ok(bytes) } else { Err(KeyError::Field(name)) }
        };
        let mut public = sized("x", required(object, "x")?)?;
        if curve.has_y() {
            let y = sized("y", required(object, "y")?)?;
            public = [&[UNCOMPRESSED], public.as_slice(), &y].concat();
        }
        let private = bytes(object, "d")?.map(|d| sized("d", d)).transpose()?;
        Ok(Self::Curve { curve, public, private })
    }

    fn read_rsa(object: &Object) -> Result<Self, KeyError> {
        let (n, e) = (trimmed(required(object, "n")?), trimmed(required(object, "e")?));
        if e.is_empty() || e.len() > EXPONENT_BYTES {
            return Err(KeyError::Field("e"));
        }
        if object.get("oth").is_some() {
            return Err(KeyError::Field("oth"));
        }
        if !RSA_PRIVATE.iter().any(|name| object.get(name).is_some()) {
            return Ok(Self::Rsa { n, e, private: None });
        }
        let mut private = RsaPrivate::default();
        for (number, name) in private.iter_mut().zip(RSA_PRIVATE) {
            *number = required(object, name)?;
        }
        Ok(Self::Rsa { n, e, private: Some(Box::new(private)) })
    }

    pub(super) fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        match algorithm.family() {
            Family::Rsa => Self::generate_rsa(),
            Family::Curve(curve) => match crypto::ecdsa(algorithm) {
                Some(theirs) => {
                    let pair = EcdsaKeyPair::generate(theirs).map_err(|_| KeyError::Random)?;
                    let private: EcPrivateKeyBin<'_> =
                        pair.private_key().as_be_bytes().map_err(|_| KeyError::Random)?;
                    let (public, private) = (pair.public_key().as_ref().to_vec(), private.as_ref().to_vec());
                    Ok(Self::Curve { curve, public, private: Some(private) })
                }
                None => {
                    let seed = random(curve.bytes())?;
                    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Random)?;
                    let public = pair.public_key().as_ref().to_vec();
                    Ok(Self::Curve { curve, public, private: Some(seed) })
                }
            },
            // At least as long as the digest (RFC 7518 §3.2).
            Family::Secret => Ok(Self::Secret(random(match algorithm {
                Algorithm::HS384 => 48,
                Algorithm::HS512 => 64,
                _ => SECRET_BYTES,
            })?)),
        }
    }

    fn generate_rsa() -> Result<Self, KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Random)?;
        let document = pkcs1(&pair)?;
        // version, n, e, d, p, q, dp, dq, qi (RFC 8017, Appendix A.1.2).
        let mut rest = der(&document, SEQUENCE).ok_or(KeyError::Rejected)?.0;
        let mut numbers = Vec::new();
        while let Some((number, after)) = der(rest, INTEGER) {
            numbers.push(trimmed(number.to_vec()));
            rest = after;
        }
        let [_, n, e, d, p, q, dp, dq, qi] =
            <[Vec<u8>; 9]>::try_from(numbers).map_err(|_| KeyError::Rejected)?;
        Ok(Self::Rsa { n, e, private: Some(Box::new([d, p, q, dp, dq, qi])) })
    }

    pub(super) fn is_private(&self) -> bool {
        match self {
            Self::Secret(_) => true,
            Self::Curve { private, .. } => private.is_some(),
            Self::Rsa { private, .. } => private.is_some(),
        }
    }

    /// Returns the public half; `None` for a secret.
    pub(super) fn public(&self) -> Option<Self> {
        match self {
            Self::Secret(_) => None,
            Self::Curve { curve, public, .. } => {
                Some(Self::Curve { curve: *curve, public: public.clone(), private: None })
            }
            Self::Rsa { n, e, .. } => Some(Self::Rsa { n: n.clone(), e: e.clone(), private: None }),
        }
    }

    pub(super) fn verifier(&self, algorithm: Algorithm) -> Result<Verifier, KeyError> {
        match self {
            Self::Secret(secret) => Verifier::secret(algorithm, secret),
            Self::Curve { public, .. } => Verifier::curve(algorithm, public),
            Self::Rsa { n, e, .. } => {
                let bits = bits(n);
                if !RSA_BITS.contains(&bits) {
                    return Err(KeyError::Size(bits));
                }
                if e.last().is_none_or(|last| last % 2 == 0) || e.as_slice() == [1] {
                    return Err(KeyError::Field("e"));
                }
                Verifier::rsa(algorithm, n, e)
            }
        }
    }

    /// Creates the signer; `None` without a private half. An error if the halves do not match.
    pub(super) fn signer(&self, algorithm: Algorithm) -> Result<Option<Signer>, KeyError> {
        let signer = match self {
            Self::Curve { private: None, .. } | Self::Rsa { private: None, .. } => return Ok(None),
            Self::Secret(secret) => Signer::secret(algorithm, secret),
            Self::Curve { curve, public, private: Some(private) } if curve.has_y() => {
                Signer::ecdsa(algorithm, private, public)
            }
            Self::Curve { public, private: Some(private), .. } => Signer::ed25519(private, public),
            Self::Rsa { n, e, private: Some(private) } => {
                let [d, p, q, dp, dq, qi] = &**private;
                let public_key = PublicKeyComponents { n, e };
                let parts = KeyPairComponents { public_key, d, p, q, dP: dp, dQ: dq, qInv: qi };
                let pair = RsaKeyPair::from_components(&parts).map_err(|_| KeyError::Rejected)?;
                Signer::rsa(algorithm, pair)
            }
        };
        signer.map(Some)
    }

    /// Writes the parameters needed for verifying: the public half, or the secret of a symmetric key.
    pub(super) fn write_public(&self, key: &mut Map<String, Value>) {
        let mut put = |name: &str, bytes: &[u8]| {
            key.insert(name.to_owned(), encoding::encode(bytes).into());
        };
        match self {
            Self::Secret(secret) => {
                put("k", secret);
                key.insert("kty".into(), "oct".into());
            }
            Self::Curve { curve, public, .. } => {
                match public.as_slice() {
                    [UNCOMPRESSED, point @ ..] if curve.has_y() => {
                        let (x, y) = point.split_at(curve.bytes().min(point.len()));
                        put("x", x);
                        put("y", y);
                    }
                    x => put("x", x),
                }
                key.insert("kty".into(), curve.kind().into());
                key.insert("crv".into(), curve.name().into());
            }
            Self::Rsa { n, e, .. } => {
                put("n", n);
                put("e", e);
                key.insert("kty".into(), "RSA".into());
            }
        }
    }

    /// Writes all parameters, secrets included.
    pub(super) fn write_private(&self, key: &mut Map<String, Value>) {
        self.write_public(key);
        let mut put = |name: &str, bytes: &[u8]| {
            key.insert(name.to_owned(), encoding::encode(bytes).into());
        };
        match self {
            Self::Curve { private: Some(private), .. } => put("d", private),
            Self::Rsa { private: Some(private), .. } => {
                for (number, name) in private.iter().zip(RSA_PRIVATE) {
                    put(name, number);
                }
            }
            _ => {}
        }
    }
}

/// First byte of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;
/// DER tags (X.690 §8).
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// Extracts the PKCS #1 document from the PKCS #8 document (RFC 5208 §5).
fn pkcs1(pair: &RsaKeyPair) -> Result<Vec<u8>, KeyError> {
    let outer: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Rejected)?;
    let inner = || {
        let (body, _) = der(outer.as_ref(), SEQUENCE)?;
        let (_version, rest) = der(body, INTEGER)?;
        let (_algorithm, rest) = der(rest, SEQUENCE)?;
        Some(der(rest, OCTET_STRING)?.0.to_vec())
    };
    inner().ok_or(KeyError::Rejected)
}

/// Returns the body of the first element, if it has the expected tag, and the bytes after it.
fn der(input: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first > 0x7f {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        length = digits
            .iter()
            .try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add((*digit).into()))?;
        rest = after;
    }
    (tag == expected).then(|| rest.split_at_checked(length))?
}

fn random(count: usize) -> Result<Vec<u8>, KeyError> {
    let mut bytes = vec![0; count];
    rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

fn bytes(object: &Object, name: &'static str) -> Result<Option<Vec<u8>>, KeyError> {
    let decode = |text| encoding::decode_padded(text).ok_or(KeyError::Field(name));
    text(object, name)?.map(decode).transpose()
}

fn required(object: &Object, name: &'static str) -> Result<Vec<u8>, KeyError> {
    bytes(object, name)?.ok_or(KeyError::Missing(name))
}

/// Removes leading zero bytes.
fn trimmed(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    number.len() * 8 - zeros
}
