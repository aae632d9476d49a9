//! Sent packets, their acknowledgement and their loss (RFC 9002 §6.1, §7.6).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use stubborn_rope::ahead::read_ahead;

use super::ecn::{EcnCounts, EcnReport, EcnReports};
use super::ranges::RangeSet;
use super::rtt::RttEstimator;
use crate::random::Random;
use crate::time::{Duration, Instant, earliest};

/// Sent packets tracked at most in one packet number space. When so many are outstanding,
/// [`SentPackets::is_full`] holds back all ack-eliciting packets but probes.
pub const MAX_TRACKED: usize = 65_536;

/// Packets that elicit no ack tracked at most, beside the others: a peer that never acknowledges
/// cannot make them pile up.
const MAX_SILENT: usize = 1_024;

/// Packets acknowledged after it that make a packet lost (RFC 9002 §6.1.1).
const PACKET_THRESHOLD: u64 = 3;

/// The most that reordering raises the packet threshold to; beyond it the time threshold decides.
const MAX_PACKET_THRESHOLD: u64 = 256;

/// Round trips without further reordering after which the packet threshold falls back.
const REORDERING_MEMORY: u32 = 16;

/// Skipped numbers remembered; an attacker gains nothing by acknowledging older ones.
const MAX_SKIPPED: usize = 32;

/// Persistent congestion is a span of losses this many times the probe timeout (RFC 9002 §7.6.1).
const PERSISTENT_CONGESTION_THRESHOLD: u32 = 3;

/// A packet that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPacket<T> {
    /// When it was sent.
    pub time: Instant,
    /// Bytes of UDP payload that it took of the congestion window.
    pub size: u32,
    /// It carries a frame that the peer has to acknowledge.
    pub ack_eliciting: bool,
    /// It counts against the congestion window: ack-eliciting or padded (RFC 9002 §2). False of probes
    /// of the path MTU, and once the connection has moved to another path, for which it says nothing.
    pub in_flight: bool,
    /// It was sent with an ECT(0) mark.
    pub marked: bool,
    /// It probes the path MTU; its loss is no sign of congestion (RFC 9002 §7, RFC 8899 §3).
    pub mtu_probe: bool,
    /// What it carried: whatever has to be known when it is acknowledged or lost.
    pub contents: T,
}

impl<T> SentPacket<T> {
    /// True if its loss concerns the congestion controller.
    fn is_loss_counted(&self) -> bool {
        self.in_flight && !self.mtu_probe
    }
}

/// What an ACK frame, or the passing of time, has settled. Reused from call to call, so that the
/// steady state allocates nothing; the caller drains `acked` and `lost`.
#[derive(Debug)]
pub struct Settled<T> {
    /// Newly acknowledged packets that had not been declared lost, ascending within a range.
    pub acked: Vec<(u64, SentPacket<T>)>,
    /// Packets newly declared lost, ascending.
    pub lost: Vec<(u64, SentPacket<T>)>,
    /// Newly acknowledged packets that were sent with an ECT(0) mark, and how many of them on the
    /// present path.
    acked_marked: u64,
    acked_marked_here: u64,
    /// The ACK frame raised the largest acknowledged number.
    pub largest_raised: bool,
    /// The RTT estimator took in a sample.
    pub rtt_sampled: bool,
    /// The congestion controller's digest of `acked`; `None` if nothing in flight was.
    pub delivered: Option<Delivered>,
    /// The congestion controller's digest of `lost`; `None` if nothing of concern to it was.
    pub missing: Option<Missing>,
    /// The sending times of packets that were declared lost and now turn out to have arrived.
    pub spurious: Vec<Instant>,
}

/// Bytes that left the network by arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// How many packets.
    pub packets: u64,
    /// Bytes of the packets.
    pub bytes: u64,
    /// When the newest of them was sent.
    pub newest_sent: Instant,
}

/// Bytes that left the network by being lost; path MTU probes are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// How many packets.
    pub packets: u64,
    /// Bytes of the packets.
    pub bytes: u64,
    /// When the newest of them was sent.
    pub newest_sent: Instant,
    /// Everything sent over more than three probe timeouts was lost (RFC 9002 §7.6).
    pub persistent: bool,
}

impl<T> Default for Settled<T> {
    fn default() -> Self {
        Self {
            acked: Vec::new(),
            lost: Vec::new(),
            acked_marked: 0,
            acked_marked_here: 0,
            largest_raised: false,
            rtt_sampled: false,
            delivered: None,
            missing: None,
            spurious: Vec::new(),
        }
    }
}

impl<T> Settled<T> {
    /// Nothing settled, no memory taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything and keeps the memory; each call that fills this does so first.
    pub fn clear(&mut self) {
        self.acked.clear();
        self.lost.clear();
        self.spurious.clear();
        self.acked_marked = 0;
        self.acked_marked_here = 0;
        self.largest_raised = false;
        self.rtt_sampled = false;
        self.delivered = None;
        self.missing = None;
    }

    /// True if the peer has acknowledged something that it had not before: the path works.
    pub fn is_progress(&self) -> bool {
        !self.acked.is_empty() || !self.spurious.is_empty()
    }

    fn note_marked(&mut self, on_present_path: bool) {
        self.acked_marked += 1;
        self.acked_marked_here += u64::from(on_present_path);
    }

    fn note_delivered(&mut self, packet: &SentPacket<T>) {
        if packet.in_flight {
            let sum = self.delivered.get_or_insert(Delivered {
                packets: 0,
                bytes: 0,
                newest_sent: packet.time,
            });
            sum.packets += 1;
            sum.bytes += u64::from(packet.size);
            sum.newest_sent = sum.newest_sent.max(packet.time);
        }
    }

    fn note_lost(&mut self, number: u64, packet: SentPacket<T>) {
        if packet.is_loss_counted() {
            let sum = self.missing.get_or_insert(Missing {
                packets: 0,
                bytes: 0,
                newest_sent: packet.time,
                persistent: false,
            });
            sum.packets += 1;
            sum.bytes += u64::from(packet.size);
            sum.newest_sent = sum.newest_sent.max(packet.time);
        }
        self.lost.push((number, packet));
    }
}

/// The peer acknowledged a packet that was never sent: a PROTOCOL_VIOLATION (RFC 9000 §13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverSent;

impl fmt::Display for NeverSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer acknowledged a packet that was never sent")
    }
}

impl core::error::Error for NeverSent {}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Outstanding(SentPacket<T>),
    /// Kept for a while, so that a late ack is recognised.
    Lost {
        sent: Instant,
        declared: Instant,
        ack_eliciting: bool,
        marked: bool,
        counted: bool,
    },
    Acked,
}

/// The packets sent in one packet number space, from the oldest unsettled one on.
///
/// Packets lie in a ring in the order of their numbers, which almost always follow one another, so
/// a number is found by its offset from the first; a binary search serves where numbers were
/// skipped.
///
/// Invariants: numbers ascend; `bytes_in_flight` and `eliciting` are sums over the outstanding
/// entries; every entry before `unsettled` is settled; at most [`MAX_TRACKED`] entries and a few probes.
#[derive(Debug)]
pub struct SentPackets<T> {
    entries: VecDeque<Entry<T>>,
    /// Index of the first entry that may be outstanding.
    unsettled: usize,
    next_number: u64,
    skip_at: u64,
    skipped: RangeSet,
    /// The highest of `skipped`, most often below whatever is acknowledged.
    last_skipped: u64,
    largest_acked: Option<u64>,
    bytes_in_flight: u64,
    eliciting: usize,
    last_eliciting_sent: Option<Instant>,
    loss_time: Option<Instant>,
    reordering: Reordering,
    ecn: EcnReports,
    /// Packets below it were sent on an earlier path (RFC 9000 §9.4).
    path_start: u64,
    /// When the first ack-eliciting packet of the unbroken run of losses just before `unsettled`
    /// was sent.
    losing_since: Option<Instant>,
}

impl<T> Default for SentPackets<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SentPackets<T> {
    /// Nothing sent.
    pub const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            unsettled: 0,
            next_number: 0,
            skip_at: 0,
            skipped: RangeSet::new(),
            last_skipped: 0,
            largest_acked: None,
            bytes_in_flight: 0,
            eliciting: 0,
            last_eliciting_sent: None,
            loss_time: None,
            reordering: Reordering { raised: None },
            ecn: EcnReports::new(),
            path_start: 0,
            losing_since: None,
        }
    }

    /// Gives back room that nothing is in, and what is of no use after a pause: packets that the peer
    /// does not have to acknowledge.
    pub fn shrink(&mut self) {
        if self.eliciting == 0 && self.bytes_in_flight == 0 {
            self.entries.clear();
            self.unsettled = 0;
        }
        self.entries.shrink_to_fit();
        self.skipped.shrink();
    }

    /// Begins to read the packets that the next acknowledgement is likely to name.
    pub fn read_ahead(&self) {
        if let Some(entry) = self.entries.get(self.unsettled) {
            read_ahead(entry);
        }
    }

    /// What the oldest packet carried of which neither is known, if it is one of those.
    pub fn oldest_contents(&self) -> Option<&T> {
        match &self.entries.get(self.unsettled)?.state {
            State::Outstanding(packet) => Some(&packet.contents),
            State::Lost { .. } | State::Acked => None,
        }
    }

    /// Takes the number for the next packet. Now and then one is skipped, so that a peer which
    /// acknowledges what it has not received gives itself away (RFC 9000 §21.4): on average once
    /// in 64 packets at first, later more rarely.
    pub fn take_number(&mut self, random: &mut Random) -> u64 {
        if self.next_number >= self.skip_at {
            if self.skip_at > 0 {
                self.skipped.insert_one(self.next_number);
                self.last_skipped = self.next_number;
                self.skipped.keep_highest(MAX_SKIPPED);
                self.next_number += 1;
            }
            // The gap grows with the numbers used, and stops growing at a million packets.
            let spread = self.next_number.clamp(64, 1 << 20);
            self.skip_at = self.next_number + 32 + random.below(spread);
        }
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// The number that [`take_number`](Self::take_number) would return if it skipped none; packets
    /// below it were sent, or skipped.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The largest number that the peer acknowledged; packet numbers are shortened against it.
    pub fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// True if nothing ack-eliciting but probes may be sent before packets settle, whatever the
    /// congestion window says.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_TRACKED
    }

    /// Bytes that count against the congestion window in this space.
    pub fn bytes_in_flight(&self) -> u64 {
        self.bytes_in_flight
    }

    /// True if an ack-eliciting packet is neither acknowledged nor lost: then a probe timeout must
    /// be set.
    pub fn has_eliciting(&self) -> bool {
        self.eliciting > 0
    }

    /// Ack-eliciting packets that are neither acknowledged nor lost.
    pub fn eliciting(&self) -> usize {
        self.eliciting
    }

    /// When the last ack-eliciting packet was sent: what the probe timeout counts from.
    pub fn last_eliciting_sent(&self) -> Option<Instant> {
        self.last_eliciting_sent
    }

    /// When [`detect_lost`](Self::detect_lost) is to be called next because of time alone.
    pub fn loss_time(&self) -> Option<Instant> {
        self.loss_time
    }

    /// A packet was sent.
    ///
    /// # Panics
    /// If `number` was not handed out by [`take_number`](Self::take_number), or not later than all
    /// sent before: a reused number would reuse a nonce.
    pub fn on_sent(&mut self, number: u64, packet: SentPacket<T>) {
        assert!(number < self.next_number, "packet number {number} was not handed out");
        if let Some(last) = self.entries.back() {
            assert!(last.number < number, "packet number {number} is used twice or out of order");
        }
        if packet.marked {
            self.ecn.on_marked();
        }
        if packet.ack_eliciting {
            self.last_eliciting_sent = Some(packet.time);
        } else if self.entries.len() - self.unsettled >= self.eliciting + MAX_SILENT {
            return;
        }
        if packet.in_flight {
            self.bytes_in_flight += u64::from(packet.size);
        }
        self.eliciting += usize::from(packet.ack_eliciting);
        self.entries.push_back(Entry { number, state: State::Outstanding(packet) });
        self.forget_silent_front();
    }

    /// Takes in an ACK frame: `ranges` as half-open ranges, in any order, and the delay that the
    /// peer reports; `None`: no sample is to be taken. Fills `out` with what was acknowledged and what is therefore lost.
    ///
    /// # Errors
    /// [`NeverSent`], and nothing has changed, if a number was skipped or not yet used.
    pub fn on_ack(
        &mut self,
        now: Instant,
        ranges: impl Iterator<Item = Range<u64>> + Clone,
        ack_delay: Option<Duration>,
        rtt: &mut RttEstimator,
        out: &mut Settled<T>,
    ) -> Result<(), NeverSent> {
        out.clear();
        let mut largest = None;
        for range in ranges.clone() {
            let skipped = range.start <= self.last_skipped && self.skipped.overlaps(range.clone());
            if range.end > self.next_number || skipped {
                return Err(NeverSent);
            }
            largest = largest.max(range.end.checked_sub(1).filter(|_| !range.is_empty()));
        }
        let Some(largest) = largest else { return Ok(()) };
        out.largest_raised = self.largest_acked.is_none_or(|before| largest > before);
        self.largest_acked = self.largest_acked.max(Some(largest));

        let mut newest = Newest::default();
        for range in ranges {
            self.acknowledge(now, range, rtt, out, &mut newest);
        }
        // A sample needs the largest to be new and something ack-eliciting to be (RFC 9002 §5.1).
        if let Some((number, sent)) = newest.packet
            && number == largest
            && number >= self.path_start
            && newest.eliciting
            && let Some(delay) = ack_delay
        {
            rtt.update(now, delay, now.since(sent));
            out.rtt_sampled = true;
        }
        self.find_lost(now, rtt, out);
        Ok(())
    }

    /// Declares lost what is overdue at `now` (RFC 9002 §6.1.2). To be called at
    /// [`loss_time`](Self::loss_time); harmless at any other time.
    pub fn detect_lost(&mut self, now: Instant, rtt: &RttEstimator, out: &mut Settled<T>) {
        out.clear();
        self.find_lost(now, rtt, out);
    }

    /// Checks the ECN counts of the ACK frame that filled `settled` (RFC 9000 §13.4.2.1); the
    /// path's [`EcnValidation`](super::ecn::EcnValidation) takes the report.
    pub fn check_ecn(&mut self, settled: &Settled<T>, counts: Option<EcnCounts>) -> EcnReport {
        if !settled.largest_raised {
            return EcnReport::Stale;
        }
        self.ecn.check(settled.acked_marked, settled.acked_marked_here, counts)
    }

    /// Outstanding packets from the oldest on: what a probe may carry again (RFC 9002 §6.2.4).
    pub fn outstanding(&self) -> impl DoubleEndedIterator<Item = (u64, &SentPacket<T>)> {
        self.entries.range(self.unsettled..).filter_map(|entry| match &entry.state {
            State::Outstanding(packet) => Some((entry.number, packet)),
            _ => None,
        })
    }

    /// As [`outstanding`](Self::outstanding), to take out contents that a probe now carries. Sizes
    /// and flags must be left as they are.
    pub fn outstanding_contents(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.entries.range_mut(self.unsettled..).filter_map(|entry| match &mut entry.state {
            State::Outstanding(packet) => Some(&mut packet.contents),
            _ => None,
        })
    }

    /// Forgets the outstanding packets for which `give_up` is true and hands them back, neither
    /// acknowledged nor lost: when keys are discarded (RFC 9002 §6.4), after a Retry, or when early
    /// data was rejected.
    pub fn abandon(&mut self, mut give_up: impl FnMut(&T) -> bool) -> Vec<(u64, SentPacket<T>)> {
        let mut given_up = Vec::new();
        for index in self.unsettled..self.entries.len() {
            if let State::Outstanding(packet) = &self.entries[index].state
                && give_up(&packet.contents)
                && let Some(packet) = self.settle(index, State::Acked)
            {
                given_up.push((self.entries[index].number, packet));
            }
        }
        self.advance_settled();
        if self.eliciting == 0 {
            self.loss_time = None;
        }
        given_up
    }

    /// The connection moved to another path: what is outstanding no longer counts against the
    /// window and gives no RTT samples (RFC 9000 §9.4).
    pub fn on_path_change(&mut self) {
        self.path_start = self.next_number;
        self.bytes_in_flight = 0;
        self.losing_since = None;
        self.reordering = Reordering::default();
        for entry in self.entries.range_mut(self.unsettled..) {
            if let State::Outstanding(packet) = &mut entry.state {
                packet.in_flight = false;
            }
        }
    }

    /// Marks what `range` acknowledges.
    fn acknowledge(
        &mut self,
        now: Instant,
        range: Range<u64>,
        rtt: &RttEstimator,
        out: &mut Settled<T>,
        newest: &mut Newest,
    ) {
        for index in self.index_from(range.start)..self.entries.len() {
            let entry = &self.entries[index];
            let number = entry.number;
            if number >= range.end {
                break;
            }
            match &entry.state {
                State::Acked => {}
                State::Outstanding(_) => {
                    if let Some(packet) = self.settle(index, State::Acked) {
                        newest.note(number, packet.time, packet.ack_eliciting);
                        if packet.marked {
                            out.note_marked(number >= self.path_start);
                        }
                        out.note_delivered(&packet);
                        out.acked.push((number, packet));
                    }
                }
                &State::Lost { sent, ack_eliciting, marked, counted, .. } => {
                    newest.note(number, sent, ack_eliciting);
                    if marked {
                        out.note_marked(number >= self.path_start);
                    }
                    if counted && number >= self.path_start {
                        out.spurious.push(sent);
                        let distance = self.largest_acked.unwrap_or(number) - number;
                        self.reordering.on_spurious(now, distance, rtt);
                    }
                    self.losing_since = None;
                    self.entries[index].state = State::Acked;
                }
            }
        }
    }

    /// Walks the outstanding packets below the largest acknowledged one. Those more than the packet
    /// threshold below it settle here at once, so the walk stays as short as the reordering window.
    fn find_lost(&mut self, now: Instant, rtt: &RttEstimator, out: &mut Settled<T>) {
        self.loss_time = None;
        let Some(largest_acked) = self.largest_acked else { return };
        let mut index = self.unsettled;
        while let Some(entry) = self.entries.get(index).filter(|e| e.number <= largest_acked) {
            let number = entry.number;
            if let State::Outstanding(packet) = &entry.state {
                let overdue = packet.time + rtt.loss_delay();
                let threshold = self.reordering.packet_threshold(now, rtt);
                if overdue > now && number + threshold > largest_acked {
                    self.loss_time = earliest(self.loss_time, Some(overdue));
                } else {
                    let lost = State::Lost {
                        sent: packet.time,
                        declared: now,
                        ack_eliciting: packet.ack_eliciting,
                        marked: packet.marked,
                        counted: packet.is_loss_counted(),
                    };
                    if let Some(packet) = self.settle(index, lost) {
                        out.note_lost(number, packet);
                    }
                }
            }
            index += 1;
        }
        let persistent = self.advance_with_runs(rtt);
        if let Some(missing) = &mut out.missing {
            missing.persistent = persistent;
        }
        self.forget_front(now, rtt);
    }

    /// Moves `unsettled` on, and follows the runs of losses that it passes: true if one of them
    /// spans more than three probe timeouts (RFC 9002 §7.6.2).
    fn advance_with_runs(&mut self, rtt: &RttEstimator) -> bool {
        let mut persistent = false;
        while let Some(entry) = self.entries.get(self.unsettled) {
            match &entry.state {
                State::Outstanding(_) => break,
                State::Acked => self.losing_since = None,
                State::Lost { sent, ack_eliciting: true, counted: true, .. } => {
                    // Before the first sample the span itself is only guessed.
                    let span = rtt.probe_timeout_base() * PERSISTENT_CONGESTION_THRESHOLD;
                    let sampled = rtt.first_sample().is_some_and(|first| *sent > first);
                    match self.losing_since {
                        Some(since) if sent.since(since) > span => {
                            persistent = true;
                            self.losing_since = None;
                        }
                        None if sampled => self.losing_since = Some(*sent),
                        _ => {}
                    }
                }
                State::Lost { .. } => {}
            }
            self.unsettled += 1;
        }
        persistent
    }

    /// Replaces an outstanding entry's state, keeps the sums, and hands the packet back.
    fn settle(&mut self, index: usize, state: State<T>) -> Option<SentPacket<T>> {
        let entry = &mut self.entries[index];
        match core::mem::replace(&mut entry.state, state) {
            State::Outstanding(packet) => {
                if packet.in_flight {
                    self.bytes_in_flight -= u64::from(packet.size);
                }
                self.eliciting -= usize::from(packet.ack_eliciting);
                Some(packet)
            }
            settled => {
                entry.state = settled;
                None
            }
        }
    }

    fn advance_settled(&mut self) {
        while self
            .entries
            .get(self.unsettled)
            .is_some_and(|e| !matches!(e.state, State::Outstanding(_)))
        {
            self.unsettled += 1;
        }
    }

    /// Drops settled entries from the front. A lost one stays for two probe timeouts (RFC 9002
    /// §A.4 keeps lost packets for a while), unless room is short.
    fn forget_front(&mut self, now: Instant, rtt: &RttEstimator) {
        while self.unsettled > 0
            && let Some(front) = self.entries.front()
        {
            if let State::Lost { declared, .. } = front.state
                && now.since(declared) < rtt.probe_timeout_base() * 2
                && self.entries.len() < MAX_TRACKED / 2
            {
                break;
            }
            self.entries.pop_front();
            self.unsettled -= 1;
        }
    }

    /// A sender of nothing but acks gets no acks itself: its packets are dropped from the front
    /// when they pile up. Nothing is lost by it, for they are never sent again.
    fn forget_silent_front(&mut self) {
        const KEPT: usize = 128;
        while self.entries.len() > KEPT && self.eliciting == 0 && self.bytes_in_flight == 0 {
            self.entries.pop_front();
            self.unsettled = self.unsettled.saturating_sub(1);
        }
    }

    /// The index of the first entry numbered `number` or higher.
    fn index_from(&self, number: u64) -> usize {
        let Some(first) = self.entries.front().map(|e| e.number) else { return 0 };
        let Some(offset) = number.checked_sub(first) else { return 0 };
        match usize::try_from(offset).ok().and_then(|at| Some((at, self.entries.get(at)?))) {
            Some((at, entry)) if entry.number == number => at,
            _ => self.entries.partition_point(|e| e.number < number),
        }
    }
}

/// The newest packet that an ACK frame newly acknowledged.
#[derive(Default)]
struct Newest {
    packet: Option<(u64, Instant)>,
    eliciting: bool,
}

impl Newest {
    fn note(&mut self, number: u64, sent: Instant, ack_eliciting: bool) {
        self.packet = self.packet.max(Some((number, sent)));
        self.eliciting |= ack_eliciting;
    }
}

/// How much reordering the path has lately shown (RFC 9002 §6.1.1 allows a larger threshold).
///
/// The threshold rises to what was seen and falls back after some quiet round trips, so one event
/// does not make every later loss slow to be noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Reordering {
    raised: Option<(u64, Instant)>,
}

impl Reordering {
    fn on_spurious(&mut self, now: Instant, distance: u64, rtt: &RttEstimator) {
        let current = self.packet_threshold(now, rtt);
        let seen = distance.saturating_add(1).clamp(PACKET_THRESHOLD, MAX_PACKET_THRESHOLD);
        self.raised = Some((seen.max(current), now));
    }

    fn packet_threshold(&self, now: Instant, rtt: &RttEstimator) -> u64 {
        match self.raised {
            Some((threshold, at)) if now.since(at) < rtt.smoothed() * REORDERING_MEMORY => {
                threshold
            }
            _ => PACKET_THRESHOLD,
        }
    }
}

#[cfg(test)]
mod tests;
