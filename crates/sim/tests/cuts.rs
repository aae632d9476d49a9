//! Groups whose nodes do not all reach each other go on serving.

use stubborn_sim::{Cut, explore_cuts};

fn keeps_serving(cut: Cut) {
    for nodes in [3, 5] {
        let batch = explore_cuts((0, 4), cut, nodes, 2, |_| {});
        assert_eq!(batch.failure, None, "{cut:?} with {nodes} nodes");
        assert_eq!(batch.counts.cuts, 4);
    }
}

#[test]
fn a_group_serves_on_when_its_leader_loses_the_quorum_and_only_one_node_has_one() {
    keeps_serving(Cut::QuorumLoss);
}

#[test]
fn a_group_serves_on_when_its_leader_is_gone_and_the_only_node_with_a_quorum_lags() {
    keeps_serving(Cut::Constrained);
}

#[test]
fn a_group_serves_on_when_its_nodes_are_a_chain_with_the_leader_at_one_end() {
    keeps_serving(Cut::Chained);
}
