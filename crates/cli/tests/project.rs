//! The commands that make code, as programs: what they print, and what they end with.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const BANK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/bank/bank.proto");

fn stubborn(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
    command.current_dir(dir).args(args).env_remove("OUT_DIR").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The one JSON object that a program is given.
fn json(output: &Output) -> Value {
    assert_eq!(stdout(output).lines().count(), 1, "{}", stdout(output));
    serde_json::from_str(stdout(output)).unwrap()
}

#[test]
fn gen_writes_and_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let first = stubborn(dir.path(), &["gen", BANK]);
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    assert_eq!(stdout(&first), "wrote src/generated/bank.v1.rs\nwrote src/generated/mod.rs\n");
    assert_eq!(stderr(&first), "");
    assert!(fs::exists(dir.path().join("src/generated/bank.v1.rs")).unwrap());
    let second = json(&stubborn(dir.path(), &["gen", BANK, "--json"]));
    assert_eq!(second["changed"], Value::Array(Vec::new()));
    assert_eq!(second["files"][1], "src/generated/mod.rs");
}

#[test]
fn gen_check_fails_on_what_is_not_fresh_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let check = ["gen", BANK, "--out", "out", "--check"];
    let before = stubborn(dir.path(), &check);
    assert_eq!(code(&before), 1);
    assert!(stderr(&before).contains("error: not fresh: out/bank.v1.rs, out/mod.rs"));
    assert!(!fs::exists(dir.path().join("out")).unwrap());
    assert_eq!(code(&stubborn(dir.path(), &check[..4])), 0);
    assert_eq!(stdout(&stubborn(dir.path(), &check)), "fresh\n");
    fs::write(dir.path().join("out/mod.rs"), "changed").unwrap();
    let stale = stubborn(dir.path(), &[&check[..], &["--json"]].concat());
    assert_eq!(json(&stale)["error"]["stale"][0], "out/mod.rs");
    assert_eq!(code(&stale), 1);
}

#[test]
fn a_file_that_is_wrong_is_shown_with_its_place_and_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.proto"), "syntax = \"proto3\";\nmessage A { x }\n").unwrap();
    let output = stubborn(dir.path(), &["gen", "a.proto"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("\n --> a.proto:2:"), "{}", stderr(&output));
    let error = json(&stubborn(dir.path(), &["gen", "a.proto", "--json"]));
    assert_eq!(error["error"]["kind"], "usage");
    assert_eq!(error["error"]["file"], "a.proto");
    assert_eq!(error["error"]["line"], 2);
}

#[test]
fn options_of_gen_reach_the_generator() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "gen",
        BANK,
        "--no-server",
        "--no-connect",
        "--runtime=crate::rpc",
        "--rename=bank.v1.Bank=Vault",
        "--type-attribute=bank.v1.Entry=#[derive(PartialOrd)]",
        "--include-file=lib.rs",
        "--descriptor-set=set.bin",
    ];
    let output = stubborn(dir.path(), &args);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let code = fs::read_to_string(dir.path().join("src/generated/bank.v1.rs")).unwrap();
    assert!(code.contains("pub struct VaultClient") && !code.contains("VaultServer"));
    assert!(!code.contains("fn connect") && code.contains("crate::rpc::Channel"));
    assert!(code.contains("#[derive(PartialOrd)]"));
    assert!(fs::exists(dir.path().join("src/generated/lib.rs")).unwrap());
    assert!(fs::metadata(dir.path().join("set.bin")).unwrap().len() > 1000);
}

#[test]
fn wrong_arguments_end_with_2_and_are_told_to_programs_too() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["gen"][..], &["nonsense"], &["gen", "x", "--extern=y"], &[]] {
        assert_eq!(code(&stubborn(dir.path(), args)), 2, "{args:?}");
        let told = stubborn(dir.path(), &[&["--json"], args].concat());
        assert_eq!((code(&told), &json(&told)["error"]["kind"]), (2, &"usage".into()), "{args:?}");
        assert!(json(&told)["error"]["hint"].is_string(), "{told:?}");
        assert_eq!(stderr(&told), "");
    }
}

#[test]
fn new_makes_a_project_and_never_writes_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let made = stubborn(dir.path(), &["new", "my-counter"]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let manifest = fs::read_to_string(dir.path().join("my-counter/Cargo.toml")).unwrap();
    assert!(manifest.contains("name = \"my-counter\""));
    // Made by a program that was built in a checkout, it builds against that.
    assert!(manifest.contains("crates/stubborn'") && manifest.contains("crates/build'"));
    let again = stubborn(dir.path(), &["new", "my-counter", "--json"]);
    assert_eq!(code(&again), 2);
    assert_eq!(json(&again)["error"]["message"], "my-counter exists already");
    assert_eq!(code(&stubborn(dir.path(), &["new", "x", "--path", "nowhere"])), 2);
    assert!(!fs::exists(dir.path().join("x")).unwrap());
}

#[test]
fn a_project_inside_a_workspace_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Cargo.toml"), "[workspace]\nmembers = []\n").unwrap();
    assert_eq!(code(&stubborn(dir.path(), &["new", "inner"])), 0);
    let manifest = fs::read_to_string(dir.path().join("inner/Cargo.toml")).unwrap();
    assert!(manifest.ends_with("\n[workspace]\n"), "{manifest}");
}

#[test]
#[ignore = "compiles a project with all dependencies, some minutes: run it with --ignored"]
fn a_new_project_compiles_is_formatted_and_has_no_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let made = stubborn(dir.path(), &["new", "my-counter", "--path", checkout.to_str().unwrap()]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let project = dir.path().join("my-counter");
    // The same versions as here, so that nothing new is downloaded.
    fs::copy(checkout.join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let clippy = ["clippy", "--all-targets", "--", "-D", "warnings"];
    for args in [&["fmt", "--check"][..], &clippy, &["test"]] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&project).args(args).env("CARGO_TARGET_DIR", dir.path().join("target"));
        assert!(cargo.status().unwrap().success(), "cargo {args:?}");
    }
}

#[test]
fn completions_are_printed_for_every_shell_and_name_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = stubborn(dir.path(), &["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("completions"), "{shell}");
    }
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let dir = tempfile::tempdir().unwrap();
    let plain = stubborn(dir.path(), &["gen", "nothing.proto"]);
    assert!(!stderr(&plain).contains('\x1b'));
    let colored = stubborn(dir.path(), &["gen", BANK, "--color", "always"]);
    assert!(stdout(&colored).contains("\x1b[2mwrote\x1b[0m"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_stubborn"))
        .current_dir(dir.path())
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert!(child.wait().unwrap().success(), "{complaint}");
    assert_eq!(complaint, "");
}
