use alloc::vec;

use super::*;
use crate::wire::frame::{Frames, Message};
use crate::wire::{PacketType, Side};

const PLENTY: Credit = Credit { data: 1 << 40, message_data: 1 << 40, messages: 1 << 40 };

fn outbox(credit: Credit) -> Outbox {
    let mut outbox = Outbox::new(&Limits::default());
    outbox.on_peer_credit(credit);
    outbox
}

fn queue(outbox: &mut Outbox, size: usize) -> MessageId {
    outbox.queue(Bytes::new(), Bytes::from(vec![7; size])).unwrap()
}

struct Written {
    buf: Vec<u8>,
    record: Vec<SentFrame>,
}

impl Written {
    fn frames(&self) -> Vec<Frame<'_>> {
        if self.buf.is_empty() {
            return Vec::new();
        }
        Frames::new(&self.buf, PacketType::OneRtt, Side::Client).map(Result::unwrap).collect()
    }

    /// The ids of the MESSAGE frames.
    fn ids(&self) -> Vec<u64> {
        let id = |frame: &Frame<'_>| match frame {
            Frame::Message(m) => Some(m.id),
            _ => None,
        };
        self.frames().iter().filter_map(id).collect()
    }
}

fn write(outbox: &mut Outbox, room: usize) -> Written {
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    outbox.write(&mut buf, room, &mut record);
    assert!(buf.len() <= room);
    Written { buf, record }
}

fn settle(outbox: &mut Outbox, packet: &Written, acked: bool) {
    for frame in &packet.record {
        if acked { outbox.on_acked(frame) } else { outbox.on_lost(frame) }
    }
}

#[test]
fn head_and_body_are_one_message() {
    let mut outbox = outbox(PLENTY);
    outbox.queue(Bytes::from_static(b"head "), Bytes::from_static(b"and body")).unwrap();
    let packet = write(&mut outbox, 1200);
    let all = Message { id: 0, offset: 0, data: b"head and body", end: true };
    assert_eq!(packet.frames(), [Frame::Message(all)]);
    let cut = |outbox: &mut Outbox| {
        let packet = write(outbox, 40);
        match packet.frames()[..] {
            [Frame::Message(m)] => (m.offset, m.data.to_vec(), m.end),
            _ => panic!(),
        }
    };
    outbox.queue(Bytes::from(vec![1; 50]), Bytes::from(vec![2; 30])).unwrap();
    assert_eq!(cut(&mut outbox), (0, vec![1; 37], false));
    assert_eq!(cut(&mut outbox), (37, [[1; 13].as_slice(), &[2; 23]].concat(), false));
    assert_eq!(cut(&mut outbox), (73, vec![2; 7], true));
}

#[test]
fn many_short_messages_share_a_packet_and_none_is_cut_for_little() {
    let mut outbox = outbox(PLENTY);
    for _ in 0..200 {
        queue(&mut outbox, 100);
    }
    let packet = write(&mut outbox, 1200);
    assert_eq!(packet.ids(), (0..11).collect::<Vec<_>>());
    let whole = |f: &Frame<'_>| matches!(f, Frame::Message(m) if m.end && m.offset == 0);
    assert!(packet.frames().iter().all(whole));
    assert_eq!(write(&mut outbox, 1200).ids(), (11..22).collect::<Vec<_>>());
}

#[test]
fn a_short_message_waits_one_turn_behind_a_long_one() {
    let mut outbox = outbox(PLENTY);
    let long = queue(&mut outbox, 1 << 20);
    assert_eq!(write(&mut outbox, 1200).ids(), [long.0]);
    let short = queue(&mut outbox, 50);
    let mut packets = 0;
    while !outbox.ever_fully_sent(short) {
        write(&mut outbox, 1200);
        packets += 1;
    }
    assert!(packets <= 2, "{packets}");
}

#[test]
fn long_messages_take_turns_of_a_packet() {
    let mut outbox = outbox(PLENTY);
    for _ in 0..3 {
        queue(&mut outbox, 1 << 16);
    }
    let order: Vec<u64> = (0..30).flat_map(|_| write(&mut outbox, 1250).ids()).collect();
    let count = |id| order.iter().filter(|i| **i == id).count();
    assert!((0..3).all(|id| (9..=11).contains(&count(id))), "{order:?}");
    assert!(order.windows(3).all(|w| w[0] != w[1] || w[1] != w[2]), "{order:?}");
}

#[test]
fn what_was_lost_goes_first_and_only_that_is_sent_again() {
    let mut outbox = outbox(PLENTY);
    let long = queue(&mut outbox, 5000);
    let packets: Vec<_> = (0..3).map(|_| write(&mut outbox, 1200)).collect();
    settle(&mut outbox, &packets[0], true);
    settle(&mut outbox, &packets[2], true);
    settle(&mut outbox, &packets[1], false);
    settle(&mut outbox, &packets[1], false);
    let again = write(&mut outbox, 1300);
    assert_eq!(again.record[0], packets[1].record[0]);
    assert!(
        matches!(again.record[1], SentFrame::Data { id, start, .. } if id == long && start > 3000)
    );
    settle(&mut outbox, &packets[1], true);
    settle(&mut outbox, &again, false);
    let rest = write(&mut outbox, 1200);
    assert_eq!(rest.record[0], again.record[1], "its first frame arrived after all");
}

#[test]
fn an_acknowledged_message_frees_its_bytes_and_tells_once() {
    let mut outbox = outbox(PLENTY);
    let id = queue(&mut outbox, 3000);
    outbox.tell_acked(id);
    let packets: Vec<_> = (0..3).map(|_| write(&mut outbox, 1200)).collect();
    assert_eq!(outbox.in_flight(), 3000);
    for packet in packets.iter().rev() {
        assert_eq!(outbox.poll_event(), None);
        settle(&mut outbox, packet, true);
        settle(&mut outbox, packet, true);
    }
    assert_eq!((outbox.poll_event(), outbox.poll_event()), (Some(OutboxEvent::Acked(id)), None));
    assert!(outbox.is_empty() && outbox.in_flight() == 0 && outbox.ever_fully_sent(id));
}

#[test]
fn nothing_is_sent_before_the_peer_grants_it() {
    let mut outbox = Outbox::new(&Limits::default());
    queue(&mut outbox, 100);
    assert!(!outbox.has_pending() && write(&mut outbox, 1200).buf.is_empty());
    outbox.on_peer_credit(Credit { data: 60, message_data: 40, messages: 1 });
    queue(&mut outbox, 100);
    let packet = write(&mut outbox, 1200);
    let part = Message { id: 0, offset: 0, data: &[7; 40], end: false };
    assert_eq!(packet.frames(), [Frame::Message(part), Frame::MessagesBlocked(1)]);
    assert!(!outbox.has_pending());
    outbox.on_max_messages(5);
    let packet = write(&mut outbox, 1200);
    let part = Message { id: 1, offset: 0, data: &[7; 20], end: false };
    assert_eq!(packet.frames(), [Frame::Message(part), Frame::DataBlocked(60)]);
    assert!(!outbox.has_pending(), "it was said once");
    outbox.on_max_data(1000);
    assert_eq!(write(&mut outbox, 1200).ids(), [1], "up to its own limit");
    outbox.on_max_message_data(0, 100).unwrap();
    outbox.on_max_message_data(0, 50).unwrap();
    assert_eq!(write(&mut outbox, 1200).ids(), [0]);
    assert!(outbox.ever_fully_sent(MessageId(0)) && !outbox.ever_fully_sent(MessageId(1)));
}

#[test]
fn a_lost_blocked_frame_is_said_again_only_while_it_is_true() {
    let mut outbox = outbox(Credit { data: 60, message_data: 1000, messages: 10 });
    queue(&mut outbox, 100);
    let packet = write(&mut outbox, 1200);
    outbox.on_lost(&packet.record[1]);
    assert_eq!(write(&mut outbox, 1200).record, [SentFrame::DataBlocked(60)]);
    outbox.on_max_data(100);
    outbox.on_lost(&packet.record[1]);
    assert_eq!(write(&mut outbox, 1200).ids(), [0]);
    assert!(!outbox.has_pending());
}

#[test]
fn bytes_in_flight_stay_within_the_send_window() {
    let limits = Limits { send_window: 2000, ..Limits::default() };
    let mut outbox = Outbox::new(&limits);
    outbox.on_peer_credit(PLENTY);
    queue(&mut outbox, 10_000);
    let first = write(&mut outbox, 1200);
    write(&mut outbox, 1200);
    assert_eq!(outbox.in_flight(), 2000);
    assert!(!outbox.has_pending(), "and the peer is not blamed for it");
    settle(&mut outbox, &first, false);
    let again = write(&mut outbox, 1200);
    assert_eq!((again.ids().len(), outbox.in_flight()), (1, 2000));
    settle(&mut outbox, &again, true);
    assert!(outbox.has_pending());
}

#[test]
fn a_message_is_refused_when_too_many_are_queued_and_room_is_announced() {
    let limits = Limits { queued_messages: 2, ..Limits::default() };
    let mut outbox = Outbox::new(&limits);
    outbox.on_peer_credit(PLENTY);
    for _ in 0..2 {
        queue(&mut outbox, 10);
    }
    assert_eq!(outbox.queue(Bytes::new(), Bytes::new()), Err(SendError::Full));
    let packet = write(&mut outbox, 1200);
    settle(&mut outbox, &packet, true);
    let events: Vec<_> = core::iter::from_fn(|| outbox.poll_event()).collect();
    assert_eq!(events.iter().filter(|e| **e == OutboxEvent::Writable).count(), 1);
    assert_eq!(queue(&mut outbox, 10), MessageId(2), "a refused message takes no id");
}

#[test]
fn a_reset_sends_no_more_data_and_says_how_much_was_sent() {
    let mut outbox = outbox(PLENTY);
    let id = queue(&mut outbox, 5000);
    let data = write(&mut outbox, 1200);
    let sent = outbox.in_flight();
    assert!(!outbox.reset(id, 77) && !outbox.reset(id, 78));
    settle(&mut outbox, &data, false);
    let packet = write(&mut outbox, 1200);
    assert_eq!(packet.frames(), [Frame::ResetMessage { id: 0, code: 77, final_size: sent }]);
    settle(&mut outbox, &packet, false);
    let packet = write(&mut outbox, 1200);
    assert_eq!(packet.record, [SentFrame::Reset(id)]);
    settle(&mut outbox, &packet, true);
    settle(&mut outbox, &data, true);
    assert!(outbox.is_empty() && !outbox.has_pending() && outbox.in_flight() == 0);
    assert_eq!(outbox.poll_event(), None, "who resets knows");
}

#[test]
fn a_message_given_up_before_it_was_sent_never_fully_was() {
    let mut outbox = outbox(Credit { messages: 1, ..PLENTY });
    let sent = queue(&mut outbox, 10);
    let waiting = queue(&mut outbox, 10);
    assert_eq!(write(&mut outbox, 1200).ids(), [0]);
    assert!(outbox.ever_fully_sent(sent) && outbox.reset(sent, 1));
    assert!(!outbox.ever_fully_sent(waiting) && !outbox.reset(waiting, 1));
    assert!(!outbox.ever_fully_sent(MessageId(2)), "there is no such message");
    assert_eq!(write(&mut outbox, 1200).record, [SentFrame::Reset(sent)]);
    assert!(!outbox.has_pending(), "the peer does not allow the other id yet");
    outbox.on_max_messages(2);
    let packet = write(&mut outbox, 1200);
    assert_eq!(packet.frames(), [Frame::ResetMessage { id: 1, code: 1, final_size: 0 }]);
}

#[test]
fn a_stop_ends_the_message_and_is_answered_with_a_reset() {
    let mut outbox = outbox(PLENTY);
    let id = queue(&mut outbox, 5000);
    let first = write(&mut outbox, 1200);
    outbox.on_stop(0, 5).unwrap();
    outbox.on_stop(0, 6).unwrap();
    assert_eq!(outbox.poll_event(), Some(OutboxEvent::Stopped { id, code: 5 }));
    assert_eq!(outbox.poll_event(), None);
    let packet = write(&mut outbox, 1200);
    assert_eq!(packet.record, [SentFrame::Reset(id)]);
    settle(&mut outbox, &packet, true);
    settle(&mut outbox, &first, true);
    outbox.on_stop(0, 5).unwrap();
    assert!(outbox.is_empty() && outbox.poll_event().is_none());
}

#[test]
fn frames_about_messages_never_opened_are_state_errors() {
    let mut outbox = outbox(PLENTY);
    queue(&mut outbox, 10);
    let error = outbox.on_stop(0, 1).unwrap_err();
    assert_eq!((error.code, error.frame), (Code::MESSAGE_STATE_ERROR, Some(5)));
    let error = outbox.on_max_message_data(0, 1).unwrap_err();
    assert_eq!((error.code, error.frame), (Code::MESSAGE_STATE_ERROR, Some(0x11)));
    write(&mut outbox, 1200);
    outbox.on_max_message_data(0, 1).unwrap();
}

#[test]
fn rejected_early_data_goes_out_again_under_the_new_credit() {
    let mut outbox = outbox(Credit { data: 100, message_data: 100, messages: 2 });
    for _ in 0..2 {
        queue(&mut outbox, 50);
    }
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    outbox.write_data(&mut buf, 1200, &mut record);
    assert_eq!(record, [SentFrame::Run { first: MessageId(0), count: 2 }]);
    outbox.reset(MessageId(1), 3);
    outbox.on_early_data_rejected();
    assert!(!outbox.ever_fully_sent(MessageId(0)) && !outbox.has_pending());
    outbox.on_peer_credit(Credit { data: 40, message_data: 30, messages: 5 });
    let packet = write(&mut outbox, 1200);
    let part = Message { id: 0, offset: 0, data: &[7; 30], end: false };
    let reset = Frame::ResetMessage { id: 1, code: 3, final_size: 0 };
    assert_eq!(packet.frames(), [reset, Frame::Message(part)]);
    assert_eq!(outbox.in_flight(), 30);
}

#[test]
fn steady_short_messages_allocate_no_queue_space() {
    let mut outbox = outbox(PLENTY);
    let body = Bytes::from_static(&[1; 100]);
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        outbox.queue(Bytes::new(), body.clone()).unwrap();
        buf.clear();
        record.clear();
        outbox.write(&mut buf, 1200, &mut record);
        record.iter().for_each(|frame| outbox.on_acked(frame));
        assert!(outbox.is_empty());
        assert_eq!(outbox.poll_event(), None, "nobody asked to be told");
    }
    assert!(outbox.turns.capacity() <= 8 && outbox.events.capacity() <= 8);
}

#[test]
fn short_messages_of_a_lost_packet_are_sent_again_if_they_have_not_ended() {
    let mut outbox = outbox(PLENTY);
    for _ in 0..4 {
        queue(&mut outbox, 100);
    }
    let packet = write(&mut outbox, 1200);
    assert_eq!(packet.record, [SentFrame::Run { first: MessageId(0), count: 4 }]);
    outbox.reset(MessageId(2), 5);
    settle(&mut outbox, &packet, false);
    assert_eq!(outbox.in_flight(), 300);
    let again = write(&mut outbox, 1200);
    assert_eq!(again.ids(), [0, 1, 3]);
    settle(&mut outbox, &packet, true);
    settle(&mut outbox, &again, true);
    assert!(outbox.is_empty() && outbox.in_flight() == 0 && outbox.frames.held() == 0);
}

#[test]
fn a_short_message_is_cut_in_two_where_a_packet_has_much_room_left() {
    let mut outbox = outbox(PLENTY);
    for _ in 0..3 {
        queue(&mut outbox, 500);
    }
    let first = write(&mut outbox, 1452);
    assert_eq!(first.ids(), [0, 1, 2]);
    let second = write(&mut outbox, 1452);
    assert_eq!(second.ids(), [2]);
    settle(&mut outbox, &second, true);
    settle(&mut outbox, &first, true);
    assert!(outbox.is_empty() && outbox.in_flight() == 0);
}

#[test]
fn copies_of_short_messages_leave_out_those_that_have_ended() {
    let mut outbox = outbox(PLENTY);
    for _ in 0..3 {
        queue(&mut outbox, 50);
    }
    let packet = write(&mut outbox, 1200);
    outbox.reset(MessageId(1), 5);
    assert!(outbox.is_worth_copying(&packet.record));
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    assert_eq!(outbox.write_copies(&packet.record, &mut buf, 60, &mut record), 0, "no room");
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    assert_eq!(outbox.write_copies(&packet.record, &mut buf, 1200, &mut record), 1);
    let copies = Written { buf, record };
    assert_eq!(copies.ids(), [0, 2]);
    settle(&mut outbox, &copies, true);
    assert!(!outbox.is_worth_copying(&packet.record));
    assert_eq!(outbox.in_flight(), 0);
}

#[test]
fn a_short_message_that_is_not_acknowledged_does_not_hold_the_memory_of_later_ones() {
    let mut outbox = outbox(PLENTY);
    queue(&mut outbox, 100);
    let stuck = write(&mut outbox, 1200);
    for _ in 0..10_000 {
        queue(&mut outbox, 100);
        let packet = write(&mut outbox, 1200);
        settle(&mut outbox, &packet, true);
        assert!(outbox.frames.held() < 70_000, "{} bytes", outbox.frames.held());
    }
    settle(&mut outbox, &stuck, true);
    assert!(outbox.is_empty() && outbox.in_flight() == 0 && outbox.frames.held() == 0);
}

#[test]
fn what_arrives_after_it_was_thought_lost_is_not_sent_again() {
    let mut outbox = outbox(PLENTY);
    let id = queue(&mut outbox, 100);
    outbox.tell_acked(id);
    let packet = write(&mut outbox, 60);
    settle(&mut outbox, &packet, false);
    settle(&mut outbox, &packet, true);
    let rest = write(&mut outbox, 1200);
    assert!(matches!(rest.record[..], [SentFrame::Data { start, .. }] if start > 0));
    settle(&mut outbox, &rest, true);
    assert_eq!(outbox.poll_event(), Some(OutboxEvent::Acked(id)));
}

#[test]
fn a_probe_may_resend_a_range_of_which_parts_have_arrived() {
    let mut outbox = outbox(PLENTY);
    queue(&mut outbox, 900);
    let whole = write(&mut outbox, 1200);
    settle(&mut outbox, &whole, false);
    let parts: Vec<_> = (0..5).map(|_| write(&mut outbox, 220)).collect();
    settle(&mut outbox, &parts[1], true);
    settle(&mut outbox, &parts[3], true);
    settle(&mut outbox, &whole, false);
    let again = write(&mut outbox, 1200);
    assert_eq!(again.record, [0, 2, 4].map(|n| parts[n].record[0]));
    settle(&mut outbox, &again, true);
    assert!(outbox.is_empty() && outbox.in_flight() == 0);
}

#[test]
fn the_last_half_of_the_credit_is_for_the_oldest_long_message() {
    let mut outbox = outbox(Credit { data: 16_000, message_data: 10_000, messages: 100 });
    for _ in 0..4 {
        queue(&mut outbox, 9000);
    }
    let mut sent = [0; 4];
    while outbox.has_pending_data() {
        for frame in write(&mut outbox, 1200).record {
            if let SentFrame::Data { id, length, .. } = frame {
                sent[id.0 as usize] += length;
            }
        }
    }
    assert_eq!(sent[0], 9001, "the first one ends");
    assert!(sent[1..].iter().is_sorted_by(|a, b| a > b), "{sent:?}: then the next one");
    assert_eq!(sent.iter().sum::<u32>(), 16_001);
    let short = queue(&mut outbox, 100);
    outbox.on_max_data(18_000);
    let ids = [write(&mut outbox, 1200).ids(), write(&mut outbox, 1200).ids()].concat();
    assert!(ids.contains(&short.0), "a short one may use it too: {ids:?}");
}
