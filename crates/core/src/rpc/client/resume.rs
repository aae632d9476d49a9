//! A session of an earlier channel, whose server is one of several addresses: they are tried in turn,
//! each a moment after the one before, so that one which is dead or loses a packet costs little.

use alloc::vec::Vec;

use super::Client;
use super::call::State;
use super::link::{Link, Session};
use crate::rpc::SessionTicket;
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{CallKey, ChannelKey};
use crate::session::{ClientSession, same_process};
use crate::time::earliest;
use crate::transport::endpoint::ConnectionHandle;

/// Servers that are asked at the same time for a session that one of them has.
const ASKED_AT_ONCE: usize = 4;

/// Where the server of a resumed session was looked for, until it is found.
#[derive(Debug, Default)]
pub(super) struct Sought {
    /// Links whose servers are others.
    others: Vec<u64>,
    /// Links that gave no answer: it may be theirs.
    pub(super) silent: Vec<u64>,
}

impl Client {
    /// Gives a channel's first target a session of an earlier channel, to be attached to.
    pub(super) fn resume(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        target: core::net::SocketAddr,
        ticket: SessionTicket,
    ) {
        let fences = cx.limits.background_fences;
        let channel = &mut self.channels[key.0 as usize];
        let (session, most) = (ticket.session, cx.limits.slots);
        let journal = channel.config.journal.as_mut();
        let succession = journal.as_ref().map(|journal| journal.resumed());
        let slots = match journal.map(|journal| core::mem::take(&mut journal.slots)) {
            Some(journal) => ClientSession::resume_journal(session, &journal, most, fences),
            None => ClientSession::resume(session, most, fences),
        };
        let mut link = Link::new(key, target, channel.config.backoff_min);
        link.steer = Some(ticket.session.steer());
        let sought = Some(Sought::default());
        link.session = Some(Session { sought, succession, ..Session::new(slots, ticket) });
        channel.links.push(self.links.insert(link));
    }

    /// The session's server has been found.
    pub(super) fn found(&mut self, key: u64) {
        if let Some(session) = self.links.get_mut(key).and_then(|link| link.session.as_mut()) {
            session.sought = None;
        }
    }

    /// A link's server does not have the session that is sought. If there is another one to ask, this
    /// one is left for it. Otherwise the session stays with one that gave no answer, if there is any,
    /// and a new one is opened here. False if no other server can have it.
    pub(super) fn not_here(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
    ) -> bool {
        let Some(sought) = self.sought(key) else { return false };
        sought.others.push(key);
        if let Some(next) = self.next_home(key, false) {
            self.hand_session(key, next);
            self.by_handle.remove(&handle);
            cx.close(handle, close_code::DONE, "");
            let Some(link) = self.links.get_mut(key) else { return true };
            link.attempt = None;
            link.silent_since = None;
            let channel = link.channel;
            self.set_link_timer(key);
            let channel = &mut self.channels[channel.0 as usize];
            channel.current = channel.links.iter().position(|link| *link == next).unwrap_or(0);
            self.begin_at(cx, next);
            return true;
        }
        let Some(silent) = self.next_home(key, true) else { return false };
        self.hand_session(key, silent);
        self.open(cx, key, handle);
        true
    }

    /// A link gave no answer: the session that is sought may be another one's. Once all were asked they
    /// are asked again in turn: those that were silent may be back.
    pub(super) fn pass_session_on(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(sought) = self.sought(key) else { return };
        if !sought.silent.contains(&key) {
            sought.silent.push(key);
        }
        if let Some(next) = self.next_home(key, false) {
            self.hand_session(key, next);
        } else if let Some(next) = self.next_home(key, true) {
            self.hand_session(key, next);
            let Some(link) = self.links.get_mut(next) else { return };
            let pause = cx.random.jitter(link.backoff);
            link.retry_at.get_or_insert(cx.now + pause);
            self.set_link_timer(next);
        }
    }

    /// Another group than that of the session answered at its link. Hands the session to a target
    /// where it may still be, which is returned.
    pub(super) fn seek_home(&mut self, key: u64) -> Option<u64> {
        let session = self.links.get_mut(key)?.session.as_mut()?;
        session.sought.get_or_insert_default().others.push(key);
        let next = self.next_home(key, false).or_else(|| self.next_home(key, true))?;
        self.hand_session(key, next);
        Some(next)
    }

    /// The other link of the same channel whose session is sought, if there is one.
    pub(super) fn seeker_beside(&self, key: u64) -> Option<u64> {
        let channel = self.links.get(key)?.channel;
        let seeks = |link: &Link| link.session.as_ref().is_some_and(|s| s.sought.is_some());
        let mut links = self.channels[channel.0 as usize].links.iter().copied();
        links.find(|other| *other != key && self.links.get(*other).is_some_and(seeks))
    }

    /// An attempt takes a moment: if it is one for a session that is sought, the next server is asked
    /// beside it. False if it is none.
    pub(super) fn seek_beside(&mut self, cx: &mut Context<'_>, key: u64) -> bool {
        let home = match self.sought(key) {
            Some(_) => key,
            None => match self.seeker_beside(key) {
                Some(home) => home,
                None => return false,
            },
        };
        let next = self.next_beside(home);
        let steer = self.links.get(home).and_then(|link| link.steer);
        if let Some(link) = next.and_then(|next| self.links.get_mut(next)) {
            (link.steer, link.yielded) = (steer, true);
        }
        next.into_iter().for_each(|next| self.start_attempt(cx, next));
        true
    }

    /// The next link that was not asked for the session of this one.
    fn next_beside(&self, home: u64) -> Option<u64> {
        let link = self.links.get(home)?;
        let sought = link.session.as_ref()?.sought.as_ref()?;
        let links = &self.channels[link.channel.0 as usize].links;
        let asked = |link: &u64| self.links.get(*link).is_some_and(|link| link.attempt.is_some());
        if links.iter().filter(|link| asked(link)).count() >= ASKED_AT_ONCE {
            return None;
        }
        let at = links.iter().position(|other| *other == home)?;
        let others = (1..links.len()).map(|step| links[(at + step) % links.len()]);
        let free = |link: &Link| link.is_idle() && link.has_no_session() && link.standby.is_none();
        others
            .filter(|other| self.links.get(*other).is_some_and(free))
            .find(|other| !sought.others.contains(other) && !sought.silent.contains(other))
    }

    /// A server was asked beside another one for the session of that link. If it has the session, this
    /// becomes its link. If not, this one is left alone, as long as the other may have it. Returns
    /// whether it was left.
    pub(super) fn is_not_sought(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        incarnation: u64,
        replica: bool,
    ) -> bool {
        let free = self.links.get(key).is_some_and(Link::has_no_session);
        let Some(home) = self.seeker_beside(key).filter(|_| free) else { return false };
        let session = self.links.get_mut(home).and_then(|link| link.session.as_mut());
        let Some(session) = session else { return false };
        let Some(sought) = session.sought.as_mut() else { return false };
        if same_process(session.slots.id().incarnation, incarnation) {
            // Of a group, whoever greets next takes the session over.
            if !replica {
                self.hand_session(home, key);
                self.quit(cx, home);
            }
            return false;
        }
        if sought.silent.contains(&home) {
            return false;
        }
        if !sought.others.contains(&key) {
            sought.others.push(key);
        }
        debug_assert!(self.links.get(key).is_some_and(|link| link.uses(handle)));
        self.quit(cx, key);
        true
    }

    /// Ends a link's attempt, which has not failed.
    fn quit(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        (link.silent_since, link.yielded) = (None, false);
        if let Some(attempt) = link.attempt.take() {
            self.by_handle.remove(&attempt.handle);
            cx.close(attempt.handle, close_code::DONE, "");
        }
        self.set_link_timer(key);
    }

    fn sought(&mut self, key: u64) -> Option<&mut Sought> {
        self.links.get_mut(key)?.session.as_mut()?.sought.as_mut()
    }

    /// The next link that may have the session: one that was not tried yet, or one that was silent.
    fn next_home(&self, key: u64, silent: bool) -> Option<u64> {
        let link = self.links.get(key)?;
        let sought = link.session.as_ref()?.sought.as_ref()?;
        let links = &self.channels[link.channel.0 as usize].links;
        let at = links.iter().position(|other| *other == key)?;
        let others = (1..links.len()).map(|step| links[(at + step) % links.len()]);
        let home = link.session.as_ref()?.slots.id().incarnation;
        let free = |link: &Link| {
            let connected = link.standby.is_some() || link.live.is_some();
            let other_group = connected && link.group.is_some_and(|group| group != home);
            link.session.is_none() && link.nonce.is_none() && !other_group
        };
        others
            .filter(|other| self.links.get(*other).is_some_and(free))
            .filter(|other| !sought.others.contains(other))
            .find(|other| sought.silent.contains(other) == silent)
    }

    pub(super) fn hand_session(&mut self, from: u64, to: u64) {
        let Some(session) = self.links.get_mut(from).and_then(|link| link.session.take()) else {
            return;
        };
        let waiting: Vec<CallKey> =
            session.occupants.iter().filter_map(|occupant| occupant.call).collect();
        for call in waiting {
            if let Some(State::Numbered { link, .. }) =
                self.calls.get_mut(call.0).map(|call| &mut call.state)
            {
                *link = to;
            }
        }
        let Some(link) = self.links.get_mut(from) else { return };
        link.steer = None;
        link.early_changes.clear();
        let silent_since = link.silent_since.filter(|_| session.group);
        if let Some(link) = self.links.get_mut(to) {
            link.silent_since = earliest(link.silent_since, silent_since);
            link.steer = Some(session.slots.id().steer());
            link.session = Some(session);
        }
    }

    pub(super) fn begin_at(&mut self, cx: &mut Context<'_>, key: u64) {
        let idle = self.links.get(key).is_some_and(Link::is_idle);
        if idle {
            self.start_attempt(cx, key);
        }
    }
}
