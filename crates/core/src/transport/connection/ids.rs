//! Connection ids: those that we issued to the peer, and those that the peer issued to us
//! (RFC 9000 §5.1).

use alloc::vec::Vec;

use super::super::ConnectionId;
use super::super::crypto::RESET_TOKEN_LENGTH;
use super::super::error::{Code, TransportError};
use super::super::ranges::RangeSet;

/// Ids of the other side that each side keeps at most: one in use, one for a change of path. Each takes
/// memory at both sides, for as long as the connection lives.
pub(super) const ACTIVE_IDS: u64 = 2;

/// A stateless reset token.
pub(super) type ResetToken = [u8; RESET_TOKEN_LENGTH];

/// An id that we issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalId {
    pub(super) sequence: u64,
    pub(super) id: ConnectionId,
    pub(super) token: ResetToken,
}

/// The ids by which the peer addresses us.
#[derive(Debug)]
pub(super) struct LocalIds {
    /// Issued and not retired, by sequence number, ascending.
    active: Vec<LocalId>,
    next: u64,
    handshake: ConnectionId,
}

impl LocalIds {
    /// With the id of the handshake, which has sequence number 0.
    pub(super) fn new(first: ConnectionId) -> Self {
        // Its token, if there is one, goes into the transport parameters.
        let active = Vec::from([LocalId { sequence: 0, id: first, token: [0; 16] }]);
        Self { active, next: 1, handshake: first }
    }

    /// Ids that may still be issued to a peer that keeps `limit`.
    pub(super) fn missing(&self, limit: u64) -> u64 {
        limit.min(ACTIVE_IDS).saturating_sub(self.active.len() as u64)
    }

    /// Adds an id and gives its sequence number.
    pub(super) fn add(&mut self, id: ConnectionId, token: ResetToken) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.active.push(LocalId { sequence, id, token });
        sequence
    }

    /// The id of a sequence number, unless it is retired.
    pub(super) fn get(&self, sequence: u64) -> Option<&LocalId> {
        self.active.iter().find(|local| local.sequence == sequence)
    }

    /// The peer retires an id. Gives the id if it was active.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` for an id never issued, or the one that carried the frame.
    pub(super) fn retire(
        &mut self,
        sequence: u64,
        carried_by: ConnectionId,
    ) -> Result<Option<ConnectionId>, TransportError> {
        if sequence >= self.next {
            return Err(TransportError::violation("retired a connection id never issued"));
        }
        let Some(at) = self.active.iter().position(|local| local.sequence == sequence) else {
            return Ok(None);
        };
        if self.active[at].id == carried_by {
            return Err(TransportError::violation("retired the connection id it was sent to"));
        }
        Ok(Some(self.active.remove(at).id))
    }

    /// Gives back room that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.active.shrink_to_fit();
    }

    /// The id of our long headers.
    pub(super) fn handshake_id(&self) -> ConnectionId {
        self.handshake
    }

    /// All ids in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.active.iter().map(|local| local.id)
    }
}

/// An id that the peer issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemoteId {
    pub(super) sequence: u64,
    pub(super) id: ConnectionId,
    pub(super) token: Option<ResetToken>,
}

/// The ids by which we address the peer.
#[derive(Debug)]
pub(super) struct RemoteIds {
    active: RemoteId,
    /// Not used yet, by sequence number, ascending.
    spare: Vec<RemoteId>,
    retired: RangeSet,
    prior_to: u64,
    /// Sequence numbers to announce as retired.
    to_retire: Vec<u64>,
}

impl RemoteIds {
    /// With the id of the handshake.
    pub(super) fn new(first: ConnectionId) -> Self {
        Self {
            active: RemoteId { sequence: 0, id: first, token: None },
            spare: Vec::new(),
            retired: RangeSet::default(),
            prior_to: 0,
            to_retire: Vec::new(),
        }
    }

    /// The id to send to.
    pub(super) fn active(&self) -> &RemoteId {
        &self.active
    }

    /// The peer chose its id in its first packet (RFC 9000 §7.2).
    pub(super) fn set_first(&mut self, id: ConnectionId) {
        debug_assert_eq!(self.active.sequence, 0, "the handshake's id is already replaced");
        self.active.id = id;
    }

    /// The reset token of the handshake's id came in the transport parameters.
    pub(super) fn set_first_token(&mut self, token: ResetToken) {
        if self.active.sequence == 0 {
            self.active.token = Some(token);
        }
    }

    /// The reset tokens that the peer may use: of the active id, and of spare ones.
    pub(super) fn tokens(&self) -> impl Iterator<Item = ResetToken> + '_ {
        self.active.token.into_iter().chain(self.spare.iter().filter_map(|r| r.token))
    }

    /// Takes in a NEW_CONNECTION_ID frame (RFC 9000 §19.15).
    ///
    /// # Errors
    /// When the peer contradicts itself or issues more than was granted.
    pub(super) fn insert(&mut self, new: RemoteId, prior_to: u64) -> Result<(), TransportError> {
        if prior_to > new.sequence {
            return Err(TransportError::new(Code::FRAME_ENCODING_ERROR, "retires itself"));
        }
        if self.contradicts(&new) {
            return Err(TransportError::violation("one connection id with two meanings"));
        }
        let known = self.retired.contains(new.sequence)
            || self.active.sequence == new.sequence
            || self.spare.iter().any(|r| r.sequence == new.sequence);
        if !known {
            let at = self.spare.partition_point(|r| r.sequence < new.sequence);
            self.spare.insert(at, new);
        }
        if prior_to > self.prior_to {
            self.prior_to = prior_to;
        }
        self.retire_old()?;
        if self.spare.len() as u64 + 1 > ACTIVE_IDS {
            return Err(TransportError::new(Code::CONNECTION_ID_LIMIT_ERROR, ""));
        }
        Ok(())
    }

    fn contradicts(&self, new: &RemoteId) -> bool {
        core::iter::once(&self.active).chain(&self.spare).any(|old| {
            let same_sequence = old.sequence == new.sequence;
            (same_sequence && (old.id != new.id || old.token.is_some_and(|t| Some(t) != new.token)))
                || (!same_sequence && old.id == new.id)
        })
    }

    fn retire_old(&mut self) -> Result<(), TransportError> {
        while self.spare.first().is_some_and(|r| r.sequence < self.prior_to) {
            let old = self.spare.remove(0);
            self.retire(old.sequence)?;
        }
        if self.active.sequence < self.prior_to && !self.switch()? {
            return Err(TransportError::violation("all connection ids are retired"));
        }
        Ok(())
    }

    fn retire(&mut self, sequence: u64) -> Result<(), TransportError> {
        self.retired.insert_one(sequence);
        self.to_retire.push(sequence);
        // RFC 9000 §5.1.2: a peer that makes us retire faster than it listens is cut off. The ids
        // retired out of order are bounded likewise.
        if self.to_retire.len() > 8 * ACTIVE_IDS as usize || self.retired.len() > 64 {
            return Err(TransportError::new(Code::CONNECTION_ID_LIMIT_ERROR, "retired too many"));
        }
        Ok(())
    }

    /// Goes over to a fresh id, for a new path; false if there is none.
    pub(super) fn switch(&mut self) -> Result<bool, TransportError> {
        if self.spare.is_empty() {
            return Ok(false);
        }
        let old = core::mem::replace(&mut self.active, self.spare.remove(0));
        self.retire(old.sequence)?;
        Ok(true)
    }

    /// Gives back room that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.spare.shrink_to_fit();
        self.to_retire.shrink_to_fit();
    }

    /// The next sequence number to announce as retired.
    pub(super) fn next_retired(&mut self) -> Option<u64> {
        self.to_retire.pop()
    }

    /// True if [`next_retired`](Self::next_retired) has one.
    pub(super) fn has_retired(&self) -> bool {
        !self.to_retire.is_empty()
    }

    /// The announcement was lost: announce it again.
    pub(super) fn retire_again(&mut self, sequence: u64) {
        self.to_retire.push(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ConnectionId {
        ConnectionId::from([n; 8])
    }

    fn remote(sequence: u64) -> RemoteId {
        let n = sequence as u8;
        RemoteId { sequence, id: id(n), token: Some([n; 16]) }
    }

    #[test]
    fn a_new_path_gets_a_fresh_id_and_the_old_one_is_retired() {
        let mut ids = RemoteIds::new(id(0));
        assert!(!ids.switch().unwrap());
        ids.insert(remote(1), 0).unwrap();
        assert!(ids.switch().unwrap());
        assert_eq!(ids.active().id, id(1));
        assert_eq!(ids.next_retired(), Some(0));
        // A late copy of a frame does not bring a used id back.
        ids.insert(remote(1), 0).unwrap();
        assert!(!ids.switch().unwrap());
    }

    #[test]
    fn ids_that_the_peer_retires_are_given_up_at_once() {
        let mut ids = RemoteIds::new(id(0));
        ids.insert(remote(1), 0).unwrap();
        ids.insert(remote(2), 2).unwrap();
        assert_eq!(ids.active().sequence, 2);
        let mut retired: Vec<_> = core::iter::from_fn(|| ids.next_retired()).collect();
        retired.sort_unstable();
        assert_eq!(retired, [0, 1]);
    }

    #[test]
    fn a_peer_that_issues_too_many_or_contradictory_ids_is_refused() {
        let mut ids = RemoteIds::new(id(0));
        for s in 1..ACTIVE_IDS {
            ids.insert(remote(s), 0).unwrap();
        }
        assert_eq!(
            ids.insert(remote(ACTIVE_IDS), 0).unwrap_err().code,
            Code::CONNECTION_ID_LIMIT_ERROR
        );
        let mut ids = RemoteIds::new(id(0));
        ids.insert(remote(1), 0).unwrap();
        assert!(ids.insert(RemoteId { id: id(9), ..remote(1) }, 0).is_err());
        assert!(ids.insert(RemoteId { sequence: 2, ..remote(1) }, 0).is_err());
        assert!(ids.insert(remote(3), 4).is_err());
    }

    #[test]
    fn a_peer_that_churns_ids_without_end_is_cut_off() {
        let mut ids = RemoteIds::new(id(0));
        let mut n = 1;
        let refused = loop {
            let fresh = RemoteId {
                sequence: n,
                id: ConnectionId::from(n.to_be_bytes()),
                token: Some([0; 16]),
            };
            match ids.insert(fresh, n) {
                Ok(()) => n += 1,
                Err(e) => break e,
            }
            assert!(n < 1_000);
        };
        assert_eq!(refused.code, Code::CONNECTION_ID_LIMIT_ERROR);
    }

    #[test]
    fn the_peer_cannot_retire_what_was_never_issued_or_carried_the_frame() {
        let mut ids = LocalIds::new(id(0));
        assert_eq!(ids.missing(100), ACTIVE_IDS - 1);
        let one = ids.add(id(1), [1; 16]);
        assert!(ids.retire(7, id(0)).is_err());
        assert!(ids.retire(0, id(0)).is_err());
        assert_eq!(ids.retire(one, id(0)).unwrap(), Some(id(1)));
        assert_eq!(ids.retire(one, id(0)).unwrap(), None);
    }
}
