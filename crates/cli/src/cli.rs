//! The command line as clap reads it.

use clap::{Parser, ValueEnum};

use crate::commands::Command;
use crate::error::EXIT_CODES;

/// RPC whose calls always resolve.
#[derive(Debug, Parser)]
#[command(name = "stubborn", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print one JSON object on standard output, also for a failure.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Whether to use colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
