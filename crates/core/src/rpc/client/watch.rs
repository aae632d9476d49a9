//! What is due on a link: a connection that has gone silent, a session that may be another's.

use alloc::vec::Vec;

use super::Client;
use super::replicas::SILENT_PROBES;
use crate::rpc::context::Context;
use crate::rpc::event::CallKey;
use crate::rpc::message::ToServer;
use crate::service::text;
use crate::time::{Duration, Instant};

/// How often a connection on which calls are in flight is asked whether it has the session still.
const CONFIRM_EVERY: Duration = Duration::from_secs(2);

impl Client {
    /// Looks at what is due on a link.
    pub(super) fn link_due(&mut self, cx: &mut Context<'_>, key: u64) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        let Some(link) = self.links.get_mut(key) else { return };
        let gives_up = link.attempt.as_ref().map(|attempt| attempt.gives_up_at);
        let (retry, check, linger) =
            (due(link.retry_at), due(link.check_at), due(link.linger_until));
        let (release, expired) = (due(link.release_at), due(gives_up));
        let yields = due(link.attempt.as_ref().and_then(|attempt| attempt.yields_at));
        let (greet, again) = (due(link.greet_at), due(link.again_at));
        let leave = due(link.leave_at);
        if greet {
            self.greet_again(cx, key);
        }
        if again {
            self.send_again(cx, key);
        }
        let Some(link) = self.links.get_mut(key) else { return };
        if release {
            link.release_at = None;
            self.release(cx, key);
            self.leave_drained(cx, key);
        }
        if expired && !self.ask_another(cx, key) {
            self.fail_attempt(cx, key, "no answer in time".into());
        }
        if yields && !expired {
            self.yield_turn(cx, key);
        }
        if check {
            self.check_silence(cx, key);
            self.leave_drained(cx, key);
        }
        if retry {
            self.retry(cx, key);
        }
        if linger {
            self.dismiss_if_done(cx, key);
        }
        if leave {
            self.leave_second(cx, key);
        }
        self.set_link_timer(key);
    }

    /// If the connection that unsettled calls depend on has gone silent, begins another one beside
    /// it: whichever answers first settles them. This schedule is its own, so that a long outage does
    /// not leave both sides deep in their back-off.
    fn check_silence(&mut self, cx: &mut Context<'_>, key: u64) {
        self.silence_checked(cx, key);
        self.leave_silent_standby(cx, key);
        if self.leave_if_useless(cx, key) {
            return;
        }
        self.confirm_session(cx, key);
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(connection) =
            link.live.as_ref().and_then(|live| cx.endpoint.connection(live.handle))
        else {
            return;
        };
        // The least seen, since the last one may be that of a queue or a fault which has gone.
        let least = connection.stats().min_rtt;
        link.rtt = Some(least).filter(|rtt| !rtt.is_zero()).or(link.rtt);
        if connection.stats().probe_timeouts_in_a_row < SILENT_PROBES {
            if link.attempt.is_none() {
                link.silent_since = None;
            }
            // Calls may wait for this, if every other server is shunned too.
            if core::mem::take(&mut link.suspect) {
                let channel = link.channel;
                self.pump(cx, channel);
            }
            return;
        }
        link.suspect = true;
        let channel = link.channel;
        if link.attempt.is_none() && link.retry_at.is_none() {
            self.start_attempt(cx, key);
        }
        self.seek_other(cx, channel);
    }

    /// If calls have been in flight for a while, makes sure that the session is still this
    /// connection's: when two attempts crossed, the server may have given it to the other one last,
    /// and replies go there. A server refuses whatever comes on a connection that lost its session,
    /// also an empty RETURN_SLOTS.
    fn confirm_session(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let in_flight = link.session.as_ref().is_some_and(|session| session.slots.in_flight() > 0);
        if !in_flight || link.live.is_none() {
            link.confirmed_at = cx.now;
            return;
        }
        if cx.now.since(link.confirmed_at) < CONFIRM_EVERY {
            return;
        }
        link.confirmed_at = cx.now;
        if let Some(live) = link.live.as_mut() {
            let question = ToServer::ReturnSlots(Vec::new());
            let question = question.encode(cx.buffer);
            live.outgoing.send(cx, live.handle, question, u64::MAX);
        }
    }

    /// A server that has been silent for too long leaves calls without a deadline pending.
    pub(super) fn settle_unreachable(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get(key) else { return };
        let patience = self.channels[link.channel.0 as usize].config.unreachable_after;
        let Some(since) = link.silent_since else { return };
        if cx.now.since(since) < patience {
            return;
        }
        let address = link.address;
        let Some(session) = link.session.as_ref() else { return };
        let calls: Vec<CallKey> =
            session.occupants.iter().filter_map(|occupant| occupant.call).collect();
        for call in calls {
            let open_ended = self.calls.get(call.0).is_some_and(|call| call.deadline.is_none());
            if open_ended {
                let why = text(format_args!("{address} has not answered for {patience:?}"));
                self.end_unsettled(cx, call, why);
            }
        }
    }
}
