//! Datagrams that go out: which, how many, how large.

use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::Bytes;

use super::super::ecn::Ecn;
use super::super::endpoint::Transmit;
use super::super::error::{Code, TransportError};
use super::super::pacing::Pace;
use super::super::timers::Timer;
use super::close::State;
use super::write::{Kind, ONE_RTT_OVERHEAD};
use super::{Connection, ConnectionError, Space};
use crate::limits::MIN_DATAGRAM;
use crate::time::Instant;

/// The kernel takes at most so many bytes in one segmented send (with IP and UDP headers 64 KiB).
const MAX_BATCH: usize = 65_000;

/// The largest payload of an Ethernet path.
const ORDINARY: usize = 1_472;

/// What is not data in a packet with one unreliable message.
const DATAGRAM_OVERHEAD: usize = ONE_RTT_OVERHEAD + 5;

/// From so many waiting bytes on, datagrams are as large as the path carries.
const BULK: u64 = 64 << 10;

/// Bytes in flight beyond what the path itself holds: they lie in queues, on this host in its socket
/// buffers, and the more there are the colder the memory is that each is copied through.
const QUEUED: u64 = 512 << 10;

/// What a path holds is taken for no more than so many bytes each nanosecond of its round trip.
const FASTEST_PATH: u64 = 5;

/// No datagram is begun with less room than this: it holds any acknowledgement and a frame.
const MIN_ROOM: usize = 160;

/// Whether congestion control and pacing let ack-eliciting packets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Anything may go.
    All,
    /// Probes may go whatever the window says (RFC 9002 §7.5).
    Probe,
    /// Acknowledgements only.
    Acks,
}

impl Connection {
    /// Appends the next datagrams to `buf`: either one of a special kind, or a batch of equal ones,
    /// the last perhaps shorter.
    pub(in super::super) fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.recovery.sent_all = false;
        match &self.state {
            State::Handshaking | State::Established => {}
            State::Closing(closing) if closing.due => return self.transmit_close(now, buf),
            State::Closing(_) | State::Draining { .. } | State::Drained => return None,
        }
        self.update_keys_if_due();
        if self.data_keys.as_ref().is_some_and(|keys| keys.is_used_up()) {
            // RFC 9001 §6.6: not even a close may be sealed any more.
            let error = TransportError::new(Code::AEAD_LIMIT_REACHED, "keys are used up");
            self.vanish(now, ConnectionError::Transport(error));
            return None;
        }
        self.transmit_path_answer(now, buf)
            .or_else(|| self.transmit_challenge(now, buf))
            .or_else(|| self.transmit_mtu_probe(now, buf))
            .or_else(|| self.transmit_batch(now, buf))
    }

    /// True if the batch that [`poll_transmit`](Self::poll_transmit) has just given was all there is.
    pub(in super::super) fn has_sent_all(&self) -> bool {
        self.recovery.sent_all
    }

    /// Begins a key update when one is due and allowed (RFC 9001 §6).
    fn update_keys_if_due(&mut self) {
        let confirmed = self.handshake.is_confirmed();
        let Some(keys) = &mut self.data_keys else { return };
        keys.prepare(&mut *self.tls);
        let due =
            self.recovery.key_update_wanted || keys.wants_update(self.config.key_update_after);
        if due && confirmed && keys.may_update() {
            keys.update(&mut *self.tls);
            self.recovery.key_update_wanted = false;
        }
    }

    fn transmit_batch(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        let start = buf.len();
        let backoff = self.recovery.probe.backoff();
        let size = self.datagram_size(backoff);
        if !self.has_anything_to_send() {
            self.recovery.app_limited = self.has_window(size, self.window());
            return None;
        }
        // Each space counts marks for itself; those of the handshake are too few to be of use.
        let mark = match self.handshake.is_confirmed() {
            true => self.path.ecn.mark(),
            false => Ecn::NotEct,
        };
        let most = self.config.max_segments.min(MAX_BATCH / size).max(1);
        self.wake_congestion(now);
        let window = self.window();
        let mut paced = None;
        let mut count = 0;
        let mut filled = false;
        while count < most {
            let Some(limit) = self.datagram_limit(size) else { break };
            let permit = self.permit(now, limit, window, &mut paced);
            let further = filled && permit == Permit::All;
            let part = if further { self.outbox.next_part() } else { None };
            let written = if let Some(part) = part {
                self.write_further(now, buf, limit, mark, part)
            } else {
                let datagram = self.write_datagram(now, buf, limit, permit, mark);
                filled = datagram.filled;
                datagram.size
            };
            if written == 0 {
                self.recovery.app_limited = permit == Permit::All;
                break;
            }
            count += 1;
            self.path.proof.on_sent(written);
            if let Some(left) = &mut paced {
                self.path.pacer.on_sent(written as u64);
                *left = left.saturating_sub(written as u64);
            }
            if written < size {
                // Most often that was all, and whoever drives need not ask again.
                self.recovery.sent_all = permit == Permit::All && !self.has_anything_to_send();
                break;
            }
        }
        if count == 0 {
            return None;
        }
        if self.recovery.sent_all {
            self.recovery.app_limited = self.has_window(size, window);
        }
        self.after_sending(count);
        let segment = (count > 1).then_some(size);
        Some(self.transmit(buf.len() - start, segment, mark, self.path.remote))
    }

    /// What the path carries; but where little waits, no more than an ordinary path carries: whoever
    /// loses a jumbo datagram of small messages has lost them all, and gains little by its size. A long
    /// message gains by it, unless the path loses packets.
    fn datagram_size(&self, backoff: u32) -> usize {
        let carried = self.path.mtu.datagram_size(backoff);
        let fits = |data: &Bytes| DATAGRAM_OVERHEAD + data.len() <= ORDINARY;
        if carried <= ORDINARY || !self.unreliable.iter().all(fits) {
            return carried;
        }
        let wanted = self.bytes_wanted(ORDINARY);
        let long =
            wanted > ORDINARY as u64 && self.outbox.has_long() && !self.path.losses.is_lossy();
        if wanted >= BULK || long { carried } else { ORDINARY }
    }

    /// The largest datagram that may be sent now, if any (RFC 9000 §8.1).
    fn datagram_limit(&self, size: usize) -> Option<usize> {
        let limit = size.min(self.path.proof.allowance());
        // Datagrams of the handshake are padded and so need their whole size.
        let least = if self.handshake.is_confirmed() { MIN_ROOM } else { MIN_DATAGRAM };
        (limit >= least).then_some(limit)
    }

    /// True while the limit for an unproven address holds everything back.
    pub(super) fn may_not_send(&self) -> bool {
        self.datagram_limit(MIN_DATAGRAM).is_none()
    }

    /// After a pause, the window is not what it was (RFC 9002 §7.8).
    fn wake_congestion(&mut self, now: Instant) {
        if self.bytes_in_flight() == 0
            && self.outbox.has_pending()
            && let Some(last) =
                self.spaces.iter().filter_map(|s| s.sent.last_eliciting_sent()).max()
        {
            self.path.congestion.on_idle(now, now.since(last), &self.path.rtt);
        }
    }

    /// True if the `window` has room for so many bytes.
    fn has_window(&self, limit: usize, window: u64) -> bool {
        self.bytes_in_flight() + limit as u64 <= window && !self.spaces.is_full()
    }

    /// Asks congestion control, whose window stays the same in a batch, and once a batch the pacer.
    fn permit(
        &mut self,
        now: Instant,
        limit: usize,
        window: u64,
        paced: &mut Option<u64>,
    ) -> Permit {
        let probing = self.recovery.probe.due() > 0;
        let held = if probing { Permit::Probe } else { Permit::Acks };
        if !self.has_window(limit, window) {
            return held;
        }
        if !self.handshake.is_complete() {
            return Permit::All;
        }
        if paced.is_none() {
            let wanted = self.bytes_wanted(limit);
            if wanted == 0 {
                return Permit::All;
            }
            // The rate follows congestion alone: paced by the bound on bytes in flight, batches would
            // be small where packets are.
            let window = self.path.congestion.window();
            match self.path.pacer.poll(now, wanted, limit, window, &self.path.rtt) {
                Pace::Send(bytes) => *paced = Some(bytes),
                Pace::Wait(until) => {
                    self.timers.set(Timer::Pacing, until);
                    return held;
                }
            }
        }
        match *paced {
            Some(0) => held,
            _ => Permit::All,
        }
    }

    /// The congestion window, but no more than the fastest path could make use of.
    fn window(&self) -> u64 {
        let round_trip = u64::try_from(self.path.rtt.min().as_nanos()).unwrap_or(u64::MAX);
        let held = round_trip.saturating_mul(FASTEST_PATH);
        self.path.congestion.window().min(held.saturating_add(QUEUED))
    }

    /// About how many bytes wait to be sent.
    fn bytes_wanted(&self, datagram: usize) -> u64 {
        let unreliable: usize = self.unreliable.iter().map(|data| data.len()).sum();
        let control = if self.inbox.has_pending() || self.copy_is_due() { datagram } else { 0 };
        self.outbox.bytes_to_send() + (unreliable + control) as u64
    }

    /// Answers a challenge, in a padded datagram, at the address that it came from
    /// (RFC 9000 §8.2.2).
    fn transmit_path_answer(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        if !self.handshake.is_complete() {
            return None;
        }
        let answer = self.migration.answers.pop_front()?;
        let on_path = answer.to == self.path.remote;
        let allowance = if on_path { self.path.proof.allowance() } else { answer.allowance };
        let size = MIN_DATAGRAM.min(allowance);
        let written =
            self.write_special(now, buf, Kind::PathResponse(answer.token), size, on_path)?;
        if on_path {
            self.path.proof.on_sent(written);
        }
        self.after_sending(1);
        Some(self.transmit(written, None, Ecn::NotEct, answer.to))
    }

    /// Challenges the peer's present address (RFC 9000 §8.2.1).
    fn transmit_challenge(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        if !self.path.proof.challenge_due() || self.path.proof.allowance() < MIN_ROOM {
            return None;
        }
        let size = MIN_DATAGRAM.min(self.path.proof.allowance());
        let token = self.path.proof.next_challenge(&mut self.random)?;
        let written = self.write_special(now, buf, Kind::PathChallenge(token), size, true)?;
        self.path.proof.on_sent(written);
        self.after_sending(1);
        Some(self.transmit(written, None, Ecn::NotEct, self.path.remote))
    }

    /// Tries whether the path carries a larger datagram (RFC 8899). Such a probe is not held back by
    /// the window, which bulk traffic always fills, nor does it take of it, which is smaller than the
    /// largest probe at first: a call would wait for its round trip. There is one per round trip at most.
    fn transmit_mtu_probe(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        if !self.handshake.is_confirmed()
            || !self.path.proof.is_validated()
            || self.recovery.probe.backoff() > 0
            || self.spaces[Space::Data.index()].sent.is_full()
        {
            return None;
        }
        let size = self.path.mtu.probe_wanted(now)?;
        let written = self.write_special(now, buf, Kind::MtuProbe, size, false)?;
        self.path.proof.on_sent(written);
        self.after_sending(1);
        Some(self.transmit(written, None, Ecn::NotEct, self.path.remote))
    }

    /// Tells the peer that the connection is over, in every space that it may have keys for
    /// (RFC 9000 §10.2.3).
    fn transmit_close(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        let State::Closing(closing) = &mut self.state else { return None };
        closing.due = false;
        let reason = closing.reason.clone();
        let limit = MIN_DATAGRAM.min(self.path.proof.allowance());
        if limit < MIN_DATAGRAM && !self.path.proof.is_validated() {
            return None;
        }
        let written = self.write_close(now, buf, limit, &reason);
        if written == 0 {
            return None;
        }
        self.path.proof.on_sent(written);
        self.after_sending(1);
        Some(self.transmit(written, None, Ecn::NotEct, self.path.remote))
    }

    fn transmit(
        &mut self,
        size: usize,
        segment: Option<usize>,
        ecn: Ecn,
        to: SocketAddr,
    ) -> Transmit {
        self.counters.bytes_sent += size as u64;
        Transmit { to, from: self.path.local, ecn, size, segment }
    }

    fn after_sending(&mut self, datagrams: usize) {
        self.counters.datagrams_sent += datagrams as u64;
        self.set_recovery_timer();
        self.set_path_timer();
    }
}
