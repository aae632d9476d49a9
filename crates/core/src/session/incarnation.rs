//! Incarnations: which life of which server a session belongs to, and which of its workers.
//!
//! A server with several workers gives each an incarnation of its own. They share all bits but the
//! lowest eight, which are the worker's index: by that byte a client comes back to the worker that
//! keeps its session (`docs/protocol.md` section 1, Workers).

use super::SessionId;

/// The bits of an incarnation that say which worker it is.
const WORKER_BITS: u32 = 8;

/// The incarnation of one worker of the server process that drew `process`.
pub const fn worker_incarnation(process: u64, worker: u8) -> u64 {
    process >> WORKER_BITS << WORKER_BITS | worker as u64
}

/// Whether two incarnations are of the same life of the same server, perhaps of different workers.
pub const fn same_process(a: u64, b: u64) -> bool {
    a >> WORKER_BITS == b >> WORKER_BITS
}

impl SessionId {
    /// The first byte of a connection id that reaches the worker that keeps this session.
    pub const fn steer(&self) -> u8 {
        self.incarnation.to_be_bytes()[7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_one_process_differ_in_the_byte_that_steers_to_them_and_in_nothing_else() {
        let process = 0x1234_5678_9abc_def0;
        let [a, b] = [3, 255].map(|worker| worker_incarnation(process, worker));
        assert_ne!(a, b);
        assert!(same_process(a, b));
        assert_eq!(SessionId { incarnation: b, number: 1 }.steer(), 255);
    }

    #[test]
    fn the_next_life_of_a_server_is_another_process() {
        let (one, next) = (worker_incarnation(0x1_00, 0), worker_incarnation(0x2_00, 0));
        assert!(!same_process(one, next));
    }
}
