//! `stubborn top`

mod report;
mod screen;
mod server;
mod view;

use std::time::Duration;

use crate::cluster::{DEFAULT_FOLDER, Folder};
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::remote::{Access, duration};
use crate::task::{block_on, interrupted};

use report::Report;
use screen::Screen;
use server::Server;

/// Watch servers: calls of each method, their latencies and outcomes, links, and who leads.
///
/// Servers tell it to callers with a certificate and to those on the same machine, unless they were
/// built to tell others or nobody.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The servers or nodes, each HOST:PORT; without any, the nodes that the folder of the cluster
    /// names.
    #[arg(value_name = "ADDR", value_delimiter = ',')]
    servers: Vec<String>,

    #[command(flatten)]
    access: Access,

    /// How often to look.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    interval: Duration,

    /// Look twice, an interval apart, print what came between, and end. With --json and without this,
    /// every look is one line.
    #[arg(long)]
    once: bool,

    /// How many links to show, those with the most datagrams.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=256))]
    links: u32,

    /// Show the calls of this program and of others like it, too.
    #[arg(long)]
    all: bool,

    /// How long to wait for the answer of a server.
    #[arg(short = 'W', long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    wait: Duration,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        let mut servers = servers(&args)?;
        look(&mut servers, &args).await;
        if let Some(error) = why_none(&mut servers) {
            return Err(error);
        }
        let mut end = Box::pin(interrupted());
        let mut screen = (!args.once).then(|| Screen::open(out)).flatten();
        loop {
            let pause = tokio::time::sleep(args.interval);
            tokio::select! {
                () = pause => {}
                () = &mut end => break,
            }
            look(&mut servers, &args).await;
            let report = Report::new(&servers, args.all, args.links as usize);
            let lines = view::lines(&report, out);
            match &mut screen {
                Some(screen) => screen.show(&lines),
                None => lines.iter().for_each(|line| out.line(line)),
            }
            out.json(&report.to_json());
            if args.once {
                break;
            }
        }
        drop(screen);
        for server in servers {
            server.leave().await;
        }
        Ok(())
    })
}

fn servers(args: &Args) -> Result<Vec<Server>, Error> {
    if !args.servers.is_empty() {
        let server = |address: &String| Server::new(address.clone(), args.access.clone());
        return Ok(args.servers.iter().map(server).collect());
    }
    let folder = args.access.folder().unwrap_or_else(|| Folder::at(DEFAULT_FOLDER.as_ref()));
    if !folder.holds_cluster() {
        return Err(Error::usage("no server is named").with_hint(
            "name the servers, each HOST:PORT, or the folder of a cluster with --data DIR",
        ));
    }
    let access = Access::of_folder(folder.path());
    let server = |(_, address): (Option<u64>, String)| Server::new(address, access.clone());
    Ok(folder.members()?.into_iter().map(server).collect())
}

/// Asks all servers at once.
async fn look(servers: &mut Vec<Server>, args: &Args) {
    let (links, wait) = (args.links, args.wait);
    let asked = servers.drain(..).map(|mut server| {
        tokio::spawn(async move {
            server.look(links, wait).await;
            server
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        servers.extend(asked.await);
    }
}

/// Why no server has told anything at the first look.
fn why_none(servers: &mut [Server]) -> Option<Error> {
    if servers.iter().any(|server| server.failure.is_none()) {
        return None;
    }
    let error = servers.iter_mut().find_map(|server| server.failure.take())?;
    Some(match error.exit() {
        Exit::Connect if servers.len() > 1 => {
            let told = Error::new(Exit::Connect, format!("no server answers: {error}"));
            match error.hint() {
                Some(hint) => told.with_hint(hint),
                None => told,
            }
        }
        _ => error,
    })
}
