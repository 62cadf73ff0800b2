//! Diagnosis of a token: its content, its validity, and all reasons against it.

use std::time::SystemTime;

use crate::{Algorithm, Claims, Expected, Key, KeyId, Keys, TokenError, token::Token};

/// Unverified content of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedToken {
    /// `alg` of the header.
    pub algorithm: Algorithm,
    /// `kid` of the header.
    pub key: Option<KeyId>,
    /// Claims, or the reason for which they cannot be parsed.
    pub claims: Result<Claims, TokenError>,
    /// Names of claims that are not evaluated. Not escaped.
    pub ignored: Vec<String>,
}

impl UnverifiedToken {
    fn of(token: &Token<'_>) -> Self {
        let (algorithm, key) = (token.algorithm, token.key.clone());
        Self { algorithm, key, claims: token.claims(), ignored: token.ignored() }
    }
}

/// Parses a token without verifying it. An error if its header cannot be parsed.
pub fn inspect(token: &str) -> Result<UnverifiedToken, TokenError> {
    Token::parse(token).map(|token| UnverifiedToken::of(&token))
}

/// Result of checking a token, with all its flaws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Content of the token; `None` if its header cannot be parsed.
    pub token: Option<UnverifiedToken>,
    /// Key that verified the signature.
    pub key: Option<Key>,
    /// All flaws, the worst first. Empty = the token is valid.
    pub errors: Vec<TokenError>,
}

impl Verdict {
    /// Returns whether a relay with these keys would accept the token.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// Returns whether the token is invalid only because of its `exp` or `nbf`.
    pub fn is_only_untimely(&self) -> bool {
        let untimely =
            |flaw: &TokenError| matches!(flaw, TokenError::Expired { .. } | TokenError::NotYetValid { .. });
        !self.errors.is_empty() && self.errors.iter().all(untimely)
    }

    /// Returns the claims, if they can be parsed.
    pub fn claims(&self) -> Option<&Claims> {
        self.token.as_ref()?.claims.as_ref().ok()
    }
}

/// Checks a token like a relay with these keys and settings at `now`, but reports all flaws instead of the first.
pub fn explain(token: &str, keys: &Keys, expected: &Expected, now: SystemTime) -> Verdict {
    let parsed = match Token::parse(token) {
        Ok(parsed) => parsed,
        Err(flaw) => return Verdict { token: None, key: None, errors: vec![flaw] },
    };
    let said = UnverifiedToken::of(&parsed);
    let mut flaws = Vec::new();
    let key = match keys.signer(&parsed) {
        Ok(key) => Some(key.clone()),
        Err(flaw) => {
            flaws.push(flaw);
            None
        }
    };
    match &said.claims {
        Err(flaw) => flaws.push(flaw.clone()),
        Ok(claims) => {
            flaws.extend(expected.check(claims).err());
            flaws.extend(key.as_ref().and_then(|key| key.check_ceiling(claims).err()));
            flaws.extend(claims.check_times(now).err());
        }
    }
    Verdict { token: Some(said), key, errors: flaws }
}

#[cfg(test)]
mod tests;
