//! Sessions as replicated state: what they are depends on the commands applied and the log's time
//! alone, never on which connections a replica has.

use super::{Attachment, Session, Sessions};
use crate::limits::{Limits, SILENT_SESSION};
use crate::session::{KeptReply, Owner, SessionId};
use crate::time::{Duration, Instant};

/// What the age of a session counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aging {
    /// The end of its connection: sessions of one server, which sees its connections come and go.
    Connection,
    /// The last word of its client to any replica: sessions of a group, at this time of the log.
    Silence { now: Instant },
}

/// The place of an attachment that has none: no table has as many sessions.
const NOWHERE: u32 = u32::MAX;

/// Renewals that put an expiry off by less than this are left out: a call then costs no change in
/// the order of expiries.
const RENEWED_BY: Duration = Duration::from_secs(1);

impl<R: KeptReply, C: Copy + Eq> Sessions<R, C> {
    /// No sessions yet, to be kept by every replica of a group. Time is the log's from here on, and
    /// given by [`Self::advance`]: the `now` of other methods is to be the same.
    ///
    /// A reply is kept for its session or not at all, since whether a session has a connection is
    /// known to one replica only. For the same reason a session expires when nothing has been heard
    /// of it for the retention time, connected or not: replicas with a live connection
    /// [renew](Self::renew) it. Connections are not [detached](Self::detach).
    pub fn replicated(group: u64, limits: &Limits) -> Self {
        Self { aging: Aging::Silence { now: Instant::ZERO }, ..Self::new(group, limits) }
    }

    /// The log's time is now `now`, or later if it was: sessions whose retention has passed are
    /// forgotten. Returns how many.
    pub fn advance(&mut self, now: Instant) -> usize {
        if let Aging::Silence { now: at } = &mut self.aging {
            *at = now.max(*at);
        }
        self.expire(self.time())
    }

    /// The log's time as last given; zero for sessions that are not replicated.
    pub fn time(&self) -> Instant {
        match self.aging {
            Aging::Connection => Instant::ZERO,
            Aging::Silence { now } => now,
        }
    }

    /// The attachment that the session's connection has in this epoch; one that is refused if there
    /// is no such session.
    pub fn claimed(&self, session: SessionId, epoch: u64) -> Attachment {
        let index = self.find(session).unwrap_or(NOWHERE);
        Attachment { session, index, epoch }
    }

    /// The session's client is there: its age counts from now. Does nothing for a session that is
    /// forgotten.
    pub fn renew(&mut self, session: SessionId) {
        if let (Aging::Silence { now }, Ok(index)) = (self.aging, self.find(session)) {
            self.renew_at(now, index);
        }
    }

    /// The same for a message that came with this attachment, if it is good still.
    pub fn heard(&mut self, attachment: &Attachment) {
        if let (Aging::Silence { now }, Ok(index)) = (self.aging, self.live(attachment)) {
            self.renew_at(now, index);
        }
    }

    pub(super) fn renew_at(&mut self, now: Instant, index: u32) {
        let step = RENEWED_BY.min(self.limits.retention / 64);
        let at = now + self.limits.retention;
        let session = self.session_mut(index);
        if session.closing || session.expires.is_some_and(|old| at < old + step) {
            return;
        }
        let old = session.expires.replace(at);
        if let Some(old) = old {
            self.expiries.remove(&(old, index));
        }
        self.expiries.insert((at, index));
    }

    /// Gives a session that belongs to this key of a certificate to the owner whose certificate it is, by
    /// whom its client is known from now on. Does nothing for another session, or if the attachment is not
    /// good any more.
    pub fn belongs_to(&mut self, attachment: &Attachment, key: [u8; 32], owner: [u8; 32]) {
        if key == owner {
            return;
        }
        let Ok(index) = self.live(attachment) else { return };
        if self.session(index).owner == Owner::Certificate(key) {
            self.session_mut(index).owner = Owner::Certificate(owner);
        }
    }

    /// Whether an attach by `connection` begins a new epoch. In a log a copy of an attach may follow
    /// the first one's calls, which are not to be refused for it.
    pub(super) fn raises_epoch(&self, index: u32, connection: C) -> bool {
        self.aging == Aging::Connection || self.session(index).connection != Some(connection)
    }

    /// Whether a session may give way to another one, if it holds nothing.
    pub(super) fn is_away(&self, session: &Session<R, C>) -> bool {
        match self.aging {
            Aging::Connection => true,
            Aging::Silence { now } => {
                let heard_last = |at: Instant| at - self.limits.retention;
                session.expires.is_none_or(|at| now.since(heard_last(at)) >= SILENT_SESSION)
            }
        }
    }
}
