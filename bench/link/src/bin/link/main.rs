//! `link`: a bad network on this machine, for any command.

mod open;
mod probe;

use std::process::ExitCode;

use clap::Parser;

/// Any error; it is only printed.
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A bad network on this machine: two network namespaces with a path between them that loses,
/// delays, reorders, duplicates, corrupts and limits. Needs the rights to make network namespaces
/// and TUN devices.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Open(Box<open::Args>),
    Probe(probe::Args),
}

fn main() -> ExitCode {
    let result = link::clean_up_on_signals().map_err(Into::into).and_then(|()| {
        match Arguments::parse().command {
            Command::Open(args) => open::run(&args),
            Command::Probe(args) => probe::run(&args),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("link: {error}");
            ExitCode::FAILURE
        }
    }
}
