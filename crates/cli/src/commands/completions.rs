//! `stubborn completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::cli::Cli;
use crate::error::Error;
use crate::output::Output;

/// Print a shell's completions.
///
/// For bash: `stubborn completions bash > ~/.local/share/bash-completion/completions/stubborn`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell; without it the one in $SHELL.
    shell: Option<Shell>,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let shell = args.shell.or_else(Shell::from_env).ok_or_else(|| {
        Error::usage("the shell in $SHELL is not known")
            .with_hint("name one: stubborn completions bash")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stubborn", &mut script);
    let script =
        String::from_utf8(script).map_err(|_| Error::internal("the completions are not UTF-8"))?;
    if out.is_json() {
        out.json(&json!({ "shell": shell.to_string(), "script": script }));
    } else {
        out.print(script);
    }
    Ok(())
}
