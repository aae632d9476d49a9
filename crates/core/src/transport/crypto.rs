//! What the transport asks of TLS 1.3 (RFC 9001), so that core contains no cryptography.
//!
//! `stubborn-tls` implements this with rustls. A [`TlsSession`] is one handshake; [`ClientTls`] and
//! [`ServerTls`] are configurations that start sessions and are shared by all connections.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{ConnectionId, Side, TransportError};
use crate::identity::CertifiedNames;

pub use crate::wire::protection::{DirectionalKeys, HeaderKey, Keys, OpenError, PacketKey};

/// Bytes of a stateless reset token (RFC 9000 §10.3).
pub const RESET_TOKEN_LENGTH: usize = 16;

/// Bytes of the integrity tag of a Retry packet (RFC 9001 §5.8).
pub const RETRY_TAG_LENGTH: usize = 16;

/// The keys of the next space have become available.
#[derive(Debug)]
pub enum KeyChange {
    /// Everything written afterwards goes into Handshake packets.
    Handshake(Keys),
    /// Everything written afterwards goes into 1-RTT packets.
    Data(Keys),
}

/// Who the peer proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// SHA-256 of the subject public key info of the peer's certificate. It stays the same when a
    /// certificate is renewed with the same key.
    pub key_digest: [u8; 32],
    /// What sessions belong to: the same for every certificate of one SPIFFE id, whatever its key;
    /// without such an id the digest of the key.
    pub owner: [u8; 32],
    /// The names that the certificate bears.
    pub names: CertifiedNames,
    /// The certificate chain, DER, the peer's own certificate first; for display.
    pub certificates: Vec<Vec<u8>>,
}

/// What anybody can compute about an Initial or Retry packet, without secrets.
pub trait InitialCrypto: Send + Sync {
    /// The keys of Initial packets (RFC 9001 §5.2), made from the destination connection id of the
    /// client's first Initial packet (after a Retry: of the first one after it). `side` is who asks.
    fn initial_keys(&self, version: u32, destination: &ConnectionId, side: Side) -> Keys;

    /// The integrity tag of a Retry packet (RFC 9001 §5.8). `packet` is the packet without its tag.
    fn retry_tag(
        &self,
        version: u32,
        original_destination: &ConnectionId,
        packet: &[u8],
    ) -> [u8; RETRY_TAG_LENGTH];
}

/// A client's TLS configuration: whom it trusts, who it is.
pub trait ClientTls: InitialCrypto {
    /// Starts a handshake with a server that must prove to be `server_name` (a DNS name or an IP
    /// address). `parameters` are the encoded transport parameters.
    ///
    /// # Errors
    /// When `server_name` is neither a DNS name nor an IP address.
    fn start(
        &self,
        version: u32,
        server_name: &str,
        parameters: &[u8],
    ) -> Result<Box<dyn TlsSession>, TransportError>;
}

/// A server's TLS configuration: who it is, whom it lets in.
pub trait ServerTls: InitialCrypto {
    /// Starts a handshake with a client. `parameters` are the encoded transport parameters.
    ///
    /// # Errors
    /// When the configuration cannot serve at all.
    fn start(&self, version: u32, parameters: &[u8])
    -> Result<Box<dyn TlsSession>, TransportError>;

    /// Seals an address validation token: encrypts `plaintext` and authenticates it and
    /// `associated`. `nonce` must not repeat: draw it at random. The key survives a restart.
    fn seal_token(&self, nonce: [u8; 16], plaintext: &[u8], associated: &[u8]) -> Vec<u8>;

    /// The plaintext of a token that [`ServerTls::seal_token`] made with the same `associated`.
    ///
    /// # Errors
    /// [`OpenError`] when the token is not ours, altered, or was made with other associated data.
    fn open_token(&self, token: &[u8], associated: &[u8]) -> Result<Vec<u8>, OpenError>;

    /// The stateless reset token of a connection id (RFC 9000 §10.3.2). The key survives a restart.
    fn reset_token(&self, id: &ConnectionId) -> [u8; RESET_TOKEN_LENGTH];
}

/// One TLS handshake and the keys that come out of it.
///
/// The caller carries CRYPTO bytes: [`TlsSession::write_handshake`] after the start and after each
/// read, until it returns `None` and appends nothing.
pub trait TlsSession: Send {
    /// Takes CRYPTO bytes, in order. The caller makes sure that they came in the space that the
    /// handshake is in (RFC 9001 §4.1.3).
    ///
    /// # Errors
    /// When the peer broke TLS or could not be authenticated. The connection is to be closed with it.
    fn read_handshake(&mut self, data: &[u8]) -> Result<(), TransportError>;

    /// Appends CRYPTO bytes of the current space to `out`, then hands out the keys of the next space
    /// if there is a change. Call again after a change: more bytes may follow in the new space.
    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<KeyChange>;

    /// True until the handshake is complete (RFC 9001 §4.1.1).
    fn is_handshaking(&self) -> bool;

    /// The peer's encoded transport parameters once they have arrived. They are authentic only after
    /// the handshake.
    fn peer_parameters(&self) -> Option<&[u8]>;

    /// The keys of the next key phase, local then remote (RFC 9001 §6).
    ///
    /// # Panics
    /// Before [`KeyChange::Data`] was handed out.
    fn next_data_keys(&mut self) -> (Box<dyn PacketKey>, Box<dyn PacketKey>);

    /// Keys for 0-RTT packets: to send with at a client that resumes, to receive with at a server.
    fn early_keys(&mut self) -> Option<DirectionalKeys>;

    /// Whether the server took 0-RTT packets. `None` while it is not known yet.
    fn early_data_accepted(&self) -> Option<bool>;

    /// Who the peer is, once the handshake is complete; `None` when it sent no certificate.
    fn peer_identity(&self) -> Option<PeerIdentity>;

    /// The handshake is complete and everything was asked for: from here on only
    /// [`next_data_keys`](Self::next_data_keys) is. What only a handshake needs may be dropped; where
    /// the peer may still send handshake bytes (a server's tickets), they are still taken.
    fn on_complete(&mut self) {}
}
