//! Mapping of application error codes to HTTP/3 error codes (draft-ietf-webtrans-http3-13 §4.3). Deployed
//! peers apply it to resets, stops and closes on raw QUIC too.

/// HTTP/3 code of application code 0 (§4.3: `first`).
const FIRST: u64 = 0x52e4_a40f_a8db;
/// HTTP/3 code of application code `u32::MAX` (§4.3: `last`).
const LAST: u64 = 0x52e5_ac98_3162;
/// Distance of the reserved HTTP/3 codes `0x1f * n + 0x21`, which the mapping skips (RFC 9114 §8.1).
const STRIDE: u64 = 0x1f;
/// Offset of the reserved codes (RFC 9114 §8.1).
const GREASE: u64 = 0x21;

/// Converts an application code to the HTTP/3 code on the wire.
pub fn to_h3(code: u32) -> u64 {
    let code = u64::from(code);
    FIRST + code + code / (STRIDE - 1)
}

/// Converts an HTTP/3 code to the application code; `None` for a code outside the range or a reserved one.
pub fn from_h3(code: u64) -> Option<u32> {
    if !(FIRST..=LAST).contains(&code) || (code - GREASE).is_multiple_of(STRIDE) {
        return None;
    }
    let shifted = code - FIRST;
    u32::try_from(shifted - shifted / STRIDE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_range_is_filled_exactly() {
        assert_eq!(to_h3(0), FIRST);
        assert_eq!(to_h3(u32::MAX), LAST);
        assert_eq!(from_h3(FIRST - 1), None);
        assert_eq!(from_h3(LAST + 1), None);
        assert_eq!(from_h3(0), None);
        assert_eq!(from_h3(u64::MAX), None);
    }

    #[test]
    fn greased_codes_carry_nothing() {
        assert_eq!(to_h3(0x1d), FIRST + 0x1d);
        assert_eq!(from_h3(FIRST + 0x1e), None);
        assert_eq!(to_h3(0x1e), FIRST + 0x1f);
    }

    proptest! {
        #[test]
        fn every_code_comes_back(code: u32) {
            prop_assert_eq!(from_h3(to_h3(code)), Some(code));
        }

        #[test]
        fn a_code_that_maps_is_the_only_one_to_map_there(h3 in FIRST - 100..LAST + 100) {
            if let Some(code) = from_h3(h3) {
                prop_assert_eq!(to_h3(code), h3);
            }
        }
    }
}
