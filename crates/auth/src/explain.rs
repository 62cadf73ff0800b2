//! What a person asks about a token: what it says, whether it holds, and if not why.

use std::time::SystemTime;

use relay_model::Path;

use crate::{Algorithm, Claims, Flaw, Key, KeyId, Keys, token::Token};

/// What a token says of itself; nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How it says that it is signed.
    pub algorithm: Algorithm,
    /// The key it names.
    pub key: Option<KeyId>,
    /// What it claims, or why that cannot be read.
    pub claims: Result<Claims, Flaw>,
}

/// Reads a token without verifying it. Errors when not even its header can be read.
pub fn inspect(token: &str) -> Result<Said, Flaw> {
    let token = Token::parse(token)?;
    Ok(Said { algorithm: token.algorithm, key: token.key.clone(), claims: token.claims() })
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

    /// Whose sessions are of the same identity, if they show it.
    pub fn claims(&self) -> Option<&Claims> {
        self.said.as_ref()?.claims.as_ref().ok()
    }

    /// The paths a session at `root` could do something with; `None` = it would be refused there.
    pub fn at(&self, root: &Path) -> Option<(relay_model::Scope, relay_model::Scope)> {
        let (publish, subscribe) = self.claims()?.grants.scopes().ok()?;
        let (publish, subscribe) = (publish.narrow(root), subscribe.narrow(root));
        (!publish.is_empty() || !subscribe.is_empty()).then_some((publish, subscribe))
    }
}

/// Judges a token as a relay with these keys would at `now`, but says all that is wrong with it, not only
/// what is first.
pub fn explain(token: &str, keys: &Keys, now: SystemTime) -> Verdict {
    let parsed = match Token::parse(token) {
        Ok(parsed) => parsed,
        Err(flaw) => return Verdict { said: None, key: None, flaws: vec![flaw] },
    };
    let claims = parsed.claims();
    let mut flaws = Vec::new();
    let key = match keys.signer(&parsed) {
        Ok(key) => Some(key.clone()),
        Err(flaw) => {
            flaws.push(flaw);
            None
        }
    };
    match &claims {
        Err(flaw) => flaws.push(flaw.clone()),
        Ok(claims) => {
            flaws.extend(key.as_ref().and_then(|key| key.check_ceiling(claims).err()));
            flaws.extend(claims.check_times(now).err());
        }
    }
    let said = Said { algorithm: parsed.algorithm, key: parsed.key.clone(), claims };
    Verdict { said: Some(said), key, flaws }
}

#[cfg(test)]
mod tests;
