//! What a person asks about a token: what it says, whether it holds, and if not why.

use std::time::SystemTime;

use crate::{Algorithm, Claims, Expected, Flaw, Key, KeyId, Keys, token::Token};

/// What a token says of itself; nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How it says that it is signed.
    pub algorithm: Algorithm,
    /// The key it names.
    pub key: Option<KeyId>,
    /// What it claims, or why that cannot be read.
    pub claims: Result<Claims, Flaw>,
    /// Names of claims that decide nothing here. As the token has them: escape them before they are shown.
    pub ignored: Vec<String>,
}

impl Said {
    fn of(token: &Token<'_>) -> Self {
        let (algorithm, key) = (token.algorithm, token.key.clone());
        Self { algorithm, key, claims: token.claims(), ignored: token.ignored() }
    }
}

/// Reads a token without verifying it. Errors when not even its header can be read.
pub fn inspect(token: &str) -> Result<Said, Flaw> {
    Token::parse(token).map(|token| Said::of(&token))
}

/// Whether a token holds, and everything that keeps it from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it says; `None` = not even its header can be read.
    pub said: Option<Said>,
    /// The key that signed it.
    pub key: Option<Key>,
    /// All that is wrong with it, the worst first. None = it holds.
    pub flaws: Vec<Flaw>,
}

impl Verdict {
    /// Whether a relay with these keys would accept it.
    pub fn holds(&self) -> bool {
        self.flaws.is_empty()
    }

    /// Whether nothing but the time speaks against it.
    pub fn is_only_untimely(&self) -> bool {
        let untimely = |flaw: &Flaw| matches!(flaw, Flaw::Expired { .. } | Flaw::NotYetValid { .. });
        !self.flaws.is_empty() && self.flaws.iter().all(untimely)
    }

    /// What it says, if that can be read.
    pub fn claims(&self) -> Option<&Claims> {
        self.said.as_ref()?.claims.as_ref().ok()
    }
}

/// Judges a token as a relay with these keys and settings would at `now`, but with all that is wrong with it, not
/// only what is found first.
pub fn explain(token: &str, keys: &Keys, expected: &Expected, now: SystemTime) -> Verdict {
    let parsed = match Token::parse(token) {
        Ok(parsed) => parsed,
        Err(flaw) => return Verdict { said: None, key: None, flaws: vec![flaw] },
    };
    let said = Said::of(&parsed);
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
    Verdict { said: Some(said), key, flaws }
}

#[cfg(test)]
mod tests;
