//! The server half: every session, whom it belongs to, and what became of each of its numbers.

mod table;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use self::table::{Place, SlotTable};
use super::{
    Answer, Attached, CallId, Claim, Decision, Footprint, Keep, KeptReply, NotExecutedReason,
    Opened, Owner, QueryAnswer, Refusal, SessionId, SessionSecret, Slot, SlotChange, SlotPosition,
    Violation,
};
use crate::limits::Limits;
use crate::time::Instant;

/// The sessions of a server.
///
/// Time is an input, nothing is drawn, and iteration is ordered: the same calls in the same order
/// leave the same state, which can be cloned. Memory is bounded by [`Limits`]: sessions (in all, of
/// an identity, of an address), slots, and bytes of kept replies.
#[derive(Clone, Debug)]
pub struct Sessions<R> {
    incarnation: u64,
    limits: Limits,
    /// Slots granted to a session at most, at the present load.
    slot_limit: u32,
    next_number: u64,
    draining: bool,
    table: Vec<Option<Session<R>>>,
    vacant: Vec<u32>,
    by_number: BTreeMap<u64, u32>,
    by_nonce: BTreeMap<NonceKey, u32>,
    accounts: BTreeMap<Account, usize>,
    expiries: BTreeSet<(Instant, u32)>,
    footprint: Footprint,
    slots_held: u64,
}

/// A connection's right to speak for a session: given by opening and attaching, void when another
/// connection attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    session: SessionId,
    index: u32,
    epoch: u64,
}

/// What a server needs to know to open a session.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Chosen at random by the client: a copy of the opening has the same.
    pub nonce: [u8; 16],
    /// SHA-256 of the public key info of the certificate that the connection authenticated, if any.
    pub certificate: Option<[u8; 32]>,
    /// Where the connection comes from.
    pub address: IpAddr,
    /// How many calls the client would like to have in flight.
    pub slots_wanted: u32,
    /// Fresh random bytes, which become the secret if the session is anonymous and new.
    pub fresh_secret: SessionSecret,
    /// The connection that the session is opened on, as in [`Sessions::attach`].
    pub connection: u64,
}

/// Why a message for a session was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Answered with REFUSED.
    Session(Refusal),
    /// The peer broke the protocol: its connection is closed.
    Violation(Violation),
}

/// Where a finished call's answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The connection that the session has now, if it has one.
    pub connection: Option<u64>,
    /// How long the reply is kept; `None` if it is not.
    pub keep: Option<Keep>,
}

#[derive(Clone, Debug)]
struct Session<R> {
    id: SessionId,
    owner: Owner,
    nonce: NonceKey,
    account: Account,
    epoch: u64,
    connection: Option<u64>,
    /// Its client is done: it is forgotten as soon as nothing executes.
    closing: bool,
    expires: Option<Instant>,
    /// How many slots it should have when load allows.
    wish: u32,
    slots: SlotTable<R>,
    footprint: Footprint,
}

/// An opening's nonce, apart for each identity so that none can guess at another's.
type NonceKey = (Option<[u8; 32]>, [u8; 16]);

/// Who pays for a session, so that nobody can fill the table alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    Certificate([u8; 32]),
    Address(IpAddr),
}

impl<R: KeptReply> Sessions<R> {
    /// No sessions yet. `incarnation` must be new each time a server's memory is.
    pub fn new(incarnation: u64, limits: &Limits) -> Self {
        Self {
            incarnation,
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
        }
    }

    /// Opens a session, or answers a copy of an opening with the session that the first one opened.
    ///
    /// A connection speaks for one session in its life: the caller must refuse an opening, or an
    /// attach to another session, on one that has an [`Attachment`]. Late requests on it would
    /// otherwise mean the other session's slots.
    ///
    /// # Errors
    /// [`Refusal::Full`] at a bound on sessions, [`Refusal::Draining`] while draining.
    pub fn open(&mut self, request: &OpenRequest) -> Result<(Opened, Attachment), Refusal> {
        let nonce = (request.certificate, request.nonce);
        let index = match self.by_nonce.get(&nonce) {
            Some(&index) => index,
            None => self.create(request, nonce)?,
        };
        let session = self.session_mut(index);
        if session.closing {
            return Err(Refusal::Expired);
        }
        if session.connection != Some(request.connection) {
            self.connect(index, request.connection);
        }
        let session = self.session(index);
        let secret = match &session.owner {
            Owner::Anonymous(secret) => secret.clone(),
            Owner::Certificate(_) => SessionSecret::NONE,
        };
        let opened = Opened {
            session: session.id,
            secret,
            epoch: session.epoch,
            slots: session.slots.span(),
            retention: self.limits.retention,
        };
        Ok((opened, session.attachment(index)))
    }

    /// Gives the session to a connection and raises its epoch: the connection that had it is refused
    /// from now on. `connection` is the caller's own name for it, handed back by
    /// [`Self::complete`].
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Expired`], or [`Refusal::Denied`] if `claim` does not prove
    /// the owner.
    pub fn attach(
        &mut self,
        id: SessionId,
        claim: &Claim,
        connection: u64,
    ) -> Result<(Attached, Attachment), Refusal> {
        let index = self.find(id)?;
        if !self.session(index).owner.accepts(claim) {
            return Err(Refusal::Denied);
        }
        self.connect(index, connection);
        let session = self.session(index);
        let attached = Attached {
            session: id,
            epoch: session.epoch,
            span: session.slots.span(),
            wanted: session.slots.wanted(),
            version: session.slots.version(),
            slots: session.slots.reports(),
        };
        Ok((attached, session.attachment(index)))
    }

    /// The connection of `attachment` has ended: replies that were kept for it are dropped, and the
    /// session is remembered for the retention time. Does nothing if another one took over.
    pub fn detach(&mut self, now: Instant, attachment: &Attachment) {
        let Ok(index) = self.live(attachment) else { return };
        let session = self.session_mut(index);
        session.connection = None;
        let mut change = session.footprint;
        for slot in session.slots.slots_mut() {
            let before = slot.footprint();
            slot.connection_ended();
            change.exchange(before, slot.footprint());
        }
        let before = core::mem::replace(&mut session.footprint, change);
        self.footprint.exchange(before, change);
        self.reschedule(now, index);
    }

    /// The client is done with the session: it is forgotten at once, or when its executing calls
    /// have ended.
    ///
    /// # Errors
    /// As [`Self::request`], but no violation.
    pub fn close(&mut self, now: Instant, attachment: &Attachment) -> Result<(), Refusal> {
        let index = self.live(attachment)?;
        let session = self.session_mut(index);
        session.closing = true;
        session.connection = None;
        self.reschedule(now, index);
        Ok(())
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
        let draining = self.draining;
        let stale = Decision::Answer(Answer::Stale);
        self.change(attachment, slot, sequence, stale, |slot| {
            if draining && slot.is_next(sequence) {
                return slot.fence(sequence, NotExecutedReason::Draining).map(Decision::Answer);
            }
            slot.request(sequence, digest)
        })
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
        self.change(attachment, slot, sequence, Answer::Stale, |slot| {
            slot.fence(sequence, NotExecutedReason::Fenced)
        })
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
        reply: &R,
    ) -> Option<Completion> {
        let index = self.same(attachment)?;
        let keep = self.keep(index, reply.size());
        let kept = keep.map(|keep| (reply.clone(), keep));
        let ended = self.end(now, index, slot, sequence, |slot| slot.complete(sequence, kept));
        ended.map(|connection| Completion { connection, keep })
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
    ) -> Option<Option<u64>> {
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

    /// The client gives slots back, each with the last number that it settled there. Returns what to
    /// tell it if it now has fewer than it should.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn return_slots(
        &mut self,
        attachment: &Attachment,
        returned: &[SlotPosition],
    ) -> Result<Option<SlotChange>, Refused> {
        let index = self.live(attachment)?;
        for position in returned {
            let session = self.session_mut(index);
            if let Some(freed) = session.slots.take_back(position.slot, position.sequence)? {
                session.footprint.exchange(freed, Footprint::default());
                self.footprint.exchange(freed, Footprint::default());
                self.slots_held -= 1;
            }
        }
        let slots = &self.session(index).slots;
        let wanted = slots.wanted();
        Ok((slots.held() < wanted).then(|| self.resize_at(index, wanted)))
    }

    /// Sets how many slots the session should have, at least one and at most the limit. Returns what
    /// to tell its client.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] or [`Refusal::Expired`].
    pub fn resize(&mut self, id: SessionId, wanted: u32) -> Result<SlotChange, Refusal> {
        let index = self.find(id)?;
        self.session_mut(index).wish = wanted.max(1);
        Ok(self.resize_at(index, wanted))
    }

    /// Under load, or when it lifts: sets how many slots each session may have, at least one and at
    /// most [`Limits::slots`]. Sessions that have more are asked for the rest, those that wished for
    /// more get it. Returns what to tell whom: connection and change. A session without a
    /// connection learns it when it attaches.
    pub fn limit_slots(&mut self, limit: u32) -> Vec<(u64, SlotChange)> {
        self.slot_limit = limit.clamp(1, self.limits.slots.max(1));
        let mut changes = Vec::new();
        let indexes: Vec<u32> = self.by_number.values().copied().collect();
        for index in indexes {
            let session = self.session(index);
            let connection = session.connection;
            if session.slots.wanted() != self.grantable(session.slots.held(), session.wish) {
                let change = self.resize_at(index, session.wish);
                changes.extend(connection.map(|connection| (connection, change)));
            }
        }
        changes
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

    /// When [`Self::expire`] next has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Forgets the sessions whose retention has passed. Returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut forgotten = 0;
        while let Some(&(at, index)) = self.expiries.first() {
            if at > now {
                break;
            }
            self.forget(index);
            forgotten += 1;
        }
        forgotten
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

    /// What all sessions hold.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    fn create(&mut self, request: &OpenRequest, nonce: NonceKey) -> Result<u32, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let account = Account::of(request);
        let bound = match account {
            Account::Certificate(_) => self.limits.sessions_per_identity,
            Account::Address(_) => self.limits.sessions_per_address,
        };
        let open = self.accounts.get(&account).copied().unwrap_or(0);
        if self.len() >= self.limits.sessions || open >= bound {
            return Err(Refusal::Full);
        }
        let id = SessionId { incarnation: self.incarnation, number: self.next_number };
        self.next_number += 1;
        let slots = self.grantable(0, request.slots_wanted);
        let session = Session {
            id,
            owner: match request.certificate {
                Some(identity) => Owner::Certificate(identity),
                None => Owner::Anonymous(request.fresh_secret.clone()),
            },
            nonce,
            account,
            epoch: 0,
            connection: None,
            closing: false,
            expires: None,
            wish: request.slots_wanted.max(1),
            slots: SlotTable::new(slots),
            footprint: Footprint::default(),
        };
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => {
                self.table.push(None);
                (self.table.len() - 1) as u32
            }
        };
        self.table[index as usize] = Some(session);
        self.by_number.insert(id.number, index);
        self.by_nonce.insert(nonce, index);
        self.accounts.insert(account, open + 1);
        self.slots_held += u64::from(slots);
        Ok(index)
    }

    fn forget(&mut self, index: u32) {
        let Some(session) = self.table[index as usize].take() else { return };
        self.vacant.push(index);
        self.by_number.remove(&session.id.number);
        self.by_nonce.remove(&session.nonce);
        if let Some(open) = self.accounts.get_mut(&session.account) {
            *open -= 1;
            if *open == 0 {
                self.accounts.remove(&session.account);
            }
        }
        if let Some(at) = session.expires {
            self.expiries.remove(&(at, index));
        }
        self.footprint.exchange(session.footprint, Footprint::default());
        self.slots_held -= u64::from(session.slots.held());
    }

    fn connect(&mut self, index: u32, connection: u64) {
        let session = self.session_mut(index);
        session.epoch += 1;
        session.connection = Some(connection);
        if let Some(at) = session.expires.take() {
            self.expiries.remove(&(at, index));
        }
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
        let session = self.table[index as usize].as_mut().expect("an index in use");
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
    ) -> Option<Option<u64>> {
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
        } else if session.connection.is_some()
            && self.footprint.held + size64 <= self.limits.held_replies
        {
            Some(Keep::Connection)
        } else {
            None
        }
    }

    /// After the end of a connection or of a call without one: when nothing executes, the retention
    /// time begins, or a closed session ends.
    fn reschedule(&mut self, now: Instant, index: u32) {
        let at = now + self.limits.retention;
        let session = self.session_mut(index);
        if session.connection.is_some() || session.footprint.executing > 0 {
            return;
        }
        if session.closing {
            return self.forget(index);
        }
        if session.expires.is_none() {
            session.expires = Some(at);
            self.expiries.insert((at, index));
        }
    }

    fn resize_at(&mut self, index: u32, wanted: u32) -> SlotChange {
        let held = self.session(index).slots.held();
        let wanted = self.grantable(held, wanted);
        let slots = &mut self.session_mut(index).slots;
        let change = slots.resize(wanted);
        self.slots_held += change.granted.len() as u64;
        change
    }

    /// How many slots a session that has `held` may have.
    fn grantable(&self, held: u32, wanted: u32) -> u32 {
        let left = self.limits.slots_in_all.saturating_sub(self.slots_held);
        let most = u64::from(held).saturating_add(left).min(u64::from(self.slot_limit)).max(1);
        wanted.clamp(1, u32::try_from(most).unwrap_or(u32::MAX))
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

    /// Slots that a session holds.
    #[cfg(test)]
    pub(super) fn held(&self, id: SessionId) -> Option<u32> {
        Some(self.session(self.find(id).ok()?).slots.held())
    }

    /// Counts anew what is counted along the way.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut sum, mut held) = (Footprint::default(), 0);
        for session in self.table.iter().flatten() {
            assert_eq!(session.footprint, session.slots.footprint());
            sum.exchange(Footprint::default(), session.footprint);
            held += u64::from(session.slots.held());
            assert!(session.slots.held() <= self.limits.slots);
            assert!(session.connection.is_some() || session.footprint.held == 0);
            let waits = session.connection.is_none() && session.footprint.executing == 0;
            assert_eq!(session.expires.is_some(), waits && !session.closing);
        }
        assert_eq!((sum, held), (self.footprint, self.slots_held));
        let sessions = self.table.iter().flatten().count();
        assert_eq!((sessions, sessions), (self.by_number.len(), self.by_nonce.len()));
        assert_eq!(sessions, self.accounts.values().sum::<usize>());
        assert_eq!(sessions + self.vacant.len(), self.table.len());
    }

    fn session(&self, index: u32) -> &Session<R> {
        self.table[index as usize].as_ref().expect("an index in use")
    }

    fn session_mut(&mut self, index: u32) -> &mut Session<R> {
        self.table[index as usize].as_mut().expect("an index in use")
    }
}

impl Attachment {
    /// The session that it is for.
    pub fn session(&self) -> SessionId {
        self.session
    }
}

impl<R> Session<R> {
    fn attachment(&self, index: u32) -> Attachment {
        Attachment { session: self.id, index, epoch: self.epoch }
    }
}

impl Account {
    fn of(request: &OpenRequest) -> Self {
        match request.certificate {
            Some(identity) => Self::Certificate(identity),
            None => Self::Address(payer(request.address)),
        }
    }
}

/// The address that is charged. Whoever has one IPv6 address has its whole /64 (RFC 4291 §2.5.4).
fn payer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Session(refusal)
    }
}

impl From<Violation> for Refused {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(refusal) => refusal.fmt(f),
            Self::Violation(violation) => violation.fmt(f),
        }
    }
}

impl core::error::Error for Refused {}
