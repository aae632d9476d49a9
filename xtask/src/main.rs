//! Chores of this repository: `cargo xtask NAME`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
Chores of this repository.

  cargo xtask bench [OPTIONS]        ours and its peers side by side; --help says more
  cargo xtask bench --kv [OPTIONS]   durable puts of ours and of etcd; --help says more
";

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    match arguments.next() {
        Some(chore) if chore == "bench" => bench(arguments),
        Some(chore) if ["help", "-h", "--help"].iter().any(|help| chore == *help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        other => {
            let other = other.unwrap_or_else(|| OsString::from("(nothing)"));
            eprintln!("error: there is no chore named {}\n\n{USAGE}", other.display());
            ExitCode::from(2)
        }
    }
}

/// Builds the harness of the benchmark, which has a workspace of its own, and runs it. It builds the
/// systems that it is asked for.
fn bench(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    let kv = arguments.next_if(|first| first == "--kv").is_some();
    let package = if kv { "bench-kv" } else { "stubborn-bench" };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = repository().join("bench/Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--locked", "--package", package]);
    command.args([OsStr::new("--manifest-path"), manifest.as_os_str(), OsStr::new("--")]);
    match command.args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
