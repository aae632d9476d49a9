//! Each bug that can be planted in core, group or completion, by a feature of that name, is found by the ordinary
//! explorer within a thousand seeds. Without it the explorer would prove nothing.
//!
//! Every bug needs a build of its own. They share a target directory, and so take turns.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Runs the explorer in a build with one bug planted in core; the promise that it saw broken.
fn found(bug: &str) -> String {
    explore(&format!("stubborn-core/planted-{bug}"), &["1000"])
}

/// Runs groups of whole nodes in a build with one bug planted in group.
fn found_in_groups(bug: &str) -> String {
    explore(&format!("stubborn-group/planted-{bug}"), &["groups", "300"])
}

/// Runs servers with completion records in a build with bugs planted in the keeper, until each of some
/// promises was broken.
fn found_at_databases(bugs: &[&str], promises: &[&str]) -> String {
    let bugs: Vec<_> =
        bugs.iter().map(|bug| format!("stubborn-completion/planted-{bug}")).collect();
    let arguments = [&["completions", "300", "breaking"][..], promises].concat();
    let said = explore(&bugs.join(","), &arguments);
    assert!(said.contains("not broken: []"), "{said}");
    said
}

fn explore(bug: &str, arguments: &[&str]) -> String {
    run("explore", bug, arguments)
}

fn run(example: &str, bug: &str, arguments: &[&str]) -> String {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "stubborn-sim", "--example", example])
        .args(["--features", bug, "--"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "the bug {bug} was not found: {said}{errors}");
    assert!(said.contains(" broken at "), "the explorer ended without a finding: {said}{errors}");
    println!("{bug}: {said}");
    said
}

#[test]
fn a_dropped_duplicate_check_is_found() {
    found("duplicate");
}

#[test]
fn a_fence_that_does_not_hold_is_found() {
    found("fence");
}

#[test]
fn a_kept_reply_freed_early_is_found() {
    found("freed-reply");
}

#[test]
fn a_slot_granted_again_that_starts_at_one_is_found() {
    found("regrant");
}

#[test]
fn an_ack_for_what_was_not_received_is_found() {
    found("false-ack");
}

#[test]
fn a_bit_flipped_after_decryption_is_found() {
    assert!(found("flipped-bit").contains("integrity broken"));
}

/// Three in one build, as they break different promises.
#[test]
fn a_message_taken_twice_a_client_that_believes_a_liar_and_a_call_that_crosses_are_found() {
    let bugs = ["repeated-message", "gullible", "crossing"];
    let bugs = bugs.map(|bug| format!("stubborn-core/planted-{bug}")).join(",");
    let said =
        explore(&bugs, &["3000", "breaking", "messages of streams", "liveness", "one server"]);
    assert!(said.contains("not broken: []"), "{said}");
}

#[test]
fn a_reused_packet_number_is_found() {
    assert!(found("reused-number").contains("packet numbers broken"));
}

#[test]
fn completion_records_that_are_not_in_the_snapshot_are_found() {
    assert!(found_in_groups("forgotten-records").contains(" broken at "));
}

#[test]
fn ids_of_calls_that_are_not_in_the_snapshot_are_found() {
    // Two of its sessions send a command under one id in a third of all groups that are not upgraded.
    let said = explore("stubborn-group/planted-forgotten-ids", &["groups", "300", "5"]);
    assert!(said.contains("runs a second time"), "{said}");
}

#[test]
fn completion_records_that_are_kept_apart_from_the_state_are_found() {
    assert!(found_in_groups("late-records").contains(" broken at "));
}

#[test]
fn time_by_a_replicas_own_clock_is_found() {
    assert!(found_in_groups("local-time").contains("replicas are the same"));
}

#[test]
fn a_read_without_a_majority_is_found() {
    // A client that does several things at once sees its own session go back first.
    let said = found_in_groups("lonely-read");
    assert!(said.contains("linearizability") || said.contains("sessions"));
}

#[test]
fn a_replica_that_does_not_look_at_what_its_client_has_seen_is_found() {
    assert!(found_in_groups("backward-read").contains("sessions"));
}

#[test]
fn nodes_that_do_not_relay_for_each_other_are_found() {
    let said = run("cuts", "stubborn-group/planted-no-relay", &["5"]);
    assert!(said.contains("cuts are masked"), "{said}");
}

#[test]
fn a_vote_that_is_sent_before_it_is_synced_is_found() {
    assert!(found_in_groups("early-vote").contains(" broken at "));
}

#[test]
fn a_node_that_is_believed_with_another_folder_is_found() {
    let said = explore("stubborn-group/planted-any-folder", &["operated", "300"]);
    assert!(said.contains("what was promised is kept"), "{said}");
}

#[test]
fn a_program_that_runs_commands_as_it_knows_them_best_is_found() {
    assert!(found_in_groups("own-version").contains(" broken at "));
}

/// Both in one build, as they break different promises.
#[test]
fn a_record_in_a_transaction_of_its_own_and_a_fence_without_the_slots_lock_are_found() {
    found_at_databases(&["record-apart", "hasty-fence"], &["exactly once", "fences hold"]);
}

#[test]
fn a_commit_of_unknown_end_that_is_taken_for_done_is_found() {
    found_at_databases(&["hopeful-commit"], &["outcomes"]);
}

#[test]
fn a_number_of_a_slot_that_is_used_again_after_a_restart_is_found() {
    explore("stubborn-core/planted-reused-slot", &["groups", "300"]);
}
