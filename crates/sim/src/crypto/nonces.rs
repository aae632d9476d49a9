//! Watches that no packet number is used twice with one key: an AEAD forgives everything but that
//! (RFC 9001 §5.3). A receiver drops the second packet as a duplicate, so that it looks like loss
//! from outside; only whoever holds the keys can see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stubborn_core::transport::crypto::{
    ClientTls, DirectionalKeys, InitialCrypto, KeyChange, Keys, OpenError, PacketKey, PeerIdentity,
    RESET_TOKEN_LENGTH, RETRY_TAG_LENGTH, ServerTls, TlsSession,
};
use stubborn_core::transport::{Side, TransportError};
use stubborn_core::wire::ConnectionId;

/// What was seen, for the world to fetch.
#[derive(Clone, Default)]
pub(crate) struct NonceWatch(Arc<Mutex<Option<String>>>);

impl NonceWatch {
    /// The first reuse, once.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn report(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    pub(super) fn client(&self, inner: Arc<dyn ClientTls>) -> Arc<dyn ClientTls> {
        Arc::new(WatchedClient { inner, watch: self.clone() })
    }

    pub(super) fn server(&self, inner: Arc<dyn ServerTls>) -> Arc<dyn ServerTls> {
        Arc::new(WatchedServer { inner, watch: self.clone() })
    }

    fn session(&self, inner: Box<dyn TlsSession>) -> Box<dyn TlsSession> {
        Box::new(WatchedSession { inner, watch: self.clone() })
    }

    fn key(&self, inner: Box<dyn PacketKey>) -> Box<dyn PacketKey> {
        Box::new(WatchedKey { inner, next: AtomicU64::new(0), watch: self.clone() })
    }

    fn keys(&self, keys: Keys) -> Keys {
        let DirectionalKeys { header, packet } = keys.local;
        let local = DirectionalKeys { header, packet: self.key(packet) };
        Keys { local, remote: keys.remote }
    }
}

struct WatchedKey {
    inner: Box<dyn PacketKey>,
    /// The lowest number that is certainly unused: numbers go up (RFC 9000 §12.3).
    next: AtomicU64,
    watch: NonceWatch,
}

impl PacketKey for WatchedKey {
    fn seal(&self, packet_number: u64, header: &[u8], payload: &mut [u8]) {
        let next = self.next.fetch_max(packet_number + 1, Ordering::Relaxed);
        if packet_number < next {
            self.watch.report(format!(
                "the packet number {packet_number} was used when {} had been used with the same key",
                next - 1
            ));
        }
        self.inner.seal(packet_number, header, payload);
    }

    fn open(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<usize, OpenError> {
        self.inner.open(packet_number, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.inner.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.inner.integrity_limit()
    }
}

struct WatchedSession {
    inner: Box<dyn TlsSession>,
    watch: NonceWatch,
}

impl TlsSession for WatchedSession {
    fn read_handshake(&mut self, data: &[u8]) -> Result<(), TransportError> {
        self.inner.read_handshake(data)
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        Some(match self.inner.write_handshake(out)? {
            KeyChange::Handshake(keys) => KeyChange::Handshake(self.watch.keys(keys)),
            KeyChange::Data(keys) => KeyChange::Data(self.watch.keys(keys)),
        })
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn peer_parameters(&self) -> Option<&[u8]> {
        self.inner.peer_parameters()
    }

    fn next_data_keys(&mut self) -> (Box<dyn PacketKey>, Box<dyn PacketKey>) {
        let (local, remote) = self.inner.next_data_keys();
        (self.watch.key(local), remote)
    }

    fn early_keys(&mut self) -> Option<DirectionalKeys> {
        self.inner.early_keys()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn on_complete(&mut self) {
        self.inner.on_complete();
    }

    fn peer_identity(&self) -> Option<PeerIdentity> {
        self.inner.peer_identity()
    }
}

struct WatchedClient {
    inner: Arc<dyn ClientTls>,
    watch: NonceWatch,
}

struct WatchedServer {
    inner: Arc<dyn ServerTls>,
    watch: NonceWatch,
}

// Keys of Initial packets are not watched: anybody can make them, and a replayed first datagram
// makes a server use them with the same numbers again.
impl InitialCrypto for WatchedClient {
    fn initial_keys(&self, version: u32, destination: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(version, destination, side)
    }

    fn retry_tag(
        &self,
        version: u32,
        original: &ConnectionId,
        packet: &[u8],
    ) -> [u8; RETRY_TAG_LENGTH] {
        self.inner.retry_tag(version, original, packet)
    }
}

impl InitialCrypto for WatchedServer {
    fn initial_keys(&self, version: u32, destination: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(version, destination, side)
    }

    fn retry_tag(
        &self,
        version: u32,
        original: &ConnectionId,
        packet: &[u8],
    ) -> [u8; RETRY_TAG_LENGTH] {
        self.inner.retry_tag(version, original, packet)
    }
}

impl ClientTls for WatchedClient {
    fn start(
        &self,
        version: u32,
        server_name: &str,
        parameters: &[u8],
    ) -> Result<Box<dyn TlsSession>, TransportError> {
        let session = self.inner.start(version, server_name, parameters)?;
        Ok(self.watch.session(session))
    }
}

impl ServerTls for WatchedServer {
    fn start(
        &self,
        version: u32,
        parameters: &[u8],
    ) -> Result<Box<dyn TlsSession>, TransportError> {
        let session = self.inner.start(version, parameters)?;
        Ok(self.watch.session(session))
    }

    fn seal_token(&self, nonce: [u8; 16], plaintext: &[u8], associated: &[u8]) -> Vec<u8> {
        self.inner.seal_token(nonce, plaintext, associated)
    }

    fn open_token(&self, token: &[u8], associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.inner.open_token(token, associated)
    }

    fn reset_token(&self, id: &ConnectionId) -> [u8; RESET_TOKEN_LENGTH] {
        self.inner.reset_token(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoKey;

    impl PacketKey for NoKey {
        fn seal(&self, _: u64, _: &[u8], _: &mut [u8]) {}

        fn open(&self, _: u64, _: &[u8], payload: &mut [u8]) -> Result<usize, OpenError> {
            Ok(payload.len())
        }

        fn tag_len(&self) -> usize {
            0
        }

        fn confidentiality_limit(&self) -> u64 {
            u64::MAX
        }

        fn integrity_limit(&self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn a_number_used_twice_is_seen_and_gaps_are_not() {
        let watch = NonceWatch::default();
        let key = watch.key(Box::new(NoKey));
        for number in [0, 1, 5, 6] {
            key.seal(number, &[], &mut []);
        }
        assert_eq!(watch.take(), None);
        key.seal(6, &[], &mut []);
        assert!(watch.take().is_some());
        assert_eq!(watch.take(), None);
    }
}
