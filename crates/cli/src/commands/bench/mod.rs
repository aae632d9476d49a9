//! `stubborn bench`: measures small or large calls between two processes, encrypted, through
//! generated stubs; what connections cost that do nothing; how fast a disk makes writes durable;
//! what a server does that is asked for too much.

mod cpu;
mod disk;
mod histogram;
mod idle;
mod kv;
mod live;
mod measure;
mod memory;
mod overload;
mod run;
mod serve;

use crate::error::Error;
use crate::output::Output;

/// Measure calls: rate, latency, processor time.
///
/// One process serves, another one calls:
///
///   stubborn bench serve 127.0.0.1:7500
///   stubborn bench run 127.0.0.1:7500 --concurrency 128
///
/// The first prints the address for the second, with the key of the certificate that it has made
/// for itself, which is needed on another machine. On the same machine and for the same user the
/// address alone is enough: the key is left in a file that only this user can read.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Run(run::Args),
    Idle(idle::Args),
    Kv(kv::Args),
    Disk(disk::Args),
    Overload(overload::Args),
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    match args.command {
        Command::Serve(args) => serve::run(args, out),
        Command::Run(args) => run::run(args, out),
        Command::Idle(args) => idle::run(args, out),
        Command::Kv(args) => kv::run(args, out),
        Command::Disk(args) => disk::run(args, out),
        Command::Overload(args) => overload::run(args, out),
    }
}
