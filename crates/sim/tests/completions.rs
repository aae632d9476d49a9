//! Servers with completion records: every promise holds in every world.

use stubborn_sim::{explore_completion_seeds, simulate_completions};

#[test]
fn servers_that_share_a_database_keep_every_promise_whatever_goes_wrong() {
    // Few, unoptimised: `stubborn sim --completions` runs many more, and sees that nothing was left out.
    let batch = explore_completion_seeds(0, 20, 2, |_| {});
    assert_eq!(batch.failure, None, "to repeat it: stubborn sim --completions --seed N");
}

#[test]
fn a_commit_of_unknown_end_is_not_taken_for_done_because_another_servers_reply_was_not_kept() {
    // It had not happened; meanwhile another server executed the call, and its reply was too large, too.
    simulate_completions(544, None).expect("a clean seed");
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    for seed in [7, 8] {
        let run = || simulate_completions(seed, None).expect("a clean seed");
        assert_eq!(run(), run());
    }
}
