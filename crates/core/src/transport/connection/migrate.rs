//! Changes of address: following the peer, proving its new address, answering challenges
//! (RFC 9000 §8.2, §9).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::cid;
use super::super::timers::Timer;
use super::path::{AddressProof, ChallengeTimeout, Path};
use super::process::Origin;
use super::{Connection, ConnectionError, IdChange, Space, TransportError};
use crate::time::{Instant, earliest};

/// Challenges that wait for their answer at most; the oldest is dropped.
const ANSWERS: usize = 4;

/// A challenge that the peer waits to have answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) to: SocketAddr,
    pub(super) token: [u8; 8],
    /// Bytes that may be sent to that address in answer.
    pub(super) allowance: usize,
}

/// What waits to be sent on account of addresses and ids.
#[derive(Debug, Default)]
pub(super) struct Migration {
    pub(super) answers: VecDeque<Answer>,
    /// Sequence numbers of our ids that the peer is to be told.
    pub(super) to_announce: Vec<u64>,
}

impl Migration {
    /// A PATH_CHALLENGE came.
    pub(super) fn answer(&mut self, origin: Origin, token: [u8; 8]) {
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        let allowance = 3 * origin.size;
        self.answers.push_back(Answer { to: origin.from, token, allowance });
    }

    /// Gives back room that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.answers.shrink_to_fit();
        self.to_announce.shrink_to_fit();
    }

    /// NEW_CONNECTION_ID was lost.
    pub(super) fn announce_again(&mut self, sequence: u64) {
        self.to_announce.push(sequence);
    }
}

impl Connection {
    /// Only clients migrate, and only once the handshake is confirmed (RFC 9000 §9).
    pub(super) fn may_come_from(&self, from: SocketAddr) -> bool {
        from == self.path.remote || (self.side.is_server() && self.handshake.is_confirmed())
    }

    /// Counts a datagram for the amplification limit of the path that it came on. One from an
    /// address that is no path yet counts once its packet is authentic.
    pub(super) fn count_received(&mut self, origin: Origin) {
        if origin.from == self.path.remote {
            self.path.proof.on_received(origin.size);
        } else if let Some(previous) = &mut self.previous_path
            && previous.remote == origin.from
        {
            previous.proof.on_received(origin.size);
        }
    }

    /// The peer's newest packet came from another address: it has moved, or was given another
    /// address on the way (RFC 9000 §9.3).
    pub(super) fn migrate(&mut self, now: Instant, origin: Origin) -> Result<(), TransportError> {
        let back = self.previous_path.take_if(|p| p.remote == origin.from);
        let returned = back.is_some();
        let mut new = back.map_or_else(|| self.new_path(now, origin), |path| *path);
        // Another port at the same address is the same way through the network: its estimates hold
        // (RFC 9000 §9.4).
        let same_way = new.remote.ip() == self.path.remote.ip();
        if same_way {
            new.take_estimates(&mut self.path);
        } else {
            for space in self.spaces.iter_mut() {
                space.sent.on_path_change();
            }
        }
        let old = core::mem::replace(&mut self.path, new);
        if returned {
            self.path.local = origin.local;
        } else if old.proof.is_validated() {
            self.previous_path = Some(Box::new(old));
        }
        if !self.path.proof.is_validated() {
            self.challenge_path(now);
        }
        self.remote_ids.switch()?;
        self.announce_tokens();
        self.set_path_timer();
        self.set_recovery_timer();
        Ok(())
    }

    fn new_path(&mut self, now: Instant, origin: Origin) -> Path {
        let mut proof = AddressProof::default();
        proof.on_received(origin.size);
        let mut path = Path::new(now, &self.config, origin.from, origin.local, None, proof);
        path.mtu.start(self.peer_max_udp_payload());
        path
    }

    fn challenge_path(&mut self, now: Instant) {
        let interval = self.path.rtt.probe_timeout_base();
        self.path.proof.begin_challenge(now, interval);
    }

    /// The driver's own address changed: the peer is told at once by a packet from the new one, to a
    /// fresh id, and nothing that was learnt of the old path is taken for true (RFC 9000 §9.4, §9.5).
    /// For clients; a server's address does not change.
    pub fn address_changed(&mut self, now: Instant) {
        if self.side.is_server() || !self.handshake.is_confirmed() || !self.state.is_open() {
            return;
        }
        let proof = AddressProof::given();
        let mut path = Path::new(now, &self.config, self.path.remote, None, None, proof);
        path.mtu.start(self.peer_max_udp_payload());
        self.path = path;
        for space in self.spaces.iter_mut() {
            space.sent.on_path_change();
        }
        // Without a fresh id the old one has to do; that the peer issues too few is no error.
        if self.remote_ids.switch().is_ok() {
            self.announce_tokens();
        }
        self.challenge_path(now);
        self.space(Space::Data).ping = true;
        self.probe_early(now);
        self.set_path_timer();
        self.set_recovery_timer();
    }

    /// PATH_RESPONSE.
    pub(super) fn on_path_response(&mut self, token: [u8; 8]) {
        let proven = self.path.proof.on_response(token);
        if proven && self.side.is_server() {
            self.counters.migrations += 1;
            self.previous_path = None;
        }
        if let Some(previous) = &mut self.previous_path {
            previous.proof.on_response(token);
        }
        self.set_path_timer();
        self.set_recovery_timer();
    }

    /// Sets the timer of the challenges under way.
    pub(super) fn set_path_timer(&mut self) {
        let previous = self.previous_path.as_ref().and_then(|p| p.proof.timeout());
        let at = earliest(self.path.proof.timeout(), previous);
        self.timers.set_or_stop(Timer::PathValidation, at);
    }

    pub(super) fn on_path_timer(&mut self, now: Instant) {
        if let Some(previous) = &mut self.previous_path {
            previous.proof.on_timeout(now);
        }
        if self.path.proof.on_timeout(now) == ChallengeTimeout::Failed
            && !self.path.proof.is_validated()
        {
            // RFC 9000 §9.3.2: back to the last proven address; without one there is no way left.
            match self.previous_path.take() {
                Some(previous) => {
                    self.path = *previous;
                    for space in self.spaces.iter_mut() {
                        space.sent.on_path_change();
                    }
                    self.announce_tokens();
                }
                None => return self.vanish(now, ConnectionError::IdleTimeout),
            }
        }
        self.set_path_timer();
        self.set_recovery_timer();
    }

    /// Issues connection ids until the peer has as many as both sides keep (RFC 9000 §5.1.1).
    pub(super) fn issue_ids(&mut self) {
        let limit = self.handshake.peer.as_ref().map_or(0, |p| p.active_connection_id_limit);
        for _ in 0..self.local_ids.missing(limit) {
            let id = cid::fresh(self.config.worker, &mut self.random);
            let token = self.reset_token_of(&id);
            let sequence = self.local_ids.add(id, token);
            self.id_changes.push_back(IdChange::Add(id));
            self.migration.to_announce.push(sequence);
        }
    }
}
