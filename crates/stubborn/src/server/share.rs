//! A worker's share of the server's limits.

use stubborn_core::limits::Limits;

/// The limits of each of so many workers: what is counted over all connections or sessions is
/// divided, what is of one connection, session or message stays. Each worker can do something,
/// whatever the limits: at least one of everything, and one message of the largest size.
pub(super) fn share(limits: &Limits, workers: usize) -> Limits {
    let count = |limit: usize| (limit / workers).max(1);
    let bytes = |limit: u64, least: u64| (limit / workers as u64).max(least.min(limit));
    Limits {
        connections: count(limits.connections),
        handshakes_before_retry: count(limits.handshakes_before_retry),
        maybe_calls: count(limits.maybe_calls),
        assembly: bytes(limits.assembly, limits.message),
        sessions: count(limits.sessions),
        sessions_per_identity: count(limits.sessions_per_identity),
        sessions_per_address: count(limits.sessions_per_address),
        slots_in_all: bytes(limits.slots_in_all, 1),
        kept_replies: bytes(limits.kept_replies, limits.kept_reply as u64),
        call_steps: limits.call_steps / workers,
        held_replies: bytes(limits.held_replies, limits.message),
        concurrency: limits.concurrency.share(u32::try_from(workers).unwrap_or(u32::MAX)),
        queued_calls: count(limits.queued_calls),
        queued_bytes: bytes(limits.queued_bytes, limits.message),
        ..limits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_together_have_no_more_than_the_server() {
        let all = Limits::default();
        for workers in [2, 3, 8] {
            let each = share(&all, workers);
            assert!(each.connections * workers <= all.connections);
            assert!(each.sessions * workers <= all.sessions);
            assert!(each.kept_replies * workers as u64 <= all.kept_replies);
            assert!(each.held_replies * workers as u64 <= all.held_replies);
            assert_eq!((each.slots, each.message), (all.slots, all.message));
        }
    }

    #[test]
    fn a_share_still_has_room_for_one_of_everything() {
        let each = share(&Limits::default(), 256);
        assert!(each.assembly >= each.message && each.held_replies >= each.message);
        assert!(each.kept_replies >= each.kept_reply as u64);
        let tiny = Limits { sessions: 1, connections: 2, kept_replies: 0, ..Limits::default() };
        let each = share(&tiny, 4);
        assert_eq!((each.sessions, each.connections, each.kept_replies), (1, 1, 0));
    }
}
