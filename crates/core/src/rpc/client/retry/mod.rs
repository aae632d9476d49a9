//! Calls that are made again after they failed: gRFC A6, as far as it is proved to be safe.
//!
//! A call is made again under a new number, at any server, if every attempt before it was not executed.
//! One that was executed with a status that the policy names is made again if it is a read; if it is
//! idempotent, at the server that executed it, and elsewhere only where the settings say so. The pause
//! in between is no state of its own: the call waits, but in no queue.

mod hedge;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;

use self::hedge::Hedge;
use super::Client;
use super::call::{ClientCall, Earlier, State, Work};
use super::timers::Timer;
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelKey};
use crate::rpc::policy::RetryPolicy;
use crate::service::{CallError, IncomingReply, Method, Outcome, Semantics, Shape, Status};
use crate::session::NotExecutedReason;
use crate::time::{Duration, Instant};

/// By this key a server says when to come back: milliseconds, or something else for never.
const PUSH_BACK: &str = "grpc-retry-pushback-ms";

/// By this key a client says how often it has tried before.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// Calls that were or may be sent more than once, by the key of the call.
///
/// Bound: one for each call in flight.
#[derive(Debug, Default)]
pub(super) struct Retries {
    calls: BTreeMap<u64, Retry>,
    due: BTreeSet<(Instant, u64)>,
}

#[derive(Debug, Default)]
struct Retry {
    /// Attempts that were made.
    attempts: u32,
    /// Attempts since the server said last when to come back: the pauses begin anew then.
    since_push_back: u32,
    /// How the last attempt that was executed ended.
    last: Option<CallError>,
    /// When the next attempt is made.
    at: Option<Instant>,
    /// The only server that may have it.
    bound: Option<u64>,
    hedge: Option<Hedge>,
}

/// Where a call may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Anywhere,
    There,
    Nowhere,
}

impl Retries {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What the last attempt of a call ended with that was executed.
    pub(super) fn last_status(&self, key: CallKey) -> Option<Status> {
        self.calls.get(&key.0)?.last.as_ref()?.status().cloned()
    }

    fn set_due(&mut self, key: CallKey, at: Option<Instant>) {
        let Some(retry) = self.calls.get_mut(&key.0) else { return };
        if let Some(before) = core::mem::replace(&mut retry.at, at) {
            self.due.remove(&(before, key.0));
        }
        if let Some(at) = at {
            self.due.insert((at, key.0));
        }
    }

    fn remove(&mut self, key: CallKey) -> Option<Retry> {
        self.set_due(key, None);
        self.calls.remove(&key.0)
    }
}

impl Client {
    /// An attempt at this server ended so. Returns whether another one follows.
    pub(super) fn try_again(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        link: u64,
        outcome: &Outcome,
    ) -> bool {
        let Some((channel, there, policy)) = self.may_retry(key, outcome) else { return false };
        let error = self.calls.get(key.0).map(|call| call.error(outcome.clone()));
        let alone = self.channels[channel.0 as usize].links.len() < 2;
        let push_back = PushBack::of(outcome, alone);
        self.count_failure(channel);
        let attempts = self.retries.calls.get(&key.0).map_or(1, |retry| retry.attempts);
        if attempts >= policy.max_attempts || push_back == PushBack::Never {
            return false;
        }
        let since = self.retries.calls.get(&key.0).map_or(1, |retry| retry.since_push_back + 1);
        let pause = match push_back {
            PushBack::After(pause) => pause,
            _ => drawn(cx, policy.pause(since)),
        };
        let at = cx.now + pause;
        let Some(call) = self.calls.get(key.0) else { return false };
        let refused = matches!(outcome, Outcome::NotExecuted(why) if why.retry_after().is_some());
        if call.deadline.is_some_and(|deadline| deadline <= at || refused && is_late(call, at)) {
            return false;
        }
        let state = &mut self.channels[channel.0 as usize];
        if !state.tokens.allow() {
            state.counters.throttled += 1;
            return false;
        }
        state.counters.retries += 1;
        let address = self.links.get_mut(link).map(|link| {
            link.share.retries += 1;
            link.address
        });
        let retry = self.retries.calls.entry(key.0).or_default();
        retry.attempts = attempts + 1;
        retry.since_push_back = if push_back == PushBack::Silent { since } else { 0 };
        retry.bound = (there == Where::There).then_some(link);
        if matches!(outcome, Outcome::Executed(_)) {
            retry.last = error.map(|error| error.at(address));
        }
        self.retries.set_due(key, Some(at));
        self.begin_again(key);
        if let Some(call) = self.calls.get_mut(key.0) {
            call.state = State::Waiting;
            if matches!(outcome, Outcome::Executed(_)) {
                call.earlier = Earlier::MayHaveRun;
            }
            note_attempts(call, attempts);
        }
        true
    }

    /// Whether and where the semantics of a call that ended so allow another attempt.
    fn may_retry(
        &self,
        key: CallKey,
        outcome: &Outcome,
    ) -> Option<(ChannelKey, Where, RetryPolicy)> {
        let call = self.calls.get(key.0)?;
        let request = call.request()?;
        let channel = &self.channels[call.channel.0 as usize];
        let numbered = matches!(call.work, Work::Numbered(_));
        let told = numbered && channel.config.journal.is_some();
        let hedged = self.retries.calls.get(&key.0).is_some_and(|retry| retry.hedge.is_some());
        if channel.closed
            || request.reserved
            || told
            || hedged
            || !self.may_begin_again(key)
            || request.method.shape() != Shape::Unary && matches!(outcome, Outcome::Executed(_))
        {
            return None;
        }
        let policy = channel.policies.retry(&channel.config.service, &request.method)?;
        let elsewhere = self.may_cross(call.channel, &request.method);
        let safe = call.earlier == Earlier::CannotHaveRun;
        let there = match (outcome, request.method.semantics()) {
            (Outcome::NotExecuted(why), _)
                if why.reason == NotExecutedReason::Draining && channel.links.len() < 2 =>
            {
                Where::Nowhere
            }
            (Outcome::NotExecuted(why), semantics) if may_pass(why.reason) => match semantics {
                Semantics::Read => Where::Anywhere,
                Semantics::Idempotent if !safe && !elsewhere => Where::There,
                _ if safe || elsewhere => Where::Anywhere,
                _ => Where::Nowhere,
            },
            (Outcome::Executed(status), Semantics::Read) => listed(policy, status, Where::Anywhere),
            (Outcome::Executed(status), Semantics::Idempotent) => {
                listed(policy, status, if elsewhere { Where::Anywhere } else { Where::There })
            }
            _ => Where::Nowhere,
        };
        (there != Where::Nowhere).then(|| (call.channel, there, policy.clone()))
    }

    /// Whether an idempotent call of this method may run again at another server.
    pub(super) fn may_cross(&self, channel: ChannelKey, method: &Method) -> bool {
        let channel = &self.channels[channel.0 as usize];
        method.semantics() == Semantics::Idempotent
            && channel
                .policies
                .of(&channel.config.service, method)
                .is_some_and(|method| method.idempotent_elsewhere)
    }

    /// A call failed by what a policy names: takes a token, after those that successes have brought
    /// since the last time. They are told from the answers that have come.
    fn count_failure(&mut self, channel: ChannelKey) {
        let mut answers = 0_u64;
        for link in self.channels[channel.0 as usize].all_links() {
            if let Some(link) = self.links.get_mut(link) {
                let all = link.answers();
                answers += all.saturating_sub(link.share.counted);
                link.share.counted = all;
            }
        }
        let tokens = &mut self.channels[channel.0 as usize].tokens;
        tokens.succeeded(answers.saturating_sub(1));
        tokens.failed();
    }

    /// Makes the attempts that are due.
    pub(super) fn retries_due(&mut self, cx: &mut Context<'_>) {
        while let Some((at, key)) =
            self.retries.due.first().copied().filter(|(at, _)| *at <= cx.now)
        {
            debug_assert!(at <= cx.now);
            let key = CallKey(key);
            self.retries.set_due(key, None);
            let retry = self.retries.calls.get(&key.0);
            match retry.map(|retry| (retry.hedge.is_some(), retry.bound)) {
                Some((true, _)) => self.hedge_due(cx, key),
                Some((false, Some(link))) => self.retry_there(cx, key, link),
                Some((false, None)) => self.enqueue(cx, key),
                None => {}
            }
        }
    }

    /// Makes a call again at the server that executed it, as soon as that is ready.
    fn retry_there(&mut self, cx: &mut Context<'_>, key: CallKey, link: u64) {
        let ready = |link: &&mut super::link::Link| link.is_ready() && !link.is_draining();
        let session = self.links.get_mut(link).filter(ready).and_then(|l| l.session.as_mut());
        if let Some(id) = session.and_then(|session| session.slots.reserve()) {
            self.occupy(cx, link, key, id);
            return self.after_sending(cx, link);
        }
        if self.may_hold(link) {
            return self.hold(cx, key, link);
        }
        let Some(call) = self.calls.get(key.0) else { return };
        let why = "its server was not ready to run it again";
        let error = call.not_executed(NotExecutedReason::NeverSent, why);
        self.finish(cx, key, Err(error));
    }

    /// The call ends. What is to be said of it, if an attempt before the last one was executed and
    /// nothing better is known of the last one; and its copies go.
    pub(super) fn end_retries(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
        result: Result<IncomingReply, CallError>,
    ) -> Result<IncomingReply, CallError> {
        let Some(last) = self.forget_retries(cx, key) else { return result };
        match result {
            Err(error)
                if !matches!(error.outcome(), Outcome::Executed(_) | Outcome::Pending(_)) =>
            {
                Err(last)
            }
            result => result,
        }
    }

    /// Nobody waits for the call any more.
    pub(super) fn forget_retries(
        &mut self,
        cx: &mut Context<'_>,
        key: CallKey,
    ) -> Option<CallError> {
        let retry = self.retries.remove(key)?;
        if let Some(hedge) = retry.hedge {
            self.cancel_copies(cx, key, hedge);
        }
        retry.last
    }

    /// When something is due next.
    pub(super) fn first_timer(&mut self) -> Option<(Instant, Timer)> {
        let timer = self.timers.first(&self.calls);
        match (timer, self.retries.next_timeout()) {
            (Some((at, _)), Some(retry)) if retry < at => Some((retry, Timer::Retries)),
            (None, Some(retry)) => Some((retry, Timer::Retries)),
            (timer, _) => timer,
        }
    }
}

/// What a server says about coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PushBack {
    Silent,
    After(Duration),
    Never,
}

impl PushBack {
    /// `alone`: the call can only go to the same server again, so that what is said of it counts.
    fn of(outcome: &Outcome, alone: bool) -> Self {
        let status = match outcome {
            Outcome::Executed(status) => status,
            Outcome::NotExecuted(why) if alone => {
                return why.retry_after().map_or(Self::Silent, Self::After);
            }
            _ => return Self::Silent,
        };
        if status.metadata().get(PUSH_BACK).is_none() {
            return Self::Silent;
        }
        let after = status.metadata().get_str(PUSH_BACK).and_then(|text| text.parse::<u32>().ok());
        after.map_or(Self::Never, |ms| Self::After(Duration::from_millis(u64::from(ms))))
    }
}

/// Within 20 percent of a pause (gRFC A6).
fn drawn(cx: &mut Context<'_>, pause: Duration) -> Duration {
    let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX) / 5;
    let least = Duration::from_nanos(nanos.saturating_mul(4));
    least + Duration::from_nanos(cx.random.below(nanos.saturating_mul(2).max(1)))
}

/// Whether a call that begins anew then has spent more than three quarters of its time: a server that is
/// overloaded would only do its work for nothing.
fn is_late(call: &ClientCall, at: Instant) -> bool {
    let spent = at.since(call.began);
    call.deadline.is_some_and(|deadline| spent > deadline.since(at) * 3)
}

/// Whether a server that did not execute a call for this reason may do so later, or another one now.
fn may_pass(reason: NotExecutedReason) -> bool {
    matches!(reason, NotExecutedReason::Overloaded | NotExecutedReason::Draining)
}

fn listed(policy: &RetryPolicy, status: &Status, place: Where) -> Where {
    if policy.codes.contains(status.code()) { place } else { Where::Nowhere }
}

/// Tells the server how many attempts there were before. Metadata that is full goes without.
fn note_attempts(call: &mut ClientCall, attempts: u32) {
    if let Work::Numbered(request) | Work::Read(request) = &mut call.work {
        let _ = request.metadata.set(PREVIOUS_ATTEMPTS, attempts.to_string());
    }
}

/// What the copies of a read are, for [`hedge`].
type Copies = Vec<(u64, u64)>;
