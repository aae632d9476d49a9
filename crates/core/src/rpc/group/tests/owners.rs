//! Calls that a replica does not let in, and whose sessions are.

use super::*;

const NO: NotExecutedReason = NotExecutedReason::PermissionDenied;

/// The same request at a replica that does not let it in.
fn refused(at: Attaching, slot: u32, sequence: u64, body: &[u8]) -> SessionCommand {
    let mut command = request(at, slot, sequence, body);
    command.refuse(NotExecuted::because(NO, "not you"));
    command
}

/// A client with this key, whose certificate is that of this owner.
fn of(mut command: SessionCommand, key: u8, owner: u8) -> SessionCommand {
    let (identity, owner) = (Some([key; 32]), Some([owner; 32]));
    command.peer = Peer { identity, owner, ..Peer::clone(&command.peer) }.into();
    command
}

fn opening(client: u64) -> SessionCommand {
    command(client, None, ToServer::Open { nonce: [client as u8; 16], slots: 9 })
}

fn attach(client: u64, at: Attaching) -> SessionCommand {
    let secret = SessionSecret::NONE;
    command(client, None, ToServer::Attach { session: at.session, secret, succession: None })
}

#[test]
fn a_call_that_is_not_let_in_uses_its_number_up_and_says_why_to_copies_elsewhere_too() {
    let mut world = World::new();
    let at = world.open(1);
    let told = world.apply(1, &refused(at, 0, 1, b"pay"));
    assert!(matches!(said(&told), ToClient::NotExecuted { why, .. } if why.detail == "not you"));
    // A replica that would let it in, and one that does not know of permissions.
    assert_eq!(why(&world.apply(2, &request(at, 0, 1, b"pay"))), NO);
    assert_eq!(why(&world.apply(3, &refused(at, 0, 1, b"pay").as_of(1))), NO);
    assert_eq!(world.ran, []);
    assert_eq!(reply_of(&world.apply(1, &request(at, 0, 2, b"next"))), b"next");
    let late = world.apply(1, &refused(at, 0, 1, b"pay"));
    assert_eq!(said(&late), ToClient::Stale { slot: 0, sequence: 1 });
}

#[test]
fn a_call_that_ran_is_told_as_it_ended_where_its_copy_is_not_let_in() {
    let mut world = World::new();
    let at = world.open(1);
    world.apply(1, &request(at, 0, 1, b"pay"));
    assert_eq!(reply_of(&world.apply(2, &refused(at, 0, 1, b"pay"))), b"pay");
    let fence = command(1, Some(at), ToServer::Fence { slot: 1, sequence: 1 });
    world.apply(1, &fence);
    let told = world.apply(2, &refused(at, 1, 1, b"x"));
    assert_eq!(why(&told), NotExecutedReason::Fenced, "as it was told first");
}

#[test]
fn only_calls_are_refused_and_one_that_is_waits_as_any_command() {
    let at = World::new().open(1);
    let mut fence = command(1, Some(at), ToServer::Fence { slot: 0, sequence: 1 });
    fence.refuse(NotExecuted::new(NO));
    assert!(matches!(fence.said, Said::Message(_)));
    let mut opening = opening(1);
    opening.refuse(NotExecuted::new(NO));
    assert!(matches!(opening.said, Said::Message(_)) && opening.asks().is_none());
    let call = request(at, 2, 7, b"pay");
    let (method, asked) = call.asks().unwrap();
    assert_eq!((method, asked.context().id.unwrap().sequence), (METHOD, 7));
    let refused = refused(at, 2, 7, b"pay");
    assert!(refused.asks().is_none() && refused.size() < 100 && !refused.only_frees());
    let busy = refused.push_back(Duration::from_millis(5)).unwrap();
    let Content::Answer(parts) = busy.0 else { panic!("an answer") };
    let busy = ToClient::decode(join(parts)).unwrap();
    assert!(matches!(busy, ToClient::Busy { slot: 2, sequence: 7, .. }), "{busy:?}");
}

#[test]
fn members_of_an_earlier_version_are_told_a_fence_and_no_owners() {
    let at = World::new().open(1);
    let command = of(refused(at, 0, 1, b"pay"), 1, 2).as_of(1);
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    assert_eq!(bytes[0], 1, "the form that they read");
    let fence = ToServer::Fence { slot: 0, sequence: 1 };
    let fence = Said::Message(join(fence.encode(&mut MessageBuffer::default())));
    assert!(command.said == fence);
    assert_eq!((command.peer.identity, command.peer.owner), (Some([1; 32]), None));
    let kept = of(request(at, 0, 1, b"pay"), 1, 2).as_of(2);
    assert_eq!(kept.peer.owner, Some([2; 32]));
}

#[test]
fn a_session_goes_over_to_the_owner_of_the_key_that_opened_it_and_survives_a_new_key() {
    let mut world = World::new();
    let early = attaching(&world.apply(1, &of(opening(1), 1, 9).as_of(1)));
    let other = of(attach(2, early), 2, 9);
    assert_eq!(refusal(&world.apply(2, &other)), Refusal::Denied, "it is the first key's yet");
    world.activate(2);
    // The first thing that its client says after that is enough.
    world.apply(1, &of(request(early, 0, 1, b"pay"), 1, 9));
    let renewed = attaching(&world.apply(2, &other));
    let copy = of(request(renewed, 0, 1, b"pay"), 2, 9);
    assert_eq!(reply_of(&world.apply(2, &copy)), b"pay");
    assert_eq!(world.ran.len(), 1);
    let stranger = of(attach(3, early), 3, 8);
    assert_eq!(refusal(&world.apply(3, &stranger)), Refusal::Denied);
    let nobody = attach(4, early);
    assert_eq!(refusal(&world.apply(3, &nobody)), Refusal::Denied);
}

#[test]
fn a_session_of_a_new_version_belongs_to_the_owner_from_its_opening_on() {
    let mut world = World::new();
    world.activate(2);
    let at = attaching(&world.apply(1, &of(opening(1), 1, 9)));
    assert_eq!(attaching(&world.apply(1, &of(opening(1), 1, 9))), at, "a copy");
    attaching(&world.apply(2, &of(attach(2, at), 2, 9)));
    // Without such a name the owner is the key.
    let at = attaching(&world.apply(1, &of(opening(5), 5, 5)));
    assert_eq!(refusal(&world.apply(2, &of(attach(6, at), 6, 6))), Refusal::Denied);
    attaching(&world.apply(2, &of(attach(7, at), 5, 5)));
}

#[test]
fn who_attaches_at_a_replica_that_is_behind_is_asked_to_come_back_and_not_refused() {
    let mut world = World::new();
    world.activate(2);
    let at = attaching(&world.apply(1, &of(opening(1), 1, 9)));
    let behind = of(attach(2, at), 2, 9).as_of(1);
    let told = said(&world.apply(2, &behind));
    assert!(matches!(told, ToClient::SessionBusy { .. }), "{told:?}");
    attaching(&world.apply(2, &of(attach(2, at), 2, 9)));
}

proptest! {
    /// Replicas have different permissions, and copies of calls come to any of them in any order.
    #[test]
    fn what_was_told_of_a_number_stays_true_wherever_its_copies_are_let_in(
        steps in vec_of((any::<bool>(), 0..3_u64, 0..3_u64), 1..60),
    ) {
        let mut world = World::new();
        let at = world.open(1);
        let mut told_of = std::collections::BTreeMap::new();
        let mut next = 1;
        for (lets_in, replica, back) in steps {
            let sequence = next - back.min(next - 1);
            let body = sequence.to_be_bytes();
            let command = match lets_in {
                true => request(at, 0, sequence, &body),
                false => refused(at, 0, sequence, &body),
            };
            let told = said(&world.apply(replica, &command));
            next = next.max(sequence + 1);
            let ran = world.ran.iter().filter(|(id, _)| id.sequence == sequence).count();
            let outcome = match &told {
                ToClient::NotExecuted { why, .. } => {
                    prop_assert_eq!((ran, why.reason), (0, NO));
                    false
                }
                ToClient::Reply { .. } => {
                    prop_assert_eq!(ran, 1);
                    true
                }
                ToClient::Stale { .. } => continue,
                other => panic!("{other:?}"),
            };
            let first = *told_of.entry(sequence).or_insert(outcome);
            prop_assert_eq!(first, outcome, "{} was told otherwise", sequence);
        }
        for (id, _) in &world.ran {
            prop_assert_eq!(told_of.get(&id.sequence), Some(&true));
        }
    }
}
