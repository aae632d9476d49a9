//! The `stubborn` program.
//!
//! One file per command in [`commands`]; what all of them need is here beside it: arguments that
//! every command takes ([`cli`]), errors and exit codes ([`error`]), printing ([`output`]).

mod child;
mod cli;
mod cluster;
mod commands;
#[cfg(test)]
mod docs;
mod error;
mod folders;
mod key_log;
mod notes;
mod output;
mod pending;
mod pins;
mod private;
mod qlog;
mod remote;
mod schema;
mod state;
mod stubs;
mod table;
mod task;
mod tickets;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return cli::refuse(&refused),
    };
    let output = Output::new(cli.json, cli.color);
    match cli.command.run(&output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            error.exit().into()
        }
    }
}
