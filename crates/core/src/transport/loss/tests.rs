#![expect(clippy::single_range_in_vec_init, reason = "acknowledged ranges are listed, one or more")]

use super::*;
use alloc::vec;
use core::iter::once;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const SIZE: u32 = 1_200;

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn packet(time: Instant, contents: u64) -> SentPacket<u64> {
    SentPacket {
        time,
        size: SIZE,
        ack_eliciting: true,
        in_flight: true,
        marked: false,
        mtu_probe: false,
        contents,
    }
}

fn ack_only(time: Instant) -> SentPacket<u64> {
    SentPacket { ack_eliciting: false, in_flight: false, ..packet(time, 0) }
}

/// A space whose numbers are never skipped, and an estimator that has seen 10 ms.
struct Space {
    sent: SentPackets<u64>,
    rtt: RttEstimator,
    out: Settled<u64>,
}

impl Space {
    fn new() -> Self {
        let mut rtt = RttEstimator::default();
        rtt.update(at(0), Duration::ZERO, 10 * MS);
        let sent = SentPackets { skip_at: u64::MAX, ..SentPackets::new() };
        Self { sent, rtt, out: Settled::new() }
    }

    fn send(&mut self, ms: u64) -> u64 {
        self.send_packet(packet(at(ms), 0))
    }

    fn send_packet(&mut self, packet: SentPacket<u64>) -> u64 {
        let number = self.sent.take_number(&mut Random::from_seed([0; 32]));
        self.sent.on_sent(number, packet);
        number
    }

    fn ack(&mut self, ms: u64, ranges: &[Range<u64>]) -> Result<(), NeverSent> {
        let ranges = ranges.iter().cloned();
        self.sent.on_ack(at(ms), ranges, Some(Duration::ZERO), &mut self.rtt, &mut self.out)
    }

    fn acked(&self) -> Vec<u64> {
        self.out.acked.iter().map(|(number, _)| *number).collect()
    }

    fn lost(&self) -> Vec<u64> {
        self.out.lost.iter().map(|(number, _)| *number).collect()
    }

    fn is_persistent(&self) -> bool {
        self.out.missing.is_some_and(|m| m.persistent)
    }
}

#[test]
fn an_ack_of_a_packet_never_sent_is_an_error_and_changes_nothing() {
    let mut space = Space::new();
    space.send(0);
    assert_eq!(space.ack(10, &[0..2]), Err(NeverSent));
    assert_eq!(space.ack(10, once(0..u64::MAX).collect::<Vec<_>>().as_slice()), Err(NeverSent));
    assert_eq!(space.sent.bytes_in_flight(), u64::from(SIZE));
    assert_eq!(space.sent.largest_acked(), None);
    assert_eq!(space.ack(10, &[0..1]), Ok(()));
}

#[test]
fn skipped_numbers_give_an_optimistic_acknowledger_away() {
    let mut random = Random::from_seed([3; 32]);
    let mut sent = SentPackets::new();
    let mut last = None;
    let mut skipped = None;
    for n in 0..200 {
        let number = sent.take_number(&mut random);
        if last.is_some_and(|l| number == l + 2) {
            skipped = skipped.or(Some(number - 1));
        }
        sent.on_sent(number, packet(at(n), n));
        last = Some(number);
    }
    let skipped = skipped.expect("one of 200 is skipped");
    let mut rtt = RttEstimator::default();
    let mut out = Settled::new();
    let mut ack =
        |range| sent.on_ack(at(300), once(range), Some(Duration::ZERO), &mut rtt, &mut out);
    assert_eq!(ack(skipped..skipped + 1), Err(NeverSent));
    assert_eq!(ack(0..skipped + 2), Err(NeverSent));
    assert_eq!(ack(0..skipped), Ok(()));
    assert_eq!(ack(skipped + 1..skipped + 3), Ok(()));
}

#[test]
fn three_packets_acknowledged_later_make_one_lost() {
    let mut space = Space::new();
    for ms in 0..5 {
        space.send(ms);
    }
    space.ack(10, &[1..3]).unwrap();
    assert!(space.lost().is_empty(), "only two are later");
    space.ack(10, &[1..4]).unwrap();
    assert_eq!(space.lost(), vec![0]);
    assert_eq!(space.acked(), vec![3], "acknowledged once each");
    assert_eq!(space.sent.bytes_in_flight(), u64::from(SIZE));
}

#[test]
fn nine_eighths_of_a_round_trip_make_a_packet_lost_and_the_timer_says_when() {
    let mut space = Space::new();
    space.send(100);
    space.send(100);
    assert_eq!(space.sent.loss_time(), None);
    space.ack(110, &[1..2]).unwrap();
    let due = space.sent.loss_time().expect("the older one is in doubt");
    assert_eq!(due, at(100) + 10 * MS * 9 / 8);
    space.sent.detect_lost(due - Duration::from_nanos(1), &space.rtt, &mut space.out);
    assert!(space.lost().is_empty());
    space.sent.detect_lost(due, &space.rtt, &mut space.out);
    assert_eq!(space.lost(), vec![0]);
    assert_eq!(space.sent.loss_time(), None);
    assert!(!space.sent.has_eliciting());
}

#[test]
fn without_a_later_ack_nothing_is_lost_however_late_it_gets() {
    let mut space = Space::new();
    space.send(0);
    space.sent.detect_lost(at(1_000_000), &space.rtt, &mut space.out);
    assert!(space.lost().is_empty());
    assert_eq!(space.sent.outstanding().count(), 1);
}

#[test]
fn contents_come_back_once_acknowledged_or_lost() {
    let mut space = Space::new();
    for n in 0..6 {
        space.send_packet(packet(at(n), n * 10));
    }
    space.ack(12, &[4..6]).unwrap();
    let contents = |list: &[(u64, SentPacket<u64>)]| -> Vec<u64> {
        list.iter().map(|(_, p)| p.contents).collect()
    };
    assert_eq!(contents(&space.out.acked), vec![40, 50]);
    assert_eq!(contents(&space.out.lost), vec![0, 10, 20]);
    assert_eq!(
        space.out.delivered,
        Some(Delivered { packets: 2, bytes: 2 * u64::from(SIZE), newest_sent: at(5) })
    );
    assert_eq!(space.out.missing.map(|m| (m.packets, m.newest_sent)), Some((3, at(2))));
}

#[test]
fn only_a_newly_acknowledged_largest_with_something_eliciting_gives_a_sample() {
    let mut space = Space::new();
    space.send(0);
    space.send(1);
    space.send_packet(ack_only(at(2)));
    space.ack(20, &[2..3]).unwrap();
    assert!(!space.out.rtt_sampled, "an ack alone elicits nothing and may be acked late");
    space.ack(25, &[1..3]).unwrap();
    assert!(!space.out.rtt_sampled, "the largest was known before");
    space.send(30);
    space.ack(41, &[0..4]).unwrap();
    assert!(space.out.rtt_sampled);
    assert_eq!(space.rtt.latest(), 11 * MS);
    space.ack(99, &[0..4]).unwrap();
    assert!(!space.out.rtt_sampled);
}

#[test]
fn a_late_ack_reveals_a_spurious_loss_and_still_gives_a_sample() {
    let mut space = Space::new();
    for _ in 0..2 {
        space.send(100);
    }
    space.ack(110, &[1..2]).unwrap();
    space.sent.detect_lost(at(112), &space.rtt, &mut space.out);
    assert_eq!(space.lost(), vec![0]);
    space.ack(115, &[0..2]).unwrap();
    assert_eq!(space.out.spurious, vec![at(100)]);
    assert!(space.acked().is_empty(), "its contents were handed back as lost");

    // All of a flight overdue at once, as when the path suddenly gets slower.
    let slow = space.send(200);
    let next = space.send(201);
    space.ack(211, &[next..next + 1]).unwrap();
    space.sent.detect_lost(at(213), &space.rtt, &mut space.out);
    assert_eq!(space.lost(), vec![slow]);
}

#[test]
fn reordering_raises_the_packet_threshold_for_a_while_only() {
    let mut space = Space::new();
    for _ in 0..12 {
        space.send(100);
    }
    space.ack(110, &[4..9]).unwrap();
    assert_eq!(space.lost(), vec![0, 1, 2, 3]);
    space.ack(110, &[0..9]).unwrap();
    assert_eq!(space.out.spurious.len(), 4);

    // The same pattern again is not taken for loss.
    let first = space.send(111);
    for _ in 0..8 {
        space.send(111);
    }
    space.ack(121, &[9..12, first + 4..first + 9]).unwrap();
    assert!(space.lost().is_empty(), "{:?}", space.lost());
    space.ack(121, &[first..first + 9]).unwrap();

    // Long after, three packets suffice again.
    let first = space.send(2_000);
    for _ in 0..3 {
        space.send(2_000);
    }
    space.ack(2_010, &[first + 1..first + 4]).unwrap();
    assert_eq!(space.lost(), vec![first]);
}

#[test]
fn losses_over_more_than_three_probe_timeouts_are_persistent_congestion() {
    let mut space = Space::new();
    let span = space.rtt.probe_timeout_base() * 3;
    let ms = u64::try_from(span.as_millis()).unwrap();
    space.send(1);
    space.send(1 + ms / 2);
    space.send(3 + ms);
    for _ in 0..3 {
        space.send(4 + ms);
    }
    space.ack(14 + ms, &[5..6]).unwrap();
    assert_eq!(space.lost(), vec![0, 1, 2]);
    assert!(space.is_persistent());
}

#[test]
fn an_ack_in_between_or_a_start_before_the_first_sample_is_not_persistent_congestion() {
    let mut space = Space::new();
    space.send(1);
    space.send(100);
    space.send(500);
    for _ in 0..3 {
        space.send(501);
    }
    space.ack(511, &[1..2, 5..6]).unwrap();
    assert_eq!(space.lost(), vec![0, 2]);
    assert!(!space.is_persistent(), "one in between arrived");

    let mut space = Space::new();
    space.send(0);
    space.send(500);
    for _ in 0..3 {
        space.send(501);
    }
    space.ack(511, &[4..5]).unwrap();
    assert_eq!(space.lost(), vec![0, 1]);
    assert!(!space.is_persistent(), "the first was sent before there was a sample");
}

#[test]
fn a_run_of_losses_declared_in_several_steps_is_seen_whole() {
    let mut space = Space::new();
    for ms in [100, 100, 300, 300, 300] {
        space.send(ms);
    }
    space.ack(310, &[4..5]).unwrap();
    assert_eq!(space.lost(), vec![0, 1]);
    assert!(!space.is_persistent());
    space.sent.detect_lost(at(312), &space.rtt, &mut space.out);
    assert_eq!(space.lost(), vec![2, 3]);
    assert!(space.is_persistent());
}

#[test]
fn a_lost_path_probe_is_no_sign_of_congestion() {
    let mut space = Space::new();
    space.send_packet(SentPacket { mtu_probe: true, ..packet(at(1), 0) });
    for _ in 0..3 {
        space.send(2);
    }
    space.ack(12, &[1..4]).unwrap();
    assert_eq!(space.lost(), vec![0]);
    assert_eq!(space.out.missing, None);
    space.ack(13, &[0..4]).unwrap();
    assert!(space.out.spurious.is_empty());
}

#[test]
fn packets_of_a_former_path_count_neither_for_the_window_nor_for_the_round_trip_time() {
    let mut space = Space::new();
    space.send(1);
    space.send(1);
    space.sent.on_path_change();
    assert_eq!(space.sent.bytes_in_flight(), 0);
    space.send(2);
    space.ack(11, &[0..1]).unwrap();
    assert_eq!(space.acked(), vec![0], "contents still come back");
    assert!(!space.out.rtt_sampled);
    assert_eq!(space.out.delivered, None);
    space.ack(12, &[2..3]).unwrap();
    assert!(space.out.rtt_sampled);
    space.sent.detect_lost(at(100), &space.rtt, &mut space.out);
    assert_eq!(space.lost(), vec![1]);
    assert_eq!(space.out.missing, None);
}

#[test]
fn abandoned_packets_leave_the_window_and_are_neither_acked_nor_lost() {
    let mut space = Space::new();
    for n in 0..4 {
        space.send_packet(packet(at(1), n));
    }
    let given_up = space.sent.abandon(|contents| *contents < 3);
    assert_eq!(given_up.len(), 3);
    assert_eq!(space.sent.bytes_in_flight(), u64::from(SIZE));
    space.ack(11, &[0..4]).unwrap();
    assert_eq!(space.acked(), vec![3]);
    assert!(space.lost().is_empty() && !space.sent.has_eliciting());
}

#[test]
fn a_sender_of_acks_alone_holds_few_of_them() {
    let mut space = Space::new();
    for n in 0..100_000 {
        space.send_packet(ack_only(at(n)));
    }
    assert!(space.sent.entries.len() <= 129);
    assert!(space.sent.entries.capacity() <= 512);
}

#[test]
fn a_peer_that_never_acknowledges_cannot_make_acks_pile_up() {
    let mut space = Space::new();
    space.send(0);
    for n in 0..100_000 {
        space.send_packet(ack_only(at(n)));
    }
    assert!(space.sent.entries.len() <= MAX_SILENT + 1);
    let last = space.send(100_000);
    space.ack(100_010, &[0..last + 1]).unwrap();
    assert!(space.acked().contains(&last), "numbers that went untracked leave no hole");
    assert!(space.sent.entries.is_empty());
}

#[test]
fn tracking_is_bounded_and_says_so() {
    let mut space = Space::new();
    for _ in 0..MAX_TRACKED {
        assert!(!space.sent.is_full());
        space.send(1);
    }
    assert!(space.sent.is_full());
    let all = space.sent.next_number();
    space.ack(20, &[10..all]).unwrap();
    assert_eq!(space.lost().len(), 10);
    assert!(space.sent.entries.is_empty() || !space.sent.is_full());
}

#[test]
fn memory_is_reused_in_the_steady_state() {
    let mut space = Space::new();
    let window = |space: &mut Space, from: u64| {
        for n in 0..64 {
            space.send(from + n);
        }
        let next = space.sent.next_number();
        space.ack(from + 70, &[next - 64..next]).unwrap();
    };
    window(&mut space, 0);
    window(&mut space, 100);
    let (entries, acked) = (space.sent.entries.capacity(), space.out.acked.capacity());
    for n in 2..200 {
        window(&mut space, n * 100);
    }
    assert_eq!((space.sent.entries.capacity(), space.out.acked.capacity()), (entries, acked));
}

proptest! {
    /// Every packet is handed back exactly once, as acknowledged, lost or abandoned, and the sums
    /// are right at every step.
    #[test]
    fn each_packet_settles_once(
        steps in prop::collection::vec((0u8..4, 0u64..40, 1u64..10, 0u64..8), 1..120)
    ) {
        let mut space = Space::new();
        space.sent.skip_at = 7;
        let mut random = Random::from_seed([9; 32]);
        let mut settled = alloc::collections::BTreeSet::new();
        let mut tracked = 0u64;
        let mut now = 1;
        for (kind, a, b, pass) in steps {
            now += pass;
            space.out.clear();
            match kind {
                0 | 1 => for _ in 0..b {
                    let number = space.sent.take_number(&mut random);
                    space.sent.on_sent(number, packet(at(now), number));
                    tracked += 1;
                },
                2 => {
                    let next = space.sent.next_number();
                    let start = next.saturating_sub(a);
                    let _ = space.ack(now, &[start..(start + b).min(next)]);
                }
                _ => space.sent.detect_lost(at(now), &space.rtt, &mut space.out),
            }
            for (number, packet) in space.out.acked.iter().chain(&space.out.lost) {
                prop_assert_eq!(*number, packet.contents);
                prop_assert!(settled.insert(*number), "{} settled twice", number);
            }
            let outstanding: Vec<u64> = space.sent.outstanding().map(|(n, _)| n).collect();
            prop_assert_eq!(outstanding.len() + settled.len(), tracked as usize);
            prop_assert!(outstanding.iter().all(|n| !settled.contains(n)));
            prop_assert_eq!(space.sent.bytes_in_flight(), outstanding.len() as u64 * u64::from(SIZE));
            prop_assert_eq!(space.sent.has_eliciting(), !outstanding.is_empty());
        }
    }
}
