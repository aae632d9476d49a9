//! A slot as bytes, for snapshots of replicated state.

use alloc::vec::Vec;

use super::{Keep, Slot, State};
use crate::session::{MAX_SEQUENCE, NotExecutedReason};

const IDLE: u8 = 0;
const DONE: u8 = 1;
const NOT_KEPT: u8 = 2;
const RELEASED: u8 = 3;
const FENCED: u8 = 4;

impl<R> Slot<R> {
    /// Appends the slot; `reply` appends what is kept.
    ///
    /// # Panics
    /// If it is executing: a command's call begins and ends in one entry of the log.
    pub(in crate::session) fn write_image(
        &self,
        out: &mut Vec<u8>,
        reply: impl FnOnce(&R, &mut Vec<u8>),
    ) {
        out.extend_from_slice(&self.last.to_be_bytes());
        match &self.state {
            State::Idle => out.push(IDLE),
            State::Executing { .. } => panic!("a call is in one entry of the log"),
            State::Done { digest, reply: kept, keep: _ } => {
                out.push(DONE);
                out.extend_from_slice(&digest.to_be_bytes());
                reply(kept, out);
            }
            State::DoneNotKept { digest } => {
                out.push(NOT_KEPT);
                out.extend_from_slice(&digest.to_be_bytes());
            }
            State::Released => out.push(RELEASED),
            State::Fenced(reason) => {
                out.push(FENCED);
                out.extend_from_slice(&reason.to_wire().to_be_bytes());
            }
        }
    }

    /// The slot of exactly these bytes.
    pub(in crate::session) fn read_image(
        bytes: &[u8],
        reply: impl FnOnce(&[u8]) -> Option<R>,
    ) -> Option<Self> {
        let (last, rest) = number(bytes)?;
        let (state, rest) = rest.split_first()?;
        let (state, rest): (State<R>, &[u8]) = match *state {
            IDLE => (State::Idle, rest),
            DONE => {
                let (digest, rest) = number(rest)?;
                (State::Done { digest, reply: reply(rest)?, keep: Keep::Session }, &[])
            }
            NOT_KEPT => {
                let (digest, rest) = number(rest)?;
                (State::DoneNotKept { digest }, rest)
            }
            RELEASED => (State::Released, rest),
            FENCED => {
                let (reason, rest) = number(rest)?;
                (State::Fenced(NotExecutedReason::from_wire(reason)?), rest)
            }
            _ => return None,
        };
        (rest.is_empty() && last <= MAX_SEQUENCE).then_some(Self { last, state })
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}
