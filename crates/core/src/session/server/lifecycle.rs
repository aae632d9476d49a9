//! The life of a session: opened, attached, detached, closed, forgotten.

use super::account::{Account, NonceKey};
use super::held::Held;
use super::replicated::Aging;
use super::table::SlotTable;
use super::{Attachment, OpenRequest, Session, Sessions};
use crate::session::{
    Attached, Claim, Footprint, KeptReply, Opened, Owner, Refusal, SessionId, SessionSecret,
    Succession,
};
use crate::time::Instant;

/// Sessions looked at when room is to be made, so that a full table costs little.
const LOOKED_AT: usize = 1_024;

impl<R: KeptReply, C: Copy + Eq> Sessions<R, C> {
    /// Opens a session, or answers a copy of an opening with the session that the first one opened.
    ///
    /// A connection speaks for one session in its life: the caller must refuse an opening, or an
    /// attach to another session, on one that has an [`Attachment`]. Late requests on it would
    /// otherwise mean the other session's slots.
    ///
    /// # Errors
    /// [`Refusal::Full`] at a bound on sessions, [`Refusal::Draining`] while draining.
    pub fn open(&mut self, request: &OpenRequest<C>) -> Result<(Opened, Attachment), Refusal> {
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
        connection: C,
    ) -> Result<(Attached, Attachment), Refusal> {
        self.attach_after(id, claim, None, connection)
    }

    /// The same for a client with a journal, which tells after whom it attaches.
    ///
    /// # Errors
    /// As [`Self::attach`]; [`Refusal::TakenOver`] if another process has the session.
    pub fn attach_after(
        &mut self,
        id: SessionId,
        claim: &Claim,
        succession: Option<&Succession>,
        connection: C,
    ) -> Result<(Attached, Attachment), Refusal> {
        let index = self.find(id)?;
        let session = self.session_mut(index);
        if !session.owner.accepts(claim) {
            return Err(Refusal::Denied);
        }
        if let Some(succession) = succession {
            if !succession.may_attach(session.holder, || session.slots.reports()) {
                return Err(Refusal::TakenOver);
            }
            session.holder = Some(succession.holder);
        }
        if self.raises_epoch(index, connection) {
            self.connect(index, connection);
        }
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
    ///
    /// Returns the connection that had the session before this one. It is to be told: its client
    /// may believe that it has the session still, and would wait there for replies.
    pub fn detach(&mut self, now: Instant, attachment: &Attachment) -> Option<C> {
        let index = self.live(attachment).ok()?;
        let session = self.session_mut(index);
        session.connection = None;
        let had_it_before = session.before.take();
        let mut change = session.footprint;
        for slot in session.slots.slots_mut() {
            let before = slot.footprint();
            slot.connection_ended();
            change.exchange(before, slot.footprint());
        }
        let before = core::mem::replace(&mut session.footprint, change);
        self.footprint.exchange(before, change);
        self.reschedule(now, index);
        had_it_before
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

    /// Whether the connection of a session ended so short a time ago and its client did not close it:
    /// it may be about to come back.
    pub fn was_left_since(&self, now: Instant, ago: crate::time::Duration) -> bool {
        let recent = now + self.limits.retention.saturating_sub(ago);
        self.expiries.last().is_some_and(|(at, _)| *at > recent)
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

    fn create(&mut self, request: &OpenRequest<C>, nonce: NonceKey) -> Result<u32, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let account = Account::of(request);
        let bound = match account {
            Account::Certificate(_) => self.limits.sessions_per_identity,
            Account::Address(_) => self.limits.sessions_per_address,
        };
        let open = |sessions: &Self| sessions.accounts.get(&account).copied().unwrap_or(0);
        if open(self) >= bound {
            self.make_room(|session| session.account == account)?;
        }
        if self.len() >= self.limits.sessions {
            self.make_room(|_| true)?;
        }
        let open = open(self);
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
            holder: None,
            connection: None,
            before: None,
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
        self.table[index as usize] = Some(Held::Own(session));
        self.by_number.insert(id.number, index);
        self.by_nonce.insert(nonce, index);
        self.accounts.insert(account, open + 1);
        self.slots_held += u64::from(slots);
        Ok(index)
    }

    /// At a bound: forgets the session that expires first among those that hold nothing, so that
    /// clients which come and go are not locked out for the retention time. No outcome is lost with
    /// it, and late copies of its calls are refused as those of any forgotten session.
    fn make_room(&mut self, eligible: impl Fn(&Session<R, C>) -> bool) -> Result<(), Refusal> {
        let holds_nothing = |index: u32| {
            let session = self.session(index);
            session.footprint.unsettled == 0 && self.is_away(session) && eligible(session)
        };
        let first =
            self.expiries.iter().take(LOOKED_AT).find(|(_, index)| holds_nothing(*index)).copied();
        let (_, index) = first.ok_or(Refusal::Full)?;
        self.forget(index);
        Ok(())
    }

    pub(super) fn forget(&mut self, index: u32) {
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

    fn connect(&mut self, index: u32, connection: C) {
        let aging = self.aging;
        let session = self.session_mut(index);
        session.epoch += 1;
        let before = session.connection.replace(connection).filter(|old| *old != connection);
        let taken_over = before.is_some();
        match aging {
            Aging::Connection => {
                session.before = before;
                if let Some(at) = session.expires.take() {
                    self.expiries.remove(&(at, index));
                }
            }
            Aging::Silence { now } => self.renew_at(now, index),
        }
        self.races.takeovers += u64::from(taken_over);
    }

    /// After the end of a connection or of a call without one: when nothing executes, the retention
    /// time begins, or a closed session ends.
    pub(super) fn reschedule(&mut self, now: Instant, index: u32) {
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
}
