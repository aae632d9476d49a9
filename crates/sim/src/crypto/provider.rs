//! The rustls crypto provider of the simulated world.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup, aws_lc_rs,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{Error, NamedGroup, PeerMisbehaved};

use super::entropy;

/// aws-lc-rs with every source of randomness replaced. TLS 1.3 with AES-128-GCM only, as hosts of
/// one world need not negotiate.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![&SeededX25519],
        secure_random: &SeededRandom,
        ..aws_lc_rs::default_provider()
    })
}

/// Certificates of simulated hosts are checked as of 2026-01-01.
pub(crate) fn fixed_time() -> Arc<dyn TimeProvider> {
    Arc::new(FixedTime)
}

#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600)))
    }
}

#[derive(Debug)]
struct SeededRandom;

impl SecureRandom for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        if entropy::fill(out) { Ok(()) } else { Err(GetRandomFailed) }
    }
}

/// X25519 with secrets from the seed. aws-lc-rs draws its secrets itself, hence another
/// implementation of the same function.
#[derive(Debug)]
struct SeededX25519;

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        if !entropy::fill(&mut secret) {
            return Err(Error::FailedToGetRandomBytes);
        }
        let public = x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] =
            peer.try_into().map_err(|_| Error::from(PeerMisbehaved::InvalidKeyShare))?;
        let shared = x25519_dalek::x25519(self.secret, peer);
        if shared == [0; 32] {
            return Err(PeerMisbehaved::InvalidKeyShare.into()); // RFC 8446 §7.4.2
        }
        Ok(SharedSecret::from(&shared[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::random::Random;

    use super::*;
    use crate::crypto::entropy::Entropy;

    fn public_key() -> Vec<u8> {
        SeededX25519.start().unwrap().pub_key().to_vec()
    }

    #[test]
    fn outside_a_world_there_is_no_randomness() {
        assert!(SeededRandom.fill(&mut [0; 4]).is_err());
        assert!(SeededX25519.start().is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_keys_and_another_seed_others() {
        let draw = |seed| {
            let _entropy = Entropy::install(Random::from_seed([seed; 32]));
            (public_key(), public_key())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1).0, draw(1).1);
        assert!(SeededX25519.start().is_err(), "the source ends with its guard");
    }

    #[test]
    fn both_sides_of_an_exchange_agree_and_a_zero_key_is_refused() {
        let _entropy = Entropy::install(Random::from_seed([3; 32]));
        let (a, b) = (SeededX25519.start().unwrap(), SeededX25519.start().unwrap());
        let (pub_a, pub_b) = (a.pub_key().to_vec(), b.pub_key().to_vec());
        let (a, b) = (a.complete(&pub_b).unwrap(), b.complete(&pub_a).unwrap());
        assert_eq!(a.secret_bytes(), b.secret_bytes());
        assert!(SeededX25519.start().unwrap().complete(&[0; 32]).is_err());
        assert!(SeededX25519.start().unwrap().complete(&[9; 31]).is_err());
    }
}
