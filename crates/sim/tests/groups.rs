//! Groups of whole nodes: every promise holds in every world.

use stubborn_sim::{explore_node_seeds, simulate_nodes};

#[test]
fn groups_keep_every_promise_whatever_goes_wrong() {
    let batch = explore_node_seeds(0, 40, 2, |_| {});
    assert_eq!(batch.failure, None, "to repeat it: stubborn sim --groups --seed N");
    assert_eq!(batch.missing(), Vec::<&str>::new(), "the batch proves little without these");
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    let run = || simulate_nodes(7, None).expect("a clean seed");
    assert_eq!(run(), run());
}
