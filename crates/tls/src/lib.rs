//! TLS 1.3 for Stubborn: the one place that knows rustls.
//!
//! [`TlsClient`] and [`TlsServer`] are configurations; they implement the traits of
//! [`stubborn_core::transport::crypto`], behind which core sees keys and bytes only. [`Identity`] is
//! who one is, [`Roots`] whom one trusts.
//!
//! The default [`Environment`] takes randomness from aws-lc-rs and time from the system's clock. A
//! simulated one brings its own.

mod authority;
mod client;
mod current;
mod environment;
mod error;
mod identity;
mod key_log;
mod keys;
mod logged;
mod material;
mod names;
mod resumption;
mod secret;
mod self_signed;
mod server;
mod session;
mod tcp;

pub use authority::{Authority, Usage};
pub use client::{ServerTrust, TlsClient, TlsClientBuilder};
pub use current::CurrentIdentity;
pub use environment::Environment;
pub use error::ConfigError;
pub use identity::{Identity, Roots, key_digest, sha256};
pub use key_log::{KEY_LOG_VARIABLE, KeyLog};
pub use logged::{LoggedSecrets, SecretKind, keys_of_initial, keys_of_secret, next_secret};
pub use names::peer_identity;
pub use rustls;
pub use self_signed::{SelfSigned, self_signed};
pub use server::{ClientCertificates, TlsServer, TlsServerBuilder};
pub use tcp::{TcpClient, tcp_client, tcp_server};

/// The application protocol that both sides must name (ALPN, RFC 7301).
pub const ALPN: &[u8] = b"stubborn/1";
