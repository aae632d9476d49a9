//! What an endpoint is made with.

use alloc::vec::Vec;

use super::super::record::Recording;
use crate::limits::{Limits, MAX_DATAGRAM};
use crate::time::Duration;
use crate::wire::VERSION;

/// What an [`Endpoint`](super::Endpoint) is made with.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Bounds.
    pub limits: Limits,
    /// The worker that owns this endpoint's connections: the first byte of its connection ids.
    pub worker: u8,
    /// A connection without a sign of life for this long is lost; the peer may ask for less. Zero:
    /// never. At least three probe timeouts.
    pub idle_timeout: Duration,
    /// Time of silence after which a connection that is asked to keep alive sends a probe
    /// (RFC 8085 §3.5: at least 15 s unless there is a reason). Zero: never.
    pub keepalive: Duration,
    /// The largest UDP payload that the receive path takes: what the peer may probe up to.
    pub max_udp_payload: usize,
    /// The largest UDP payload that we try to send.
    pub max_probe: usize,
    /// Versions spoken, the preferred one first. Not empty.
    pub versions: Vec<u32>,
    /// Datagrams in one [`Transmit`](super::Transmit) at most (1 turns GSO off).
    pub max_segments: usize,
    /// How long a Retry token is good for.
    pub retry_token_lifetime: Duration,
    /// Answer every new client with Retry, whatever the load.
    pub always_retry: bool,
    /// Whether to mark packets as ECN-capable.
    pub ecn: bool,
    /// Packets sealed with one key before it is updated, at most; the AEAD's own limit still holds
    /// (RFC 9001 §6.6).
    pub key_update_after: u64,
    /// Who records what happens in connections; nobody by default.
    pub recording: Recording,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            worker: 0,
            idle_timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(15),
            max_udp_payload: MAX_DATAGRAM,
            max_probe: 1_472,
            versions: Vec::from([VERSION]),
            max_segments: 64,
            retry_token_lifetime: Duration::from_secs(15),
            always_retry: false,
            ecn: true,
            key_update_after: u64::MAX,
            recording: Recording::default(),
        }
    }
}
