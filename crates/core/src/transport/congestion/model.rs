//! A bottleneck in discrete events, for tests: flows that always have something to send, run by the
//! very estimator, loss detection, pacer and ack generation that ship.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use super::Controller;
use crate::random::Random;
use crate::time::{Duration, Instant, earliest};
use crate::transport::ack::ReceivedPackets;
use crate::transport::ecn::Ecn;
use crate::transport::loss::{SentPacket, SentPackets, Settled};
use crate::transport::pacing::{Pace, Pacer};
use crate::transport::probe::ProbeTimeout;
use crate::transport::rtt::RttEstimator;

const DATAGRAM: usize = 1_200;

/// A bottleneck with a drop-tail queue, behind which packets may also be lost at random.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) packets_per_second: u64,
    /// Packets that wait at most, the one being sent included.
    pub(super) queue: usize,
    /// Without queueing.
    pub(super) round_trip: Duration,
    /// Up to so much more for each packet; packets overtake one another by it.
    pub(super) jitter: Duration,
    /// Probability per packet, in the forward direction.
    pub(super) loss: f64,
}

/// A sender and its receiver.
pub(super) struct Flow {
    controller: Box<dyn Controller>,
    starts: Instant,
    sent: SentPackets<()>,
    settled: Settled<()>,
    rtt: RttEstimator,
    probe: ProbeTimeout,
    pacer: Option<Pacer>,
    paced_until: Option<Instant>,
    /// The one wake-up that counts; earlier ones that are still scheduled do nothing.
    wake_at: Option<Instant>,
    receiver: ReceivedPackets,
    packets_sent: u64,
    packets_delivered: u64,
}

enum Event {
    Wake(usize),
    Arrival { flow: usize, number: u64 },
    Ack { flow: usize, ranges: Vec<Range<u64>> },
}

pub(super) struct Network {
    link: Link,
    random: Random,
    now: Instant,
    /// When the bottleneck has sent all that waits.
    busy_until: Instant,
    flows: Vec<Flow>,
    events: BTreeMap<(Instant, u64), Event>,
    event_count: u64,
    queue: QueueUse,
}

/// How full packets found the bottleneck's queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueueUse {
    packets: u64,
    waiting: u64,
    nearly_full: u64,
}

impl QueueUse {
    /// The queue's mean length, in packets.
    pub(super) fn mean(&self) -> f64 {
        self.waiting as f64 / self.packets as f64
    }

    /// The part of the packets that found it at least nine tenths full.
    pub(super) fn nearly_full(&self) -> f64 {
        self.nearly_full as f64 / self.packets as f64
    }
}

impl Flow {
    pub(super) fn new(controller: Box<dyn Controller>, starts_after: Duration) -> Self {
        Self {
            controller,
            starts: Instant::ZERO + starts_after,
            sent: SentPackets::new(),
            settled: Settled::new(),
            rtt: RttEstimator::default(),
            probe: ProbeTimeout::new(),
            pacer: None,
            paced_until: None,
            wake_at: None,
            receiver: ReceivedPackets::new(),
            packets_sent: 0,
            packets_delivered: 0,
        }
    }

    fn on_settled(&mut self, now: Instant) {
        if let Some(delivered) = self.settled.delivered {
            self.probe.on_acked();
            self.controller.on_acked(now, delivered, false, &self.rtt);
        }
        for sent in &self.settled.spurious {
            self.controller.on_spurious(now, *sent);
        }
        if let Some(missing) = self.settled.missing {
            self.controller.on_lost(now, missing, &self.rtt);
            if missing.persistent {
                self.rtt.forget_min();
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let probe = || Some(self.probe.deadline(&self.rtt, self.sent.last_eliciting_sent()?));
        let loss = self.sent.loss_time();
        let loss = loss.or_else(|| if self.sent.has_eliciting() { probe() } else { None });
        earliest(loss, self.paced_until)
    }

    /// Handles what is due and says how many packets leave.
    fn poll(&mut self, now: Instant, random: &mut Random) -> Vec<u64> {
        let mut leaving = Vec::new();
        if now < self.starts {
            return leaving;
        }
        if self.sent.loss_time().is_some_and(|at| at <= now) {
            self.sent.detect_lost(now, &self.rtt, &mut self.settled);
            self.on_settled(now);
        } else if self.sent.has_eliciting()
            && let Some(last) = self.sent.last_eliciting_sent()
            && self.probe.deadline(&self.rtt, last) <= now
        {
            self.probe.on_expired();
        }
        while self.probe.due() > 0 {
            self.probe.on_probe_sent();
            leaving.push(self.send(now, random));
        }
        self.paced_until = None;
        let size = DATAGRAM as u64;
        while self.sent.bytes_in_flight() + size <= self.controller.window() {
            let window = self.controller.window();
            let room = window - self.sent.bytes_in_flight();
            let pacer = self.pacer.get_or_insert_with(|| Pacer::new(now, DATAGRAM));
            match pacer.poll(now, room, DATAGRAM, window, &self.rtt) {
                Pace::Wait(until) => {
                    self.paced_until = Some(until);
                    break;
                }
                Pace::Send(bytes) => {
                    for _ in 0..(bytes.min(room) / size).max(1) {
                        leaving.push(self.send(now, random));
                        if let Some(pacer) = &mut self.pacer {
                            pacer.on_sent(size);
                        }
                    }
                }
            }
        }
        leaving
    }

    fn send(&mut self, now: Instant, random: &mut Random) -> u64 {
        let number = self.sent.take_number(random);
        let packet = SentPacket {
            time: now,
            size: DATAGRAM as u32,
            ack_eliciting: true,
            in_flight: true,
            marked: false,
            mtu_probe: false,
            contents: (),
        };
        self.sent.on_sent(number, packet);
        self.packets_sent += 1;
        number
    }
}

impl Network {
    pub(super) fn new(seed: u8, link: Link, flows: Vec<Flow>) -> Self {
        let mut network = Self {
            link,
            random: Random::from_seed([seed; 32]),
            now: Instant::ZERO,
            busy_until: Instant::ZERO,
            flows,
            events: BTreeMap::new(),
            event_count: 0,
            queue: QueueUse::default(),
        };
        for flow in 0..network.flows.len() {
            network.wake(flow, network.flows[flow].starts);
        }
        network
    }

    /// Runs until `end`.
    pub(super) fn run(&mut self, end: Instant) {
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            match event {
                Event::Wake(flow) if self.flows[flow].wake_at == Some(at) => self.poll(flow),
                Event::Wake(_) => {}
                Event::Arrival { flow, number } => self.arrive(flow, number),
                Event::Ack { flow, ranges } => {
                    let f = &mut self.flows[flow];
                    let ranges = ranges.into_iter();
                    f.sent
                        .on_ack(at, ranges, Some(Duration::ZERO), &mut f.rtt, &mut f.settled)
                        .expect("receivers acknowledge what they received");
                    f.on_settled(at);
                    self.poll(flow);
                }
            }
        }
        self.now = end;
    }

    /// Packets that each flow has sent.
    pub(super) fn sent(&self) -> Vec<u64> {
        self.flows.iter().map(|f| f.packets_sent).collect()
    }

    /// Packets that have arrived of each flow.
    pub(super) fn delivered(&self) -> Vec<u64> {
        self.flows.iter().map(|f| f.packets_delivered).collect()
    }

    /// How full the queue was since this was last asked.
    pub(super) fn queue_use(&mut self) -> QueueUse {
        core::mem::take(&mut self.queue)
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.event_count += 1;
        self.events.insert((at, self.event_count), event);
    }

    fn poll(&mut self, flow: usize) {
        self.flows[flow].wake_at = None;
        for number in self.flows[flow].poll(self.now, &mut self.random) {
            self.transmit(flow, number);
        }
        if let Some(at) = self.flows[flow].deadline() {
            self.wake(flow, at.max(self.now + Duration::from_nanos(1)));
        }
    }

    fn wake(&mut self, flow: usize, at: Instant) {
        if self.flows[flow].wake_at != Some(at) {
            self.flows[flow].wake_at = Some(at);
            self.schedule(at, Event::Wake(flow));
        }
    }

    fn transmit(&mut self, flow: usize, number: u64) {
        let service = Duration::from_secs(1) / u32::try_from(self.link.packets_per_second).unwrap();
        let waiting = self.busy_until.since(self.now).as_nanos().div_ceil(service.as_nanos());
        self.queue.packets += 1;
        self.queue.waiting += waiting as u64;
        self.queue.nearly_full += u64::from(waiting * 10 >= self.link.queue as u128 * 9);
        if waiting >= self.link.queue as u128 {
            return;
        }
        self.busy_until = self.busy_until.max(self.now) + service;
        if !self.random.chance(self.link.loss) {
            let jitter = self.random.below(self.link.jitter.as_nanos() as u64 + 1);
            let at = self.busy_until + self.link.round_trip / 2 + Duration::from_nanos(jitter);
            self.schedule(at, Event::Arrival { flow, number });
        }
    }

    fn arrive(&mut self, flow: usize, number: u64) {
        let f = &mut self.flows[flow];
        assert!(f.receiver.on_received(number, self.now, Ecn::NotEct, true));
        f.packets_delivered += 1;
        let ranges = f.receiver.ack_ranges().take(8).collect();
        f.receiver.on_ack_sent();
        let at = self.now + self.link.round_trip / 2;
        self.schedule(at, Event::Ack { flow, ranges });
    }
}
