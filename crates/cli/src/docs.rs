//! docs/cli.md is what `--help` says. After a change that is meant:
//! `STUBBORN_BLESS=1 cargo test -p stubborn-cli docs`.

use std::fmt::Write;
use std::{env, fs};

use clap::{Command, CommandFactory};

use crate::cli::Cli;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");

const INTRODUCTION: &str = "\
# The command line

<!-- Generated from the program's own help: see crates/cli/src/docs.rs. -->

With `--json`, every command prints one JSON object on standard output. A failure is printed there
too: `{\"error\": {\"kind\", \"exit_code\", \"message\", \"hint\", ...}}`, with further keys where they are
known: `file`, `line` and `column` for a `.proto` file that cannot be used, `method`, `call_id`,
`status` and `status_message` for a call. Warnings and progress go to standard error.
";

fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut command = Cli::command().term_width(100);
    command.build();
    describe(&mut command, &mut out);
    out
}

fn describe(command: &mut Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    // The version of the program is not a change of its documentation.
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(out, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for sub in command.get_subcommands_mut() {
        if !sub.is_hide_set() {
            describe(sub, out);
        }
    }
}

#[test]
fn docs_cli_md_is_fresh() {
    let reference = reference();
    if env::var_os("STUBBORN_BLESS").is_some() {
        fs::write(PATH, &reference).unwrap();
    }
    let committed = fs::read_to_string(PATH).unwrap_or_default();
    let difference = committed.lines().zip(reference.lines()).find(|(old, new)| old != new);
    assert!(committed == reference, "docs/cli.md is not fresh (see docs.rs): {difference:#?}");
}
