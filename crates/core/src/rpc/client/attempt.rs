//! Connection attempts: how one begins, what it costs to fail, and when it is made again.

use alloc::borrow::Cow;

use super::Client;
use super::link::Attempt;
use crate::rpc::context::{Context, close_code};
use crate::service::{Outcome, text};
use crate::time::Duration;

/// Round trips that an attempt may take at least, on a path whose round-trip time is known.
const ATTEMPT_ROUND_TRIPS: u32 = 8;

/// How long an attempt may take on a path whose round-trip time is known, if that is short.
const REATTEMPT: Duration = Duration::from_secs(1);

/// How long an attempt is alone before the next server gets its chance too: the Connection Attempt
/// Delay of RFC 8305 §5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The same where a session is sought that one of the servers has: calls may be under way in it.
const SEEK_DELAY: Duration = Duration::from_millis(25);

impl Client {
    pub(super) fn start_attempt(&mut self, cx: &mut Context<'_>, key: u64) {
        if self.promote(cx, key) {
            return;
        }
        let steer = self.steer(cx, key);
        let seeks = self.seeker_beside(key).is_some();
        let Some(link) = self.links.get_mut(key) else { return };
        debug_assert!(link.attempt.is_none(), "one attempt at a time");
        link.retry_at = None;
        link.silent_since.get_or_insert(cx.now);
        let channel = &self.channels[link.channel.0 as usize];
        let config = &channel.config;
        let spreads = link.share.spread;
        let alone = channel.links.len() < 2 || link.session.is_some() || spreads;
        // A session that is sought is asked for at one target after the other: at first for a moment
        // each, since the first one may be dead, then again, and each time with more patience. With all of
        // it at once, who has many targets and was cut off would come to the one that is there too late.
        let sought = link.session.as_ref().and_then(|session| session.sought.as_ref());
        let hurried = channel.links.len() > 1 && sought.is_some();
        let yields_at = match sought.is_some() || seeks {
            true => (channel.links.len() > 1).then_some(cx.now + SEEK_DELAY),
            false => (!alone).then_some(cx.now + ATTEMPT_DELAY),
        };
        let (name, tls) = (&config.server_name, &config.tls);
        let rtt = link.rtt.or(config.expected_rtt);
        match cx.endpoint.connect(cx.now, link.address, name, tls, rtt, steer) {
            Ok(handle) => {
                let patience = match link.rtt {
                    // The attempt's own back-off may have grown while the server was away: begin
                    // anew soon at first, later once a second.
                    Some(rtt) => (link.backoff * 4).min(REATTEMPT).max(rtt * ATTEMPT_ROUND_TRIPS),
                    None => config.attempt_timeout,
                };
                let moment = ATTEMPT_DELAY.max(link.backoff * 4);
                let gives_up_at = cx.now + if hurried { patience.min(moment) } else { patience };
                link.attempt = Some(Attempt { handle, gives_up_at, yields_at, greeted: None });
                self.by_handle.insert(handle, key);
                self.set_link_timer(key);
            }
            Err(error) => self.attempt_failed(cx, key, text(format_args!("{error}"))),
        }
    }

    /// The byte by which a link's connections all reach the same worker of its server: the one that
    /// knows its session, or that an opening was sent to. Links to one server take bytes in a row,
    /// so that they spread evenly over its workers however many it has.
    fn steer(&mut self, cx: &mut Context<'_>, key: u64) -> Option<u8> {
        let link = self.links.get(key)?;
        if let Some(steer) = link.steer {
            return Some(steer);
        }
        let address = link.address;
        let mut taken = [0_u32; 256];
        for (_, link) in self.links.iter().filter(|(_, link)| link.address == address) {
            if let Some(steer) = link.steer {
                taken[usize::from(steer)] += 1;
            }
        }
        let first = *self.steer_from.get_or_insert_with(|| cx.random.bytes::<1>()[0]);
        let bytes = (0..=u8::MAX).map(|step| first.wrapping_add(step));
        let steer = bytes.min_by_key(|byte| taken[usize::from(*byte)]);
        self.links.get_mut(key)?.steer = steer;
        steer
    }

    /// Gives the attempt up: its connection is closed.
    pub(super) fn fail_attempt(&mut self, cx: &mut Context<'_>, key: u64, why: Cow<'static, str>) {
        let Some(link) = self.links.get_mut(key) else { return };
        if let Some(attempt) = link.attempt.take() {
            self.by_handle.remove(&attempt.handle);
            cx.close(attempt.handle, close_code::DONE, "");
        }
        self.attempt_failed(cx, key, why);
    }

    /// An attempt has failed: the channel moves on to its next server; this one is tried again later
    /// if it is needed.
    pub(super) fn attempt_failed(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        why: Cow<'static, str>,
    ) {
        if !self.fail_over(cx, key) {
            self.pass_session_on(cx, key);
        }
        let Some(link) = self.links.get_mut(key) else { return };
        let (channel_key, address) = (link.channel, link.address);
        link.last_error = why;
        let config = &self.channels[channel_key.0 as usize].config;
        let pause = cx.random.jitter(link.backoff);
        link.backoff = (link.backoff * 2).min(config.backoff_max);
        link.retry_at = Some(cx.now + pause);
        let reason = text(format_args!("{address}: {}", link.last_error));
        for question in self.questions_for(key) {
            if let Some(call) = self.calls.get(question.0)
                && let Some(id) = call.id()
            {
                let error = call.error(Outcome::Pending(id)).because(reason.clone());
                self.finish_question(cx, question, Err(error));
            }
        }
        self.fail_held(cx, key, reason.clone());
        self.move_on(cx, channel_key, key, reason);
        self.settle_unreachable(cx, key);
        self.set_link_timer(key);
    }

    pub(super) fn retry(&mut self, cx: &mut Context<'_>, key: u64) {
        let asked = !self.questions_for(key).is_empty() || self.wants_standby(key);
        let asked = asked || self.keeps_connected(key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.retry_at = None;
        let channel = &self.channels[link.channel.0 as usize];
        let is_current = channel.links.get(channel.current) == Some(&key);
        let wanted = asked
            || link.has_unsettled()
            || !link.held.is_empty()
            || (is_current && channel.wants_server());
        let idle = link.attempt.is_none() && (link.standby.is_none() || link.session.is_some());
        if wanted && idle && (link.live.is_none() || link.silent_since.is_some()) {
            self.start_attempt(cx, key);
        }
    }
}
