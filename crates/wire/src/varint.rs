//! QUIC variable-length integers (RFC 9000 §16).

/// Largest value: 62 bits (RFC 9000 §16).
pub const MAX: u64 = (1 << 62) - 1;

/// The input ended inside an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("integer ended early")]
pub struct Short;

/// Number of bytes that [`put`] writes for `value`.
pub const fn size(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Number of bytes of the integer whose first byte is `first`.
pub const fn size_from_first(first: u8) -> usize {
    1 << (first >> 6)
}

/// Appends `value`, at most [`MAX`], in its shortest form.
#[expect(clippy::cast_possible_truncation, reason = "each arm is only taken by values that fit")]
pub fn put(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value <= MAX, "{value} does not fit a varint");
    let value = value.min(MAX);
    match size(value) {
        1 => out.push(value as u8),
        2 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        4 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Takes one integer off the front of `input`, which is unchanged on error. Forms longer than needed are
/// legal.
pub fn get(input: &mut &[u8]) -> Result<u64, Short> {
    let first = *input.first().ok_or(Short)?;
    let (bytes, rest) = input.split_at_checked(size_from_first(first)).ok_or(Short)?;
    *input = rest;
    Ok(bytes.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| (value << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_9000_decode() {
        let examples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (mut bytes, value) in examples {
            assert_eq!(get(&mut bytes), Ok(value));
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn each_length_holds_to_its_last_value() {
        for (value, bytes) in
            [(0x3f, 1), (0x40, 2), (0x3fff, 2), (0x4000, 4), (0x3fff_ffff, 4), (0x4000_0000, 8), (MAX, 8)]
        {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!((out.len(), size(value)), (bytes, bytes));
            assert_eq!(get(&mut out.as_slice()), Ok(value));
        }
    }

    #[test]
    fn a_short_input_is_left_as_it_was() {
        let mut input: &[u8] = &[0xc0, 1, 2];
        assert_eq!(get(&mut input), Err(Short));
        assert_eq!(input, [0xc0, 1, 2]);
        assert_eq!(get(&mut [].as_slice()), Err(Short));
    }

    proptest! {
        #[test]
        fn what_is_put_is_got(value in 0..=MAX, tail: Vec<u8>) {
            let mut out = Vec::new();
            put(value, &mut out);
            out.extend_from_slice(&tail);
            let mut input = out.as_slice();
            prop_assert_eq!(get(&mut input), Ok(value));
            prop_assert_eq!(input, tail.as_slice());
        }
    }
}
