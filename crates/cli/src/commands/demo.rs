//! `stubborn demo`

use crate::error::Error;
use crate::output::Output;

/// Shows the main job over a bad network.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args, _: &Output) -> Result<(), Error> {
    Err(Error::internal("this command is not there yet"))
}
