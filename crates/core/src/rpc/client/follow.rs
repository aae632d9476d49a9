//! Streams of reads at a group of replicas. They take no slot: the client asks a replica for what
//! follows its position, again and again, and each question is a read of its own. A replica that dies,
//! is silent or cut off is left for another one, which goes on from the same position.

use bytes::Bytes;

use super::Client;
use super::call::{Earlier, Request, State, Work};
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelKey, Event, StreamKey};
use crate::rpc::message::{Staleness, ToServer};
use crate::rpc::stream::{Inbox, OVERHEAD};
use crate::rpc::watch::{Batch, Watch};
use crate::service::{Outcome, Semantics, Shape};
use crate::session::NotExecutedReason;
use crate::time::Duration;

/// How long a replica may keep a question while it has nothing to answer. Then it says that it has
/// nothing, by which it is known to be there.
const HOLD: Duration = Duration::from_millis(500);

/// How old the state may be from which a question is answered: beyond it the replica may be cut off,
/// and another one is asked.
const FRESH: Duration = Duration::from_secs(1);

/// How long a replica that takes everything may keep a question beyond that.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a stream of reads is.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// Positions are of this group.
    group: Option<u64>,
    /// The client has everything up to here.
    position: u64,
    /// The link that answers, as long as it does.
    at: Option<u64>,
    /// The link that was asked last, and could not answer.
    avoid: Option<u64>,
}

impl Client {
    /// Makes a stream of reads one that takes no slot, if `link` is to a replica. Streams that a group
    /// does not run stay as they are, to be refused.
    pub(super) fn follow_at(&mut self, link: u64, key: CallKey) -> bool {
        if self.streams.is_empty() || self.links.get(link).is_none_or(|link| link.group.is_none()) {
            return false;
        }
        let Some(call) = self.calls.get_mut(key.0) else { return false };
        let follows = call.request().is_some_and(is_of_reads);
        let Some(stream) = self.streams.get_mut(&key.0).filter(|_| follows) else { return false };
        if let Work::Numbered(request) = &call.work {
            call.work = Work::Read(request.clone());
        }
        stream.follow.get_or_insert_default();
        true
    }

    /// Whether a stream takes no slot if its server turns out to be a replica.
    pub(super) fn may_follow(&self, key: CallKey) -> bool {
        self.calls.get(key.0).and_then(|call| call.request()).is_some_and(is_of_reads)
    }

    pub(super) fn follows(&self, key: CallKey) -> bool {
        !self.streams.is_empty()
            && self.streams.get(&key.0).is_some_and(|stream| stream.follow.is_some())
    }

    /// Asks for what follows. `home` has the session.
    pub(super) fn send_follow(
        &mut self,
        cx: &mut Context<'_>,
        channel: ChannelKey,
        home: u64,
        key: CallKey,
    ) {
        let group = self.links.get(home).and_then(|link| link.group);
        let Some(follow) = self.streams.get(&key.0).and_then(|stream| stream.follow.as_ref())
        else {
            return;
        };
        let Some(group) = group.filter(|group| follow.group.is_none_or(|of| of == *group)) else {
            let why = "the group is another one: its positions are others, so begin again";
            let error = self.unanswered(key, why);
            return self.finish(cx, key, Err(error));
        };
        let (reader, by_standby) = self.follower(cx, channel, (home, group), follow);
        let seen = self.channels[channel.0 as usize].seen.of(group);
        let Some(watch) = self.question(cx, key, seen) else { return self.pause(key) };
        let asks = |read, payload| ToServer::Watch { read, watch, payload };
        if !self.read_at(cx, (reader, by_standby), key, asks) {
            return;
        }
        let Some(call) = self.calls.get(key.0) else { return };
        let patience = cx.now + HOLD + PATIENCE;
        let due = call.deadline.map_or(patience, |deadline| deadline.min(patience));
        self.set_call_timer(key, Some(due));
        if let Some(follow) = self.following(key) {
            (follow.group, follow.at) = (Some(group), Some(reader));
        }
    }

    /// What is asked, if there is room for an answer.
    fn question(&self, cx: &Context<'_>, key: CallKey, seen: u64) -> Option<Watch> {
        let stream = self.streams.get(&key.0)?;
        let (follow, inbox) = (stream.follow.as_ref()?, stream.inbox.as_ref()?);
        // The first one sees everything that ended before it.
        let stale = (follow.position > 0).then_some(Staleness { seen, at_most: FRESH });
        let room = room(inbox)?.min(cx.limits.message);
        Some(Watch { stale, position: follow.position, room, hold: HOLD })
    }

    /// The reader has much to take: nothing is asked until it has.
    fn pause(&mut self, key: CallKey) {
        let Some(call) = self.calls.get_mut(key.0) else { return };
        call.state = State::Paused;
        let deadline = call.deadline;
        self.set_call_timer(key, deadline);
    }

    /// The reader has taken a message.
    pub(super) fn follow_on(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get(key.0) else { return };
        let inbox = self.streams.get(&key.0).and_then(|stream| stream.inbox.as_ref());
        if matches!(call.state, State::Paused) && inbox.and_then(room).is_some() {
            self.enqueue(cx, key);
        }
    }

    /// Messages came that follow the position of a stream.
    pub(super) fn followed(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        (read, position): (u64, u64),
        messages: Bytes,
    ) -> Result<(), &'static str> {
        let messages = Batch::decode(messages).map_err(|_| "malformed messages of a stream")?;
        let Some(call_key) = self.links.get_mut(key).and_then(|link| link.take_read(read)) else {
            return Ok(());
        };
        let Some(stream) = self.streams.get_mut(&call_key.0) else {
            return Err("messages of a stream that was not asked for");
        };
        let (Some(follow), Some(inbox)) = (stream.follow.as_mut(), stream.inbox.as_mut()) else {
            return Err("messages of a stream that was not asked for");
        };
        if position < follow.position || position == follow.position && !messages.is_empty() {
            return Err("a stream of reads went back");
        }
        (follow.position, follow.avoid) = (position, None);
        for message in messages.into_messages() {
            let largest = cx.limits.message + OVERHEAD;
            let index = inbox.received();
            inbox.arrive(index, message, largest).map_err(|broken| broken.0)?;
        }
        if inbox.has_news() {
            cx.events.push(Event::Readable(StreamKey::Call(call_key)));
        }
        if let Some(call) = self.calls.get_mut(call_key.0) {
            // It has begun: it goes on as soon as there is a replica, however long that takes.
            call.wait_for_ready = true;
            call.earlier = Earlier::MayHaveRun;
            call.state = State::Waiting;
            let channel = call.channel;
            self.channels[channel.0 as usize].waiting.push_back(call_key, &call.work);
        }
        self.after_answer(key);
        Ok(())
    }

    /// A question of a stream was refused for now: another replica is asked, if that is all.
    pub(super) fn follow_elsewhere(&mut self, link: u64, key: CallKey, outcome: &Outcome) -> bool {
        let draining = matches!(outcome, Outcome::NotExecuted(why)
            if why.reason == NotExecutedReason::Draining);
        let moves = draining && self.follows(key);
        if moves {
            self.avoid(link, key);
            self.enqueue_again(key);
        }
        moves
    }

    /// The replica at this link cannot go on with a stream.
    pub(super) fn avoid(&mut self, link: u64, key: CallKey) {
        if let Some(follow) = self.following(key) {
            (follow.at, follow.avoid) = (None, Some(link));
        }
    }

    /// The timer of a stream's call is due. Returns whether that was not its deadline.
    pub(super) fn follow_due(&mut self, cx: &mut Context<'_>, key: CallKey) -> bool {
        let Some(call) = self.calls.get(key.0) else { return false };
        let (channel, deadline) = (call.channel, call.deadline);
        if !self.follows(key) || deadline.is_some_and(|deadline| deadline <= cx.now) {
            return false;
        }
        let state = self.calls.get(key.0).map(|call| &call.state);
        if let Some(&State::Reading { link, read }) = state {
            self.cancel_read(cx, link, read);
            self.avoid(link, key);
            self.enqueue_again(key);
            self.pump(cx, channel);
        }
        // While it waits, only its deadline counts.
        let state = self.calls.get(key.0).map(|call| &call.state);
        if !matches!(state, Some(State::Reading { .. })) {
            self.set_call_timer(key, deadline);
        }
        true
    }

    fn following(&mut self, key: CallKey) -> Option<&mut Follow> {
        self.streams.get_mut(&key.0)?.follow.as_mut()
    }

    /// The link that is asked, and whether by its standby: the one that answered last, else the
    /// nearest that can, and after one that could not the next in turn.
    fn follower(
        &self,
        cx: &Context<'_>,
        channel: ChannelKey,
        (home, group): (u64, u64),
        follow: &Follow,
    ) -> (u64, bool) {
        if follow.at == Some(home) && Some(home) != follow.avoid {
            return (home, false);
        }
        let stays = |key: &u64| self.standby_of(cx.endpoint, group, *key).is_some();
        match (follow.at.filter(stays), follow.avoid) {
            (Some(at), _) => (at, true),
            (None, Some(avoid)) => self.next_reader(cx.endpoint, channel, (home, group), avoid),
            (None, None) => self.reader(cx.endpoint, channel, (home, group)),
        }
    }
}

/// What messages of an answer may count, if that is worth a question.
fn room(inbox: &Inbox) -> Option<u64> {
    let room = inbox.window().saturating_sub(inbox.held());
    (room >= inbox.window() / 2).then_some(room)
}

fn is_of_reads(request: &Request) -> bool {
    request.method.semantics() == Semantics::Read
        && request.method.shape() == Shape::ServerStreaming
        && !request.reserved
}
