//! Output of a token's content and validity, as text or JSON, never with its signature.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use relay_auth::{Claims, KeyId, UnverifiedToken};
use relay_model::{Path, Scope};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Content and validity of a token.
#[derive(Debug)]
pub struct TokenReport {
    /// Parsed content; `None` if it cannot be parsed.
    pub(super) token: Option<UnverifiedToken>,
    /// Whether it is valid; `None` if not verified.
    pub(super) holds: Option<bool>,
    /// Reasons for which it is not valid.
    pub(super) reasons: Vec<String>,
    /// Path of a session to show the grants for.
    pub(super) at: Option<Path>,
    pub(super) now: SystemTime,
}

impl TokenReport {
    /// Whether it was verified and is valid.
    pub fn is_valid(&self) -> bool {
        self.holds == Some(true)
    }

    fn claims(&self) -> Option<&Claims> {
        self.token.as_ref()?.claims.as_ref().ok()
    }

    /// Scopes that a session may publish and subscribe to, at the given path or anywhere.
    fn scopes(&self) -> Option<(Scope, Scope)> {
        let nowhere = || (Scope::nothing(), Scope::nothing());
        let root = self.at.clone().unwrap_or_else(Path::root);
        self.claims().map(|claims| claims.grants.at(&root).unwrap_or_else(nowhere))
    }

    /// Output as text.
    pub fn text(&self) -> String {
        let mut out = match self.holds {
            Some(true) => "the token holds\n".to_owned(),
            Some(false) => "the token does not hold\n".to_owned(),
            None => "not verified: anybody can have written this\n".to_owned(),
        };
        for reason in &self.reasons {
            line(&mut out, "because", reason);
        }
        if let Some(said) = &self.token {
            let key = said.key.as_ref().map_or_else(|| "not named".to_owned(), ToString::to_string);
            line(&mut out, "key", &format!("{key}, {}", said.algorithm));
            if !said.ignored.is_empty() {
                let names: Vec<String> =
                    said.ignored.iter().map(|name| name.escape_debug().to_string()).collect();
                line(&mut out, "ignored", &names.join(", "));
            }
        }
        if let (Some(claims), Some((publish, subscribe))) = (self.claims(), self.scopes()) {
            if let Some(root) = &self.at {
                line(&mut out, "at", &format!("/{root}"));
            }
            line(&mut out, "publish", &scope(&publish));
            line(&mut out, "subscribe", &scope(&subscribe));
            if let Some(subject) = &claims.subject {
                line(&mut out, "subject", subject);
            }
            if let Some(audience) = &claims.audience {
                let names: Vec<String> =
                    audience.iter().map(|name| name.escape_debug().to_string()).collect();
                line(&mut out, "audience", &names.join(", "));
            }
            if let Some(issuer) = &claims.issuer {
                line(&mut out, "issuer", &issuer.escape_debug().to_string());
            }
            for (label, at) in [("holds from", claims.not_before), ("made", claims.issued)] {
                if let Some(at) = at {
                    line(&mut out, label, &self.time(at));
                }
            }
            line(&mut out, "ends", &claims.expires.map_or_else(|| "never".to_owned(), |at| self.time(at)));
        }
        out
    }

    /// Output as one JSON object.
    pub fn json(&self) -> Value {
        let mut value = json!({ "holds": self.holds, "reasons": self.reasons });
        let mut put = |name: &str, what: Value| {
            if let Some(object) = value.as_object_mut() {
                object.insert(name.to_owned(), what);
            }
        };
        if let Some(said) = &self.token {
            put("algorithm", said.algorithm.name().into());
            put("kid", said.key.as_ref().map(KeyId::as_str).into());
            put("ignored", said.ignored.clone().into());
        }
        if let (Some(claims), Some((publish, subscribe))) = (self.claims(), self.scopes()) {
            put("root", claims.grants.root.as_str().into());
            put("at", self.at.as_ref().map(Path::as_str).into());
            let patterns =
                |scope: &Scope| scope.patterns().iter().map(ToString::to_string).collect::<Vec<_>>();
            put("publish", patterns(&publish).into());
            put("subscribe", patterns(&subscribe).into());
            put("subject", claims.subject.as_deref().into());
            put(
                "audience",
                claims
                    .audience
                    .as_ref()
                    .map(|names| names.iter().map(|name| &**name).collect::<Vec<_>>())
                    .into(),
            );
            put("issuer", claims.issuer.as_deref().into());
            put("expires", claims.expires.map(unix).into());
            put("not_before", claims.not_before.map(unix).into());
            put("issued", claims.issued.map(unix).into());
        }
        value
    }

    /// Formats a time and its distance from now.
    fn time(&self, at: SystemTime) -> String {
        let written =
            i64::try_from(unix(at)).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let written = written.map_or_else(
            || unix(at).to_string(),
            |at| format!("{} {:02}:{:02}:{:02} UTC", at.date(), at.hour(), at.minute(), at.second()),
        );
        match at.duration_since(self.now) {
            Ok(left) => format!("{written}, in {}", length(left)),
            Err(past) => format!("{written}, {} ago", length(past.duration())),
        }
    }
}

fn line(out: &mut String, label: &str, text: &str) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "  {label:<12} {text}");
}

fn scope(scope: &Scope) -> String {
    let all: Vec<String> = scope.patterns().iter().map(ToString::to_string).collect();
    match all.as_slice() {
        [] => "nothing".to_owned(),
        [all] if all == "**" => "everything".to_owned(),
        _ => all.iter().map(|text| if text.is_empty() { "/" } else { text }).collect::<Vec<_>>().join(", "),
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Formats a duration in its two largest units.
fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let units =
        [("d", seconds / 86_400), ("h", seconds / 3_600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let largest = units.iter().position(|(_, count)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units.iter().skip(largest).take(2).filter(|(_, count)| *count > 0);
    let shown: Vec<String> = shown.map(|(unit, count)| format!("{count}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_shown_in_its_two_largest_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m 59s"), (90_000, "1d 1h"), (86_405, "1d")]
        {
            assert_eq!(length(Duration::from_secs(seconds)), text);
        }
    }
}
