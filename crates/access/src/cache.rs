//! Freshness lifetime of HTTP answers (`Cache-Control`).

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderMap};

/// Upper bound of any lifetime.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Returns the time for which the answer may be reused: `None` if unstated, zero if it must not be.
pub(super) fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut age = None;
    for directive in values.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => {
                let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
                age = Some(Duration::from_secs(seconds).min(LONGEST));
            }
            _ => {}
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_follows_cache_control() {
        for (said, kept) in [
            (&[][..], None),
            (&["max-age=30"], Some(30)),
            (&["private, Max-Age=\"5\""], Some(5)),
            (&["max-age=60", "no-store"], Some(0)),
            (&["no-cache"], Some(0)),
            (&["max-age=soon"], Some(0)),
            (&["max-age=99999999"], Some(3_600)),
            (&["public"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(CACHE_CONTROL, value.parse().unwrap());
            }
            assert_eq!(lifetime(&headers), kept.map(Duration::from_secs), "{said:?}");
        }
    }
}
