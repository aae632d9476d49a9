//! Groups of replicas: the invariants hold in every world, and a mistake made on purpose is found.

use stubborn_sim::{Sabotage, explore_group_seeds, simulate_group};

#[test]
fn replicas_keep_every_invariant_whatever_goes_wrong() {
    let batch = explore_group_seeds(0, 150, 2, None, |_| {});
    assert_eq!(batch.failure, None, "to repeat it: stubborn sim --replicas --seed N");
    assert_eq!(batch.missing(), Vec::<&str>::new(), "the batch proves little without these");
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    let run = || simulate_group(7, None, None).expect("a clean seed");
    assert_eq!(run(), run());
}

fn is_found_as(sabotage: Sabotage, promises: &[&str]) {
    let batch = explore_group_seeds(0, 1_000, 2, Some(sabotage), |_| {});
    let failure = batch.failure.unwrap_or_else(|| panic!("{sabotage:?} was not found"));
    let promise = failure.violation.promise;
    assert!(promises.contains(&promise), "{sabotage:?} was found as {failure}");
}

#[test]
fn a_vote_that_is_sent_before_it_is_synced_is_found() {
    let promises = [
        "election safety",
        "leader completeness",
        "state machine safety",
        "linearizability",
        "exactly once",
        "honest peers are listened to",
        "liveness",
        "no panic",
    ];
    is_found_as(Sabotage::SendBeforeSync, &promises);
}

#[test]
fn a_read_without_a_majority_is_found() {
    is_found_as(Sabotage::ReadAlone, &["linearizability"]);
}

#[test]
fn a_command_that_counts_twice_is_found() {
    is_found_as(Sabotage::ForgetCommands, &["exactly once", "linearizability"]);
}

#[test]
#[ignore = "a minute in a release build: `stubborn sim --replicas --runs 10000` does the same"]
fn ten_thousand_groups_keep_every_invariant() {
    let batch = explore_group_seeds(0, 10_000, 2, None, |_| {});
    assert_eq!(batch.failure, None, "to repeat it: stubborn sim --replicas --seed N");
    println!("{:?} simulated, {:?}", batch.simulated, batch.counts);
}
