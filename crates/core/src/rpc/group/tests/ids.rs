//! Calls that name themselves: a copy from another session, on any replica, runs no second time.

use std::string::String;

use super::*;
use crate::service::CALL_ID;
use crate::session::KeyLimits;

/// A call of the caller of this number; nobody is 0.
fn named(at: Attaching, sequence: u64, who: u8, key: &str, body: &[u8]) -> SessionCommand {
    let mut payload = payload(body);
    payload.metadata.insert(CALL_ID, key).unwrap();
    let message = ToServer::Request { slot: 0, sequence, payload };
    let command = command(1, Some(at), message);
    let owner = (who != 0).then_some([who; 32]);
    SessionCommand { peer: Peer { owner, ..Peer::clone(&command.peer) }.into(), ..command }
}

/// Room for six ids, or a few more with small replies.
fn roomy() -> Limits {
    Limits { kept_replies: 5_000, ..limits() }
}

/// Two sessions at tables that keep ids.
fn two_sessions() -> (World, Attaching, Attaching) {
    let mut world = World::with(&roomy());
    world.activate(IDS_SINCE);
    let (one, two) = (world.open(1), world.open(2));
    (world, one, two)
}

#[test]
fn a_copy_from_another_session_gets_the_first_reply_and_runs_no_second_time() {
    let (mut world, one, two) = two_sessions();
    assert_eq!(reply_of(&world.apply(1, &named(one, 1, 0, "a", b"pay"))), b"pay");
    assert_eq!(reply_of(&world.apply(2, &named(two, 1, 0, "a", b"pay"))), b"pay");
    assert_eq!(reply_of(&world.apply(1, &named(one, 2, 0, "a", b"pay"))), b"pay");
    assert_eq!((world.ran.len(), world.table.ids()), (1, 1));
}

#[test]
fn another_request_under_the_same_id_is_refused_and_somebody_elses_id_is_another_one() {
    let (mut world, one, two) = two_sessions();
    world.apply(1, &named(one, 1, 1, "a", b"pay"));
    let other = world.apply(2, &named(two, 1, 1, "a", b"PAY"));
    assert_eq!(why(&other), NotExecutedReason::FalseRetry);
    assert_eq!(reply_of(&world.apply(2, &named(two, 2, 2, "a", b"PAY"))), b"PAY");
    assert_eq!(world.ran.len(), 2);
}

#[test]
fn what_did_not_run_leaves_its_id_free_and_what_failed_has_run() {
    let (mut world, one, two) = two_sessions();
    assert_eq!(why(&world.apply(1, &named(one, 1, 0, "a", b"!"))), NotExecutedReason::Malformed);
    assert_eq!(reply_of(&world.apply(1, &named(two, 1, 0, "a", b"pay"))), b"pay");
    world.apply(1, &named(one, 2, 0, "b", b"?"));
    let again = said(&world.apply(1, &named(two, 2, 0, "b", b"?")));
    assert!(matches!(again, ToClient::Reply { reply, .. } if reply.status.is_some()));
    assert_eq!(world.ran.len(), 3);
}

#[test]
fn a_copy_that_comes_late_is_told_of_the_first_run_and_a_late_first_one_does_not_run() {
    let (mut world, one, two) = two_sessions();
    world.now = at(5);
    let late = |command| SessionCommand { deadline: Deadline::At(at(3)), ..command };
    let first = world.apply(1, &late(named(one, 1, 0, "a", b"pay")));
    assert_eq!(why(&first), NotExecutedReason::Deadline);
    assert_eq!(reply_of(&world.apply(1, &named(one, 2, 0, "a", b"pay"))), b"pay");
    assert_eq!(reply_of(&world.apply(1, &late(named(two, 1, 0, "a", b"pay")))), b"pay");
}

#[test]
fn a_fence_of_a_copy_says_nothing_of_the_first_run_which_the_next_copy_is_told() {
    let (mut world, one, two) = two_sessions();
    world.apply(1, &named(one, 1, 0, "a", b"pay"));
    let fence = command(2, Some(two), ToServer::Fence { slot: 0, sequence: 1 });
    assert_eq!(why(&world.apply(1, &fence)), NotExecutedReason::Fenced);
    assert_eq!(reply_of(&world.apply(1, &named(two, 2, 0, "a", b"pay"))), b"pay");
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn an_id_that_cannot_be_one_is_refused_before_it_runs() {
    let (mut world, one, _) = two_sessions();
    let long = String::from("x").repeat(257);
    for (sequence, key) in ["", "a b", &long].into_iter().enumerate() {
        let told = world.apply(1, &named(one, sequence as u64 + 1, 0, key, b"pay"));
        assert_eq!(why(&told), NotExecutedReason::Malformed);
    }
    assert_eq!(world.ran, []);
}

#[test]
fn before_all_members_know_ids_they_mean_nothing() {
    let mut world = World::new();
    let one = world.open(1);
    world.apply(1, &named(one, 1, 0, "a", b"pay"));
    world.apply(1, &named(one, 2, 0, "a", b"pay"));
    assert_eq!((world.ran.len(), world.table.ids()), (2, 0));
}

#[test]
fn ids_outlive_the_group_that_a_backup_of_theirs_is_restored_to() {
    let (mut world, one, _) = two_sessions();
    world.apply(1, &named(one, 1, 0, "a", b"pay"));
    let mut new = world.table.of_new_group(GROUP + 1);
    assert_eq!((new.len(), new.ids()), (0, 1));
    new.advance(at(3_600));
    assert_eq!(new.ids(), 0);
}

/// What is known of an id.
struct Known {
    who: u8,
    key: String,
    body: Vec<u8>,
    at: Instant,
}

/// What a call with an id may come to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Runs,
    Repeats,
    Refused(NotExecutedReason),
}

/// What ids promise, without any way to keep them.
#[derive(Default)]
struct Model(Vec<Known>);

impl Model {
    fn expect(&mut self, now: Instant, who: u8, key: &str, body: &[u8]) -> Outcome {
        let limits = KeyLimits::of(&roomy());
        self.0.retain(|known| now.since(known.at) < limits.retention);
        let bytes = |key: &str, size| 512 + key.len() as u64 + size as u64;
        let held: u64 = self.0.iter().map(|it| bytes(&it.key, size_of_reply(&it.body))).sum();
        match self.0.iter().find(|known| known.who == who && known.key == key) {
            Some(known) if known.body == body => Outcome::Repeats,
            Some(_) => Outcome::Refused(NotExecutedReason::FalseRetry),
            None if held + bytes(key, limits.reply) > limits.bytes => {
                Outcome::Refused(NotExecutedReason::Overloaded)
            }
            None if body.first() == Some(&b'!') => Outcome::Runs,
            None => {
                let (key, body) = (key.into(), body.to_vec());
                self.0.push(Known { who, key, body, at: now });
                Outcome::Runs
            }
        }
    }
}

/// What the machine of these tests answers to a body.
fn size_of_reply(body: &[u8]) -> usize {
    if body.first() == Some(&b'?') { "no".len() } else { body.len() }
}

/// A body: of a call that runs, fails, or does not run.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0_u8..2, 0_usize..200).prop_map(|(byte, size)| vec![byte; size]),
        1 => Just(b"?".to_vec()),
        1 => Just(b"!".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Applying compares two tables, of which one goes on from the other's snapshot.
    #[test]
    fn ids_keep_to_the_model_on_every_replica(
        calls in vec_of((0_usize..2, 0_u8..3, 0_u8..3, body(), 0_u64..1_500), 1..50),
    ) {
        let (mut world, one, two) = two_sessions();
        let (mut model, mut sequences) = (Model::default(), [0, 0]);
        for (session, who, key, body, wait) in calls {
            world.now += Duration::from_secs(wait);
            for table in [&mut world.table, &mut world.other] {
                table.renew(world.now, &[one.session, two.session]);
            }
            sequences[session] += 1;
            let key = String::from("k").repeat(1 + usize::from(key));
            let command = named([one, two][session], sequences[session], who, &key, &body);
            let expected = model.expect(world.now, who, &key, &body);
            let before = world.ran.len();
            let told = said(&world.apply(1, &command));
            let ran = world.ran.len() - before;
            prop_assert_eq!(ran, usize::from(expected == Outcome::Runs));
            match (expected, told) {
                (Outcome::Refused(reason), ToClient::NotExecuted { why, .. }) => {
                    prop_assert_eq!(why.reason, reason);
                }
                (Outcome::Runs, ToClient::NotExecuted { .. }) => prop_assert_eq!(body, b"!"),
                (Outcome::Runs | Outcome::Repeats, ToClient::Reply { reply, .. }) => {
                    let fails = body.first() == Some(&b'?');
                    prop_assert_eq!(reply.status.is_some(), fails);
                    prop_assert!(fails || reply.body.to_vec() == body);
                }
                (expected, told) => prop_assert!(false, "{expected:?}, but {told:?}"),
            }
        }
    }

    #[test]
    fn no_bytes_make_ids_panic(bytes: Vec<u8>, altered in vec_of((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        let _ = TableReader::default().take_ids(&bytes);
        let (mut world, one, _) = two_sessions();
        world.apply(1, &named(one, 1, 0, "a", b"kept"));
        world.apply(1, &named(one, 2, 7, "b", b"?"));
        let mut image = world.table.freeze_ids().unwrap().to_bytes().unwrap().to_vec();
        for (index, byte) in altered {
            *index.get_mut(&mut image) = byte;
        }
        let mut reader = TableReader::default();
        reader.take(&self::image(&world.table)).unwrap();
        // What still is a table can be used as one.
        if reader.take_ids(&image).is_ok() {
            let mut table = reader.finish().unwrap();
            let again = table.freeze_ids().unwrap().to_bytes().unwrap();
            prop_assert!(TableReader::default().take_ids(&again).is_ok());
            let (now, mut told) = (table.time(), Vec::new());
            table.apply(now, 1, &named(one, 3, 0, "c", b"next"), run, &mut told);
            table.advance(Instant::from_nanos(u64::MAX));
            prop_assert_eq!(table.ids(), 0);
        }
    }
}
