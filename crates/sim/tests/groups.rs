//! Groups of whole nodes: every promise holds in every world.

use stubborn_sim::{explore_node_seeds, simulate_moves, simulate_nodes};

#[test]
fn groups_keep_every_promise_whatever_goes_wrong() {
    // Few, unoptimised: `stubborn sim --groups` runs many more, and sees that nothing was left out.
    let batch = explore_node_seeds(0, 6, 2, |_| {});
    assert_eq!(batch.failure, None, "to repeat it: stubborn sim --groups --seed N");
}

#[test]
fn a_client_whose_link_a_node_that_is_no_member_closes_gets_the_others_ready_meanwhile() {
    // It waited for ever at a node that had not become a member yet.
    simulate_nodes(19, None).expect("a clean seed");
}

#[test]
fn who_joins_hears_of_the_leader_that_is_about_to_leave_from_others() {
    // It was configured with those who stay, and took no word of the leader's.
    simulate_nodes(143, None).expect("a clean seed");
}

#[test]
fn members_can_be_changed_with_the_first_command_of_a_group() {
    // It came before the roster, and was refused.
    simulate_nodes(63, None).expect("a clean seed");
}

#[test]
fn a_member_that_moves_is_found_by_one_that_does_not_know_that_the_group_agreed() {
    // It spoke to the old address alone, and got no vote from there.
    simulate_moves(0, 6, false, None).expect("a group that goes on");
}

#[test]
fn members_that_move_by_one_order_find_one_another_though_neither_knows_that_it_is_committed() {
    // Each spoke to where the other had been, and neither got the other's vote.
    simulate_moves(0, 3, true, None).expect("a group that goes on");
}

#[test]
fn a_node_that_loses_its_folder_while_it_joins_is_refused_until_it_joins_under_a_new_number() {
    // It was believed to have what its first folder had, until a heartbeat counted on it.
    let (_, counts) = simulate_nodes(7, None).expect("a clean seed");
    assert!(counts.folders_refused > 0, "{counts:?}");
}

#[test]
fn who_comes_is_configured_with_the_one_that_leaves_until_it_has_the_log() {
    // It was started again with itself alone in its configuration.
    simulate_nodes(12, None).expect("a clean seed");
}

#[test]
fn nobody_leaves_a_group_whose_others_could_agree_on_nothing_without_it() {
    // Of three the first left while the second was down: the third alone could not even let the second leave.
    // It is clean, too, if who is to leave is brought up to date as a stranger: a test of the roster's steps
    // beside them holds the leader to it alone.
    simulate_nodes(396, None).expect("a clean seed");
}

#[test]
fn clients_that_know_a_stranger_alone_are_told_of_the_members_by_others() {
    // It was away while the two others were replaced, and was taken for one that could tell them.
    simulate_nodes(431, None).expect("a clean seed");
}

#[test]
fn no_disk_is_taken_away_while_a_member_counts_whose_disk_is_gone() {
    // Two of four were lost for good: one that was to be replaced, and one that joined.
    simulate_nodes(1366, None).expect("a clean seed");
}

#[test]
fn who_is_left_alone_leads_though_it_was_killed_when_the_other_had_just_left() {
    // The commit of the change was on no disk, and the other one had left.
    simulate_nodes(3404, None).expect("a clean seed");
}

#[test]
fn a_seed_run_twice_gives_the_same_trace() {
    let run = || simulate_nodes(7, None).expect("a clean seed");
    assert_eq!(run(), run());
}

#[test]
fn who_leaves_is_not_sent_away_by_another_one_that_leaves() {
    // The leader that left alone knew that the change was committed: it sent those away whom the others,
    // who did not know yet, needed to find that out.
    simulate_nodes(988, None).expect("a clean seed");
}

#[test]
fn a_packet_in_pieces_is_not_put_together_with_one_from_before_its_sender_restarted() {
    // The leader was killed while a laggard had the first piece of what it lacked. Elected again, it sent
    // the same from its new log, and the laggard took the rest of that for the rest of the first.
    simulate_nodes(6560, None).expect("a clean seed");
}

#[test]
fn a_client_whose_opening_fails_at_a_replica_that_is_not_its_next_one_goes_on_at_that_one() {
    // While it was cut off all replicas were silent at once; then nobody sought one for the call that waited.
    simulate_nodes(1488, None).expect("a clean seed");
}
