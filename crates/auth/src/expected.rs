//! Expected audience and issuer of tokens (RFC 7519 §4.1.1 and §4.1.3).

use crate::{Claims, TokenError};

/// Limit of audiences, and of issuers, of a relay.
pub const EXPECTED: usize = 64;

/// Values with which the claims `aud` and `iss` of each token are compared, byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Names of this relay in `aud`. If any are set, a token must name one of them. If none are set, a token with
    /// `aud` is rejected.
    pub audience: Vec<String>,
    /// Accepted values of `iss`. If none are set, `iss` is not evaluated.
    pub issuer: Vec<String>,
}

impl Expected {
    /// Checks the `aud` and `iss` of a token.
    ///
    /// # Errors
    /// [`TokenError::Audience`], [`TokenError::NoAudience`] and [`TokenError::Issuer`].
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), TokenError> {
        let is_in = |list: &[String], value: &str| list.iter().any(|known| known == value);
        match &claims.audience {
            Some(named) if !named.iter().any(|name| is_in(&self.audience, name)) => {
                return Err(TokenError::Audience);
            }
            None if !self.audience.is_empty() => return Err(TokenError::NoAudience),
            _ => {}
        }
        let is_known = claims.issuer.as_deref().is_some_and(|issuer| is_in(&self.issuer, issuer));
        if self.issuer.is_empty() || is_known { Ok(()) } else { Err(TokenError::Issuer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aud_and_iss_are_compared_as_rfc_7519_says() {
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let set =
            |audience: &[&str], issuer: &[&str]| Expected { audience: list(audience), issuer: list(issuer) };
        let (none, both) = (set(&[], &[]), set(&["moq", "relay"], &["https://id.example/"]));
        for (expected, claims, outcome) in [
            (&none, "", Ok(())),
            (&none, r#","iss":"anybody""#, Ok(())),
            (&none, r#","aud":"moq""#, Err(TokenError::Audience)),
            (&none, r#","aud":[]"#, Err(TokenError::Audience)),
            (&none, r#","aud":"""#, Err(TokenError::Audience)),
            (&both, r#","aud":"moq","iss":"https://id.example/""#, Ok(())),
            (&both, r#","aud":["other","relay"],"iss":"https://id.example/""#, Ok(())),
            (&both, r#","aud":"MOQ","iss":"https://id.example/""#, Err(TokenError::Audience)),
            (&both, r#","aud":"moq/","iss":"https://id.example/""#, Err(TokenError::Audience)),
            (&both, r#","aud":[],"iss":"https://id.example/""#, Err(TokenError::Audience)),
            (&both, r#","iss":"https://id.example/""#, Err(TokenError::NoAudience)),
            (&both, r#","aud":"moq""#, Err(TokenError::Issuer)),
            (&both, r#","aud":"moq","iss":"https://id.example""#, Err(TokenError::Issuer)),
            (&both, r#","aud":"moq","iss":"""#, Err(TokenError::Issuer)),
            (&set(&["moq"], &[]), r#","aud":"moq","iss":"anybody""#, Ok(())),
            (&set(&[], &["id"]), r#","iss":"id""#, Ok(())),
            (&set(&[], &["id"]), r#","iss":"id","aud":"moq""#, Err(TokenError::Audience)),
        ] {
            let claims = format!(r#"{{"get":""{claims}}}"#);
            assert_eq!(
                expected.check(&Claims::read(claims.as_bytes()).unwrap()),
                outcome,
                "{expected:?} {claims}"
            );
        }
    }
}
