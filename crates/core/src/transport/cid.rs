//! Making connection ids.

use super::ConnectionId;
use crate::random::Random;

/// A fresh id: the worker's number, so that datagrams can be steered to the worker that owns the
/// connection, then 56 unpredictable bits, so that ids cannot be linked or guessed.
pub(super) fn fresh(worker: u8, random: &mut Random) -> ConnectionId {
    let mut bytes = random.bytes::<8>();
    bytes[0] = worker;
    ConnectionId::from(bytes)
}

/// An unpredictable id for a client's first packet, which only serves until the server has chosen
/// its own (RFC 9000 §7.2). Its first byte chooses the worker of a server that has several.
pub(super) fn first(steer: Option<u8>, random: &mut Random) -> ConnectionId {
    let mut bytes = random.bytes::<8>();
    if let Some(steer) = steer {
        bytes[0] = steer;
    }
    ConnectionId::from(bytes)
}

/// Compares secrets without telling by the time it takes where they differ.
pub(super) fn equal_in_constant_time(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y));
    core::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_worker_and_is_otherwise_random() {
        let mut random = Random::from_seed([3; 32]);
        let (a, b) = (fresh(9, &mut random), fresh(9, &mut random));
        assert_eq!((a[0], b[0]), (9, 9));
        assert_ne!(a, b);
    }

    #[test]
    fn a_first_id_is_random_but_for_the_byte_that_steers() {
        let mut random = Random::from_seed([4; 32]);
        assert_ne!(first(None, &mut random), first(None, &mut random));
        let (a, b) = (first(Some(7), &mut random), first(Some(7), &mut random));
        assert_eq!((a[0], b[0]), (7, 7));
        assert_ne!(a, b);
    }

    #[test]
    fn equal_tokens_are_equal_and_one_bit_makes_them_differ() {
        let a = [5; 16];
        for byte in 0..16 {
            for bit in 0..8 {
                let mut b = a;
                b[byte] ^= 1 << bit;
                assert!(!equal_in_constant_time(&a, &b));
            }
        }
        assert!(equal_in_constant_time(&a, &a));
    }
}
