use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;

fn limits(receive_window: u64, open_messages: u64) -> Limits {
    Limits { receive_window, open_messages, ..Limits::default() }
}

fn bytes(n: usize) -> Bytes {
    Bytes::from(vec![7; n])
}

/// What the inbox writes now.
fn written(inbox: &mut Inbox) -> Vec<SentFrame> {
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    inbox.write(&mut buf, 1200, &mut record);
    record
}

fn error(result: Result<(), TransportError>) -> (Code, Option<u64>) {
    let error = result.expect_err("a violation");
    (error.code, error.frame)
}

#[test]
fn a_message_in_one_frame_is_accepted_and_read_without_a_copy() {
    let mut inbox = Inbox::new(&Limits::default());
    let data = bytes(100);
    inbox.on_message(0, 0, data.clone(), true).unwrap();
    assert_eq!(inbox.accept(), Some(MessageId(0)));
    let Chunk::Data { data: read, end: true } = inbox.read(MessageId(0)) else { panic!() };
    assert_eq!(read.as_ptr(), data.as_ptr());
    assert_eq!((inbox.accept(), inbox.open(), inbox.bytes_waiting()), (None, 0, 0));
    assert_eq!(inbox.read(MessageId(0)), Chunk::Ended);
}

#[test]
fn a_message_in_one_frame_is_taken_whole_once_and_counts_as_open_until_then() {
    let mut inbox = Inbox::new(&limits(1 << 20, 4));
    let data = bytes(100);
    inbox.on_message(1, 0, data.clone(), true).unwrap();
    inbox.on_message(1, 0, data.clone(), true).unwrap();
    assert_eq!((inbox.open(), inbox.bytes_waiting()), (2, 100), "message 0 is open too");
    assert!(inbox.has_readable());
    let (id, taken) = inbox.take_whole().unwrap();
    assert_eq!((id, taken.as_ptr()), (MessageId(1), data.as_ptr()));
    assert_eq!((inbox.take_whole(), inbox.open(), inbox.pieces()), (None, 1, 0));
    inbox.on_message(1, 0, data, true).unwrap();
    assert!(!inbox.has_readable(), "a late copy");
    inbox.on_message(0, 0, Bytes::new(), true).unwrap();
    assert_eq!(inbox.take_whole(), None, "it was known of before it came");
    assert_eq!(inbox.accept(), Some(MessageId(0)));
}

#[test]
fn what_comes_whole_is_bounded_like_all_else() {
    let mut inbox = Inbox::new(&limits(1000, 2));
    let too_large = inbox.on_message(0, 0, bytes(501), true);
    assert_eq!(error(too_large), (Code::FLOW_CONTROL_ERROR, Some(8)));
    let mut inbox = Inbox::new(&limits(1000, 3));
    inbox.on_message(0, 0, bytes(500), true).unwrap();
    inbox.on_message(1, 0, bytes(500), true).unwrap();
    let beyond = inbox.on_message(2, 0, bytes(1), true);
    assert_eq!(error(beyond), (Code::FLOW_CONTROL_ERROR, Some(8)));
    let mut inbox = Inbox::new(&limits(1000, 2));
    let too_many = inbox.on_message(2, 0, bytes(1), true);
    assert_eq!(error(too_many), (Code::MESSAGE_LIMIT_ERROR, Some(8)));
}

#[test]
fn messages_of_one_packet_hold_its_buffer_once_and_those_of_too_many_packets_are_copied() {
    let mut inbox = Inbox::new(&Limits::default());
    let packet = bytes(20);
    let is_slice = |data: &Bytes| packet.as_ptr_range().contains(&data.as_ptr());
    for id in 0..300 {
        inbox.begin_packet();
        inbox.on_message(2 * id, 0, packet.slice(..10), true).unwrap();
        inbox.on_message(2 * id + 1, 0, packet.slice(10..), true).unwrap();
    }
    for id in 0..600 {
        let (taken, data) = inbox.take_whole().unwrap();
        assert_eq!((taken.0, is_slice(&data)), (id, id < 512), "{id}");
    }
    inbox.begin_packet();
    inbox.on_message(600, 0, packet.clone(), true).unwrap();
    let (_, data) = inbox.take_whole().unwrap();
    assert!(is_slice(&data), "the buffers before it were given back");
}

#[test]
fn an_empty_message_is_delivered() {
    let mut inbox = Inbox::new(&Limits::default());
    inbox.on_message(0, 0, Bytes::new(), true).unwrap();
    let id = inbox.accept().unwrap();
    assert_eq!(inbox.read(id), Chunk::Data { data: Bytes::new(), end: true });
    assert_eq!(inbox.open(), 0);
}

#[test]
fn copies_of_what_has_ended_are_ignored() {
    let mut inbox = Inbox::new(&Limits::default());
    inbox.on_message(0, 0, bytes(10), true).unwrap();
    let id = inbox.accept().unwrap();
    inbox.read(id);
    inbox.on_message(0, 0, bytes(10), true).unwrap();
    inbox.on_reset(0, 1, 10).unwrap();
    assert!(!inbox.has_readable());
    assert_eq!(inbox.bytes_waiting(), 0);
}

#[test]
fn a_message_is_accepted_when_its_first_byte_is_there_and_not_before() {
    let mut inbox = Inbox::new(&Limits::default());
    inbox.on_message(1, 5, bytes(5), true).unwrap();
    assert_eq!(inbox.accept(), None);
    inbox.on_message(1, 0, bytes(5), false).unwrap();
    assert_eq!(inbox.accept(), Some(MessageId(1)));
    assert_eq!(inbox.accept(), None, "message 0 is open, but nothing of it is there");
    assert_eq!(inbox.open(), 2);
}

#[test]
fn who_was_blocked_hears_once_when_there_is_more() {
    let mut inbox = Inbox::new(&Limits::default());
    inbox.on_message(0, 0, bytes(5), false).unwrap();
    let id = inbox.accept().unwrap();
    assert_eq!(inbox.read(id), Chunk::Data { data: bytes(5), end: false });
    assert_eq!(inbox.read(id), Chunk::Blocked);
    inbox.on_message(0, 7, bytes(2), false).unwrap();
    assert_eq!(inbox.next_readable(), None, "there is a gap");
    inbox.on_message(0, 5, bytes(2), false).unwrap();
    assert!(!inbox.has_end(id));
    inbox.on_message(0, 9, Bytes::new(), true).unwrap();
    assert!(inbox.has_end(id));
    assert_eq!(inbox.next_readable(), Some(id));
    assert_eq!(inbox.next_readable(), None);
    assert_eq!(inbox.read(id), Chunk::Data { data: bytes(2), end: false });
    assert_eq!(inbox.read(id), Chunk::Data { data: bytes(2), end: true });
}

#[test]
fn more_data_than_granted_is_a_flow_control_error() {
    let mut inbox = Inbox::new(&limits(1000, 10));
    let credit = inbox.initial_credit();
    assert_eq!((credit.data, credit.message_data), (1000, 500));
    let over_message = inbox.on_message(0, 499, bytes(2), false);
    assert_eq!(error(over_message), (Code::FLOW_CONTROL_ERROR, Some(8)));
    let mut inbox = Inbox::new(&limits(1000, 10));
    inbox.on_message(0, 0, bytes(500), false).unwrap();
    inbox.on_message(1, 490, bytes(10), false).unwrap();
    let over_connection = inbox.on_message(2, 0, bytes(1), false);
    assert_eq!(error(over_connection), (Code::FLOW_CONTROL_ERROR, Some(8)), "gaps count");
    let mut inbox = Inbox::new(&limits(1000, 10));
    assert_eq!(error(inbox.on_reset(0, 1, 501)), (Code::FLOW_CONTROL_ERROR, Some(4)));
    let far = inbox.on_message(0, u64::MAX, bytes(2), false);
    assert_eq!(error(far), (Code::FLOW_CONTROL_ERROR, Some(8)));
}

#[test]
fn more_messages_than_granted_is_a_limit_error() {
    let mut inbox = Inbox::new(&limits(1000, 10));
    inbox.on_message(9, 0, bytes(1), true).unwrap();
    let over = inbox.on_message(10, 0, bytes(1), true);
    assert_eq!(error(over), (Code::MESSAGE_LIMIT_ERROR, Some(8)));
    assert_eq!(error(inbox.on_reset(10, 1, 0)), (Code::MESSAGE_LIMIT_ERROR, Some(4)));
    assert_eq!(error(inbox.on_reset(u64::MAX, 1, 0)), (Code::MESSAGE_LIMIT_ERROR, Some(4)));
}

#[test]
fn a_second_end_elsewhere_is_a_final_size_error() {
    let begun = || {
        let mut inbox = Inbox::new(&Limits::default());
        inbox.on_message(0, 5, bytes(5), true).unwrap();
        inbox
    };
    let wrong = (Code::FINAL_SIZE_ERROR, Some(8));
    assert_eq!(error(begun().on_message(0, 0, bytes(11), false)), wrong, "past the end");
    assert_eq!(error(begun().on_message(0, 0, bytes(9), true)), wrong, "an earlier end");
    assert_eq!(error(begun().on_message(0, 10, bytes(1), true)), wrong, "a later end");
    assert_eq!(error(begun().on_reset(0, 1, 9)), (Code::FINAL_SIZE_ERROR, Some(4)));
    let mut inbox = Inbox::new(&Limits::default());
    inbox.on_message(0, 5, bytes(5), false).unwrap();
    assert_eq!(error(inbox.on_message(0, 0, bytes(3), true)), wrong, "an end before known bytes");
    inbox.stop(MessageId(0), 1);
    assert_eq!(
        error(inbox.on_reset(0, 1, 4)),
        (Code::FINAL_SIZE_ERROR, Some(4)),
        "also once stopped"
    );
}

#[test]
fn a_flood_of_tiny_fragments_is_a_violation_before_it_costs_much() {
    let mut inbox = Inbox::new(&limits(1 << 20, 16));
    let message_window = inbox.initial_credit().message_data;
    let mut sent = 0;
    let refused = (0..16).flat_map(|id| (0..message_window / 2).map(move |n| (id, 2 * n + 1)));
    let refused = refused
        .map(|(id, offset)| {
            sent += 1;
            inbox.on_message(id, offset, bytes(1), false)
        })
        .find(Result::is_err);
    assert_eq!(error(refused.unwrap()), (Code::PROTOCOL_VIOLATION, Some(8)));
    assert_eq!(sent, (1 << 20) / 512 + 1024 + 16 + 1);
}

#[test]
fn one_unread_message_leaves_room_for_others() {
    let mut inbox = Inbox::new(&Limits::default());
    let credit = inbox.initial_credit();
    assert!(credit.message_data <= credit.data / 8);
    inbox.on_message(0, 0, bytes(credit.message_data as usize), false).unwrap();
    assert_eq!(written(&mut inbox), [], "nobody reads it, so nothing is granted");
}

#[test]
fn the_window_of_a_message_grows_while_it_is_read() {
    let mut inbox = Inbox::new(&Limits::default());
    let start = inbox.initial_credit().message_data;
    let (mut offset, mut granted) = (0, start);
    for _ in 0..10 {
        inbox.on_message(0, offset, bytes((granted - offset) as usize), false).unwrap();
        offset = granted;
        inbox.accept();
        inbox.read(MessageId(0));
        for frame in written(&mut inbox) {
            if let SentFrame::MaxMessageData { value, .. } = frame {
                granted = value;
            }
        }
    }
    assert_eq!(granted - offset, Limits::default().receive_window / 2);
}

#[test]
fn credit_is_announced_in_large_steps_and_again_when_lost() {
    let mut inbox = Inbox::new(&limits(1000, 4));
    for (id, size) in [(0, 124), (1, 125)] {
        inbox.on_message(id, 0, bytes(size), true).unwrap();
        inbox.accept();
        assert_eq!(written(&mut inbox), [], "too early for message {id}");
        inbox.read(MessageId(id));
    }
    assert_eq!(written(&mut inbox), [SentFrame::MaxMessages(6)], "data is short of a quarter");
    inbox.on_message(2, 0, bytes(1), true).unwrap();
    inbox.accept();
    inbox.read(MessageId(2));
    assert_eq!(written(&mut inbox), [SentFrame::MaxData(1250)]);
    assert!(!inbox.has_pending());
    inbox.on_lost(&SentFrame::MaxMessages(6));
    inbox.on_lost(&SentFrame::MaxData(1250));
    assert_eq!(written(&mut inbox), [SentFrame::MaxData(1250), SentFrame::MaxMessages(7)]);
    inbox.on_lost(&SentFrame::MaxMessages(6));
    assert!(!inbox.has_pending(), "a newer value is on its way");
}

#[test]
fn a_lost_grant_for_a_message_is_said_again_while_it_helps() {
    let mut inbox = Inbox::new(&limits(1000, 4));
    inbox.on_message(0, 0, bytes(300), false).unwrap();
    let id = inbox.accept().unwrap();
    inbox.read(id);
    let grant = SentFrame::MaxMessageData { id, value: 800 };
    assert_eq!(written(&mut inbox), [SentFrame::MaxData(1300), grant]);
    inbox.on_lost(&grant);
    inbox.on_lost(&grant);
    assert_eq!(written(&mut inbox), [grant]);
    inbox.on_lost(&grant);
    inbox.on_message(0, 300, bytes(10), true).unwrap();
    assert!(!inbox.has_pending(), "its end is known: no more credit is of use");
    assert_eq!(written(&mut inbox), []);
}

#[test]
fn a_reset_drops_what_came_and_tells_who_reads() {
    let mut inbox = Inbox::new(&limits(1000, 4));
    inbox.on_message(0, 0, bytes(100), false).unwrap();
    inbox.on_message(1, 0, bytes(100), false).unwrap();
    let id = inbox.accept().unwrap();
    inbox.read(id);
    assert_eq!(inbox.read(id), Chunk::Blocked);
    inbox.on_reset(0, 33, 400).unwrap();
    inbox.on_reset(1, 33, 100).unwrap();
    assert_eq!(inbox.bytes_waiting(), 0, "400 bytes are accounted for, 300 of which never come");
    inbox.on_reset(0, 33, 400).unwrap();
    assert_eq!(inbox.next_readable(), Some(id));
    assert!(inbox.has_end(id));
    assert_eq!(inbox.read(id), Chunk::Reset(33));
    assert!(!inbox.has_end(id));
    assert_eq!(inbox.read(id), Chunk::Ended);
    assert_eq!((inbox.accept(), inbox.open()), (None, 0), "nobody began to read message 1");
}

#[test]
fn a_reset_that_comes_after_the_whole_message_changes_nothing() {
    let mut inbox = Inbox::new(&Limits::default());
    inbox.on_message(0, 0, bytes(10), true).unwrap();
    inbox.on_reset(0, 33, 10).unwrap();
    let id = inbox.accept().unwrap();
    assert_eq!(inbox.read(id), Chunk::Data { data: bytes(10), end: true });
}

#[test]
fn a_stop_is_sent_until_the_end_is_known_and_frees_the_window() {
    let mut inbox = Inbox::new(&limits(1000, 4));
    inbox.on_message(0, 10, bytes(90), false).unwrap();
    let id = MessageId(0);
    inbox.stop(id, 5);
    inbox.stop(id, 6);
    assert_eq!(inbox.bytes_waiting(), 0);
    assert_eq!(written(&mut inbox), [SentFrame::Stop(id)]);
    inbox.on_lost(&SentFrame::Stop(id));
    assert_eq!(written(&mut inbox), [SentFrame::Stop(id)]);
    inbox.on_message(0, 100, bytes(50), false).unwrap();
    assert_eq!((inbox.bytes_waiting(), inbox.read(id)), (0, Chunk::Ended));
    inbox.on_reset(0, 5, 160).unwrap();
    assert_eq!((inbox.open(), inbox.bytes_waiting()), (0, 0));
    inbox.on_lost(&SentFrame::Stop(id));
    assert!(!inbox.has_pending());
}

#[test]
fn a_stop_of_a_message_whose_end_is_known_ends_it_at_once() {
    let mut inbox = Inbox::new(&limits(1000, 4));
    inbox.on_message(0, 10, bytes(90), true).unwrap();
    inbox.stop(MessageId(0), 5);
    assert_eq!((inbox.open(), inbox.bytes_waiting(), inbox.has_pending()), (0, 0, false));
}

#[test]
fn a_packet_without_room_leaves_the_rest_for_the_next() {
    let mut inbox = Inbox::new(&limits(1000, 20));
    for id in 0..20 {
        inbox.on_message(id, 0, bytes(1), false).unwrap();
        inbox.stop(MessageId(id), 5);
    }
    let (mut buf, mut record, mut packets) = (Vec::new(), Vec::new(), 0);
    while inbox.has_pending() {
        buf.clear();
        inbox.write(&mut buf, 10, &mut record);
        assert!((1..=10).contains(&buf.len()));
        packets += 1;
    }
    assert_eq!((record.len(), packets), (20, 7));
}

#[test]
fn a_reader_that_never_asks_what_is_readable_costs_no_memory() {
    let mut inbox = Inbox::new(&Limits::default());
    for id in 0..10_000 {
        for offset in 0..3 {
            inbox.on_message(id, offset, bytes(1), offset == 2).unwrap();
            inbox.accept();
            inbox.read(MessageId(id));
            inbox.read(MessageId(id));
        }
        if id % 1000 == 0 {
            written(&mut inbox);
        }
    }
    assert_eq!(inbox.open(), 0);
    assert!(inbox.readable.len() <= 100, "{}", inbox.readable.len());
}
