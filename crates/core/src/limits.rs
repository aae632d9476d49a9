//! Every bound in one place: what a peer, a network or a user can make a node hold, and what
//! happens when it is full.
//!
//! Constants are protocol bounds that both sides rely on; [`Limits`] are the bounds that an operator
//! may set. Each module that holds a queue, table or buffer names the bound here that it obeys.

use crate::time::Duration;

/// The largest message that may ever be configured: 4 GiB.
pub const MAX_MESSAGE: u64 = 1 << 32;

/// The smallest datagram size that every path must carry (RFC 9000 §14).
pub const MIN_DATAGRAM: usize = 1200;

/// The largest UDP payload.
pub const MAX_DATAGRAM: usize = 65_507;

/// Transport parameters that a peer may send, known and unknown together; more are refused.
pub const MAX_TRANSPORT_PARAMETERS: usize = 64;

/// Versions that a peer may list in its version information; more are refused.
pub const MAX_VERSIONS: usize = 32;

/// How often a replica of a group renews the sessions that have a connection to it, at least; more
/// often if the retention time is short.
pub const RENEW_SESSIONS_EVERY: Duration = Duration::from_secs(20);

/// How long a group must have heard nothing of a session before it may give way to another one, if
/// it holds nothing: three renewals.
pub const SILENT_SESSION: Duration = Duration::from_secs(60);

/// Bytes a second that a node of a group passes on between others that cannot reach each other; what
/// is more is dropped, as by a network that carries no more.
pub const RELAYED_BYTES_PER_SECOND: u64 = 32 << 20;

/// Bytes that it may pass on at once.
pub const RELAYED_BURST: u64 = 1 << 20;

/// Datagrams that a node relays through a neighbour at once, of those that are too large to be sent
/// without a repetition; a further one is dropped.
pub const RELAYED_AT_ONCE: usize = 64;

/// The longest SPIFFE id, in bytes (SPIFFE ID §2.3).
pub const MAX_SPIFFE_ID: usize = 2_048;

/// The longest trust domain of one, in bytes (SPIFFE ID §2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

/// DNS names that are kept of a peer's certificate; further ones are left out.
pub const MAX_DNS_NAMES: usize = 16;

/// The longest of them, in bytes (RFC 1035 §2.3.4); a longer one is left out.
pub const MAX_DNS_NAME: usize = 253;

/// Bounds that an operator may set. The defaults suit a server with a few gigabytes of memory.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; a further one is answered with Retry first. Then the connection whose
    /// peer has been silent longest gives way, if that is five seconds or more; else the further one
    /// is refused.
    pub connections: usize,
    /// Handshakes under way at once before the server answers every new one with Retry
    /// (RFC 9000 §8.1.2) and so holds no state for unvalidated addresses.
    pub handshakes_before_retry: usize,
    /// `maybe` calls being handled at once; a further one is dropped.
    pub maybe_calls: usize,
    /// Bytes that one connection may have received and not yet handed on: its receive window.
    pub receive_window: u64,
    /// Bytes that one connection may have in flight or queued for retransmission.
    pub send_window: u64,
    /// Messages that one connection may hold queued or unacknowledged; a further one is not taken
    /// until one has ended.
    pub queued_messages: usize,
    /// Messages that a peer may have open at once on a connection.
    pub open_messages: u64,
    /// The largest message accepted; at most [`MAX_MESSAGE`]. A larger one is refused.
    pub message: u64,
    /// Bytes of messages being assembled for the application over all connections; two messages may
    /// come on top. The second half is kept for connections that hold little. What has no room waits
    /// in its sender (flow control), and a connection that does not go on with what it holds is then
    /// ended: it has to send 16 KiB, or a five-hundredth of what it holds, every two seconds.
    pub assembly: u64,
    /// Unreliable messages (`maybe` calls) kept per connection until they are sent or handed on;
    /// the oldest is dropped.
    pub unreliable_queue: usize,
    /// Sessions in all; a further one is refused.
    pub sessions: usize,
    /// Sessions of one certificate identity.
    pub sessions_per_identity: usize,
    /// Anonymous sessions of one IP address.
    pub sessions_per_address: usize,
    /// Slots granted to a session at most: its calls in flight.
    pub slots: u32,
    /// Slots granted to all sessions together; past it a session gets a single one.
    pub slots_in_all: u64,
    /// Reads that one connection may have executing.
    pub reads: u32,
    /// Streams of all clients at a server, those included whose last messages have not arrived; a
    /// further one is refused as overloaded.
    pub streams: usize,
    /// What one direction of a stream may have sent that its receiver has not taken, and what may wait
    /// to be sent: bytes, 256 for each message beside its own; one message may be over it.
    pub stream_window: u64,
    /// Bytes that all streams of a server may hold. Half of it is given out as windows: when that is
    /// used up, a new stream gets one of 16 KiB. When all of it is held, a stream with a message larger
    /// than its window is ended.
    pub stream_memory: u64,
    /// How long a server keeps a stream whose client is not connected; then its handler is stopped.
    pub stream_patience: Duration,
    /// The largest reply kept past its connection; a larger one becomes "executed, reply not kept".
    pub kept_reply: usize,
    /// Bytes of kept replies over all sessions; past it, new replies are kept for their connection
    /// only.
    pub kept_replies: u64,
    /// Steps of calls that are kept for who asks what happened to one, of all calls together; 0 for
    /// none. Three eighths are for calls that are slow, fail or are repeated. Each takes 48 bytes.
    pub call_steps: usize,
    /// Bytes of replies kept for their connections only, over all sessions; past it, a further one is
    /// not kept at all.
    pub held_replies: u64,
    /// How long a session without a connection is remembered, and so how long an outcome can be
    /// asked for.
    pub retention: Duration,
    /// Handlers that a server runs at once. A further call waits in its queue. Streams are not counted
    /// once they have begun; they have their own bound. At a replica this is how many reads are answered
    /// before anything else is done; commands have another bound: what the log cannot take is pushed back.
    pub concurrency: Concurrency,
    /// Calls that wait at a server for their turn; the one that matters least is then refused as
    /// overloaded.
    pub queued_calls: usize,
    /// Bytes of the requests of those calls, likewise.
    pub queued_bytes: u64,
    /// Calls that a client may hold waiting for a slot; a further one fails as not executed.
    pub waiting_calls: usize,
    /// Fences that a client may have under way in the background; when full, the slot keeps its
    /// fence waiting and stays unavailable.
    pub background_fences: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            handshakes_before_retry: 64,
            receive_window: 16 << 20,
            send_window: 16 << 20,
            queued_messages: 65_536,
            open_messages: 4_096,
            message: 64 << 20,
            assembly: 1 << 30,
            unreliable_queue: 256,
            maybe_calls: 4_096,
            sessions: 65_536,
            sessions_per_identity: 4_096,
            sessions_per_address: 1_024,
            slots: 1_024,
            slots_in_all: 16 << 20,
            reads: 1_024,
            streams: 16_384,
            stream_window: 1 << 20,
            stream_memory: 1 << 30,
            stream_patience: Duration::from_secs(120),
            kept_reply: 64 << 10,
            kept_replies: 256 << 20,
            call_steps: 8_192,
            held_replies: 1 << 30,
            retention: Duration::from_secs(3_600),
            concurrency: Concurrency::ADAPTIVE,
            queued_calls: 4_096,
            queued_bytes: 256 << 20,
            waiting_calls: 65_536,
            background_fences: 1_024,
        }
    }
}

/// How many handlers a server runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as latency allows: more while calls take no longer for it, fewer when they do.
    Adaptive {
        /// At least so many, and one.
        least: u32,
        /// At most so many.
        most: u32,
        /// So many before anything was measured.
        start: u32,
    },
    /// So many, at least one.
    Fixed(u32),
    /// All that come: no call waits, and none is refused for want of room.
    Unlimited,
}

impl Concurrency {
    /// The default: between 1 and 65,536, 128 to begin with.
    pub const ADAPTIVE: Self = Self::Adaptive { least: 1, most: 65_536, start: 128 };

    /// The share of one of so many workers, at least one.
    pub fn share(self, workers: u32) -> Self {
        let share = |limit: u32| (limit / workers.max(1)).max(1);
        match self {
            Self::Adaptive { least, most, start } => {
                Self::Adaptive { least: share(least), most: share(most), start: share(start) }
            }
            Self::Fixed(limit) => Self::Fixed(share(limit)),
            Self::Unlimited => Self::Unlimited,
        }
    }
}

// Limits are related to one another; a default that breaks a relation does not compile.
const _: () = {
    assert!(MIN_DATAGRAM < MAX_DATAGRAM);
    assert!(MAX_MESSAGE >= 64 << 20);
    assert!(SILENT_SESSION.as_secs() >= 3 * RENEW_SESSIONS_EVERY.as_secs());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_fit_together() {
        let l = Limits::default();
        assert!(l.message <= MAX_MESSAGE);
        assert!(l.kept_reply as u64 <= l.kept_replies);
        assert!(l.message <= l.held_replies);
        assert!(l.stream_window <= l.stream_memory / 2 && l.stream_patience < l.retention);
        assert!(l.slots_in_all >= l.sessions as u64);
        assert!(l.open_messages > u64::from(l.slots) + u64::from(l.reads));
        assert!(
            l.retention > Duration::from_secs(600),
            "late duplicates come up to ten minutes late"
        );
    }
}
