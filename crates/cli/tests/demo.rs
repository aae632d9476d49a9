//! `stubborn demo` with few calls: processes that are killed, a bad network, and a check of every
//! effect.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::Value;

fn stubborn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a demo, which must succeed, and returns what it printed for programs.
fn demo(args: &[&str]) -> Value {
    let output = stubborn(&[&["demo", "--json"], args].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    serde_json::from_str(&text).unwrap()
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn every_transfer_is_resolved_and_has_one_effect_though_every_fifth_datagram_is_lost() {
    let report = demo(&["--single", "--calls", "200"]);
    for key in ["calls", "executed", "effects"] {
        assert_eq!(count(&report, key), 200, "{key} in {report}");
    }
    for key in ["not_executed", "unknown", "duplicates", "lost", "wrong"] {
        assert_eq!(count(&report, key), 0, "{key} in {report}");
    }
    for key in ["p50_us", "p99_us", "max_us", "calls_per_s"] {
        assert!(report[key].as_f64().is_some_and(|value| value > 0.0), "{key} in {report}");
    }
    assert!(count(&report["wire"], "lost") > 0, "{report}");
}

#[test]
fn a_network_twice_as_bad_changes_nothing_but_the_time() {
    let faults = ["--loss", "40%", "--duplicate", "30", "--reorder", "30", "--corrupt", "2"];
    let report = demo(&[&["--single", "--calls", "100", "--seed", "9"][..], &faults].concat());
    assert_eq!((count(&report, "executed"), count(&report, "effects")), (100, 100));
    assert!(count(&report["wire"], "doubled") > 0 && count(&report["wire"], "reordered") > 0);
}

#[test]
fn a_killed_server_loses_outcomes_but_doubles_and_falsifies_nothing() {
    let report = demo(&["--single", "--kill", "--calls", "200", "--concurrency", "16"]);
    assert_eq!(count(&report, "kills"), 4);
    for key in ["pending", "duplicates", "lost", "wrong"] {
        assert_eq!(count(&report, key), 0, "{key} in {report}");
    }
    let ended = ["executed", "not_executed", "outcome_lost"].map(|key| count(&report, key));
    assert_eq!(ended.iter().sum::<u64>(), 200, "{report}");
    let effects = count(&report, "executed") + count(&report, "outcome_lost_with_effect");
    assert_eq!(count(&report, "effects"), effects, "{report}");
}

#[test]
fn people_are_told_what_is_done_to_the_network_and_what_came_of_it() {
    let output =
        stubborn(&["demo", "--single", "--calls", "50", "--loss", "10%"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("compiling bank.proto"), "{text}");
    assert!(lines[1].contains("10 % lost, 5 % doubled"), "{text}");
    assert!(text.contains("(50 executed, 0 not executed, 0 unknown)"), "{text}");
    assert!(text.contains("ledger and client agree to the cent"), "{text}");
}

#[test]
fn the_folder_is_kept_only_when_asked_for() {
    let temporary = tempfile::tempdir().unwrap();
    let folders = || fs::read_dir(temporary.path()).unwrap().count();
    let run = |args: &[&str]| {
        let mut command = stubborn(&[&["demo", "--single", "--calls", "10"], args].concat());
        assert!(command.env("TMPDIR", temporary.path()).output().unwrap().status.success());
    };
    run(&[]);
    assert_eq!(folders(), 0);
    run(&["--keep"]);
    assert_eq!(folders(), 1);
}

/// The children have the write end of a pipe, which ends when the last of them is gone.
#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = stubborn(&["demo", "--single", "--calls", "100000000"]);
    command.env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(writer);
    let mut process = command.spawn().unwrap();
    // The command holds the write end, too.
    drop(command);
    // Both children are there when the second line is printed.
    let mut stdout = process.stdout.take().unwrap();
    let (mut lines, mut byte) = (0, [0]);
    while lines < 2 {
        stdout.read_exact(&mut byte).unwrap();
        lines += usize::from(byte[0] == b'\n');
    }
    process.kill().unwrap();
    process.wait().unwrap();
    reader.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_share_that_is_none_is_refused_with_an_explanation() {
    let output = stubborn(&["demo", "--loss", "200%"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("between 0 and 100"));
}

#[test]
fn replicas_of_a_bank_execute_each_transfer_once_and_agree_over_a_bad_network() {
    let report = demo(&["--calls", "200", "--concurrency", "16"]);
    for key in ["calls", "executed", "effects"] {
        assert_eq!(count(&report, key), 200, "{key} in {report}");
    }
    for key in ["not_executed", "unknown", "duplicates", "lost", "wrong"] {
        assert_eq!(count(&report, key), 0, "{key} in {report}");
    }
    assert_eq!(count(&report, "client_restarts"), 1, "{report}");
    assert_eq!(report["replicas_agree"], true, "{report}");
    assert!(report["longest_gap_ms"].as_f64().is_some_and(|gap| gap > 0.0), "{report}");
    assert!(report["failovers"].as_u64().is_some(), "{report}");
}
