//! TLS for simulated hosts: the rustls adapter that ships, over a crypto provider whose randomness
//! comes from the world's seed.
//!
//! Only what draws randomness is replaced (random bytes and key exchange); ciphers, hashes,
//! signatures and verification are those that ship. Certificates are Ed25519, whose signatures are
//! deterministic. Nothing outside this crate can select the provider.

mod certificate;
pub(crate) mod entropy;
mod nonces;
mod provider;
mod tls;

pub(crate) use certificate::COMMON_NAME;
pub(crate) use tls::{HostTls, TlsMaker};
