//! Acknowledgements, losses, probe timeouts, and the timers of a connection (RFC 9002).

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::super::loss::Settled;
use super::super::message::SentFrame;
use super::super::probe::ProbeTimeout;
use super::super::record::{Event, Metrics};
use super::super::rtt::MAX_ACK_DELAY_CREDIT;
use super::super::timers::Timer;
use super::keys::Opened;
use super::space::{Contents, Control};
use super::{Connection, ConnectionError, Space, TransportError};
use crate::time::{Duration, Instant, earliest};
use crate::wire::frame::Ack;

/// Record buffers kept for reuse, so that steady sending allocates none.
const SPARE_RECORDS: usize = 256;

/// Recovery state that is not of one space or path.
pub(super) struct Recovery {
    pub(super) probe: ProbeTimeout,
    /// The space that the probes due go out in.
    pub(super) probe_space: Space,
    /// The endpoint's, while it lets this connection work.
    scratch: Option<Box<Scratch>>,
    /// Nothing came since the last ack-eliciting packet: sending one more does not postpone the idle
    /// timeout (RFC 9000 §10.1).
    pub(super) sent_since_received: bool,
    pub(super) key_update_wanted: bool,
    /// When the last packet of any kind was sent.
    pub(super) last_sent: Instant,
    /// When the last authentic packet came; before any, when the connection began.
    pub(super) last_received: Instant,
    /// When the probe timeout last expired. The next one counts from here if its probes could not be
    /// sent at once.
    last_expired: Instant,
    /// The last batch left nothing behind.
    pub(super) sent_all: bool,
    /// Sending stopped for want of data, not of window.
    pub(super) app_limited: bool,
}

impl Recovery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            probe: ProbeTimeout::new(),
            probe_space: Space::Initial,
            scratch: None,
            sent_since_received: false,
            key_update_wanted: false,
            last_sent: now,
            last_received: now,
            last_expired: Instant::ZERO,
            sent_all: false,
            app_limited: true,
        }
    }

    /// An empty record for what a packet carries.
    pub(super) fn record(&mut self) -> Vec<SentFrame> {
        self.scratch.as_mut().and_then(|scratch| scratch.records.pop()).unwrap_or_default()
    }

    /// Takes a record back.
    pub(super) fn reuse(&mut self, mut record: Vec<SentFrame>) {
        if let Some(scratch) = &mut self.scratch
            && record.capacity() > 0
            && scratch.records.len() < SPARE_RECORDS
        {
            record.clear();
            scratch.records.push(record);
        }
    }

    fn take_settled(&mut self) -> Box<Settled<Contents>> {
        self.scratch.as_mut().and_then(|scratch| scratch.settled.take()).unwrap_or_default()
    }

    fn put_settled(&mut self, settled: Box<Settled<Contents>>) {
        if let Some(scratch) = &mut self.scratch {
            scratch.settled = Some(settled);
        }
    }
}

/// Memory that connections work with and leave empty. The endpoint lends it to the one that works, so
/// that all use the same, which is in the caches; without it a connection takes and frees its own.
#[derive(Default)]
pub(in super::super) struct Scratch {
    settled: Option<Box<Settled<Contents>>>,
    records: Vec<Vec<SentFrame>>,
}

impl Connection {
    /// Lends it memory to work with, until it is [taken back](Self::take_back).
    #[inline]
    pub(in super::super) fn lend(&mut self, scratch: &mut Option<Box<Scratch>>) {
        self.recovery.scratch = scratch.take();
    }

    /// Takes the memory back that was lent.
    #[inline]
    pub(in super::super) fn take_back(&mut self, scratch: &mut Option<Box<Scratch>>) {
        *scratch = self.recovery.scratch.take();
    }

    /// Takes in an ACK frame of a packet that opened `with` a key phase.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        space: Space,
        ack: &Ack<'_>,
        with: Opened,
    ) -> Result<(), TransportError> {
        let delay = match (space, Duration::from_micros(ack.delay)) {
            // The same acknowledgement as before, which was lost, again: it came when the peer's timeout
            // had passed, and says nothing of the path. As the first sample it
            // would make our timeout three times as long.
            (Space::Initial | Space::Handshake, delay)
                if delay > MAX_ACK_DELAY_CREDIT && self.path.rtt.samples() == 0 =>
            {
                None
            }
            // RFC 9002 §5.3: otherwise the delay in Initial packets says nothing.
            (Space::Initial, _) => Some(Duration::ZERO),
            (_, delay) => Some(delay),
        };
        let mut settled = self.recovery.take_settled();
        let taken = self.spaces[space.index()].sent.on_ack(
            now,
            ack.ranges(),
            delay,
            &mut self.path.rtt,
            &mut settled,
        );
        if taken.is_err() {
            return Err(TransportError::violation("acknowledged a packet never sent"));
        }
        if space == Space::Data
            && let Some(keys) = &mut self.data_keys
        {
            keys.on_ack(ack.largest, with)?;
        }
        let report = self.spaces[space.index()].sent.check_ecn(&settled, ack.ecn);
        let congested = self.path.ecn.on_report(report);
        if space == Space::Handshake {
            self.handshake.on_handshake_acked();
        }
        // A client that the server has not yet proven its address for keeps backing off.
        if settled.is_progress()
            && (self.side.is_server() || self.handshake.server_has_our_address())
        {
            self.recovery.probe.on_acked();
        }
        self.settle(now, space, &mut settled, congested);
        self.recovery.put_settled(settled);
        self.set_recovery_timer();
        self.record_metrics(now);
        Ok(())
    }

    /// Tells who records the connection how the path is.
    fn record_metrics(&mut self, now: Instant) {
        let Some(record) = &mut self.record else { return };
        let rtt = &self.path.rtt;
        let metrics = Metrics {
            min_rtt: rtt.min(),
            smoothed_rtt: rtt.smoothed(),
            latest_rtt: rtt.latest(),
            rtt_variance: rtt.variance(),
            window: self.path.congestion.window(),
            in_flight: self.spaces.bytes_in_flight(),
            probe_timeouts: self.recovery.probe.backoff(),
        };
        record.take(now, Event::Metrics(metrics));
    }

    /// Acts on what was acknowledged and lost.
    fn settle(
        &mut self,
        now: Instant,
        space: Space,
        settled: &mut Settled<Contents>,
        congested: bool,
    ) {
        let in_flight = self.bytes_in_flight();
        self.path.on_settled(now, settled, congested, self.recovery.app_limited, in_flight);
        for (number, packet) in settled.acked.drain(..) {
            if space == Space::Data {
                self.path.on_size_acked(number, &packet);
            }
            self.on_packet_acked(space, packet.contents);
        }
        let mut marked_lost = 0;
        for (number, packet) in settled.lost.drain(..) {
            self.counters.packets_lost += u64::from(!packet.mtu_probe);
            marked_lost += u64::from(packet.marked);
            if let Some(record) = &mut self.record {
                let mtu_probe = packet.mtu_probe;
                record.take(now, Event::Lost { space, number, mtu_probe });
            }
            if space == Space::Data {
                self.path.on_size_lost(now, number, &packet);
            }
            self.resend(space, packet.contents);
        }
        if marked_lost > 0 {
            self.path.ecn.on_lost(marked_lost);
        }
        self.tell_outbox_events();
    }

    fn on_packet_acked(&mut self, space: Space, contents: Contents) {
        let s = &mut self.spaces[space.index()];
        if let Some(ack) = contents.ack {
            s.received.on_ack_acked(ack);
        }
        for control in contents.control {
            match control {
                Control::Crypto(range) => self.spaces[space.index()].crypto_out.on_acked(range),
                Control::HandshakeDone
                | Control::NewConnectionId(_)
                | Control::RetireConnectionId(_) => {}
            }
        }
        for frame in &contents.messages {
            self.outbox.on_acked(frame);
        }
        self.recovery.reuse(contents.messages);
    }

    /// Queues again what a lost packet carried. It goes out in a packet with a number of its own
    /// (RFC 9000 §12.3).
    fn resend(&mut self, space: Space, contents: Contents) {
        if contents.must_arrive() {
            self.counters.packets_resent += 1;
        }
        for control in contents.control {
            match control {
                Control::Crypto(range) => self.spaces[space.index()].crypto_out.on_lost(range),
                Control::HandshakeDone => self.handshake.done_due = true,
                Control::NewConnectionId(sequence) => self.migration.announce_again(sequence),
                Control::RetireConnectionId(sequence) => self.remote_ids.retire_again(sequence),
            }
        }
        for frame in &contents.messages {
            self.outbox.on_lost(frame);
            self.inbox.on_lost(frame);
        }
        self.recovery.reuse(contents.messages);
    }

    /// A space's keys are gone: what it had in flight is neither acknowledged nor lost
    /// (RFC 9002 §6.4).
    pub(super) fn abandon_space(&mut self, space: Space) {
        let given_up = self.space(space).sent.abandon(|_| true);
        for (_, packet) in given_up {
            self.recovery.reuse(packet.contents.messages);
        }
        self.recovery.probe.on_acked();
        self.set_recovery_timer();
    }

    /// Sets the timer for losses by time, else for the probe timeout (RFC 9002 §A.8).
    pub(super) fn set_recovery_timer(&mut self) {
        if !self.state.is_open() {
            return;
        }
        let at = self.spaces.loss_time().or_else(|| self.probe_deadline().map(|(at, _)| at));
        self.timers.set_or_stop(Timer::LossDetection, at);
    }

    /// When the probe timeout expires, and in which space.
    fn probe_deadline(&self) -> Option<(Instant, Space)> {
        // RFC 9002 §6.2.2.1: who may not send until more has come does not wait for a timeout.
        if self.may_not_send() {
            return None;
        }
        if self.spaces.is_data_only() && self.handshake.is_confirmed() {
            let sent = &self.spaces[Space::Data.index()].sent;
            let last = sent.last_eliciting_sent().filter(|_| sent.has_eliciting())?;
            let last = last.max(self.recovery.last_expired);
            return Some((self.recovery.probe.deadline(&self.path.rtt, last), Space::Data));
        }
        let mut first = None;
        for space in Space::ALL {
            let s = &self.spaces[space.index()];
            if !s.sent.has_eliciting() || (space == Space::Data && !self.data_probes_allowed()) {
                continue;
            }
            let Some(last) = s.sent.last_eliciting_sent() else { continue };
            let last = last.max(self.recovery.last_expired);
            let at = self.recovery.probe.deadline(&self.path.rtt, last);
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, space));
            }
        }
        if first.is_none() && !self.handshake.server_has_our_address() && self.side.is_client() {
            // RFC 9002 §6.2.2.1: a server that may not send more must be helped out.
            let space = match self.spaces[Space::Handshake.index()].keys {
                Some(_) => Space::Handshake,
                None => Space::Initial,
            };
            let last = self.recovery.last_sent.max(self.recovery.last_expired);
            let at = self.recovery.probe.deadline(&self.path.rtt, last);
            return Some((at, space));
        }
        first
    }

    /// RFC 9002 §6.2.1 keeps 1-RTT probes until the handshake is confirmed; once the server holds
    /// the whole handshake nothing else would bring about the confirmation, so then too.
    fn data_probes_allowed(&self) -> bool {
        self.handshake.is_confirmed()
            || (self.handshake.is_complete()
                && !self.spaces[Space::Handshake.index()].sent.has_eliciting())
    }

    fn on_recovery_timer(&mut self, now: Instant) {
        let overdue = Space::ALL
            .into_iter()
            .find(|space| self.spaces[space.index()].sent.loss_time().is_some_and(|at| at <= now));
        if let Some(space) = overdue {
            let mut settled = self.recovery.take_settled();
            self.spaces[space.index()].sent.detect_lost(now, &self.path.rtt, &mut settled);
            self.settle(now, space, &mut settled, false);
            self.recovery.put_settled(settled);
        } else if let Some((at, space)) = self.probe_deadline()
            && at <= now
        {
            self.counters.probe_timeouts += 1;
            self.recovery.last_expired = now;
            self.recovery.probe.on_expired();
            self.begin_probes(space);
        }
        self.set_recovery_timer();
        self.record_metrics(now);
    }

    /// Probes carry again what has waited longest for its acknowledgement (RFC 9002 §6.2.4).
    fn begin_probes(&mut self, space: Space) {
        // Handshake bytes of an earlier space that the window holds back go first: without them the
        // peer cannot even read what this space has in flight.
        let held_back = Space::ALL.into_iter().find(|earlier| {
            let s = &self.spaces[earlier.index()];
            *earlier < space && s.keys.is_some() && s.crypto_out.wants_to_send()
        });
        let space = held_back.unwrap_or(space);
        self.recovery.probe_space = space;
        let mut wanted = usize::from(self.recovery.probe.due());
        while wanted > 0 {
            let s = &mut self.spaces[space.index()];
            let oldest = s.sent.outstanding_contents().find(|contents| contents.must_arrive());
            let Some(oldest) = oldest else { break };
            let again = Contents {
                messages: core::mem::take(&mut oldest.messages),
                control: core::mem::take(&mut oldest.control),
                ..Contents::default()
            };
            self.resend(space, again);
            wanted -= 1;
        }
    }

    /// Somebody waits, or the path shows life: probe now rather than at the end of a back-off.
    pub(super) fn probe_early(&mut self, now: Instant) {
        // Without a back-off there is nothing to bring forward.
        if self.recovery.probe.backoff() == 0
            || !self.state.is_open()
            || !self.spaces.iter().any(|s| s.sent.has_eliciting())
        {
            return;
        }
        if self.recovery.probe.prompt(now, &self.path.rtt) {
            let space = match self.probe_deadline() {
                Some((_, space)) => space,
                None => return,
            };
            self.begin_probes(space);
        }
    }

    /// An answer is awaited, and silence has lasted: what is in flight is sent again. One round-trip
    /// time of many seconds, seen when a peer stood still, would make the timeout last longer than
    /// anybody waits.
    fn probe_silence(&mut self, now: Instant) {
        if self.state.is_open()
            && self.spaces.iter().any(|s| s.sent.has_eliciting())
            && let Some((_, space)) = self.probe_deadline()
        {
            self.recovery.probe.insist(now);
            self.begin_probes(space);
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is to be called next.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.state, super::State::Drained) {
            return None;
        }
        earliest(self.timers.next(), self.state.ends_at())
    }

    /// Lets the timers that are due fire.
    pub(in super::super) fn on_timeout(&mut self, now: Instant) {
        if self.state.ends_at().is_some_and(|at| at <= now) {
            self.state = super::State::Drained;
            return;
        }
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::LossDetection => self.on_recovery_timer(now),
                Timer::Pacing => {}
                Timer::Handshake | Timer::Idle => self.vanish(now, ConnectionError::IdleTimeout),
                Timer::KeepAlive => {
                    self.space(Space::Data).ping = true;
                    if self.awaits_answer && self.answer_probe == ANSWER_PROBE_MAX {
                        self.probe_silence(now);
                    }
                    self.answer_probe = (self.answer_probe * 2).min(ANSWER_PROBE_MAX);
                    self.reset_keepalive(now);
                }
                Timer::Close => {}
                Timer::Rest => self.on_rest_timer(now),
                Timer::PathValidation => self.on_path_timer(now),
                Timer::KeyDiscard => {
                    if let Some(keys) = &mut self.data_keys {
                        keys.on_timeout(now);
                    }
                }
            }
            if !self.state.is_open() {
                return;
            }
        }
    }

    /// A packet was received, or the first ack-eliciting one was sent since: the idle timeout starts
    /// anew (RFC 9000 §10.1).
    pub(super) fn reset_idle(&mut self, now: Instant) {
        let ours = self.config.idle_timeout;
        let peers = self.handshake.peer_idle_timeout();
        let timeout = match (ours.is_zero(), peers.is_zero()) {
            (true, true) => {
                self.timers.stop(Timer::Idle);
                return;
            }
            (true, false) => peers,
            (false, true) => ours,
            (false, false) => ours.min(peers),
        };
        let least = 3 * self.path.rtt.probe_timeout_base();
        self.timers.set(Timer::Idle, now + timeout.max(least));
    }

    /// Starts the time of silence after which a PING goes out: RFC 8085 §3.5 for one that only keeps
    /// the path open; less where an answer is awaited, so that a peer's restart is noticed soon.
    pub(super) fn reset_keepalive(&mut self, now: Instant) {
        let keep =
            (self.keep_alive && !self.config.keepalive.is_zero()).then_some(self.config.keepalive);
        let answer = self.awaits_answer.then_some(self.answer_probe);
        let silence = match (keep, answer) {
            (Some(keep), Some(answer)) => Some(keep.min(answer)),
            (keep, answer) => keep.or(answer),
        };
        let at = silence.filter(|_| self.is_established()).map(|silence| now + silence);
        self.timers.set_or_stop(Timer::KeepAlive, at);
    }
}

/// Silence that is taken as it is while an answer is awaited: at first, and at most. It doubles with
/// each probe, so that a long wait costs little.
pub(super) const ANSWER_PROBE_MIN: Duration = Duration::from_millis(200);
pub(super) const ANSWER_PROBE_MAX: Duration = Duration::from_secs(2);
