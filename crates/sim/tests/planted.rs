//! Each bug that can be planted in core, by a feature of that name, is found by the ordinary explorer
//! within a thousand seeds. Without it the explorer would prove nothing.
//!
//! Every bug needs a build of its own. They share a target directory, and so take turns.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Runs the explorer in a build with one planted bug; the promise that it saw broken.
fn found(bug: &str) -> String {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "stubborn-sim", "--example", "explore"])
        .args(["--features", &format!("stubborn-core/planted-{bug}")])
        .args(["--", "1000"])
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

#[test]
fn a_reused_packet_number_is_found() {
    assert!(found("reused-number").contains("packet numbers broken"));
}
