//! One path: a pair of addresses with its own estimates, window and proof of address.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use stubborn_rope::ahead::read_ahead;

use super::super::congestion::{Controller, Cubic};
use super::super::copies::LossHistory;
use super::super::ecn::EcnValidation;
use super::super::endpoint::EndpointConfig;
use super::super::loss::{Delivered, SentPacket, Settled};
use super::super::mtu::MtuDiscovery;
use super::super::pacing::Pacer;
use super::super::rtt::{INITIAL_RTT, RttEstimator};
use super::space::Contents;
use super::stats::EcnState;
use crate::limits::MIN_DATAGRAM;
use crate::random::Random;
use crate::time::{Duration, Instant};

/// Challenges of which an answer is still accepted.
const OUTSTANDING_CHALLENGES: usize = 4;

/// The probe timeout of a path that nothing is known of, where it decides that the path leads nowhere
/// (RFC 9000 §8.2.4): three times what recovery takes it for, which errs towards sending.
const UNKNOWN_PATH: Duration = Duration::from_secs(1);

/// A pair of addresses, and all that is known of the way between them.
pub(super) struct Path {
    pub(super) remote: SocketAddr,
    pub(super) local: Option<IpAddr>,
    pub(super) rtt: RttEstimator,
    pub(super) congestion: Box<dyn Controller>,
    pub(super) pacer: Pacer,
    pub(super) mtu: MtuDiscovery,
    pub(super) ecn: EcnValidation,
    pub(super) proof: AddressProof,
    pub(super) losses: LossHistory,
    usage: Usage,
}

impl Path {
    /// A path that nothing is known of, except perhaps a round-trip time from an earlier connection.
    pub(super) fn new(
        now: Instant,
        config: &EndpointConfig,
        remote: SocketAddr,
        local: Option<IpAddr>,
        remembered: Option<Duration>,
        proof: AddressProof,
    ) -> Self {
        Self {
            remote,
            local,
            rtt: RttEstimator::new(remembered.unwrap_or(INITIAL_RTT)),
            congestion: Box::new(Cubic::new(MIN_DATAGRAM)),
            pacer: Pacer::new(now, MIN_DATAGRAM),
            mtu: MtuDiscovery::new(config.max_probe),
            ecn: if config.ecn { EcnValidation::new() } else { EcnValidation::disabled() },
            proof,
            losses: LossHistory::new(),
            usage: Usage::default(),
        }
    }

    /// Begins to read what it points to.
    pub(super) fn read_ahead(&self) {
        read_ahead(&*self.congestion);
    }

    /// Takes over what was learnt on another path that leads the same way.
    pub(super) fn take_estimates(&mut self, other: &mut Self) {
        core::mem::swap(&mut self.rtt, &mut other.rtt);
        core::mem::swap(&mut self.congestion, &mut other.congestion);
        core::mem::swap(&mut self.pacer, &mut other.pacer);
        core::mem::swap(&mut self.mtu, &mut other.mtu);
        core::mem::swap(&mut self.ecn, &mut other.ecn);
    }

    /// Whether packets are marked, for people.
    pub(super) fn ecn_state(&self) -> EcnState {
        match self.ecn.mark() {
            _ if self.ecn.is_capable() => EcnState::Capable,
            _ if self.ecn.has_failed() => EcnState::Failed,
            _ => EcnState::Testing,
        }
    }

    /// Tells congestion control what was settled. `congested`: the peer reports congestion marks;
    /// `in_flight`: bytes that still are.
    pub(super) fn on_settled(
        &mut self,
        now: Instant,
        settled: &Settled<Contents>,
        congested: bool,
        app_limited: bool,
        in_flight: u64,
    ) {
        let cuts = self.congestion.cuts();
        for sent in &settled.spurious {
            self.congestion.on_spurious(now, *sent);
            self.losses.on_spurious();
        }
        if let Some(missing) = settled.missing {
            self.congestion.on_lost(now, missing, &self.rtt);
            if missing.persistent {
                self.rtt.forget_min();
            }
        }
        if let Some(delivered) = settled.delivered {
            if congested {
                self.congestion.on_marked(now, delivered.newest_sent, &self.rtt);
            }
            self.usage.on_acked(now, delivered, in_flight);
            // In slow start, half of the window counts as all of it: what the window allowed when it
            // was sent was about half of what it allows now.
            let used =
                self.congestion.in_slow_start() && self.congestion.window() < 2 * self.usage.peak();
            self.congestion.on_acked(now, delivered, app_limited && !used, &self.rtt);
        }
        self.losses.on_settled(
            settled.delivered.map_or(0, |d| d.packets),
            settled.missing.map_or(0, |m| m.packets),
        );
        if self.congestion.cuts() > cuts {
            self.losses.on_congestion();
        }
    }

    /// A packet of the Data space was acknowledged.
    pub(super) fn on_size_acked(&mut self, number: u64, packet: &SentPacket<Contents>) {
        if let Some(size) = self.mtu.on_acked(number, packet.size as usize) {
            self.congestion.on_datagram_size(size);
        }
    }

    /// A packet of the Data space was lost.
    pub(super) fn on_size_lost(
        &mut self,
        now: Instant,
        number: u64,
        packet: &SentPacket<Contents>,
    ) {
        if let Some(size) = self.mtu.on_lost(now, number, packet.size as usize) {
            self.congestion.on_datagram_size(size);
        }
    }
}

/// How much of the window was used: the most bytes in flight in this round trip and the last.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    round_began: Instant,
    most: [u64; 2],
}

impl Usage {
    /// Packets were acknowledged, and `in_flight` bytes are left.
    fn on_acked(&mut self, now: Instant, acked: Delivered, in_flight: u64) {
        if acked.newest_sent >= self.round_began {
            self.round_began = now;
            self.most = [0, self.most[0]];
        }
        self.most[0] = self.most[0].max(in_flight + acked.bytes);
    }

    fn peak(&self) -> u64 {
        self.most[0].max(self.most[1])
    }
}

/// Whether the peer is known to receive at its address, and what may be sent until then
/// (RFC 9000 §8).
#[derive(Debug, Default)]
pub(super) struct AddressProof {
    validated: bool,
    received: u64,
    sent: u64,
    challenge: Option<Box<Challenge>>,
}

#[derive(Debug)]
struct Challenge {
    /// The last ones sent, the newest last; each is unpredictable (RFC 9000 §8.2.1).
    outstanding: Vec<[u8; 8]>,
    /// One is to be sent.
    due: bool,
    again_at: Instant,
    until: Instant,
    interval: Duration,
}

/// What became of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChallengeTimeout {
    /// Nothing is due.
    Waiting,
    /// Another one is to be sent.
    Again,
    /// No answer came in time: the path does not work.
    Failed,
}

impl AddressProof {
    /// An address that needs no proof: a client's server, or one that brought a token.
    pub(super) fn given() -> Self {
        Self { validated: true, ..Self::default() }
    }

    /// True if the address is proven.
    pub(super) fn is_validated(&self) -> bool {
        self.validated
    }

    /// The peer proved its address.
    pub(super) fn validate(&mut self) {
        self.validated = true;
    }

    /// Counts bytes that came from the address.
    pub(super) fn on_received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Counts bytes sent to the address.
    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Bytes that may be sent now: three times what came until the address is proven
    /// (RFC 9000 §8.1).
    pub(super) fn allowance(&self) -> usize {
        if self.validated {
            return usize::MAX;
        }
        usize::try_from((3 * self.received).saturating_sub(self.sent)).unwrap_or(usize::MAX)
    }

    /// Begins to challenge the address, which has three probe timeouts to answer: of `timeout`, or of
    /// [`UNKNOWN_PATH`] if that is longer. The challenge is repeated after `timeout`, then after twice
    /// that, and so on.
    pub(super) fn begin_challenge(&mut self, now: Instant, timeout: Duration) {
        let patience = 3 * timeout.max(UNKNOWN_PATH);
        self.challenge = Some(Box::new(Challenge {
            outstanding: Vec::new(),
            due: true,
            again_at: now + timeout,
            until: now + patience,
            interval: timeout,
        }));
    }

    /// True if [`next_challenge`](Self::next_challenge) has one.
    pub(super) fn challenge_due(&self) -> bool {
        self.challenge.as_ref().is_some_and(|c| c.due)
    }

    /// The PATH_CHALLENGE to send now.
    pub(super) fn next_challenge(&mut self, random: &mut Random) -> Option<[u8; 8]> {
        let challenge = self.challenge.as_mut().filter(|c| c.due)?;
        challenge.due = false;
        let token = random.bytes();
        if challenge.outstanding.len() == OUTSTANDING_CHALLENGES {
            challenge.outstanding.remove(0);
        }
        challenge.outstanding.push(token);
        Some(token)
    }

    /// A PATH_RESPONSE came; true if it proves this address.
    pub(super) fn on_response(&mut self, token: [u8; 8]) -> bool {
        let right = self.challenge.as_ref().is_some_and(|c| c.outstanding.contains(&token));
        if right {
            self.validated = true;
            self.challenge = None;
        }
        right
    }

    /// When [`on_timeout`](Self::on_timeout) is due.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.challenge.as_ref().map(|c| c.again_at.min(c.until))
    }

    /// Time passed.
    pub(super) fn on_timeout(&mut self, now: Instant) -> ChallengeTimeout {
        let Some(challenge) = &mut self.challenge else { return ChallengeTimeout::Waiting };
        if now >= challenge.until {
            self.challenge = None;
            return ChallengeTimeout::Failed;
        }
        if now < challenge.again_at {
            return ChallengeTimeout::Waiting;
        }
        challenge.due = true;
        challenge.interval *= 2;
        challenge.again_at = now + challenge.interval;
        ChallengeTimeout::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_most_in_flight_in_this_round_trip_and_the_last() {
        let mut usage = Usage::default();
        let at = Instant::from_nanos;
        let ack = |sent| Delivered { packets: 1, bytes: 100, newest_sent: at(sent) };
        usage.on_acked(at(10), ack(0), 900);
        usage.on_acked(at(11), ack(1), 800);
        assert_eq!(usage.peak(), 1_000);
        usage.on_acked(at(20), ack(10), 200);
        assert_eq!(usage.peak(), 1_000, "sent in the last round trip");
        usage.on_acked(at(30), ack(20), 100);
        assert_eq!(usage.peak(), 300, "what was used before is forgotten");
    }

    #[test]
    fn an_unproven_address_gets_three_times_what_it_sent_and_not_a_byte_more() {
        let mut proof = AddressProof::default();
        assert_eq!(proof.allowance(), 0);
        proof.on_received(1200);
        proof.on_sent(3599);
        assert_eq!(proof.allowance(), 1);
        proof.on_sent(1200);
        assert_eq!(proof.allowance(), 0);
        proof.validate();
        assert_eq!(proof.allowance(), usize::MAX);
    }

    #[test]
    fn only_the_right_answer_proves_an_address_and_silence_fails_it() {
        let mut random = Random::from_seed([1; 32]);
        let mut proof = AddressProof::default();
        let start = Instant::ZERO;
        let second = Duration::from_secs(1);
        proof.begin_challenge(start, second);
        let token = proof.next_challenge(&mut random).unwrap();
        assert_eq!(proof.next_challenge(&mut random), None);
        let mut wrong = token;
        wrong[7] ^= 1;
        assert!(!proof.on_response(wrong) && !proof.is_validated());
        assert_eq!(proof.on_timeout(start + second), ChallengeTimeout::Again);
        assert_ne!(proof.next_challenge(&mut random), Some(token));
        assert!(proof.on_response(token) && proof.is_validated());

        proof.begin_challenge(start, second / 100);
        assert_ne!(proof.on_timeout(start + second), ChallengeTimeout::Failed, "a slower path");
        assert_eq!(proof.on_timeout(start + 4 * second), ChallengeTimeout::Failed);
        assert_eq!(proof.timeout(), None);
    }
}
