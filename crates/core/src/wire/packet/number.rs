//! Packet numbers are sent without the high bytes that the receiver knows (RFC 9000 §17.1).

/// The largest packet number.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes of `number` to send, 1 to 4, when the peer has acknowledged up to `largest_acked`
/// in this space (RFC 9000 §A.2).
///
/// # Panics
/// If `number` is not above `largest_acked`, or so far above it that no encoding is unambiguous
/// (2^31 packets in flight).
pub fn length(number: u64, largest_acked: Option<u64>) -> usize {
    let unacked = match largest_acked {
        Some(acked) => number.checked_sub(acked).expect("packet numbers only grow"),
        None => number + 1,
    };
    match unacked {
        0..0x80 => 1,
        0x80..0x8000 => 2,
        0x8000..0x80_0000 => 3,
        0x80_0000..0x8000_0000 => 4,
        _ => panic!("2^31 packets without an acknowledgement"),
    }
}

/// A packet number as it came: the low bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    low: u32,
    bits: u32,
}

impl Truncated {
    /// The low `length` bytes (1 to 4) of a packet number.
    pub(super) const fn new(low: u32, length: usize) -> Self {
        Self { low, bits: length as u32 * 8 }
    }

    /// The packet number nearest to `expected` that ends with these bytes (RFC 9000 §A.3).
    pub fn expand(self, expected: u64) -> u64 {
        let expected = expected.min(MAX);
        let window = 1u64 << self.bits;
        let half = window / 2;
        let candidate = (expected & !(window - 1)) | u64::from(self.low);
        if candidate + half <= expected && candidate + window <= MAX {
            candidate + window
        } else if candidate > expected + half && candidate >= window {
            candidate - window
        } else {
            candidate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a_hold() {
        assert_eq!(length(0xac_5c02, Some(0xab_e8b3)), 2);
        assert_eq!(length(0xac_e8fe, Some(0xab_e8b3)), 3);
        assert_eq!(Truncated::new(0x9b32, 2).expand(0xa82f_30eb), 0xa82f_9b32);
    }

    #[test]
    fn the_ends_of_the_number_space_do_not_overflow() {
        assert_eq!(Truncated::new(0xff, 1).expand(0), 0xff);
        assert_eq!(Truncated::new(0, 1).expand(MAX + 1), MAX + 1 - 256);
        assert_eq!(Truncated::new(0xff, 1).expand(MAX), MAX);
    }

    #[test]
    #[should_panic(expected = "without an acknowledgement")]
    fn two_billion_packets_in_flight_are_a_bug() {
        length(1 << 40, None);
    }

    proptest! {
        #[test]
        fn a_receiver_between_acked_and_sent_restores_the_number(
            acked in 0u64..1 << 60, flight in 1u64..1 << 31, seen in 0f64..1.0,
        ) {
            let number = acked + flight;
            let length = length(number, Some(acked));
            let low = number & ((1u64 << (8 * length)) - 1);
            // The receiver has everything that was acknowledged and maybe some of the flight.
            let expected = acked + 1 + (seen * (flight - 1) as f64) as u64;
            prop_assert_eq!(Truncated::new(low as u32, length).expand(expected), number);
        }

        #[test]
        fn any_bytes_expand_to_a_number_that_ends_with_them(low: u32, length in 1usize..=4, expected in 0u64..=MAX) {
            let low = (u64::from(low) & ((1u64 << (8 * length)) - 1)) as u32;
            let number = Truncated::new(low, length).expand(expected);
            prop_assert!(number <= MAX);
            prop_assert_eq!(number & ((1u64 << (8 * length)) - 1), u64::from(low));
        }
    }
}
