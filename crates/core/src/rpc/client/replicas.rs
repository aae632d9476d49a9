//! Targets that are replicas of one group: the channel keeps one session for all of them and moves it
//! when the connection in use fails, goes silent or brings no answers.
//!
//! The link that has the session is its *home*. Every other target keeps a *standby*: a connection
//! whose handshake is done and that nothing is attached to, so that moving costs one exchange.

use super::Client;
use super::link::{Attempt, Link, Live};
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::ChannelKey;
use crate::time::{Duration, Instant};
use crate::transport::endpoint::{ConnectionHandle, Endpoint};

/// How often a connection to a replica on which something is unsettled is looked at.
pub(super) const CHECK_REPLICA_EVERY: Duration = Duration::from_millis(20);

/// Silence of a replica that is taken as it is while an answer is awaited. A commit rarely takes as
/// long, and another replica can be asked.
const ANSWERS_WITHIN: Duration = Duration::from_millis(50);

/// How long a replica may take everything and answer nothing before another one is asked: it may be
/// cut off from its group.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// How long an opening or attach may go unanswered at a replica that another one stands by for.
const GREETING_PATIENCE: Duration = Duration::from_secs(1);

/// Probe timeouts in a row after which a connection counts as silent.
pub(super) const SILENT_PROBES: u32 = 3;

/// What the client knows of how calls get on at a home.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Answers that had come when it was last looked at.
    answers: u64,
    /// Since when everything is delivered and nothing is answered.
    still_since: Option<Instant>,
}

impl Client {
    /// A handshake with a replica of `group` is done. If the link had a server that kept sessions of its
    /// own, that one is gone with them, and none of its calls is looked for at other targets: whoever
    /// says that it is a replica may be a liar in the server's place.
    pub(super) fn meet_replica(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        group: u64,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.group = Some(group);
        if let Some(connection) = cx.endpoint.connection_mut(handle) {
            link.ids = connection.peer_knows_ids();
            connection.answers_within(ANSWERS_WITHIN);
        }
        let channel = link.channel;
        // A session that is sought may be a group's.
        let replaced = link.session.as_ref().is_some_and(|of| !of.group && of.sought.is_none());
        let own = link.session.as_ref().map(|session| session.slots.id().incarnation);
        if replaced {
            self.session_lost(cx, key, "a replica of a group has taken the server's place");
        } else if own.is_some_and(|own| own != group) {
            self.other_group(cx, key);
        }
        // What waits here to run again is for a server that was none.
        self.end_all_held_at(cx, key);
        match self.home_of(channel, group) {
            Some(home) if home != key && self.is_served(cx.endpoint, home) => {
                return self.stand_by(cx, key, handle);
            }
            Some(home) => {
                if home != key {
                    self.leave_home(cx, home);
                    self.hand_session(home, key);
                    self.dismiss_if_done(cx, home);
                }
                if let Some(session) =
                    self.links.get_mut(key).and_then(|link| link.session.as_mut())
                {
                    session.group = true;
                }
                self.found(key);
                self.attach(cx, key, handle);
            }
            None => match self.opening_of(channel, group) {
                Some(opener) if opener != key && self.is_served(cx.endpoint, opener) => {
                    return self.stand_by(cx, key, handle);
                }
                opener => {
                    if let Some(opener) = opener.filter(|opener| *opener != key) {
                        self.hand_opening(opener, key);
                    }
                    self.open(cx, key, handle);
                }
            },
        }
        self.greeted(cx, key);
    }

    /// The session's home is lost, or asks to be left: moves the session to a standby, if there is
    /// one. What is in flight goes on there under the same numbers.
    pub(super) fn fail_over(&mut self, cx: &mut Context<'_>, from: u64) -> bool {
        let Some(to) = self.standby_for(cx.endpoint, from) else { return false };
        let Some(link) = self.links.get(from) else { return false };
        let (channel, has_session) = (link.channel, link.session.is_some());
        if has_session {
            self.leave_home(cx, from);
            self.hand_session(from, to);
        } else {
            self.hand_opening(from, to);
        }
        self.use_link(channel, to);
        self.start_attempt(cx, to);
        true
    }

    /// A link that gets another purpose: its session's next home must be another target.
    pub(super) fn rehome(&mut self, cx: &mut Context<'_>, from: u64) {
        let Some(link) = self.links.get(from) else { return };
        let channel = link.channel;
        if !link.session.as_ref().is_some_and(|session| session.group) || self.fail_over(cx, from) {
            return;
        }
        let links = self.channels[channel.0 as usize].links.clone();
        let free = |link: &u64| self.links.get(*link).is_some_and(Link::has_no_session);
        if let Some(to) = links.into_iter().find(free) {
            self.leave_home(cx, from);
            self.hand_session(from, to);
            self.use_link(channel, to);
            self.begin_at(cx, to);
        }
    }

    /// Makes a standby the connection that is to become the live one. False if there is none.
    pub(super) fn promote(&mut self, cx: &mut Context<'_>, key: u64) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        let Some(standby) = link.standby.take() else { return false };
        let handle = standby.handle;
        link.retry_at = None;
        let gives_up_at = cx.now + GREETING_PATIENCE;
        link.attempt = Some(Attempt { handle, gives_up_at, yields_at: None, greeted: None });
        self.set_link_timer(key);
        self.requeue(standby);
        self.connected(cx, handle);
        true
    }

    /// A standby's connection has ended: another one is made.
    pub(super) fn standby_lost(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let standby = link.standby.take();
        let pause = cx.random.jitter(link.backoff);
        link.retry_at.get_or_insert(cx.now + pause);
        let channel = link.channel;
        self.set_link_timer(key);
        if let Some(standby) = standby.filter(|standby| !standby.reads.is_empty()) {
            standby.reads.into_values().for_each(|read| self.read_elsewhere(read));
            self.pump(cx, channel);
        }
    }

    /// Sees to it that every target stands by for the one that has the session, or is asked for it.
    pub(super) fn keep_standbys(&mut self, cx: &mut Context<'_>, channel: ChannelKey) {
        for key in self.channels[channel.0 as usize].links.clone() {
            let idle = |link: &Link| link.is_idle() && link.standby.is_none();
            if self.wants_standby(key) && self.links.get(key).is_some_and(idle) {
                self.start_attempt(cx, key);
            }
        }
    }

    /// Whether a link is to be connected though it has no session and no call.
    pub(super) fn wants_standby(&self, key: u64) -> bool {
        let Some(link) = self.links.get(key) else { return false };
        let channel = &self.channels[link.channel.0 as usize];
        let served = |home: &u64| {
            let group = self.links.get(*home).and_then(|home| match &home.session {
                Some(session) => {
                    // Its targets are others by now, and nobody has answered at the old ones.
                    let sought = home.retired && session.sought.is_some();
                    (session.group || sought).then(|| session.slots.id().incarnation)
                }
                None => home.nonce.and(home.group),
            });
            group.is_some_and(|home| link.group.is_none_or(|group| group == home))
        };
        !channel.closed
            && !link.retired
            && link.has_no_session()
            && channel.links.iter().chain(&channel.retired).any(served)
    }

    /// Leaves a replica that says nothing, or that takes everything and answers nothing. To be called
    /// when a link is looked at. Returns whether the session was moved.
    pub(super) fn leave_if_useless(&mut self, cx: &mut Context<'_>, key: u64) -> bool {
        if self.greeting_is_silent(cx.endpoint, key) {
            self.fail_attempt(cx, key, "the replica is silent".into());
            return true;
        }
        if self.greeting_is_late(cx.now, key) && self.ask_another(cx, key) {
            return true;
        }
        let Some(link) = self.links.get_mut(key) else { return false };
        let (Some(session), Some(live)) = (link.session.as_ref(), link.live.as_ref()) else {
            return false;
        };
        if !session.group {
            return false;
        }
        let handle = live.handle;
        let Some(stats) = cx.endpoint.connection(handle).map(|connection| connection.stats())
        else {
            return false;
        };
        let answers = session.slots.answers();
        let still = session.slots.in_flight() > 0
            && answers == link.progress.answers
            && stats.in_flight == 0;
        let since = link.progress.still_since.filter(|_| still).unwrap_or(cx.now);
        link.progress = Progress { answers, still_since: still.then_some(since) };
        let stalled = still && cx.now.since(since) >= STALLED_AFTER;
        let silent = stats.probe_timeouts_in_a_row >= SILENT_PROBES;
        if !stalled && !silent {
            return false;
        }
        link.progress = Progress::default();
        self.fail_over(cx, key)
    }

    /// An opening or attach has gone unanswered for long. Another replica is asked, if there is one;
    /// this one stands by. Returns whether there was.
    pub(super) fn ask_another(&mut self, cx: &mut Context<'_>, key: u64) -> bool {
        if self.standby_for(cx.endpoint, key).is_none() {
            return false;
        }
        let Some(link) = self.links.get_mut(key) else { return false };
        let Some(attempt) = link.attempt.take_if(|attempt| attempt.greeted.is_some()) else {
            return false;
        };
        self.fail_over(cx, key);
        self.stand_by(cx, key, attempt.handle);
        true
    }

    /// The group pushed an opening or attach back: it is made again after `after`.
    pub(super) fn session_busy(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        after: Duration,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.attempt.as_ref().is_some_and(|attempt| attempt.handle == handle) {
            link.greet_at = Some(cx.now + cx.random.jitter(bounded(after)));
            self.set_link_timer(key);
        }
    }

    /// Sends the opening or attach that was pushed back.
    pub(super) fn greet_again(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.greet_at = None;
        let Some(handle) = link.attempt.as_ref().map(|attempt| attempt.handle) else { return };
        if link.session.is_some() {
            self.attach(cx, key, handle);
        } else if link.nonce.is_some() {
            self.open(cx, key, handle);
        }
    }

    /// The group pushed a number back: it is sent again after `after`, to whichever replica has the
    /// session then.
    pub(super) fn pushed_back(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        slot: u32,
        sequence: u64,
        after: Duration,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(session) = link.session.as_mut() else { return };
        let Some(id) = session.slots.pushed_back(slot, sequence) else { return };
        if !session.again.contains(&id) {
            session.again.push(id);
        }
        let at = cx.now + cx.random.jitter(bounded(after));
        link.again_at = Some(link.again_at.map_or(at, |before| before.min(at)));
        self.set_link_timer(key);
    }

    /// Sends again what was pushed back.
    pub(super) fn send_again(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.again_at = None;
        let Some(session) = link.session.as_mut() else { return };
        for id in core::mem::take(&mut session.again) {
            let Some(link) = self.links.get_mut(key) else { return };
            let Some(session) = link.session.as_mut() else { return };
            if session.slots.fence_again(id) {
                continue;
            }
            let call = link.occupant(id.slot).and_then(|occupant| occupant.call);
            if let Some(call) =
                call.filter(|call| self.calls.get(call.0).is_some_and(|call| call.id() == Some(id)))
            {
                self.send_numbered(cx, key, call);
            }
        }
        self.after_sending(cx, key);
    }

    /// The server at the address of this link's session is not of its group: no late copy of a call can
    /// run here, but the group may be at another target. The session is lost only if none can have
    /// it.
    pub(super) fn other_group(&mut self, cx: &mut Context<'_>, key: u64) {
        match self.seek_home(key) {
            Some(next) => self.begin_at(cx, next),
            None => self.session_lost(cx, key, "the group was made anew"),
        }
    }

    /// The home's connection is given up, and what is in flight is to be sent elsewhere.
    fn leave_home(&mut self, cx: &mut Context<'_>, home: u64) {
        self.note_all_sent(cx, home);
        let Some(link) = self.links.get_mut(home) else { return };
        if let Some(session) = link.session.as_mut() {
            session.slots.detached();
            session.again.clear();
        }
        link.suspect = false;
        link.progress = Progress::default();
        (link.again_at, link.greet_at) = (None, None);
        let greeted = link.attempt.take_if(|attempt| attempt.greeted.is_some());
        let live = link.live.take();
        for handle in live.iter().map(|live| live.handle).chain(greeted.map(|a| a.handle)) {
            self.by_handle.remove(&handle);
            cx.close(handle, close_code::REPLACED, "the session moved to another replica");
        }
        if let Some(live) = live {
            self.requeue(live);
        }
        let Some(link) = self.links.get_mut(home) else { return };
        link.drains = None;
        if !link.retired {
            let pause = cx.random.jitter(link.backoff);
            link.retry_at.get_or_insert(cx.now + pause);
        }
        self.set_link_timer(home);
    }

    /// The link's connection waits for the day when it is needed.
    fn stand_by(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.attempt = None;
        if link.retired || link.standby.is_some() || link.live.is_some() {
            self.by_handle.remove(&handle);
            return cx.close(handle, close_code::DONE, "");
        }
        link.standby = Some(Live::new(handle));
        (link.retry_at, link.silent_since, link.drains) = (None, None, None);
        link.yielded = false;
        link.backoff = self.channels[link.channel.0 as usize].config.backoff_min;
        if let Some(connection) = cx.endpoint.connection_mut(handle) {
            link.rtt = Some(connection.rtt());
            connection.keep_alive(cx.now, true);
            connection.await_answer(cx.now, false);
        }
        self.set_link_timer(key);
    }

    /// An opening or attach was sent: its answer is watched for. The others get ready meanwhile: this
    /// replica, and any number of them, may be cut off from the group.
    fn greeted(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(attempt) = link.attempt.as_mut() else { return };
        attempt.greeted = Some(cx.now);
        let handle = attempt.handle;
        link.check_at = Some(cx.now + CHECK_REPLICA_EVERY);
        if let Some(connection) = cx.endpoint.connection_mut(handle) {
            connection.await_answer(cx.now, true);
        }
        let channel = link.channel;
        self.set_link_timer(key);
        self.keep_standbys(cx, channel);
    }

    /// The link that has a session of this group.
    fn home_of(&self, channel: ChannelKey, group: u64) -> Option<u64> {
        self.channels[channel.0 as usize].all_links().into_iter().find(|link| {
            let session = self.links.get(*link).and_then(|link| link.session.as_ref());
            session.is_some_and(|session| session.slots.id().incarnation == group)
        })
    }

    /// The link at which a session of this group is being opened.
    fn opening_of(&self, channel: ChannelKey, group: u64) -> Option<u64> {
        self.channels[channel.0 as usize].links.iter().copied().find(|link| {
            let opens = |link: &Link| link.nonce.is_some() && link.group == Some(group);
            self.links.get(*link).is_some_and(opens)
        })
    }

    /// Whether a session, or its opening, is well where it is.
    fn is_served(&self, endpoint: &Endpoint, home: u64) -> bool {
        let Some(link) = self.links.get(home) else { return false };
        let greets = link.attempt.as_ref().is_some_and(|attempt| attempt.greeted.is_some())
            && !self.greeting_is_silent(endpoint, home);
        link.is_ready() && !link.is_shunned() || greets
    }

    fn greeting_is_silent(&self, endpoint: &Endpoint, key: u64) -> bool {
        let attempt = self.links.get(key).and_then(|link| link.attempt.as_ref());
        attempt.is_some_and(|a| a.greeted.is_some() && is_silent(endpoint, a.handle))
    }

    fn greeting_is_late(&self, now: Instant, key: u64) -> bool {
        let attempt = self.links.get(key).and_then(|link| link.attempt.as_ref());
        let since = attempt.and_then(|attempt| attempt.greeted);
        since.is_some_and(|since| now.since(since) >= GREETING_PATIENCE)
    }

    /// A link that stands by for the group of this one's session, or of its opening.
    fn standby_for(&self, endpoint: &Endpoint, from: u64) -> Option<u64> {
        let link = self.links.get(from)?;
        let group = match &link.session {
            Some(session) if session.group => session.slots.id().incarnation,
            Some(_) => return None,
            None => link.nonce.and(link.group)?,
        };
        let links = &self.channels[link.channel.0 as usize].links;
        let at = links.iter().position(|other| *other == from).unwrap_or(0);
        let mut others = (1..=links.len()).map(|step| links[(at + step) % links.len()]);
        others.find(|other| *other != from && self.standby_of(endpoint, group, *other).is_some())
    }

    /// The connection that stands by at a replica of this group, if something can be sent to it.
    pub(super) fn standby_of(&self, endpoint: &Endpoint, group: u64, key: u64) -> Option<&Live> {
        let link =
            self.links.get(key).filter(|link| link.group == Some(group) && !link.is_draining())?;
        link.standby.as_ref().filter(|standby| !is_silent(endpoint, standby.handle))
    }

    fn hand_opening(&mut self, from: u64, to: u64) {
        let nonce = self.links.get_mut(from).and_then(|link| {
            link.early_changes.clear();
            link.nonce.take()
        });
        if let Some(link) = self.links.get_mut(to) {
            link.nonce = nonce.or(link.nonce);
        }
    }

    fn use_link(&mut self, channel: ChannelKey, key: u64) {
        let channel = &mut self.channels[channel.0 as usize];
        if let Some(index) = channel.links.iter().position(|link| *link == key) {
            channel.current = index;
        }
    }
}

impl Link {
    /// Whether it neither has a session nor opens one.
    pub(super) fn has_no_session(&self) -> bool {
        self.session.is_none() && self.nonce.is_none() && !self.sessionless
    }
}

pub(super) fn is_silent(endpoint: &Endpoint, handle: ConnectionHandle) -> bool {
    endpoint
        .connection(handle)
        .is_none_or(|connection| connection.stats().probe_timeouts_in_a_row >= SILENT_PROBES)
}

/// A pause that a server may ask for.
fn bounded(after: Duration) -> Duration {
    after.clamp(Duration::from_millis(1), Duration::from_secs(1))
}
