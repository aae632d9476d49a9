//! Stateless resets: telling a peer that this endpoint knows nothing of its connection, and hearing
//! it (RFC 9000 §10.3).

use alloc::vec::Vec;

use bytes::BytesMut;

use super::super::connection::Origin;
use super::{ConnectionId, Endpoint};
use crate::time::Instant;
use crate::wire::packet::{MIN_STATELESS_RESET, destination, encode_stateless_reset};

/// Bytes of the longest reset that is sent: as long as a small packet.
const LONGEST: usize = 43;

/// The first bit of a long header.
const LONG_HEADER: u8 = 0x80;

impl Endpoint {
    /// A datagram that no connection claims: it may be a reset of one, or deserve one.
    pub(super) fn handle_stray(&mut self, now: Instant, origin: Origin, data: &BytesMut) {
        if data.first().is_none_or(|first| first & LONG_HEADER != 0) {
            return;
        }
        let token = data.last_chunk::<16>().filter(|_| data.len() >= MIN_STATELESS_RESET);
        if let Some(slot) = token.and_then(|token| self.table.find_reset(origin.from, token)) {
            if let Some(connection) = self.table.get_mut(slot) {
                connection.on_stateless_reset(now);
                self.table.touch(slot);
            }
            return;
        }
        self.send_reset(origin, data);
    }

    /// The reset is shorter than what it answers, so that two endpoints that know nothing of one
    /// another fall silent (RFC 9000 §10.3.3).
    fn send_reset(&mut self, origin: Origin, data: &BytesMut) {
        let Some(server) = &self.server else { return };
        if data.len() <= MIN_STATELESS_RESET {
            return;
        }
        let Some(id) = destination(data).and_then(ConnectionId::new) else { return };
        let token = server.tls.reset_token(&id);
        let most = (data.len() - 1).min(LONGEST);
        let spread = (most - MIN_STATELESS_RESET + 1) as u64;
        let size = most - self.random.below(spread) as usize / 2;
        let mut unpredictable = [0; LONGEST - 16];
        let unpredictable = &mut unpredictable[..size - 16];
        self.random.fill(unpredictable);
        let mut bytes = Vec::with_capacity(size);
        encode_stateless_reset(unpredictable, &token, &mut bytes);
        self.reply(origin, bytes);
    }
}
