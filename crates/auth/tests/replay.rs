//! Replay of the corpora `token` and `keys`.

#![allow(missing_docs)]

use std::time::{Duration, SystemTime};

use relay_auth::{Expected, KEYS, Key, Keys, NAMELESS_KEYS, explain, inspect};

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

/// Key that signed the valid tokens of the corpus: the example of RFC 7515, Appendix A.1.
const KEY: &str = r#"{"kty":"oct","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
/// Time of verification, seconds since 1970.
const NOW: u64 = 1_800_000_000;

#[test]
fn changed_token_never_verifies() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let (keys, faults) = Keys::parse(KEY).expect("a key");
    assert!(faults.is_empty());
    let seeds = corpus::seeds("token");
    let valid = seeds.iter().filter(|(name, _)| name.starts_with("valid-"));
    let valid: Vec<&[u8]> = valid.map(|(_, token)| token.as_slice()).collect();
    assert!(!valid.is_empty());
    corpus::replay("token", |data| {
        let text = String::from_utf8_lossy(data);
        let verified = keys.verify(&text, &Expected::default(), now);
        assert_eq!(verified.is_ok(), valid.contains(&data), "{text}: {verified:?}");
        assert_eq!(explain(&text, &keys, &Expected::default(), now).is_valid(), verified.is_ok(), "{text}");
        if verified.is_ok() {
            assert!(inspect(&text).is_ok());
        }
    });
}

#[test]
fn corpus_of_keys_breaks_no_parser() {
    corpus::replay("keys", |data| {
        let text = String::from_utf8_lossy(data);
        let Ok((keys, _)) = Keys::parse(&text) else { return };
        assert!(keys.len() <= KEYS + NAMELESS_KEYS);
        for key in keys.iter() {
            assert_eq!(Key::parse(&key.to_json()).as_ref(), Ok(key));
        }
    });
}
