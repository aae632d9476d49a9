//! A backup of a node that serves: its state as it was after one entry, handed out piece by piece.

use bytes::Bytes;
use stubborn_core::time::{Duration, Instant};

use crate::Status;
use crate::generated::stubborn::group::v1::BackupReply;

/// The service's method, whose first call the driver prepares.
pub(super) const METHOD: &str = "stubborn.group.v1.Group/Backup";

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// A state for which nobody has asked for so long is forgotten.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state that is being handed out.
#[derive(Debug)]
pub(super) struct Backup {
    /// What is the same in every reply.
    head: BackupReply,
    state: Bytes,
    asked: Instant,
}

impl Backup {
    pub(super) fn new(now: Instant, head: BackupReply, state: Bytes) -> Self {
        let total = state.len() as u64;
        Self { head: BackupReply { total, ..head }, state, asked: now }
    }

    /// A piece of it.
    ///
    /// # Errors
    /// If it is another backup, or ends before.
    pub(super) fn piece(
        &mut self,
        now: Instant,
        backup: u64,
        offset: u64,
    ) -> Result<BackupReply, Status> {
        if backup != 0 && backup != self.head.backup {
            return Err(given_up());
        }
        let at = usize::try_from(offset).ok().filter(|at| *at <= self.state.len());
        let at = at.ok_or_else(|| Status::invalid_argument("the state ends before"))?;
        self.asked = now;
        let end = self.state.len().min(at.saturating_add(PIECE));
        Ok(BackupReply { piece: self.state[at..end].to_vec(), ..self.head.clone() })
    }

    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.since(self.asked) >= PATIENCE
    }
}

pub(super) fn given_up() -> Status {
    Status::not_found("this backup was given up: begin another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_state_is_handed_out_whole_and_forgotten_when_nobody_asks() {
        let state: Bytes = (0..PIECE * 2 + 5).map(|at| at as u8).collect();
        let head = BackupReply { backup: 7, index: 3, ..BackupReply::default() };
        let mut backup = Backup::new(at(0), head, state.clone());
        let (mut got, mut number) = (Vec::new(), 0);
        while got.len() < state.len() {
            let reply = backup.piece(at(30), number, got.len() as u64).unwrap();
            assert_eq!((reply.index, reply.total), (3, state.len() as u64));
            number = reply.backup;
            got.extend_from_slice(&reply.piece);
        }
        assert_eq!(got, state);
        assert!(backup.piece(at(30), 7, state.len() as u64).unwrap().piece.is_empty());
        assert!(backup.piece(at(30), 7, u64::MAX).is_err());
        assert!(backup.piece(at(30), 8, 0).is_err());
        assert!(!backup.is_stale(at(89)) && backup.is_stale(at(90)));
    }
}
