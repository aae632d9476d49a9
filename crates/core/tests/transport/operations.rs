//! The body of the fuzz target `connection`, on inputs from a seed: a short run of it in every test.

use stubborn_core::random::Random;

#[expect(unreachable_pub, reason = "public where the fuzzer is a crate")]
#[path = "../../../../fuzz/src/connection.rs"]
mod connection;
#[expect(unreachable_pub, reason = "public where the fuzzer is a crate")]
#[path = "../../../../fuzz/src/plain_tls.rs"]
pub(crate) mod plain_tls;

#[test]
fn no_sequence_of_operations_breaks_a_pair_of_connections() {
    for seed in 0..300_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        let mut random = Random::from_seed(bytes);
        let mut input = vec![0; 40 + random.below(600) as usize];
        random.fill(&mut input);
        // Most runs stay honest, so that what was sent has to arrive.
        if seed % 4 != 0 {
            input.iter_mut().skip(1).filter(|b| **b % 20 == 19).for_each(|b| *b = 4);
        }
        let outcome = std::panic::catch_unwind(|| connection::fuzz_connection(&input));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
