//! Where TLS takes cryptography, randomness and the time from.

use std::fmt;
use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::quic::Suite;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use crate::ConfigError;
use crate::material::carrying_keys;

/// Cryptography, randomness and time. The default is aws-lc-rs and the system's clock.
#[derive(Clone)]
pub struct Environment {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) time: Arc<dyn TimeProvider>,
    /// Whether sessions may be resumed. Tickets draw randomness at times that depend on more than
    /// one connection, which a simulated world must not have.
    pub(crate) resumption: bool,
}

impl Environment {
    /// An environment that repeats itself as far as `provider` and `time` do: for the simulator. No
    /// session is resumed in it.
    ///
    /// `provider` must have the suite `TLS13_AES_128_GCM_SHA256`. Packets are protected by aws-lc-rs
    /// whatever it has for that.
    pub fn deterministic(provider: Arc<CryptoProvider>, time: Arc<dyn TimeProvider>) -> Self {
        Self { provider: carrying_keys(&provider), time, resumption: false }
    }

    /// The suite of Initial packets (RFC 9001 §5.2).
    pub(crate) fn initial_suite(&self) -> Result<Suite, ConfigError> {
        self.provider
            .cipher_suites
            .iter()
            .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
            .find_map(|suite| suite.tls13()?.quic_suite())
            .ok_or_else(|| {
                ConfigError::Unusable("the provider lacks TLS13_AES_128_GCM_SHA256 for QUIC".into())
            })
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            provider: carrying_keys(&rustls::crypto::aws_lc_rs::default_provider()),
            time: Arc::new(DefaultTimeProvider),
            resumption: true,
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("resumption", &self.resumption).finish_non_exhaustive()
    }
}
