//! Integers of 1, 2, 4 or 8 bytes (RFC 9000 §16): two bits of length, 62 bits of value.

use alloc::vec::Vec;

/// The largest value.
pub const MAX: u64 = (1 << 62) - 1;

/// Bytes of the longest encoding.
pub const MAX_SIZE: usize = 8;

/// Bytes that `value` takes.
///
/// # Panics
/// If `value` is above [`MAX`]: a caller encodes only what it made itself.
#[inline]
pub const fn size(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        0x4000_0000..=MAX => 8,
        _ => panic!("a number above 2^62 - 1 has no varint"),
    }
}

/// Appends `value` in its shortest form.
///
/// # Panics
/// If `value` is above [`MAX`].
#[inline]
pub fn encode(value: u64, out: &mut Vec<u8>) {
    if value < 0x40 {
        out.push(value as u8);
        return;
    }
    // Bytes of a fixed number cost less to append than of one that is not known.
    let (bytes, size) = to_bytes(value);
    let end = out.len() + size;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// The encoding of `value` and how many of the bytes belong to it; the others are zero.
///
/// # Panics
/// As [`encode`].
#[inline]
pub const fn to_bytes(value: u64) -> ([u8; MAX_SIZE], usize) {
    let size = size(value);
    let length = (size.trailing_zeros() as u64) << 62;
    (((value << (64 - 8 * size)) | length).to_be_bytes(), size)
}

/// The value at the front of `bytes` and what follows it; `None` when `bytes` ends within it.
///
/// Longer forms than necessary are accepted, as RFC 9000 §16 asks.
#[inline]
pub fn decode(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    // One fixed-size read for each length: this runs several times for every small message.
    match first >> 6 {
        0 => Some((u64::from(first), &bytes[1..])),
        1 => {
            let (encoded, rest) = bytes.split_first_chunk()?;
            Some((u64::from(u16::from_be_bytes(*encoded) & 0x3fff), rest))
        }
        2 => {
            let (encoded, rest) = bytes.split_first_chunk()?;
            Some((u64::from(u32::from_be_bytes(*encoded) & 0x3fff_ffff), rest))
        }
        _ => {
            let (encoded, rest) = bytes.split_first_chunk()?;
            Some((u64::from_be_bytes(*encoded) & MAX, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a_1_decode() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(decode(bytes), Some((value, &[][..])));
        }
    }

    #[test]
    fn a_value_cut_short_is_refused() {
        assert_eq!(decode(&[]), None);
        for first in [0x40, 0x80, 0xc0] {
            let whole = vec![first; 1 << (first >> 6)];
            assert!((1..whole.len()).all(|n| decode(&whole[..n]).is_none()));
        }
    }

    #[test]
    #[should_panic(expected = "has no varint")]
    fn a_number_of_63_bits_cannot_be_encoded() {
        encode(MAX + 1, &mut Vec::new());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(bits in 0u32..=62, value in any::<u64>(), tail: Vec<u8>) {
            let value = value & ((1u64 << bits) - 1);
            let mut out = Vec::new();
            encode(value, &mut out);
            prop_assert_eq!(out.len(), size(value));
            let (bytes, length) = to_bytes(value);
            prop_assert_eq!(&bytes[..length], &out[..]);
            out.extend_from_slice(&tail);
            prop_assert_eq!(decode(&out), Some((value, &tail[..])));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Some((value, rest)) = decode(&bytes) {
                prop_assert!(value <= MAX && rest.len() < bytes.len());
            }
        }
    }
}
