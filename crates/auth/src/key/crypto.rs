//! Signing and verifying: mapping of token algorithms to those of the cryptography library.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, PublicKeyComponents},
    signature::{
        self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, ParsedPublicKey, RsaEncoding,
        RsaParameters, VerificationAlgorithm,
    },
};

use super::KeyError;
use crate::Algorithm;

/// Verifier of one key with one algorithm.
pub(super) enum Verifier {
    Secret(hmac::Key),
    Public(ParsedPublicKey),
}

/// Signer of one key with one algorithm.
pub(super) enum Signer {
    Secret(hmac::Key),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

impl Verifier {
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        hmac_key(algorithm, secret).map(Self::Secret)
    }

    /// Creates a verifier from a public key, encoded as the curve's algorithm requires.
    pub(super) fn curve(algorithm: Algorithm, point: &[u8]) -> Result<Self, KeyError> {
        let theirs: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
            _ => return Err(KeyError::Family(algorithm)),
        };
        ParsedPublicKey::new(theirs, point).map(Self::Public).map_err(|_| KeyError::Rejected)
    }

    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let parameters: &'static RsaParameters = match algorithm {
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return Err(KeyError::Family(algorithm)),
        };
        let key = PublicKeyComponents { n, e }.to_parsed_public_key(parameters);
        key.map(Self::Public).map_err(|_| KeyError::Rejected)
    }

    pub(super) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl Signer {
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        hmac_key(algorithm, secret).map(Self::Secret)
    }

    pub(super) fn ecdsa(algorithm: Algorithm, private: &[u8], point: &[u8]) -> Result<Self, KeyError> {
        let theirs = ecdsa(algorithm).ok_or(KeyError::Family(algorithm))?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(theirs, private, point);
        pair.map(Self::Ecdsa).map_err(|_| KeyError::Rejected)
    }

    pub(super) fn ed25519(seed: &[u8], point: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, point);
        pair.map(Self::Ed25519).map_err(|_| KeyError::Rejected)
    }

    pub(super) fn rsa(algorithm: Algorithm, pair: RsaKeyPair) -> Result<Self, KeyError> {
        let encoding: &'static dyn RsaEncoding = match algorithm {
            Algorithm::RS256 => &signature::RSA_PKCS1_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_SHA512,
            _ => return Err(KeyError::Family(algorithm)),
        };
        Ok(Self::Rsa(pair, encoding))
    }

    /// Signs a message in the format of RFC 7518 §3; `None` if the library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        Some(match self {
            Self::Secret(key) => hmac::sign(key, message).as_ref().to_vec(),
            Self::Ecdsa(pair) => pair.sign(&random, message).ok()?.as_ref().to_vec(),
            Self::Ed25519(pair) => pair.try_sign(message).ok()?.as_ref().to_vec(),
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).ok()?;
                signature
            }
        })
    }
}

pub(super) fn ecdsa(algorithm: Algorithm) -> Option<&'static EcdsaSigningAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        _ => None,
    }
}

fn hmac_key(algorithm: Algorithm, secret: &[u8]) -> Result<hmac::Key, KeyError> {
    let theirs = match algorithm {
        Algorithm::HS256 => hmac::HMAC_SHA256,
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => return Err(KeyError::Family(algorithm)),
    };
    Ok(hmac::Key::new(theirs, secret))
}
