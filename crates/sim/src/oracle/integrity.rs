//! Every message arrives as it was sent: requests at handlers, replies at callers.
//!
//! Bodies are made from their token, so that any change, and any mix-up with another call, shows
//! without the stubs' checksum.

use super::calls::Token;

/// The bytes that a body of this token is filled with.
pub(crate) fn filler(token: Token, salt: u64) -> impl Iterator<Item = u8> {
    let mut state = token.0 ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    std::iter::from_fn(move || {
        // SplitMix64: fast, and different for every token.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        Some((z ^ z >> 31).to_le_bytes())
    })
    .flatten()
}

/// Whether `bytes` are what [`filler`] makes.
pub(crate) fn check(token: Token, salt: u64, bytes: &[u8]) -> Result<(), String> {
    match bytes.iter().zip(filler(token, salt)).position(|(have, want)| *have != want) {
        None => Ok(()),
        Some(at) => Err(format!(
            "byte {at} of the {} bytes of the call {token} is not the one that was sent",
            bytes.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_bit_and_another_calls_bytes_are_both_seen() {
        let body: Vec<u8> = filler(Token(7), 1).take(100).collect();
        assert!(check(Token(7), 1, &body).is_ok());
        assert!(check(Token(8), 1, &body).is_err());
        assert!(check(Token(7), 2, &body).is_err());
        let mut bent = body;
        bent[99] ^= 0x10;
        assert!(check(Token(7), 1, &bent).is_err());
    }
}
