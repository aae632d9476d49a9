//! Tokens of Retry packets: proof that a client receives at the address it claims
//! (RFC 9000 §8.1).

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::ConnectionId;
use super::crypto::ServerTls;
use crate::random::Random;
use crate::time::{Duration, Instant};

/// What a Retry token says: the server keeps nothing, the client brings it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RetryToken {
    /// Where the client's very first packet was addressed to; the transport parameters prove it to
    /// the client (RFC 9000 §7.3).
    pub(super) original_destination: ConnectionId,
    /// When it was issued.
    pub(super) issued: Instant,
}

impl RetryToken {
    /// Seals the token for one client address and the connection id that the Retry packet tells the
    /// client to use. Without either it does not open.
    pub(super) fn seal(
        &self,
        tls: &dyn ServerTls,
        random: &mut Random,
        client: SocketAddr,
        retry_source: ConnectionId,
    ) -> Vec<u8> {
        let mut plain = Vec::with_capacity(8 + self.original_destination.len());
        plain.extend_from_slice(&self.issued.as_nanos().to_be_bytes());
        plain.extend_from_slice(&self.original_destination);
        tls.seal_token(random.bytes(), &plain, &associated(client, retry_source))
    }

    /// Opens a token; `None` if it is not ours, not for this client and id, or older than `lifetime`.
    pub(super) fn open(
        token: &[u8],
        tls: &dyn ServerTls,
        client: SocketAddr,
        retry_source: ConnectionId,
        now: Instant,
        lifetime: Duration,
    ) -> Option<Self> {
        let plain = tls.open_token(token, &associated(client, retry_source)).ok()?;
        let (issued, original) = plain.split_first_chunk::<8>()?;
        let issued = Instant::from_nanos(u64::from_be_bytes(*issued));
        // A token from the future was issued before a restart, by another clock.
        if issued > now || now.since(issued) > lifetime {
            return None;
        }
        Some(Self { original_destination: ConnectionId::new(original)?, issued })
    }
}

fn associated(client: SocketAddr, retry_source: ConnectionId) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    match client.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&retry_source);
    out
}
