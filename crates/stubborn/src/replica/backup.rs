//! A backup of a node that serves: its state as it was after one entry, handed out piece by piece.

use bytes::Bytes;
use stubborn_core::service::{Image, Pieces};
use stubborn_core::time::{Duration, Instant};

use crate::Status;
use crate::generated::stubborn::group::v1::BackupReply;

/// The service's method, whose first call the driver prepares.
pub(super) const METHOD: &str = "stubborn.group.v1.Group/Backup";

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// A state for which nobody has asked for so long is forgotten.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state that is being handed out, in order: only the piece that was given last can be had again.
pub(super) struct Backup {
    /// What is the same in every reply.
    head: BackupReply,
    rest: Pieces,
    /// What was taken from the state and not given yet.
    front: Bytes,
    /// The piece that was given last, and where it begins.
    last: (u64, Bytes),
    /// The state has ended with it.
    ended: bool,
    asked: Instant,
}

impl Backup {
    pub(super) fn new(now: Instant, head: BackupReply, state: &Image) -> Self {
        let (rest, front, last) = (state.pieces(), Bytes::new(), (0, Bytes::new()));
        Self { head, rest, front, last, ended: false, asked: now }
    }

    /// A piece of it.
    ///
    /// # Errors
    /// If it is another backup, or the piece is neither the next one nor the last.
    pub(super) fn piece(
        &mut self,
        now: Instant,
        backup: u64,
        offset: u64,
    ) -> Result<BackupReply, Status> {
        if backup != 0 && backup != self.head.backup {
            return Err(given_up());
        }
        let next = self.last.0 + self.last.1.len() as u64;
        if offset == next && !self.ended {
            self.last = (next, self.cut()?);
        } else if offset != self.last.0 {
            return Err(Status::invalid_argument("pieces of a state are given in order"));
        }
        self.asked = now;
        let total = if self.ended { self.last.0 + self.last.1.len() as u64 } else { 0 };
        Ok(BackupReply { total, piece: self.last.1.to_vec(), ..self.head.clone() })
    }

    fn cut(&mut self) -> Result<Bytes, Status> {
        let mut piece = Vec::with_capacity(PIECE);
        while piece.len() < PIECE {
            if self.front.is_empty() {
                match self.rest.next() {
                    Some(Ok(front)) => self.front = front,
                    Some(Err(error)) => return Err(Status::internal(error.to_string())),
                    None => {
                        self.ended = true;
                        break;
                    }
                }
            }
            let room = (PIECE - piece.len()).min(self.front.len());
            piece.extend_from_slice(&self.front.split_to(room));
        }
        Ok(piece.into())
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
        let parts: Vec<Bytes> = (1..9).map(|part| vec![part; PIECE / 3].into()).collect();
        let state = parts.concat();
        let head = BackupReply { backup: 7, index: 3, ..BackupReply::default() };
        let mut backup = Backup::new(at(0), head, &Image::in_pieces(parts.into_iter()));
        let (mut got, mut number, mut total) = (Vec::new(), 0, 0);
        while total == 0 || (got.len() as u64) < total {
            let offset = got.len() as u64;
            let reply = backup.piece(at(30), number, offset).unwrap();
            assert!(reply.piece.len() <= PIECE);
            // A reply that was lost is asked for again.
            assert_eq!(backup.piece(at(30), number, offset).unwrap(), reply);
            (number, total) = (reply.backup, reply.total);
            assert_eq!(reply.index, 3);
            got.extend_from_slice(&reply.piece);
        }
        assert!(got == state && total == state.len() as u64);
        assert!(backup.piece(at(30), 7, 0).is_err());
        assert!(backup.piece(at(30), 7, u64::MAX).is_err());
        assert!(backup.piece(at(30), 8, 0).is_err());
        assert!(!backup.is_stale(at(89)) && backup.is_stale(at(90)));
    }
}
