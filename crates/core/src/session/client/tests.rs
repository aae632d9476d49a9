use std::vec;
use std::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::session::{
    Attached, MAX_SEQUENCE, NotExecutedReason, SessionSecret, SlotChange, SlotReport, SlotState,
};
use crate::time::Duration;

const ID: SessionId = SessionId { incarnation: 0xA, number: 1 };
const REPLY: Answer<Bytes> = Answer::Reply(Bytes::from_static(b"reply"));
const FENCED: Answer<Bytes> = Answer::NotExecuted(NotExecutedReason::Fenced);
const WORKING: Answer<Bytes> = Answer::Working;

fn client(slots: u32) -> ClientSession {
    let opened = Opened {
        session: ID,
        secret: SessionSecret::NONE,
        epoch: 1,
        slots,
        retention: Duration::from_secs(60),
    };
    ClientSession::new(&opened, 8, 2)
}

fn call(slot: u32, sequence: u64) -> CallId {
    CallId { session: ID, slot, sequence }
}

fn at(slot: u32, sequence: u64) -> SlotPosition {
    SlotPosition { slot, sequence }
}

fn attached(epoch: u64, slots: &[(u32, u64, SlotState)]) -> Attached {
    let report = |&(slot, sequence, state)| SlotReport { slot, sequence, state };
    Attached {
        session: ID,
        epoch,
        span: 4,
        wanted: 4,
        version: 0,
        slots: slots.iter().map(report).collect(),
    }
}

/// A client of four slots with a call on the first, sent that far.
fn in_flight(sent: Sent) -> (ClientSession, CallId) {
    let mut client = client(4);
    let id = client.reserve().unwrap();
    client.sent(id, sent);
    (client, id)
}

fn fences(client: &mut ClientSession) -> Vec<SlotPosition> {
    core::iter::from_fn(|| client.next_fence()).collect()
}

#[test]
fn a_call_has_its_id_before_anything_is_sent_and_each_slot_carries_one_call() {
    let mut client = client(3);
    let ids: Vec<_> = core::iter::from_fn(|| client.reserve()).collect();
    assert_eq!(ids, [call(0, 1), call(1, 1), call(2, 1)]);
    assert_eq!(client.in_flight(), 3);
}

#[test]
fn the_next_number_is_handed_out_only_when_the_one_before_is_settled() {
    for settled in [REPLY, Answer::NotKept, FENCED] {
        let mut client = client(1);
        let id = client.reserve().unwrap();
        client.sent(id, Sent::Whole);
        assert_eq!(client.reserve(), None);
        assert_eq!(client.answer(0, 1, &WORKING), Effect::Working);
        assert_eq!(client.reserve(), None);
        assert_eq!(client.answer(0, 1, &settled), Effect::Settled { abandoned: false });
        assert_eq!(client.reserve(), Some(call(0, 2)));
    }
}

#[test]
fn late_copies_of_answers_are_ignored() {
    let (mut client, _) = in_flight(Sent::Whole);
    assert_eq!(client.answer(0, 2, &REPLY), Effect::Ignored);
    assert_eq!(client.answer(7, 1, &REPLY), Effect::Ignored);
    assert_eq!(client.answer(u32::MAX, 1, &REPLY), Effect::Ignored);
    client.answer(0, 1, &REPLY);
    client.reserve();
    for late in [REPLY, WORKING, FENCED, Answer::Stale] {
        assert_eq!(client.answer(0, 1, &late), Effect::Ignored);
    }
    assert!(!client.false_retry(0, 1));
}

#[test]
fn a_call_of_which_nothing_was_sent_leaves_its_number_to_the_next() {
    let (mut client, id) = in_flight(Sent::Nothing);
    assert_eq!(client.abandon(id), Abandoned::NeverSent);
    assert_eq!(fences(&mut client), []);
    assert_eq!(client.reserve(), Some(id));
}

#[test]
fn a_call_of_which_a_part_was_sent_is_not_executed_and_its_number_is_fenced() {
    let (mut client, id) = in_flight(Sent::Part);
    assert_eq!(client.abandon(id), Abandoned::NeverSent);
    assert_eq!(fences(&mut client), [at(0, 1)]);
    assert_eq!(client.answer(0, 1, &FENCED), Effect::Settled { abandoned: true });
}

#[test]
fn an_abandoned_call_is_settled_by_a_fence_in_the_background() {
    let (mut client, id) = in_flight(Sent::Whole);
    assert_eq!(client.abandon(id), Abandoned::Pending);
    assert_eq!(client.abandon(id), Abandoned::Pending);
    assert_eq!(fences(&mut client), [at(0, 1)]);
    assert_eq!(client.reserve(), Some(call(1, 1)), "its slot is still in use");
    assert_eq!(client.answer(0, 1, &FENCED), Effect::Settled { abandoned: true });
    assert_eq!(client.abandon(id), Abandoned::Settled);
    assert_eq!(client.reserve(), Some(call(0, 2)));
}

#[test]
fn what_was_sent_whole_once_stays_so_whatever_is_sent_again() {
    let (mut client, id) = in_flight(Sent::Whole);
    client.sent(id, Sent::Part);
    assert_eq!(client.progress(id), Some((Sent::Whole, false)));
    assert_eq!(client.abandon(id), Abandoned::Pending);
}

#[test]
fn an_executing_call_needs_no_fence_and_its_reply_settles_it() {
    let (mut client, id) = in_flight(Sent::Whole);
    client.answer(0, 1, &WORKING);
    assert_eq!(client.progress(id), Some((Sent::Whole, true)));
    assert_eq!(client.abandon(id), Abandoned::Pending);
    assert_eq!(fences(&mut client), []);
    assert_eq!(client.answer(0, 1, &REPLY), Effect::Settled { abandoned: true });
}

#[test]
fn the_fences_under_way_are_bounded_and_an_answer_makes_room() {
    let mut client = client(4);
    let ids: Vec<_> = core::iter::from_fn(|| client.reserve()).collect();
    for id in ids {
        client.sent(id, Sent::Whole);
        client.abandon(id);
    }
    assert_eq!(fences(&mut client), [at(0, 1), at(1, 1)]);
    client.answer(0, 1, &WORKING);
    assert_eq!(fences(&mut client), [at(2, 1)], "an executing call keeps none under way");
    client.answer(1, 1, &REPLY);
    assert_eq!(fences(&mut client), [at(3, 1)]);
}

#[test]
fn fences_do_not_pile_up_for_a_slot_that_is_used_again_and_again() {
    let mut client = client(4);
    for _ in 0..2 {
        let id = client.reserve().unwrap();
        client.sent(id, Sent::Whole);
        client.abandon(id);
    }
    assert_eq!(fences(&mut client).len(), 2, "no more may be under way");
    for sequence in 1..100 {
        let id = client.reserve().unwrap();
        assert_eq!(id, call(2, sequence));
        client.sent(id, Sent::Whole);
        client.abandon(id);
        client.answer(2, sequence, &REPLY);
    }
    assert_eq!((client.fences.waiting.len(), client.unreleased.len()), (1, 1));
}

#[test]
fn a_false_retry_ends_the_call_and_its_slot_is_fenced_before_it_is_used_again() {
    let (mut client, _) = in_flight(Sent::Whole);
    assert!(client.false_retry(0, 1));
    assert!(!client.false_retry(0, 1), "told once");
    assert_eq!(fences(&mut client), [at(0, 1)]);
    assert_eq!(client.answer(0, 1, &REPLY), Effect::Settled { abandoned: true });
}

#[test]
fn idle_slots_are_released_once_and_busy_ones_by_their_next_number() {
    let mut client = client(2);
    for _ in 0..2 {
        client.reserve().unwrap();
    }
    client.answer(0, 1, &REPLY);
    client.answer(1, 1, &REPLY);
    assert_eq!(client.reserve(), Some(call(1, 2)));
    assert_eq!(client.take_releases(10), [at(0, 1)]);
    assert_eq!(client.take_releases(10), []);
    client.answer(1, 2, &REPLY);
    assert_eq!(client.take_releases(10), [at(1, 2)]);
}

#[test]
fn releases_come_in_portions_and_only_while_attached() {
    let mut client = client(3);
    while client.reserve().is_some() {}
    for slot in 0..3 {
        client.answer(slot, 1, &REPLY);
    }
    client.detached();
    assert_eq!(client.take_releases(10), []);
    let done = SlotState::Done;
    client.attached(&attached(2, &[(0, 1, done), (1, 1, done), (2, 1, done)])).unwrap();
    assert_eq!(client.take_releases(2).len(), 2);
    assert_eq!(client.take_releases(2).len(), 1);
}

#[test]
fn a_release_that_was_lost_with_its_connection_is_sent_again() {
    let (mut client, _) = in_flight(Sent::Whole);
    client.answer(0, 1, &REPLY);
    assert_eq!(client.take_releases(10), [at(0, 1)]);
    client.detached();
    client.attached(&attached(2, &[(0, 1, SlotState::Done)])).unwrap();
    assert_eq!(client.take_releases(10), [at(0, 1)]);
    client.detached();
    client.attached(&attached(3, &[(0, 1, SlotState::Released)])).unwrap();
    assert_eq!(client.take_releases(10), []);
}

#[test]
fn slots_asked_back_are_given_as_they_settle() {
    let mut client = client(4);
    let ids: Vec<_> = (0..3).map(|_| client.reserve().unwrap()).collect();
    client.slots_changed(&SlotChange { version: 1, wanted: 2, granted: vec![] });
    assert_eq!(client.take_returns(), [at(3, 0)], "the one that is idle");
    assert_eq!(client.reserve(), None);
    client.answer(ids[1].slot, 1, &REPLY);
    assert_eq!(client.take_returns(), [at(1, 1)]);
    assert_eq!((client.held(), client.reserve()), (2, None));
    client.answer(ids[0].slot, 1, &REPLY);
    assert_eq!(client.take_returns(), []);
    assert_eq!(client.reserve(), Some(call(0, 2)));
}

#[test]
fn slots_that_are_granted_are_used_from_the_number_that_the_server_names() {
    let mut client = client(1);
    client.reserve().unwrap();
    let granted = vec![at(5, 100), at(1, 50), at(99, 7), at(6, 0)];
    client.slots_changed(&SlotChange { version: 1, wanted: 3, granted });
    assert_eq!(client.held(), 3, "beyond the client's own bound none is taken");
    assert_eq!(client.reserve(), Some(call(1, 50)));
    assert_eq!(client.reserve(), Some(call(5, 100)));
    assert_eq!(client.reserve(), None);
}

#[test]
fn a_change_that_was_overtaken_is_not_obeyed() {
    let mut client = client(4);
    client.slots_changed(&SlotChange { version: 2, wanted: 4, granted: vec![] });
    client.slots_changed(&SlotChange { version: 1, wanted: 1, granted: vec![] });
    assert_eq!(client.take_returns(), []);
}

#[test]
fn a_late_copy_of_a_grant_does_not_bring_a_slot_back_that_was_given_back() {
    let mut client = client(1);
    let grant = SlotChange { version: 1, wanted: 2, granted: vec![at(1, 10)] };
    client.slots_changed(&grant);
    client.slots_changed(&SlotChange { version: 2, wanted: 1, granted: vec![] });
    let returned = client.take_returns();
    assert_eq!(returned.len(), 1);
    client.slots_changed(&grant);
    assert_eq!(client.held(), 1);
    let slot = returned[0].slot;
    let again = vec![at(slot, 12)];
    client.slots_changed(&SlotChange { version: 3, wanted: 2, granted: again });
    assert_eq!(client.held(), 2);
}

#[test]
fn after_an_attach_each_call_in_flight_is_taken_care_of() {
    use SlotState::{Done, Executing, Fenced, NotKept};
    let mut client = client(8);
    for _ in 0..7 {
        let id = client.reserve().unwrap();
        client.sent(id, Sent::Whole);
    }
    client.answer(6, 1, &REPLY);
    assert_eq!(client.reserve(), Some(call(6, 2)));
    client.detached();
    let list = [(0, 1, Executing), (1, 1, Done), (2, 1, NotKept), (3, 1, Fenced), (6, 1, Done)];
    let todo = client.attached(&Attached { span: 8, wanted: 8, ..attached(2, &list) }).unwrap();
    let expected = [
        (call(0, 1), Reconciled::WillCome),
        (call(1, 1), Reconciled::Ask),
        (call(2, 1), Reconciled::NotKept),
        (call(3, 1), Reconciled::Ask),
        (call(4, 1), Reconciled::Send),
        (call(5, 1), Reconciled::Send),
        (call(6, 2), Reconciled::Send),
    ];
    assert_eq!(todo, expected);
    assert_eq!(fences(&mut client), [at(1, 1), at(3, 1)]);
    assert_eq!(client.progress(call(0, 1)), Some((Sent::Whole, true)));
    assert_eq!(client.progress(call(2, 1)), None, "settled");
}

#[test]
fn an_abandoned_call_is_not_sent_again_but_fenced() {
    let (mut client, id) = in_flight(Sent::Whole);
    client.abandon(id);
    assert_eq!(fences(&mut client), [at(0, 1)]);
    client.detached();
    assert_eq!(fences(&mut client), [], "not without a connection");
    assert_eq!(client.attached(&attached(2, &[])), Some(vec![]));
    assert_eq!(fences(&mut client), [at(0, 1)], "the first was lost");
}

#[test]
fn a_call_that_its_owner_asked_about_is_fenced_and_not_sent_again() {
    let (mut client, id) = in_flight(Sent::Whole);
    assert_eq!(client.ask(id), Asked::UnderWay);
    client.detached();
    let todo = client.attached(&attached(2, &[])).unwrap();
    assert_eq!(todo, [(id, Reconciled::Ask)]);
    assert_eq!(fences(&mut client), [at(0, 1)]);
    assert_eq!(client.ask(call(0, 2)), Asked::Unknown);
}

#[test]
fn the_answer_to_an_older_attach_is_ignored() {
    let (mut client, _) = in_flight(Sent::Whole);
    client.detached();
    assert!(client.attached(&attached(5, &[])).is_some());
    assert!(client.attached(&attached(5, &[])).is_none());
    assert!(client.attached(&attached(4, &[])).is_none());
    let other = SessionId { number: 2, ..ID };
    assert!(client.attached(&Attached { session: other, ..attached(9, &[]) }).is_none());
}

#[test]
fn a_report_that_an_answer_has_overtaken_does_no_harm() {
    let (mut client, _) = in_flight(Sent::Whole);
    client.detached();
    client.answer(0, 1, &REPLY);
    assert_eq!(client.reserve(), Some(call(0, 2)));
    let todo = client.attached(&attached(2, &[(0, 1, SlotState::Executing)])).unwrap();
    assert_eq!(todo, [(call(0, 2), Reconciled::Send)]);
}

#[test]
fn a_server_that_remembers_a_slot_wrongly_ends_the_call_and_the_use_of_the_slot() {
    use SlotState::{Done, Idle, NotGranted, Released};
    let wrong = [(0, 2, Done), (0, 1, Released), (0, 1, Idle), (0, 0, NotGranted)];
    for report in wrong {
        for (sent, fate) in [(Sent::Whole, Fate::Lost), (Sent::Part, Fate::NeverSent)] {
            let (mut client, id) = in_flight(sent);
            let todo = client.attached(&attached(2, &[report])).unwrap();
            assert_eq!(todo, [(id, Reconciled::Ended(fate))], "{report:?}");
            assert_eq!((client.held(), client.in_flight()), (3, 0));
            assert!((0..3).all(|_| client.reserve().unwrap().slot != 0));
        }
    }
}

#[test]
fn no_list_of_a_hostile_server_makes_the_table_grow_past_its_bound() {
    let mut client = client(4);
    let list = [
        (u32::MAX, 1, SlotState::Idle),
        (8, 1, SlotState::Idle),
        (7, u64::MAX, SlotState::Idle),
        (7, u64::MAX, SlotState::Idle),
        (6, MAX_SEQUENCE - 1, SlotState::Idle),
    ];
    let hostile = Attached { span: u32::MAX, wanted: u32::MAX, ..attached(2, &list) };
    client.attached(&hostile).unwrap();
    assert!(client.slots.len() <= 8 && client.held() <= 8);
    while let Some(id) = client.reserve() {
        assert!(id.sequence <= MAX_SEQUENCE);
        client.sent(id, Sent::Whole);
    }
    for slot in 0..8 {
        client.answer(slot, MAX_SEQUENCE, &REPLY);
    }
    assert_eq!(client.reserve(), None, "a slot whose numbers are used up is not used again");
}

#[test]
fn a_stale_answer_to_a_call_in_flight_means_that_its_outcome_is_lost() {
    let (mut client, id) = in_flight(Sent::Whole);
    assert_eq!(client.answer(0, 1, &Answer::<Bytes>::Stale), Effect::Lost);
    assert_eq!(client.progress(id), None);
    assert_ne!(client.reserve().unwrap().slot, 0);
}

#[test]
fn when_the_session_is_lost_only_calls_that_were_sent_whole_are_lost() {
    let mut client = client(4);
    for sent in [Sent::Nothing, Sent::Part, Sent::Whole] {
        let id = client.reserve().unwrap();
        client.sent(id, sent);
    }
    let settled = client.reserve().unwrap();
    client.answer(settled.slot, 1, &REPLY);
    let fates = client.lost();
    let expected =
        [(call(0, 1), Fate::NeverSent), (call(1, 1), Fate::NeverSent), (call(2, 1), Fate::Lost)];
    assert_eq!(fates, expected);
}

#[test]
fn a_call_of_another_session_is_not_taken_for_one_of_this() {
    let (mut client, id) = in_flight(Sent::Whole);
    let other = CallId { session: SessionId { number: 9, ..ID }, ..id };
    assert_eq!(client.abandon(other), Abandoned::Settled);
    assert_eq!(client.progress(other), None);
    assert_eq!(client.ask(other), Asked::Unknown);
}

#[test]
fn a_resumed_session_asks_for_the_calls_that_an_earlier_process_left() {
    use SlotState::{Done, Executing, NotGranted, Released};
    let mut client = ClientSession::resume(ID, 8, 2);
    assert_eq!(client.reserve(), None, "nothing is known yet");
    let list = [(0, 9, Done), (1, 4, Executing), (2, 5, Released), (3, 0, NotGranted)];
    let attach = Attached { span: 5, wanted: 4, ..attached(3, &list) };
    assert_eq!(client.attached(&attach), Some(vec![]));
    assert_eq!((client.held(), client.in_flight()), (4, 2));
    assert_eq!(client.ask(call(0, 9)), Asked::UnderWay);
    assert_eq!(client.ask(call(1, 4)), Asked::UnderWay);
    assert_eq!(client.ask(call(2, 6)), Asked::UnderWay, "its request has not arrived");
    assert_eq!(client.ask(call(2, 5)), Asked::Settled);
    assert_eq!(client.ask(call(2, 7)), Asked::Unknown);
    assert_eq!(client.ask(call(3, 1)), Asked::Unknown);
    assert_eq!(fences(&mut client), [at(0, 9), at(2, 6)], "the executing one answers by itself");
    assert_eq!(client.answer(0, 9, &REPLY), Effect::Settled { abandoned: true });
    assert_eq!(client.answer(2, 6, &FENCED), Effect::Settled { abandoned: true });
    assert_eq!(client.answer(1, 4, &REPLY), Effect::Settled { abandoned: true });
    let next: Vec<_> = core::iter::from_fn(|| client.reserve()).collect();
    assert_eq!(next, [call(1, 5), call(2, 7), call(0, 10), call(4, 1)]);
}

#[test]
fn a_resumed_session_can_ask_for_a_call_on_a_slot_that_the_server_never_saw_used() {
    let mut client = ClientSession::resume(ID, 8, 2);
    client.attached(&attached(3, &[])).unwrap();
    assert_eq!(client.ask(call(2, 1)), Asked::UnderWay);
    assert_eq!(client.ask(call(7, 1)), Asked::Unknown);
    assert_eq!(client.ask(call(u32::MAX, 1)), Asked::Unknown);
    assert_eq!(fences(&mut client), [at(2, 1)]);
    assert_eq!(client.answer(2, 1, &FENCED), Effect::Settled { abandoned: true });
    let next: Vec<_> = core::iter::from_fn(|| client.reserve()).collect();
    assert_eq!(next.len(), 4);
}

#[test]
fn an_attach_that_begins_no_new_epoch_is_an_answer_for_who_is_not_attached_and_none_for_who_is() {
    let mut client = client(4);
    assert!(client.attached(&attached(1, &[])).is_none());
    client.detached();
    assert!(client.attached(&attached(1, &[])).is_some());
    assert!(client.is_attached());
    client.attached(&attached(3, &[])).unwrap();
    client.detached();
    assert!(client.attached(&attached(1, &[])).is_none());
}
