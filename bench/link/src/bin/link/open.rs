//! `link open`: a path for any two commands.

use std::io::BufRead;
use std::process::{Child, Command};

use link::{CLIENT, DirectionStats, Faults, Path, PathStats, SERVER, Settings};

use crate::Result;

/// Open a path and run a command on each side.
///
/// For example, a download over a path that loses 5 % each way, with 20 ms of round-trip time:
///
///   link open --faults loss=5%,delay=10ms \
///     --server 'python3 -m http.server 8000' --client 'sleep 1; curl -s 10.99.0.2:8000'
///
/// The path ends with the client's command; without one, with a line on standard input.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// What happens to packets in both directions: loss=5%,delay=10ms,jitter=1ms,reorder=1%,
    /// reorder-by=2ms,duplicate=1%,corrupt=0.1%,garble=0.01%,rate=100mbit,queue=250kB
    #[arg(long, value_name = "FAULTS", default_value = "", verbatim_doc_comment)]
    faults: Faults,

    /// What happens to packets of the server instead.
    #[arg(long, value_name = "FAULTS")]
    back: Option<Faults>,

    /// The seed from which all is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The largest IP packet, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1_500, value_parser = clap::value_parser!(u16).range(576..))]
    mtu: u16,

    /// TCP's congestion control on both sides, for example cubic or bbr.
    #[arg(long, value_name = "NAME")]
    tcp: Option<String>,

    /// A command for the server's side, at 10.99.0.2, run by `sh`; killed at the end.
    #[arg(long, value_name = "COMMAND")]
    server: Option<String>,

    /// A command for the client's side, at 10.99.0.1, run by `sh`.
    #[arg(long, value_name = "COMMAND")]
    client: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result {
    let mut path = Path::open(Settings { mtu: args.mtu, ..Settings::default() })?;
    if let Some(name) = &args.tcp {
        path.set_congestion_control(name)?;
    }
    path.set(args.faults, args.back.unwrap_or(args.faults), args.seed);
    let names = (path.client().name(), path.server().name());
    eprintln!("client {CLIENT}: ip netns exec {} COMMAND", names.0);
    eprintln!("server {SERVER}: ip netns exec {} COMMAND", names.1);
    let shell = |mut sh: Command, script: &str| sh.args(["-c", script]).spawn();
    let server = args.server.as_ref().map(|script| shell(path.server().command("sh"), script));
    let _server = server.transpose()?.map(Running);
    match &args.client {
        Some(script) => {
            let status = shell(path.client().command("sh"), script)?.wait()?;
            eprintln!("the client's command has ended: {status}");
        }
        None => {
            eprintln!("press enter to end");
            std::io::stdin().lock().read_line(&mut String::new())?;
        }
    }
    print(&path.stats());
    Ok(())
}

/// A process that does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn print(stats: &PathStats) {
    for (name, DirectionStats { counters: c, queue_mean, queue_max, .. }) in
        [("client to server", stats.forth), ("server to client", stats.back)]
    {
        eprintln!(
            "{name}: {} packets, {} bytes; {} lost, {} dropped by the queue, {} reordered, {} \
             duplicated, {} corrupted, {} garbled; queue {queue_mean:.0} bytes on the average, \
             {queue_max:.0} at most",
            c.packets,
            c.bytes,
            c.lost,
            c.queue_drops,
            c.reordered,
            c.duplicated,
            c.corrupted,
            c.garbled,
        );
    }
    eprintln!(
        "handed over late by {:.1?} (p50), {:.1?} (p99), {:.1?} (max); {} refused, {} unseen",
        stats.late_p50, stats.late_p99, stats.late_max, stats.refused, stats.unseen
    );
}
