use std::vec;
use std::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::session::{
    JournalSlot, SessionSecret, SlotChange, SlotPosition, SlotReport, SlotState, Succession,
};
use crate::time::Duration;

impl<R: KeptReply> Sessions<R> {
    /// Slots that a session holds.
    pub(in crate::session) fn held(&self, id: SessionId) -> Option<u32> {
        Some(self.session(self.find(id).ok()?).slots.held())
    }

    /// Counts anew what is counted along the way.
    pub(in crate::session) fn check(&self) {
        let (mut sum, mut held) = (Footprint::default(), 0);
        for session in self.table.iter().flatten() {
            assert_eq!(session.footprint, session.slots.footprint());
            sum.exchange(Footprint::default(), session.footprint);
            held += u64::from(session.slots.held());
            assert!(session.slots.held() <= self.limits.slots);
            assert!(session.connection.is_some() || session.footprint.held == 0);
            let waits = session.connection.is_none() && session.footprint.executing == 0;
            assert_eq!(session.expires.is_some(), waits && !session.closing);
        }
        assert_eq!((sum, held), (self.footprint, self.slots_held));
        let sessions = self.table.iter().flatten().count();
        assert_eq!((sessions, sessions), (self.by_number.len(), self.by_nonce.len()));
        assert_eq!(sessions, self.accounts.values().sum::<usize>());
        assert_eq!(sessions + self.vacant.len(), self.table.len());
    }
}

const NOW: Instant = Instant::ZERO;
const DIGEST: u64 = 5;

fn limits() -> Limits {
    Limits {
        sessions: 8,
        sessions_per_identity: 3,
        sessions_per_address: 2,
        slots: 4,
        kept_reply: 10,
        kept_replies: 25,
        held_replies: 100,
        retention: Duration::from_secs(60),
        ..Limits::default()
    }
}

fn server() -> Sessions<Bytes> {
    Sessions::new(0xA, &limits())
}

fn anonymous(nonce: u8) -> OpenRequest {
    OpenRequest {
        nonce: [nonce; 16],
        certificate: None,
        address: "10.0.0.1".parse().unwrap(),
        slots_wanted: 4,
        fresh_secret: SessionSecret::new([nonce; 32]),
        connection: u64::from(nonce),
    }
}

fn certified(nonce: u8, identity: u8) -> OpenRequest {
    OpenRequest { certificate: Some([identity; 32]), ..anonymous(nonce) }
}

fn secret(byte: u8) -> Claim {
    Claim { certificate: None, secret: SessionSecret::new([byte; 32]) }
}

fn certificate(identity: u8) -> Claim {
    Claim { certificate: Some([identity; 32]), secret: SessionSecret::NONE }
}

fn reply(size: usize) -> Bytes {
    Bytes::from(vec![1; size])
}

fn opened() -> (Sessions<Bytes>, Attachment) {
    let mut server = server();
    let (_, attachment) = server.open(&anonymous(1)).unwrap();
    (server, attachment)
}

/// A session with call 0-1 executed and its reply of `size` bytes sent.
fn replied(size: usize) -> (Sessions<Bytes>, Attachment, Completion) {
    let (mut server, at) = opened();
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Execute));
    let completion = server.complete(NOW, &at, 0, 1, reply(size)).unwrap();
    server.check();
    (server, at, completion)
}

fn id(at: &Attachment, slot: u32, sequence: u64) -> CallId {
    CallId { session: at.session(), slot, sequence }
}

#[test]
fn a_session_stays_small() {
    // Each client has one, most of them idle.
    assert!(size_of::<Session<Bytes, u64>>() <= 288, "{}", size_of::<Session<Bytes, u64>>());
}

#[test]
fn opening_is_deduplicated_by_its_nonce() {
    let mut server = server();
    let (first, at) = server.open(&anonymous(1)).unwrap();
    let copy = OpenRequest { fresh_secret: SessionSecret::new([99; 32]), ..anonymous(1) };
    let (second, again) = server.open(&copy).unwrap();
    assert_eq!((&first, at), (&second, again), "also the secret is that of the first");
    assert_eq!(server.len(), 1);
    let (other, _) = server.open(&anonymous(2)).unwrap();
    assert_ne!(other.session, first.session);
}

#[test]
fn an_opening_repeated_on_another_connection_takes_the_session_over() {
    let (mut server, old) = opened();
    let (again, new) = server.open(&OpenRequest { connection: 9, ..anonymous(1) }).unwrap();
    assert_eq!((again.session, again.epoch), (old.session(), 2));
    assert_eq!(server.request(&old, 0, 1, DIGEST), Err(Refusal::Superseded.into()));
    assert_eq!(server.request(&new, 0, 1, DIGEST), Ok(Decision::Execute));
}

#[test]
fn one_identitys_nonce_says_nothing_about_anothers() {
    let mut server = server();
    let (first, _) = server.open(&certified(1, 1)).unwrap();
    let (second, _) = server.open(&certified(1, 2)).unwrap();
    let (third, _) = server.open(&anonymous(1)).unwrap();
    assert_ne!(first.session, second.session);
    assert_ne!(first.session, third.session);
    assert_eq!(first.secret, SessionSecret::NONE);
}

#[test]
fn a_session_is_attached_only_with_its_identity_or_secret() {
    let mut server = server();
    let (anonymous, _) = server.open(&anonymous(1)).unwrap();
    let (certified, _) = server.open(&certified(2, 7)).unwrap();
    for wrong in [secret(2), secret(0), certificate(7)] {
        assert_eq!(server.attach(anonymous.session, &wrong, 5), Err(Refusal::Denied));
    }
    for wrong in [secret(2), secret(0), certificate(8)] {
        assert_eq!(server.attach(certified.session, &wrong, 5), Err(Refusal::Denied));
    }
    assert!(server.attach(anonymous.session, &secret(1), 5).is_ok());
    assert!(server.attach(certified.session, &certificate(7), 5).is_ok());
}

#[test]
fn a_denied_attach_does_not_take_the_session_from_its_connection() {
    let (mut server, at) = opened();
    let _ = server.attach(at.session(), &secret(9), 5);
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Execute));
}

#[test]
fn each_attach_raises_the_epoch_and_older_epochs_are_refused() {
    let (mut server, first) = opened();
    let (attached, second) = server.attach(first.session(), &secret(1), 2).unwrap();
    assert_eq!(attached.epoch, 2);
    let (attached, third) = server.attach(first.session(), &secret(1), 2).unwrap();
    assert_eq!(attached.epoch, 3);
    let refused = Refused::Session(Refusal::Superseded);
    for old in [first, second] {
        assert_eq!(server.request(&old, 0, 1, DIGEST), Err(refused));
        assert_eq!(server.fence(&old, 0, 1), Err(refused));
        assert_eq!(server.release(&old, 0, 0), Err(refused));
        assert_eq!(server.return_slots(&old, &[]), Err(refused));
        assert_eq!(server.close(NOW, &old), Err(Refusal::Superseded));
        server.detach(NOW, &old);
    }
    assert_eq!(server.next_timeout(), None, "the end of an old connection is not the session's");
    assert_eq!(server.request(&third, 0, 1, DIGEST), Ok(Decision::Execute));
}

#[test]
fn of_processes_that_follow_the_same_one_only_the_first_gets_the_session() {
    let (mut server, at) = opened();
    let mut attach = |holder, after: &[u64]| {
        let succession = Succession { holder, after: after.to_vec(), known: None };
        let attached = server.attach_after(at.session(), &secret(1), Some(&succession), holder);
        attached.map(|_| ())
    };
    assert_eq!(attach(1, &[1]), Ok(()));
    // Copies of its journal.
    assert_eq!(attach(2, &[1, 2]), Ok(()));
    assert_eq!(attach(3, &[1, 3]), Err(Refusal::TakenOver));
    assert_eq!(attach(1, &[1]), Err(Refusal::TakenOver));
    assert_eq!(attach(2, &[2]), Ok(()));
    // One that never attached stands between the two.
    assert_eq!(attach(5, &[2, 4, 5]), Ok(()));
    assert_eq!(attach(4, &[2, 4]), Err(Refusal::TakenOver));
    // Too many of them to name.
    assert_eq!(attach(6, &[]), Ok(()));
    assert_eq!(attach(5, &[5]), Err(Refusal::TakenOver));
}

#[test]
fn a_journal_that_lacks_a_number_takes_the_session_from_nobody() {
    let (mut server, _) = opened();
    let at = attach_knowing(&mut server, 1, vec![last(0, true)]).unwrap();
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Execute));
    server.complete(NOW, &at, 0, 1, reply(1));
    for old in [vec![last(0, true)], vec![]] {
        assert_eq!(attach_knowing(&mut server, 2, old), Err(Refusal::TakenOver));
    }
    assert!(server.fence(&at, 0, 1).is_ok(), "the one that has it still has it");
    assert!(attach_knowing(&mut server, 3, vec![last(1, false)]).is_ok());
}

#[test]
fn a_journal_that_lacks_the_outcome_of_a_number_that_was_let_go_takes_the_session_from_nobody() {
    let (mut server, _) = opened();
    let at = attach_knowing(&mut server, 1, vec![]).unwrap();
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Execute));
    server.complete(NOW, &at, 0, 1, reply(1));
    assert_eq!(server.release(&at, 0, 1), Ok(()));
    let open = || vec![last(1, false)];
    assert_eq!(attach_knowing(&mut server, 2, open()), Err(Refusal::TakenOver));
    server.resize(at.session(), 3).unwrap();
    let position = SlotPosition { slot: 0, sequence: 1 };
    assert_eq!(server.return_slots(&at, &[position]), Ok(None), "the session was left alone");
    assert_eq!(attach_knowing(&mut server, 2, open()), Err(Refusal::TakenOver), "given back");
    server.resize(at.session(), 4).unwrap();
    assert_eq!(attach_knowing(&mut server, 2, open()), Err(Refusal::TakenOver), "granted again");
    assert!(attach_knowing(&mut server, 2, vec![last(1, true)]).is_ok());
}

#[test]
fn whoever_has_not_let_go_of_a_number_may_always_go_on_with_it() {
    for stage in 0..5 {
        let (mut server, _) = opened();
        let at = attach_knowing(&mut server, 1, vec![]).unwrap();
        if stage > 0 {
            server.request(&at, 0, 1, DIGEST).unwrap();
        }
        match stage {
            2 => drop(server.complete(NOW, &at, 0, 1, reply(1))),
            3 => drop(server.complete(NOW, &at, 0, 1, reply(11))),
            4 => drop(server.give_up(NOW, &at, 0, 1, NotExecutedReason::Overloaded)),
            _ => {}
        }
        server.detach(NOW, &at);
        assert!(attach_knowing(&mut server, 2, vec![last(1, false)]).is_ok(), "stage {stage}");
    }
}

#[test]
fn a_late_copy_of_an_attach_is_not_taken_for_that_of_a_copied_journal() {
    let (mut server, _) = opened();
    let at = attach_knowing(&mut server, 1, vec![last(1, false)]).unwrap();
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Execute));
    server.complete(NOW, &at, 0, 1, reply(1));
    assert_eq!(server.request(&at, 0, 2, DIGEST), Ok(Decision::Execute));
    assert!(attach_knowing(&mut server, 1, vec![last(1, false)]).is_ok());
}

fn last(sequence: u64, answered: bool) -> JournalSlot {
    JournalSlot { slot: 0, sequence, answered }
}

/// A process attaches for the first time, whose journal knows of these slots.
fn attach_knowing(
    server: &mut Sessions<Bytes>,
    holder: u64,
    known: Vec<JournalSlot>,
) -> Result<Attachment, Refusal> {
    let succession = Succession { holder, after: vec![1, holder], known: Some(known) };
    let session = SessionId { incarnation: 0xA, number: 1 };
    server.attach_after(session, &secret(1), Some(&succession), holder as _).map(|a| a.1)
}

#[test]
fn an_unknown_id_is_refused_and_never_reopened() {
    let (mut server, at) = opened();
    let restarted = SessionId { incarnation: 0xB, ..at.session() };
    let never = SessionId { number: 99, ..at.session() };
    let zero = SessionId { number: 0, ..at.session() };
    for unknown in [restarted, never, zero] {
        assert_eq!(server.attach(unknown, &secret(1), 5), Err(Refusal::Unknown));
        let call = CallId { session: unknown, slot: 0, sequence: 1 };
        assert_eq!(server.query(call, &secret(1)), Ok(QueryAnswer::UnknownSession));
    }
    assert_eq!(server.len(), 1);
}

#[test]
fn a_session_of_a_server_before_its_restart_is_unknown_to_the_next() {
    let (_, at) = opened();
    let mut restarted: Sessions<Bytes> = Sessions::new(0xB, &limits());
    assert_eq!(restarted.attach(at.session(), &secret(1), 5), Err(Refusal::Unknown));
    let (_, _) = restarted.open(&anonymous(1)).unwrap();
    assert_eq!(restarted.request(&at, 0, 1, DIGEST), Err(Refusal::Unknown.into()));
}

#[test]
fn an_attach_lists_each_slots_number_and_state() {
    let (mut server, at) = opened();
    for slot in [0, 1, 2] {
        server.request(&at, slot, 1, DIGEST).unwrap();
    }
    server.complete(NOW, &at, 0, 1, reply(1));
    server.give_up(NOW, &at, 2, 1, NotExecutedReason::Overloaded);
    let (attached, _) = server.attach(at.session(), &secret(1), 5).unwrap();
    let states: Vec<_> =
        attached.slots.iter().map(|report| (report.slot, report.sequence, report.state)).collect();
    let expected =
        [(0, 1, SlotState::Done), (1, 1, SlotState::Executing), (2, 1, SlotState::Fenced)];
    assert_eq!(states, expected);
    assert_eq!((attached.span, attached.wanted), (4, 4));
}

#[test]
fn a_copy_of_a_request_is_answered_with_the_kept_reply() {
    let (mut server, at, completion) = replied(10);
    assert_eq!(completion, Completion { connection: Some(1), keep: Some(Keep::Session) });
    let copy = server.request(&at, 0, 1, DIGEST);
    assert_eq!(copy, Ok(Decision::Answer(Answer::Reply(reply(10)))));
}

#[test]
fn the_reply_of_a_call_goes_to_the_connection_that_the_session_has_when_it_ends() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    server.attach(at.session(), &secret(1), 77).unwrap();
    let completion = server.complete(NOW, &at, 0, 1, reply(1)).unwrap();
    assert_eq!(completion.connection, Some(77));
}

#[test]
fn the_next_number_and_a_release_free_the_kept_reply() {
    let (mut server, at, _) = replied(10);
    assert_eq!(server.footprint().kept, 10);
    server.request(&at, 0, 2, DIGEST).unwrap();
    assert_eq!(server.footprint().kept, 0);
    server.complete(NOW, &at, 0, 2, reply(7));
    assert_eq!(server.footprint().kept, 7);
    assert_eq!(server.release(&at, 0, 2), Ok(()));
    assert_eq!(server.release(&at, 0, 2), Ok(()), "a late copy");
    assert_eq!(server.footprint(), Footprint::default());
    server.check();
}

#[test]
fn a_larger_reply_lives_as_long_as_its_connection() {
    let (mut server, at, completion) = replied(11);
    assert_eq!(completion.keep, Some(Keep::Connection));
    assert_eq!((server.footprint().kept, server.footprint().held), (0, 11));
    let (_, next) = server.attach(at.session(), &secret(1), 2).unwrap();
    let kept = Ok(Answer::Reply(reply(11)));
    assert_eq!(server.fence(&next, 0, 1), kept, "a new connection takes it over");
    server.detach(NOW, &next);
    server.check();
    let (_, last) = server.attach(at.session(), &secret(1), 3).unwrap();
    assert_eq!(server.fence(&last, 0, 1), Ok(Answer::NotKept));
}

#[test]
fn a_larger_reply_of_a_session_without_a_connection_is_not_kept() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    server.detach(NOW, &at);
    let completion = server.complete(NOW, &at, 0, 1, reply(11)).unwrap();
    assert_eq!(completion, Completion { connection: None, keep: None });
    assert_eq!(server.query(id(&at, 0, 1), &secret(1)), Ok(QueryAnswer::NotKept));
}

#[test]
fn kept_replies_are_bounded_over_all_sessions() {
    let (mut server, at) = opened();
    for slot in 0..4 {
        server.request(&at, slot, 1, DIGEST).unwrap();
    }
    let mut keep = |slot| server.complete(NOW, &at, slot, 1, reply(10)).unwrap().keep;
    assert_eq!(keep(0), Some(Keep::Session));
    assert_eq!(keep(1), Some(Keep::Session));
    assert_eq!(keep(2), Some(Keep::Connection), "25 bytes are kept at most");
    assert_eq!(server.footprint().kept, 20);
    let not_kept = server.complete(NOW, &at, 3, 1, reply(91)).unwrap();
    assert_eq!(not_kept.keep, None, "and 100 held");
    server.check();
}

#[test]
fn a_fence_before_the_request_settles_it_for_good() {
    let (mut server, at) = opened();
    let never = Answer::NotExecuted(NotExecutedReason::Fenced);
    assert_eq!(server.fence(&at, 3, 1), Ok(never.clone()));
    assert_eq!(server.request(&at, 3, 1, DIGEST), Ok(Decision::Answer(never.clone())));
    let (_, next) = server.attach(at.session(), &secret(1), 2).unwrap();
    assert_eq!(server.request(&next, 3, 1, DIGEST), Ok(Decision::Answer(never)));
}

#[test]
fn a_query_from_elsewhere_only_reads_and_needs_the_owner() {
    let (mut server, at) = opened();
    let ask = |server: &Sessions<Bytes>, slot, sequence| {
        server.query(id(&at, slot, sequence), &secret(1)).unwrap()
    };
    assert_eq!(ask(&server, 0, 1), QueryAnswer::NotArrived);
    assert_eq!(ask(&server, 99, 1), QueryAnswer::NotArrived);
    assert_eq!(server.query(id(&at, 0, 1), &secret(2)), Err(Refusal::Denied));
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Execute), "nothing was fenced");
    assert_eq!(ask(&server, 0, 1), QueryAnswer::Executing);
    server.complete(NOW, &at, 0, 1, reply(3));
    assert_eq!(ask(&server, 0, 1), QueryAnswer::Done(reply(3)));
    assert_eq!(ask(&server, 0, 1), QueryAnswer::Done(reply(3)), "reading does not release");
    server.request(&at, 0, 2, DIGEST).unwrap();
    assert_eq!(ask(&server, 0, 1), QueryAnswer::AlreadySettled);
}

#[test]
fn a_query_answers_for_the_retention_time_also_from_a_new_process() {
    let (mut server, at, _) = replied(3);
    server.detach(NOW, &at);
    let end = NOW + limits().retention;
    assert_eq!(server.expire(end - Duration::from_nanos(1)), 0);
    assert_eq!(server.query(id(&at, 0, 1), &secret(1)), Ok(QueryAnswer::Done(reply(3))));
    assert_eq!(server.expire(end), 1);
    assert_eq!(server.query(id(&at, 0, 1), &secret(1)), Ok(QueryAnswer::UnknownSession));
}

#[test]
fn a_session_expires_after_its_retention_without_a_connection() {
    let (mut server, at, _) = replied(3);
    assert_eq!(server.next_timeout(), None, "a connected session does not expire");
    server.detach(NOW, &at);
    let end = NOW + limits().retention;
    assert_eq!(server.next_timeout(), Some(end));
    let (_, next) = server.attach(at.session(), &secret(1), 2).unwrap();
    assert_eq!(server.next_timeout(), None);
    let later = NOW + Duration::from_secs(30);
    server.detach(later, &next);
    assert_eq!(server.expire(end), 0);
    assert_eq!(server.expire(later + limits().retention), 1);
    assert_eq!(server.attach(at.session(), &secret(1), 3), Err(Refusal::Expired));
    assert_eq!(server.footprint(), Footprint::default());
    assert!(server.is_empty());
    server.check();
}

#[test]
fn an_executing_call_keeps_its_session() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    server.detach(NOW, &at);
    assert_eq!(server.next_timeout(), None);
    let late = NOW + Duration::from_secs(1_000_000);
    assert_eq!(server.expire(late), 0);
    server.complete(late, &at, 0, 1, reply(1));
    assert_eq!(server.next_timeout(), Some(late + limits().retention));
    server.check();
}

#[test]
fn a_closed_session_is_forgotten_when_its_executing_calls_have_ended() {
    let (mut server, at, _) = replied(3);
    server.request(&at, 1, 1, DIGEST).unwrap();
    assert_eq!(server.close(NOW, &at), Ok(()));
    assert_eq!(server.request(&at, 2, 1, DIGEST), Err(Refusal::Expired.into()));
    assert_eq!(server.attach(at.session(), &secret(1), 2), Err(Refusal::Expired));
    assert_eq!(server.open(&anonymous(1)), Err(Refusal::Expired));
    let end = server.complete(NOW, &at, 1, 1, reply(3));
    assert_eq!(end, Some(Completion { connection: None, keep: None }));
    assert!(server.is_empty());
    server.check();
}

#[test]
fn an_old_attachment_does_not_reach_the_session_that_took_its_place() {
    let (mut server, old) = opened();
    server.close(NOW, &old).unwrap();
    let (_, new) = server.open(&anonymous(2)).unwrap();
    assert_eq!(old.index, new.index);
    assert_eq!(server.request(&old, 0, 1, DIGEST), Err(Refusal::Expired.into()));
    assert_eq!(server.complete(NOW, &old, 0, 1, reply(1)), None);
    server.detach(NOW, &old);
    assert_eq!(server.request(&new, 0, 1, DIGEST), Ok(Decision::Execute));
}

#[test]
fn sessions_are_bounded_per_identity_per_address_and_in_all() {
    let mut server = server();
    for nonce in 0..3 {
        server.open(&certified(nonce, 1)).unwrap();
    }
    assert_eq!(server.open(&certified(3, 1)), Err(Refusal::Full));
    assert!(server.open(&certified(2, 1)).is_ok(), "a copy is no further session");
    for nonce in 10..12 {
        server.open(&anonymous(nonce)).unwrap();
    }
    assert_eq!(server.open(&anonymous(12)), Err(Refusal::Full));
    for nonce in 20..23 {
        server.open(&certified(nonce, 2)).unwrap();
    }
    assert_eq!(server.open(&certified(30, 3)), Err(Refusal::Full), "eight in all");
    server.check();
}

#[test]
fn the_end_of_a_session_makes_room_for_another() {
    let mut server = server();
    let (_, first) = server.open(&anonymous(1)).unwrap();
    server.open(&anonymous(2)).unwrap();
    assert_eq!(server.open(&anonymous(3)), Err(Refusal::Full));
    server.close(NOW, &first).unwrap();
    assert!(server.open(&anonymous(3)).is_ok());
    server.check();
}

#[test]
fn addresses_of_one_ipv6_network_pay_together() {
    let mut server = server();
    let from = |nonce, address: &str| OpenRequest {
        address: address.parse().unwrap(),
        ..anonymous(nonce)
    };
    server.open(&from(1, "2001:db8::1")).unwrap();
    server.open(&from(2, "2001:db8::ffff:2")).unwrap();
    assert_eq!(server.open(&from(3, "2001:db8::3")), Err(Refusal::Full));
    assert!(server.open(&from(4, "2001:db8:0:1::3")).is_ok());
    server.open(&from(5, "10.0.0.1")).unwrap();
    server.open(&from(6, "::ffff:10.0.0.1")).unwrap();
    assert_eq!(server.open(&from(7, "10.0.0.1")), Err(Refusal::Full));
}

#[test]
fn a_slot_that_is_not_granted_and_a_gap_are_violations() {
    let (mut server, at) = opened();
    let violation = |violation| Err(Refused::Violation(violation));
    for slot in [4, 5, u32::MAX] {
        assert_eq!(server.request(&at, slot, 1, DIGEST), violation(Violation::NotGranted));
    }
    assert_eq!(server.request(&at, 0, 2, DIGEST), violation(Violation::Gap));
    assert_eq!(server.request(&at, 0, u64::MAX, DIGEST), violation(Violation::Gap));
    server.check();
}

#[test]
fn a_request_of_no_more_than_one_slot_is_still_granted_one() {
    let mut server = server();
    let open = |wanted| OpenRequest { slots_wanted: wanted, ..anonymous(wanted as u8) };
    assert_eq!(server.open(&open(0)).unwrap().0.slots, 1);
    assert_eq!(server.open(&open(u32::MAX)).unwrap().0.slots, 4);
}

#[test]
fn slots_of_all_sessions_are_bounded_and_each_session_gets_one() {
    let limits = Limits { slots_in_all: 6, ..limits() };
    let mut server: Sessions<Bytes> = Sessions::new(1, &limits);
    let slots: Vec<_> = (0..3).map(|n| server.open(&certified(n, 1)).unwrap().0.slots).collect();
    assert_eq!(slots, [4, 2, 1]);
    server.check();
}

#[test]
fn slots_are_asked_back_and_a_slot_granted_again_starts_above_every_number_used() {
    let (mut server, at) = opened();
    for sequence in 1..=7 {
        server.request(&at, 2, sequence, DIGEST).unwrap();
        server.complete(NOW, &at, 2, sequence, reply(1));
    }
    server.request(&at, 3, 1, DIGEST).unwrap();
    server.complete(NOW, &at, 3, 1, reply(1));
    let asked = server.limit_slots(2);
    assert_eq!(asked, [(1, SlotChange { version: 1, wanted: 2, granted: vec![] })]);
    let returned = [SlotPosition { slot: 3, sequence: 1 }, SlotPosition { slot: 1, sequence: 0 }];
    assert_eq!(server.return_slots(&at, &returned), Ok(None));
    assert_eq!(server.footprint().kept, 1, "what the slot kept is freed with it");
    server.check();

    let [(1, change)] = &server.limit_slots(3)[..] else { panic!("one more is granted") };
    let SlotPosition { slot, sequence } = change.granted[0];
    assert_eq!(slot, 1);
    assert!(sequence > 7);
    assert_eq!(server.request(&at, slot, sequence, DIGEST), Ok(Decision::Execute));
    let late = Ok(Decision::Answer(Answer::Stale));
    assert_eq!(server.request(&at, slot, 1, DIGEST), late, "a copy from its former life");
    assert_eq!(server.request(&at, 3, 1, DIGEST), late, "and one of a slot not granted");
    server.check();
}

#[test]
fn a_late_copy_of_giving_a_slot_back_does_not_take_it_as_granted_again() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    server.complete(NOW, &at, 0, 1, reply(1));
    let returned = [SlotPosition { slot: 0, sequence: 1 }];
    let granted = server.return_slots(&at, &returned).unwrap().expect("it was not asked back");
    assert_eq!(granted.granted.len(), 1);
    assert_eq!(server.return_slots(&at, &returned), Ok(None));
    let SlotPosition { slot, sequence } = granted.granted[0];
    assert_eq!(server.request(&at, slot, sequence, DIGEST), Ok(Decision::Execute));
    server.check();
}

#[test]
fn a_slot_with_an_executing_call_cannot_be_given_back() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    let returned = [SlotPosition { slot: 0, sequence: 1 }];
    let violation = Refused::Violation(Violation::Unsettled);
    assert_eq!(server.return_slots(&at, &returned), Err(violation));
    server.check();
}

#[test]
fn a_given_back_slot_is_listed_as_such() {
    let (mut server, at) = opened();
    server.limit_slots(3);
    server.return_slots(&at, &[SlotPosition { slot: 1, sequence: 0 }]).unwrap();
    let (attached, at) = server.attach(at.session(), &secret(1), 2).unwrap();
    let listed = &attached.slots[..];
    assert!(
        matches!(listed, [SlotReport { slot: 1, state: SlotState::NotGranted, .. }]),
        "{listed:?}"
    );
    let violation = Err(Refused::Violation(Violation::NotGranted));
    assert_eq!(server.request(&at, 1, 1, DIGEST), violation);
}

#[test]
fn a_draining_server_opens_no_session_and_fences_new_calls() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    server.drain();
    assert_eq!(server.open(&anonymous(2)), Err(Refusal::Draining));
    assert!(server.open(&anonymous(1)).is_ok(), "a copy of an earlier opening is answered");
    let never = Answer::NotExecuted(NotExecutedReason::Draining);
    assert_eq!(server.request(&at, 1, 1, DIGEST), Ok(Decision::Answer(never.clone())));
    assert_eq!(server.request(&at, 1, 1, DIGEST), Ok(Decision::Answer(never)), "for good");
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(Decision::Answer(Answer::Working)));
}

#[test]
fn a_draining_server_leaves_when_every_outcome_is_released() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    assert!(!server.is_drained(), "it does not drain");
    server.drain();
    assert!(!server.is_drained(), "a call executes");
    server.complete(NOW, &at, 0, 1, reply(1));
    assert!(!server.is_drained(), "a reply is kept");
    server.request(&at, 1, 1, DIGEST).unwrap();
    server.release(&at, 0, 1).unwrap();
    assert!(!server.is_drained(), "a client may not know that its call was fenced");
    server.release(&at, 1, 1).unwrap();
    assert!(server.is_drained());
}

#[test]
fn a_call_given_up_before_its_handler_started_is_not_executed() {
    let (mut server, at) = opened();
    server.request(&at, 0, 1, DIGEST).unwrap();
    let why = NotExecutedReason::Overloaded;
    assert_eq!(server.give_up(NOW, &at, 0, 1, why), Some(Some(1)));
    let answer = Decision::Answer(Answer::NotExecuted(why));
    assert_eq!(server.request(&at, 0, 1, DIGEST), Ok(answer));
    assert_eq!(server.complete(NOW, &at, 0, 1, reply(1)), None, "too late");
    assert_eq!(server.give_up(NOW, &at, 0, 1, why), None);
}

#[test]
fn a_clone_goes_on_exactly_as_the_original() {
    let (mut one, at, _) = replied(3);
    let mut other = one.clone();
    for server in [&mut one, &mut other] {
        server.limit_slots(1);
        server.request(&at, 1, 1, DIGEST).unwrap();
        server.detach(NOW, &at);
        server.complete(NOW, &at, 1, 1, reply(4));
    }
    let attached = |server: &mut Sessions<Bytes>| server.attach(at.session(), &secret(1), 9);
    assert_eq!(attached(&mut one), attached(&mut other));
    assert_eq!(one.footprint(), other.footprint());
}

#[test]
fn a_full_account_forgets_a_left_session_that_holds_nothing_and_never_one_that_holds_an_outcome() {
    let mut server = server();
    let (_, holds) = server.open(&anonymous(1)).unwrap();
    let (empty, left) = server.open(&anonymous(2)).unwrap();
    server.request(&holds, 0, 1, DIGEST).unwrap();
    server.complete(NOW, &holds, 0, 1, reply(1));
    assert_eq!(server.open(&anonymous(3)), Err(Refusal::Full), "both have connections");
    server.detach(NOW, &holds);
    assert_eq!(server.open(&anonymous(3)), Err(Refusal::Full), "the first holds an outcome");
    server.detach(NOW, &left);
    server.open(&anonymous(3)).unwrap();
    assert_eq!(server.attach(empty.session, &secret(2), 9).unwrap_err(), Refusal::Expired);
    server.check();
}
