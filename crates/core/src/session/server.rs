//! The server half: every session, whom it belongs to, and what became of each of its numbers.

mod account;
mod flow;
mod held;
mod image;
mod lifecycle;
mod replicated;
mod table;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use stubborn_rope::ahead::read_ahead;

use self::account::{Account, NonceKey};
pub use self::account::{OpenRequest, account_name};
use self::held::Held;
pub use self::image::{ImageOf, ImagePieces, ImageReader, Unsound};
pub(super) use self::image::{Reader, Writer};
use self::replicated::Aging;
use self::table::{Place, SlotTable};
use super::{
    Answer, CallId, Claim, Decision, Footprint, Keep, KeptReply, NotExecutedReason, Owner,
    QueryAnswer, Races, Refusal, Refused, SessionId, Slot, ToKeep, Violation,
};
use crate::limits::Limits;
use crate::time::Instant;

/// The sessions of a server.
///
/// Time is an input, nothing is drawn, and iteration is ordered: the same calls in the same order
/// leave the same state, which can be cloned. Memory is bounded by [`Limits`]: sessions (in all, of
/// an identity, of an address), slots, and bytes of kept replies.
///
/// `R` is a reply as it is kept, `C` the caller's own name for a connection.
#[derive(Clone, Debug)]
pub struct Sessions<R, C = u64> {
    incarnation: u64,
    aging: Aging,
    limits: Limits,
    /// Slots granted to a session at most, at the present load.
    slot_limit: u32,
    next_number: u64,
    draining: bool,
    table: Vec<Option<Held<Session<R, C>>>>,
    vacant: Vec<u32>,
    by_number: BTreeMap<u64, u32>,
    by_nonce: BTreeMap<NonceKey, u32>,
    accounts: BTreeMap<Account, usize>,
    expiries: BTreeSet<(Instant, u32)>,
    footprint: Footprint,
    slots_held: u64,
    races: Races,
}

/// A connection's right to speak for a session: given by opening and attaching, void when another
/// connection attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    session: SessionId,
    index: u32,
    epoch: u64,
}

/// Where a finished call's answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<C = u64> {
    /// The connection that the session has now, if it has one.
    pub connection: Option<C>,
    /// How long the reply is kept; `None` if it is not.
    pub keep: Option<Keep>,
}

#[derive(Clone, Debug)]
struct Session<R, C> {
    id: SessionId,
    owner: Owner,
    nonce: NonceKey,
    account: Account,
    epoch: u64,
    /// The process that has it, if its client keeps a journal.
    holder: Option<u64>,
    connection: Option<C>,
    /// The connection that it was last taken from, which its client may still believe to have it.
    before: Option<C>,
    /// Its client is done: it is forgotten as soon as nothing executes.
    closing: bool,
    expires: Option<Instant>,
    /// How many slots it should have when load allows.
    wish: u32,
    slots: SlotTable<R>,
    footprint: Footprint,
}

impl<R: KeptReply, C: Copy + Eq> Sessions<R, C> {
    /// Begins to read the session of an attachment.
    pub fn read_ahead(&self, attachment: &Attachment) {
        if let Some(Some(session)) = self.table.get(attachment.index as usize) {
            read_ahead(session);
            read_ahead(&session.slots.entries[..]);
        }
    }

    /// No sessions yet. `incarnation` must be new each time a server's memory is.
    pub fn new(incarnation: u64, limits: &Limits) -> Self {
        Self {
            incarnation,
            aging: Aging::Connection,
            limits: limits.clone(),
            slot_limit: limits.slots.max(1),
            next_number: 1,
            draining: false,
            table: Vec::new(),
            vacant: Vec::new(),
            by_number: BTreeMap::new(),
            by_nonce: BTreeMap::new(),
            accounts: BTreeMap::new(),
            expiries: BTreeSet::new(),
            footprint: Footprint::default(),
            slots_held: 0,
            races: Races::default(),
        }
    }

    /// A whole request has arrived. After [`Decision::Execute`] the caller must end the call with
    /// [`Self::complete`] or [`Self::give_up`].
    ///
    /// While draining, a new call is fenced instead of executed.
    ///
    /// # Errors
    /// The session is forgotten or was taken over, or the number is none that a correct client
    /// sends.
    pub fn request(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        digest: u64,
    ) -> Result<Decision<R>, Refused> {
        self.request_if(attachment, slot, sequence, digest, !self.draining)
    }

    /// The same, and a new call is executed though the sessions drain: of a client that may have sent it
    /// before it heard, or has given its number away.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn late_request(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        digest: u64,
    ) -> Result<Decision<R>, Refused> {
        self.request_if(attachment, slot, sequence, digest, true)
    }

    #[inline]
    fn request_if(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        digest: u64,
        new: bool,
    ) -> Result<Decision<R>, Refused> {
        let stale = Decision::Answer(Answer::Stale);
        let decision = self.change(attachment, slot, sequence, stale, |slot| {
            if !new && slot.is_next(sequence) {
                return slot.fence(sequence, NotExecutedReason::Draining).map(Decision::Answer);
            }
            slot.request(sequence, digest)
        })?;
        match &decision {
            Decision::Answer(Answer::Reply(_)) => self.races.kept_replies += 1,
            Decision::Answer(Answer::NotExecuted(NotExecutedReason::Fenced)) => {
                self.races.late_starts += 1;
            }
            _ => {}
        }
        Ok(decision)
    }

    /// Makes sure that the call never starts if it has not; else answers as to a retry. This is also
    /// the outcome query of the owning session.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn fence(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
    ) -> Result<Answer<R>, Refused> {
        let answer = self.refuse(attachment, slot, sequence, NotExecutedReason::Fenced)?;
        match &answer {
            Answer::NotExecuted(_) => self.races.fences_first += 1,
            Answer::Working | Answer::Reply(_) | Answer::NotKept => self.races.starts_first += 1,
            Answer::Stale => {}
        }
        Ok(answer)
    }

    /// The same for a call that its server does not let in, for this reason.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn refuse(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        reason: NotExecutedReason,
    ) -> Result<Answer<R>, Refused> {
        self.change(attachment, slot, sequence, Answer::Stale, |slot| slot.fence(sequence, reason))
    }

    /// The client has learnt the outcomes of the slot's numbers up to this one.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn release(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
    ) -> Result<(), Refused> {
        self.change(attachment, slot, sequence, (), |slot| slot.release(sequence))
    }

    /// The call has been executed: its reply is kept as far as the bounds allow, and goes to the
    /// connection that the session has now. Returns `None`, and does nothing, if that number is not
    /// executing.
    pub fn complete(
        &mut self,
        now: Instant,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        reply: impl ToKeep<R>,
    ) -> Option<Completion<C>> {
        let index = self.same(attachment)?;
        let keep = self.keep(index, reply.kept_size());
        let kept = keep.map(|keep| (reply, keep));
        let ended = self.end(now, index, slot, sequence, |slot| slot.complete(sequence, kept));
        ended.map(|connection| Completion { connection, keep })
    }

    /// The reply of that number, if it is still kept for the session, gets memory of its own
    /// ([`KeptReply::own`]).
    pub fn own(&mut self, attachment: &Attachment, slot: u32, sequence: u64) {
        if let Some(index) = self.same(attachment)
            && let Ok(Place::Granted(slot)) = self.session_mut(index).slots.place(slot, sequence)
        {
            slot.own(sequence);
        }
    }

    /// The call was taken for execution, but its handler was not and never will be started: the
    /// number is fenced. Returns the connection to tell, in the outer option `None` if that number
    /// is not executing.
    pub fn give_up(
        &mut self,
        now: Instant,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        reason: NotExecutedReason,
    ) -> Option<Option<C>> {
        let index = self.same(attachment)?;
        self.end(now, index, slot, sequence, |slot| slot.give_up(sequence, reason))
    }

    /// What is known of a call, without changing anything: [`QueryAnswer::NotArrived`] is not final.
    ///
    /// # Errors
    /// [`Refusal::Denied`] if `claim` does not prove the session's owner.
    pub fn query(&self, call: CallId, claim: &Claim) -> Result<QueryAnswer<R>, Refusal> {
        let Ok(index) = self.find(call.session) else { return Ok(QueryAnswer::UnknownSession) };
        let session = self.session(index);
        if !session.owner.accepts(claim) {
            return Err(Refusal::Denied);
        }
        Ok(session.slots.query(call.slot, call.sequence))
    }

    /// Whether the attachment is still good.
    ///
    /// # Errors
    /// The session is forgotten or was taken over.
    pub fn check_attached(&self, attachment: &Attachment) -> Result<(), Refusal> {
        self.live(attachment).map(|_| ())
    }

    /// From now on no session is opened and no new call executed.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether a draining server may leave: nothing executes, and every client has said that it
    /// knows its outcomes.
    pub fn is_drained(&self) -> bool {
        self.draining && self.footprint.unsettled == 0
    }

    /// The incarnation that its sessions are of.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The bounds that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Slots that all sessions have; bounded by [`Limits::slots_in_all`].
    pub fn slots_held(&self) -> u64 {
        self.slots_held
    }

    /// How often races were met.
    pub fn races(&self) -> Races {
        self.races
    }

    /// What all sessions hold.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// Applies `change` to a slot and accounts for what it frees or holds since. `late` is the answer
    /// to a copy that comes after the slot was given back.
    fn change<T>(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        late: T,
        change: impl FnOnce(&mut Slot<R>) -> Result<T, Violation>,
    ) -> Result<T, Refused> {
        let index = self.live(attachment)?;
        self.change_at(index, slot, sequence, late, change).map_err(Refused::Violation)
    }

    fn change_at<T>(
        &mut self,
        index: u32,
        slot: u32,
        sequence: u64,
        late: T,
        change: impl FnOnce(&mut Slot<R>) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        let session = self.session_mut(index);
        let Place::Granted(slot) = session.slots.place(slot, sequence)? else { return Ok(late) };
        let before = slot.footprint();
        let result = change(slot);
        let (after, last) = (slot.footprint(), slot.last());
        session.slots.used(last);
        session.footprint.exchange(before, after);
        self.footprint.exchange(before, after);
        result
    }

    /// Ends an executing call; a session that waited for it may then expire. Returns the session's
    /// connection.
    fn end(
        &mut self,
        now: Instant,
        index: u32,
        slot: u32,
        sequence: u64,
        change: impl FnOnce(&mut Slot<R>) -> bool,
    ) -> Option<Option<C>> {
        let ended = self.change_at(index, slot, sequence, false, |slot| Ok(change(slot)));
        if ended != Ok(true) {
            return None;
        }
        let connection = self.session(index).connection;
        if connection.is_none() {
            self.reschedule(now, index);
        }
        Some(connection)
    }

    /// How long a reply of `size` bytes can be kept.
    fn keep(&self, index: u32, size: usize) -> Option<Keep> {
        let session = self.session(index);
        let size64 = size as u64;
        if session.closing {
            None
        } else if size <= self.limits.kept_reply
            && self.footprint.kept + size64 <= self.limits.kept_replies
        {
            Some(Keep::Session)
        } else if self.aging == Aging::Connection
            && session.connection.is_some()
            && self.footprint.held + size64 <= self.limits.held_replies
        {
            Some(Keep::Connection)
        } else {
            None
        }
    }

    fn find(&self, id: SessionId) -> Result<u32, Refusal> {
        if id.incarnation == self.incarnation
            && let Some(&index) = self.by_number.get(&id.number)
            && !self.session(index).closing
        {
            return Ok(index);
        }
        Err(self.forgotten(id))
    }

    /// Numbers count up, so one below the next was issued.
    fn forgotten(&self, id: SessionId) -> Refusal {
        let issued =
            id.incarnation == self.incarnation && (1..self.next_number).contains(&id.number);
        if issued { Refusal::Expired } else { Refusal::Unknown }
    }

    /// The session of an attachment, whatever its epoch is now.
    fn same(&self, attachment: &Attachment) -> Option<u32> {
        let session = self.table.get(attachment.index as usize)?.as_ref()?;
        (session.id == attachment.session).then_some(attachment.index)
    }

    /// The session of an attachment that is still good.
    fn live(&self, attachment: &Attachment) -> Result<u32, Refusal> {
        let index = self.same(attachment).ok_or_else(|| self.forgotten(attachment.session))?;
        let session = self.session(index);
        if session.closing {
            return Err(Refusal::Expired);
        }
        if session.epoch != attachment.epoch {
            return Err(Refusal::Superseded);
        }
        Ok(index)
    }

    fn session(&self, index: u32) -> &Session<R, C> {
        self.table[index as usize].as_ref().expect("an index in use")
    }

    fn session_mut(&mut self, index: u32) -> &mut Session<R, C> {
        self.table[index as usize].as_mut().expect("an index in use")
    }
}

impl Attachment {
    /// The session that it is for.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Counts the attaches of the session up to this one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl<R, C> Session<R, C> {
    fn attachment(&self, index: u32) -> Attachment {
        Attachment { session: self.id, index, epoch: self.epoch }
    }
}
