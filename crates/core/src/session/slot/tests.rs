use std::vec;
use std::vec::Vec;

use super::*;

const N: u64 = 5;
const DIGEST: u64 = 77;
const OTHER: u64 = 78;
const WHY: NotExecutedReason = NotExecutedReason::Overloaded;
const NOT_KEPT: Option<(Bytes, Keep)> = None;

fn reply() -> Bytes {
    Bytes::from_static(b"reply")
}

fn executing() -> Slot<Bytes> {
    let mut slot = Slot::new(N - 1);
    assert_eq!(slot.request(N, DIGEST), Ok(Decision::Execute));
    slot
}

/// A slot in each state, its last number N.
fn in_every_state() -> Vec<(SlotState, Slot<Bytes>)> {
    let mut done = executing();
    assert!(done.complete(N, Some((reply(), Keep::Session))));
    let mut not_kept = executing();
    assert!(not_kept.complete(N, NOT_KEPT));
    let mut released = done.clone();
    assert_eq!(released.release(N), Ok(()));
    let mut fenced = executing();
    assert!(fenced.give_up(N, WHY));
    let all = vec![
        (SlotState::Idle, Slot::new(N)),
        (SlotState::Executing, executing()),
        (SlotState::Done, done),
        (SlotState::NotKept, not_kept),
        (SlotState::Released, released),
        (SlotState::Fenced, fenced),
    ];
    assert!(all.iter().all(|(state, slot)| slot.state() == *state && slot.last() == N));
    all
}

/// What a slot answers about its last number.
fn known(state: SlotState) -> Answer<Bytes> {
    match state {
        SlotState::Executing => Answer::Working,
        SlotState::Done => Answer::Reply(reply()),
        SlotState::NotKept => Answer::NotKept,
        SlotState::Fenced => Answer::NotExecuted(WHY),
        SlotState::Idle | SlotState::Released | SlotState::NotGranted => Answer::Stale,
    }
}

#[test]
fn the_next_number_is_a_new_call_unless_the_last_is_executing() {
    for (state, mut slot) in in_every_state() {
        let before = slot.clone();
        let decision = slot.request(N + 1, OTHER);
        if state == SlotState::Executing {
            assert_eq!(decision, Err(Violation::Unsettled));
            assert_eq!(slot, before);
            assert!(!before.is_next(N + 1));
        } else {
            assert_eq!(decision, Ok(Decision::Execute), "{state:?}");
            assert_eq!((slot.last(), slot.state()), (N + 1, SlotState::Executing));
            assert!(before.is_next(N + 1));
        }
    }
}

#[test]
fn the_same_number_is_answered_from_memory_and_changes_nothing() {
    for (state, mut slot) in in_every_state() {
        let before = slot.clone();
        assert_eq!(slot.request(N, DIGEST), Ok(Decision::Answer(known(state))), "{state:?}");
        assert_eq!(slot, before);
        assert!(!slot.is_next(N));
    }
}

#[test]
fn the_same_number_with_another_digest_is_a_false_retry_wherever_a_digest_is_known() {
    for (state, mut slot) in in_every_state() {
        let before = slot.clone();
        let expected = match state {
            SlotState::Executing | SlotState::Done | SlotState::NotKept => Decision::FalseRetry,
            _ => Decision::Answer(known(state)),
        };
        assert_eq!(slot.request(N, OTHER), Ok(expected), "{state:?}");
        assert_eq!(slot, before);
    }
}

#[test]
fn lower_numbers_are_stale_whatever_the_state() {
    for (state, mut slot) in in_every_state() {
        let before = slot.clone();
        for lower in [0, 1, N - 1] {
            assert_eq!(slot.request(lower, DIGEST), Ok(Decision::Answer(Answer::Stale)));
            assert_eq!(slot.fence(lower, WHY), Ok(Answer::Stale));
            assert_eq!(slot.release(lower), Ok(()));
            assert_eq!(slot.query(lower), QueryAnswer::AlreadySettled);
            assert!(!slot.complete(lower, NOT_KEPT) && !slot.give_up(lower, WHY));
        }
        assert_eq!(slot, before, "{state:?}");
    }
}

#[test]
fn a_gap_is_a_violation_whatever_the_state() {
    for (_, mut slot) in in_every_state() {
        let before = slot.clone();
        for further in [N + 2, N + 3, MAX_SEQUENCE, u64::MAX] {
            assert_eq!(slot.request(further, DIGEST), Err(Violation::Gap));
            assert_eq!(slot.fence(further, WHY), Err(Violation::Gap));
            assert_eq!(slot.release(further), Err(Violation::Gap));
            assert_eq!(slot.query(further), QueryAnswer::NotArrived);
        }
        assert_eq!(slot.release(N + 1), Err(Violation::Gap));
        assert_eq!(slot, before);
    }
}

#[test]
fn a_fence_before_the_start_moves_the_slot_and_the_late_request_never_runs() {
    for (state, mut slot) in in_every_state() {
        if state == SlotState::Executing {
            assert_eq!(slot.fence(N + 1, WHY), Err(Violation::Unsettled));
            continue;
        }
        assert_eq!(slot.fence(N + 1, WHY), Ok(Answer::NotExecuted(WHY)), "{state:?}");
        for digest in [DIGEST, OTHER] {
            let late = slot.request(N + 1, digest);
            assert_eq!(late, Ok(Decision::Answer(Answer::NotExecuted(WHY))));
        }
        assert_eq!(slot.request(N + 2, DIGEST), Ok(Decision::Execute));
        assert_eq!(slot.request(N + 1, DIGEST), Ok(Decision::Answer(Answer::Stale)));
    }
}

#[test]
fn a_fence_after_the_start_is_answered_as_a_retry_and_changes_nothing() {
    for (state, mut slot) in in_every_state() {
        let before = slot.clone();
        let other = NotExecutedReason::Cancelled;
        assert_eq!(slot.fence(N, other), Ok(known(state)), "{state:?}");
        assert_eq!(slot, before);
    }
}

#[test]
fn only_the_executing_number_can_be_completed_or_given_up() {
    for (state, slot) in in_every_state() {
        let executing = state == SlotState::Executing;
        let mut completed = slot.clone();
        assert_eq!(completed.complete(N, Some((reply(), Keep::Session))), executing);
        let mut given_up = slot.clone();
        assert_eq!(given_up.give_up(N, WHY), executing);
        if executing {
            assert_eq!(completed.state(), SlotState::Done);
            assert_eq!(given_up.state(), SlotState::Fenced);
        } else {
            assert_eq!((&completed, &given_up), (&slot, &slot));
        }
        let mut further = slot.clone();
        assert!(!further.complete(N + 1, NOT_KEPT) && !further.give_up(N + 1, WHY));
        assert_eq!(further, slot);
    }
}

#[test]
fn a_release_frees_the_reply_and_a_fenced_number_but_not_an_executing_one() {
    for (state, mut slot) in in_every_state() {
        match state {
            SlotState::Executing => {
                assert_eq!(slot.release(N), Err(Violation::Unsettled));
                assert_eq!(slot.state(), SlotState::Executing);
            }
            SlotState::Idle => {
                assert_eq!(slot.release(N), Ok(()));
                assert_eq!(slot.state(), SlotState::Idle);
            }
            _ => {
                assert_eq!(slot.release(N), Ok(()));
                assert_eq!(slot.state(), SlotState::Released, "{state:?}");
                assert_eq!(slot.footprint(), Footprint::default());
                assert_eq!(slot.request(N, DIGEST), Ok(Decision::Answer(Answer::Stale)));
            }
        }
    }
}

#[test]
fn the_next_number_frees_the_kept_reply() {
    let mut slot = executing();
    slot.complete(N, Some((reply(), Keep::Session)));
    assert_eq!(slot.footprint().kept, 5);
    slot.request(N + 1, DIGEST).unwrap();
    assert_eq!(slot.footprint(), Footprint { executing: 1, unsettled: 1, ..Footprint::default() });
}

#[test]
fn a_reply_kept_for_the_connection_becomes_not_kept_when_it_ends_and_others_stay() {
    let mut large = executing();
    large.complete(N, Some((reply(), Keep::Connection)));
    assert_eq!(large.footprint().held, 5);
    large.connection_ended();
    assert_eq!(large.fence(N, WHY), Ok(Answer::NotKept));
    assert_eq!(large.request(N, OTHER), Ok(Decision::FalseRetry), "the digest is remembered");
    for (state, mut slot) in in_every_state() {
        slot.connection_ended();
        assert_eq!(slot.state(), state);
    }
}

#[test]
fn a_query_only_reads() {
    for (state, slot) in in_every_state() {
        let expected = match state {
            SlotState::Executing => QueryAnswer::Executing,
            SlotState::Done => QueryAnswer::Done(reply()),
            SlotState::NotKept => QueryAnswer::NotKept,
            SlotState::Fenced => QueryAnswer::NotExecuted(WHY),
            _ => QueryAnswer::AlreadySettled,
        };
        assert_eq!(slot.query(N), expected);
        assert_eq!(slot.query(N + 1), QueryAnswer::NotArrived);
        assert_eq!(slot.state(), state);
    }
}

#[test]
fn the_last_number_of_all_is_used_and_none_follows_it() {
    let mut slot: Slot<Bytes> = Slot::new(MAX_SEQUENCE - 1);
    assert_eq!(slot.request(MAX_SEQUENCE, DIGEST), Ok(Decision::Execute));
    slot.complete(MAX_SEQUENCE, NOT_KEPT);
    assert_eq!(slot.request(MAX_SEQUENCE + 1, DIGEST), Err(Violation::Gap));
}

#[test]
fn every_state_survives_the_wire() {
    for state in SlotState::ALL {
        assert_eq!(SlotState::from_wire(state.to_wire()), Some(state));
    }
    assert_eq!(SlotState::from_wire(7), None);
}
