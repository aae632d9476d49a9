//! The command line as clap reads it.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};

use crate::commands::Command;
use crate::error::{EXIT_CODES, Error};
use crate::output::Output;

/// Over these options in help: every command has them.
const OUTPUT: &str = "Output";

/// RPC whose calls always resolve.
#[derive(Debug, Parser)]
#[command(name = "stubborn", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print one JSON object on standard output, also for a failure.
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub(crate) json: bool,

    /// Whether to use colours: always, never, or on a terminal, unless NO_COLOR is set (auto).
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(help_heading = OUTPUT, hide_possible_values = true)]
    pub(crate) color: Color,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into pipes and files.
    Always,
    /// Never.
    Never,
}

/// Says why arguments cannot be read: to programs as any other failure, to people as clap does, which
/// also prints help and version here.
pub(crate) fn refuse(refused: &clap::Error) -> ExitCode {
    let arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    if !refused.use_stderr() || !arguments.into_iter().any(|argument| argument == "--json") {
        refused.exit();
    }
    let error = to_error(refused);
    Output::new(true, Color::Never).error(&error);
    error.exit().into()
}

/// What clap says, in one line; it says how it is meant in those that follow.
fn to_error(refused: &clap::Error) -> Error {
    let told = refused.to_string();
    let mut parts =
        told.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let first = parts.next().unwrap_or_default();
    let message = match refused.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "no command is named"
        }
        _ => first.strip_prefix("error: ").unwrap_or(&first),
    };
    let usage = parts.find(|part| part.starts_with("Usage: "));
    let usage = usage.unwrap_or_else(|| "`stubborn --help` lists the commands".to_owned());
    Error::usage(message).with_hint(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_that_cannot_be_read_are_told_in_one_line_with_what_is_expected() {
        let told = |arguments: &[&str]| {
            to_error(&Cli::try_parse_from([&["stubborn"], arguments].concat()).unwrap_err())
        };
        let wrong = told(&["call", "--dedline", "1s"]);
        assert!(wrong.message().contains("'--dedline'"), "{wrong}");
        assert!(wrong.hint().unwrap().starts_with("Usage: stubborn call"), "{wrong:?}");
        let missing = told(&["call"]);
        assert!(
            missing.message().contains("<ADDR>") && !missing.message().contains('\n'),
            "{missing}"
        );
        assert_eq!(told(&[]).message(), "no command is named");
    }
}
