//! One direction of a stream at its two ends: [`Outbox`] sends messages and keeps them until they have
//! arrived, [`Inbox`] puts them in order and hands them out once.
//!
//! Both know indexes and credit only, neither connections nor calls, so that a stream goes on where it
//! was after its path was lost: the receiver says which index it expects, the sender repeats from there.
//! `docs/decisions/0016-streams.md` has the reasons.

mod inbox;
mod message;
mod outbox;
#[cfg(test)]
mod tests;

pub(crate) use inbox::{Arrived, Inbox};
pub(crate) use message::{Content, Part, PartRef};
pub(crate) use outbox::Outbox;

use crate::service::Encoded;

/// What a message counts beside its bytes: so that many small ones are bounded, too.
pub(crate) const OVERHEAD: u64 = 256;

/// What the receiver of a direction tells its sender. Each number only grows, so copies and an older
/// one that comes late do no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Messages that have arrived without a gap: the sender need not keep them.
    pub(crate) received: u64,
    /// Messages that the application has taken.
    pub(crate) taken: u64,
    /// A message may be sent if those before it count less than this.
    pub(crate) limit: u64,
}

/// What no correct peer does; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// What a message counts.
pub(super) fn cost(message: &Encoded) -> u64 {
    message.body.len() as u64 + OVERHEAD
}
