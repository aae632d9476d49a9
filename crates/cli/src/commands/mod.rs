//! The commands, one file each: its arguments (`Args`) and what it does (`run`).

mod backup;
mod bench;
mod call;
mod completions;
mod demo;
mod describe;
mod r#gen;
mod health;
mod inspect;
mod kv;
mod ls;
mod members;
mod new;
mod node;
mod outcome;
mod pcap;
mod ping;
mod restore;
mod sim;
mod status;
mod top;
mod trace;
mod udp;
mod up;
mod verify;

use std::io::Read;
use std::path::Path;

use clap::Subcommand;

use crate::error::Error;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    New(new::Args),
    Gen(r#gen::Args),
    Ls(ls::Args),
    Describe(describe::Args),
    Call(call::Args),
    Outcome(outcome::Args),
    Trace(trace::Args),
    Ping(ping::Args),
    Health(health::Args),
    Udp(udp::Args),
    Pcap(pcap::Args),
    Up(up::Args),
    Node(node::Args),
    Status(status::Args),
    Top(top::Args),
    Members(members::Args),
    Kv(kv::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    Sim(sim::Args),
    Completions(completions::Args),
}

impl Command {
    pub(crate) fn run(self, out: &Output) -> Result<(), Error> {
        match self {
            Self::New(args) => new::run(args, out),
            Self::Gen(args) => r#gen::run(args, out),
            Self::Ls(args) => ls::run(args, out),
            Self::Describe(args) => describe::run(args, out),
            Self::Call(args) => call::run(args, out),
            Self::Outcome(args) => outcome::run(args, out),
            Self::Trace(args) => trace::run(args, out),
            Self::Ping(args) => ping::run(args, out),
            Self::Health(args) => health::run(args, out),
            Self::Udp(args) => udp::run(args, out),
            Self::Pcap(args) => pcap::run(args, out),
            Self::Up(args) => up::run(args, out),
            Self::Node(args) => node::run(args, out),
            Self::Status(args) => status::run(args, out),
            Self::Top(args) => top::run(args, out),
            Self::Members(args) => members::run(args, out),
            Self::Kv(args) => kv::run(args, out),
            Self::Inspect(args) => inspect::run(args, out),
            Self::Verify(args) => verify::run(args, out),
            Self::Backup(args) => backup::run(args, out),
            Self::Restore(args) => restore::run(args, out),
            Self::Demo(args) => demo::run(args, out),
            Self::Bench(args) => bench::run(args, out),
            Self::Sim(args) => sim::run(args, out),
            Self::Completions(args) => completions::run(args, out),
        }
    }
}

/// What `-` stands for. Bounded, since everything else about a message is, too.
fn read_stdin() -> Result<Vec<u8>, Error> {
    const LIMIT: u64 = 1 << 32;
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(LIMIT).read_to_end(&mut input);
    read.map_err(|error| Error::internal(format!("cannot read standard input: {error}")))?;
    Ok(input)
}

/// An argument's text: itself, standard input for `-`, a file for `@FILE`.
fn read_input(argument: &str) -> Result<String, Error> {
    let bytes = match argument.strip_prefix('@') {
        _ if argument == "-" => read_stdin()?,
        Some(file) => std::fs::read(file)
            .map_err(|e| Error::usage(format!("cannot read {}: {e}", Path::new(file).display())))?,
        None => return Ok(argument.to_owned()),
    };
    String::from_utf8(bytes).map_err(|_| Error::usage("the input is not UTF-8"))
}
