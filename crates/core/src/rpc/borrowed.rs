//! Kept replies that lie in memory which is not their own yet.
//!
//! A body in several pieces was not copied when it was encoded: it lies in memory of the handler,
//! perhaps in a part of a request, and could hold far more than its own size for as long as a session
//! lives. But most replies are released within a round trip, so a copy for each would be in vain: it is
//! made of those that are still kept after a while.

use alloc::collections::VecDeque;

use crate::session::Attachment;
use crate::time::{Duration, Instant};

/// Replies that lie in memory of others at most. The oldest get their own when there are more.
const MOST: usize = 128;

/// How long they do.
const LENT_FOR: Duration = Duration::from_millis(100);

/// Replies that get memory of their own at a time: 1 MiB by default limits.
const AT_A_TIME: usize = 16;

/// A number whose reply is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) attachment: Attachment,
    pub(super) slot: u32,
    pub(super) sequence: u64,
}

/// The replies that lie in memory of others, the oldest first; some of them are released already.
#[derive(Clone, Debug, Default)]
pub(super) struct Borrowed(VecDeque<(Instant, Position)>);

impl Borrowed {
    /// One more. Returns one that has to get memory of its own instead.
    pub(super) fn push(&mut self, now: Instant, reply: Position) -> Option<Position> {
        let oldest = (self.0.len() >= MOST).then(|| self.0.pop_front()).flatten();
        self.0.push_back((now + LENT_FOR, reply));
        oldest.map(|(_, reply)| reply)
    }

    /// When the next one has to get memory of its own.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.0.front().map(|(due, _)| *due)
    }

    /// Those that have to get memory of their own by now; not all of many at once.
    pub(super) fn due(&mut self, now: Instant) -> impl Iterator<Item = Position> {
        let due = self.0.iter().take(AT_A_TIME).take_while(|(due, _)| *due <= now).count();
        self.0.drain(..due).map(|(_, reply)| reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use bytes::Bytes;
    use core::net::{IpAddr, Ipv4Addr};
    use stubborn_rope::Rope;

    use crate::limits::Limits;
    use crate::rpc::codec::MessageBuffer;
    use crate::rpc::desk::{Caller, Desk};
    use crate::service::{Answer, Encoded, Metadata};
    use crate::session::{CallId, Claim, QueryAnswer, SessionSecret, Sessions, SlotPosition};

    const SECRET: [u8; 32] = [2; 32];
    const BYTES: usize = 1_000;

    /// A server with so many slots, each of which has executed a call and keeps its reply of two pieces.
    fn executed(slots: u32, borrowed: Option<Borrowed>) -> (Desk, Attachment) {
        let limits = Limits { slots, ..Limits::default() };
        let mut desk = Desk { sessions: Sessions::new(1, &limits), borrowed };
        let caller =
            Caller { connection: 7, identity: None, address: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let opened = desk.open(&caller, None, [1; 16], slots, SessionSecret::new(SECRET));
        let attachment = opened.unwrap().1.unwrap();
        for slot in 0..slots {
            desk.request(&attachment, slot, 1, 9).unwrap();
            let body = [1, 2].map(|byte| Bytes::from(vec![byte; BYTES / 2])).into_iter().collect();
            let reply = Answer::Reply(Encoded { body, digest: 3 }, Metadata::new());
            let buffer = &mut MessageBuffer::default();
            desk.finish(Instant::ZERO, &attachment, slot, 1, reply, buffer).unwrap();
        }
        (desk, attachment)
    }

    /// Whether the reply of a slot lies in memory of others; `None` if it is not kept.
    fn is_borrowed(desk: &Desk, attachment: &Attachment, slot: u32) -> Option<bool> {
        let call = CallId { session: attachment.session(), slot, sequence: 1 };
        let claim = Claim { certificate: None, secret: SessionSecret::new(SECRET) };
        match desk.query(call, &claim).unwrap() {
            QueryAnswer::Done(kept) => {
                let body: Rope = kept.parts().1;
                assert_eq!(body.to_vec(), [[1; BYTES / 2], [2; BYTES / 2]].concat());
                Some(kept.is_borrowed())
            }
            _ => None,
        }
    }

    #[test]
    fn a_reply_that_is_kept_for_long_gets_memory_of_its_own() {
        let (mut desk, attachment) = executed(1, Some(Borrowed::default()));
        let due = desk.next_timeout().unwrap();
        desk.handle_timeout(due - Duration::from_nanos(1));
        assert_eq!(is_borrowed(&desk, &attachment, 0), Some(true));
        desk.handle_timeout(due);
        assert_eq!(is_borrowed(&desk, &attachment, 0), Some(false));
        assert_eq!(desk.next_timeout(), None);
    }

    #[test]
    fn of_too_many_the_oldest_get_memory_of_their_own_at_once() {
        let many = MOST as u32 + 5;
        let (desk, attachment) = executed(many, Some(Borrowed::default()));
        let borrowed =
            (0..many).filter(|slot| is_borrowed(&desk, &attachment, *slot) == Some(true));
        assert!(borrowed.eq(5..many));
    }

    #[test]
    fn what_is_due_at_once_is_copied_a_few_at_a_time() {
        let (mut desk, attachment) = executed(MOST as u32, Some(Borrowed::default()));
        let due = desk.next_timeout().unwrap();
        let mut turns = 0;
        while desk.next_timeout().is_some() {
            desk.handle_timeout(due);
            turns += 1;
        }
        assert_eq!(turns, MOST / AT_A_TIME);
        assert!((0..MOST as u32).all(|slot| is_borrowed(&desk, &attachment, slot) == Some(false)));
    }

    #[test]
    fn a_released_reply_is_not_copied() {
        let (mut desk, attachment) = executed(1, Some(Borrowed::default()));
        desk.release(&attachment, &[SlotPosition { slot: 0, sequence: 1 }]).unwrap();
        desk.handle_timeout(desk.next_timeout().unwrap());
        assert_eq!((is_borrowed(&desk, &attachment, 0), desk.next_timeout()), (None, None));
    }

    #[test]
    fn in_the_state_of_a_group_a_reply_has_memory_of_its_own_from_the_beginning() {
        let (desk, attachment) = executed(1, None);
        assert_eq!(is_borrowed(&desk, &attachment, 0), Some(false));
    }
}
