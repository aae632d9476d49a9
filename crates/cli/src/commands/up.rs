//! `stubborn up`

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use stubborn::AccessFile;

use super::{node, status};
use crate::child::Child;
use crate::cluster::{Clients, DEFAULT_FOLDER, Folder, GrpcPort, NodeConfig, Place};
use crate::error::{Error, Exit};
use crate::output::{Output, Style};
use crate::remote::socket_address;
use crate::task::{block_on, interrupted, told_if_long};

/// How long the nodes may take to agree on a leader, on a machine that is busy with other things.
const ELECTION: Duration = Duration::from_secs(60);

/// How long they may take to say who leads when they are asked first; twice as long each time, up to
/// the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

const NO_LEADER_YET: &str = "no leader yet; it is waited for: Ctrl-C stops waiting";

/// Start a replicated cluster on this machine, each node a process, with a service of keys and
/// values.
///
/// The first time it makes a folder with a certificate authority, a certificate for each node and one
/// for clients; later it starts the nodes that the folder holds. Nodes accept only each other and
/// clients with a certificate of that authority. Ctrl-C stops all of them; what they hold stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many nodes a new cluster has. Without it 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: Option<u16>,

    /// The folder of the cluster.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_FOLDER)]
    data: PathBuf,

    /// Where the first node of a new cluster listens; each further one takes the next port. Port 0
    /// takes free ones. Without it 127.0.0.1:7400.
    #[arg(long, value_name = "ADDR", value_parser = socket_address)]
    listen: Option<SocketAddr>,

    /// Let anybody call a new cluster, also without a certificate.
    #[arg(long)]
    anybody: bool,

    /// Who may call what at a new cluster: each node gets a copy of this file
    /// (`stubborn node --print-access` prints one with an explanation).
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,

    /// Answer gRPC at a new cluster, too: over TLS, on the port numbers of its nodes.
    #[arg(long)]
    grpc: bool,

    /// Only make the folders of a cluster on other machines, one of which has each of these
    /// addresses: copy DIR/node-N to machine N, and start it there with `stubborn node`, or with a
    /// program of your own.
    #[arg(long, value_name = "ADDR,ADDR,...", value_delimiter = ',', conflicts_with_all = ["nodes", "listen"])]
    prepare: Vec<String>,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let folder = Folder::at(&args.data);
    if !args.prepare.is_empty() {
        return prepare(&args, &folder, out);
    }
    let (configs, mut ports) = open(&args, &folder)?;
    block_on(async {
        let (mut nodes, mut failed) = (Vec::new(), Vec::new());
        for config in configs {
            if let Some(ports) = &mut ports {
                ports.release_next();
            }
            match Node::start(&folder, config).await {
                Ok(node) => nodes.push(node),
                Err(error) => failed.push(error),
            }
        }
        tell_failed(failed, nodes.len(), out)?;
        let leader = tokio::select! {
            leader = told_if_long(out, NO_LEADER_YET, wait_for_leader(&folder)) => leader?,
            () = interrupted() => None,
        };
        introduce(&folder, &nodes, leader, out);
        watch(nodes, out).await
    })
}

/// Goes on without the nodes that do not start, if the others are a majority.
fn tell_failed(mut failed: Vec<Error>, running: usize, out: &Output) -> Result<(), Error> {
    if running <= failed.len() {
        let last = failed.pop();
        return last.map_or(Ok(()), Err);
    }
    for error in failed {
        out.warn(&error);
        error.hint().into_iter().for_each(|hint| out.warn(hint));
    }
    Ok(())
}

fn clients(args: &Args) -> Clients {
    if args.anybody { Clients::Anybody } else { Clients::Certificate }
}

fn make(args: &Args, folder: &Folder, places: &[Place]) -> Result<(), Error> {
    if let Some(file) = &args.access {
        let read = AccessFile::new(file).read().map(|_| ());
        read.map_err(|error| {
            Error::usage(error.to_string())
                .with_hint("`stubborn node --print-access` prints one with an explanation")
        })?;
    }
    folder.make(places, clients(args))?;
    if args.grpc {
        folder.answer_grpc()?;
    }
    args.access.as_ref().map_or(Ok(()), |file| folder.give_access(file))
}

fn prepare(args: &Args, folder: &Folder, out: &Output) -> Result<(), Error> {
    if folder.holds_cluster() {
        let message = format!("{} holds a cluster already", folder.path().display());
        return Err(Error::usage(message).with_hint("name another folder with --data DIR"));
    }
    let places: Vec<_> = args.prepare.iter().cloned().map(Place::at).collect();
    make(args, folder, &places)?;
    for config in folder.nodes()? {
        node::builder(&config)?.make_folder()?;
    }
    let shown = folder.path().display();
    out.line(format_args!("made a group of {} nodes in {shown}", args.prepare.len()));
    for (node, place) in (1..).zip(&places) {
        let address = &place.address;
        if place.is_here() {
            out.line(format_args!("  node {node}, at {address}:"));
            out.line(format_args!("    stubborn node --config {shown}/node-{node}/node.conf"));
        } else {
            out.line(format_args!(
                "  copy {shown}/node-{node} to the machine of {address}, then there:"
            ));
            out.line(format_args!("    stubborn node --config node-{node}/node.conf"));
        }
    }
    out.line(
        "or, with state machines of your own: Replica::from_file(\".../node.conf\")?.machine(..)",
    );
    out.line(format_args!(
        "clients need {shown}/client.crt, client.key and authority.crt: keep authority.key apart"
    ));
    out.json(&json!({ "data": shown.to_string(), "nodes": args.prepare }));
    Ok(())
}

/// The nodes that the folder holds, or new ones with their ports.
fn open(args: &Args, folder: &Folder) -> Result<(Vec<NodeConfig>, Option<Ports>), Error> {
    if !folder.holds_cluster() {
        let count = args.nodes.unwrap_or(3);
        let listen = args.listen.unwrap_or_else(|| ([127, 0, 0, 1], 7400).into());
        let ports = Ports::from(listen, count)?;
        let places: Vec<_> = ports.addresses.iter().cloned().map(Place::here).collect();
        make(args, folder, &places)?;
        let configs = folder.nodes()?;
        for config in &configs {
            node::builder(config)?.make_folder()?;
        }
        return Ok((configs, Some(ports)));
    }
    let configs = folder.nodes()?;
    let holds = |what: String| {
        let message = format!("{} holds a cluster {what}", folder.path().display());
        Err(Error::usage(message).with_hint(
            "leave the option out to start what it holds, or name another folder with --data DIR",
        ))
    };
    if args.access.is_some() {
        return holds("already: its nodes have their own access.conf, which may be changed".into());
    }
    if args.grpc && configs.iter().any(|config| config.grpc == GrpcPort::No) {
        return holds(
            "without gRPC: a line `grpc = tls` in the node.conf of a node turns it on".into(),
        );
    }
    if args.nodes.is_some_and(|nodes| usize::from(nodes) != configs.len()) {
        return holds(format!("of {} nodes", configs.len()));
    }
    let first = configs.first().map(|config| config.listen.as_str()).unwrap_or_default();
    if args.listen.is_some_and(|listen| listen.port() != 0 && listen.to_string() != first) {
        return holds(format!("whose first node listens on {first}"));
    }
    Ok((configs, None))
}

/// Addresses for nodes of this machine. Their ports are held, so that nobody else takes them until
/// the nodes start, and nothing is made for ports that are taken.
pub(super) struct Ports {
    pub(super) addresses: Vec<String>,
    held: Vec<UdpSocket>,
}

impl Ports {
    /// The addresses of [`from`](Self::from), whoever has their ports now.
    pub(super) fn planned(first: SocketAddr, count: u16) -> Result<Vec<String>, Error> {
        if first.port() == 0 {
            return Ok(Self::from(first, count)?.addresses);
        }
        Ok(row(first, count)?.map(|address| address.to_string()).collect())
    }

    /// So many in a row from the first on; free ones if its port is 0.
    pub(super) fn from(first: SocketAddr, count: u16) -> Result<Self, Error> {
        let bound =
            row(first, count)?.map(|address| hold(address).map_err(|e| refused(address, &e)));
        let (addresses, held) = bound.collect::<Result<(Vec<_>, Vec<_>), _>>()?;
        Ok(Self { addresses, held })
    }

    /// Lets the node listen that is to start next.
    pub(super) fn release_next(&mut self) {
        if !self.held.is_empty() {
            self.held.remove(0);
        }
    }
}

/// So many addresses, with ports in a row unless that of the first is 0.
fn row(first: SocketAddr, count: u16) -> Result<impl Iterator<Item = SocketAddr>, Error> {
    let step = u16::from(first.port() != 0);
    if first.port().checked_add(step * count.saturating_sub(1)).is_none() {
        return Err(Error::usage("the ports of the nodes go beyond 65535")
            .with_hint("--listen names the first port; each further node takes the next one"));
    }
    let port = move |place| first.port() + step * place;
    Ok((0..count).map(move |place| SocketAddr::new(first.ip(), port(place))))
}

/// The address, with the port that the system chose, and what holds it.
fn hold(address: SocketAddr) -> io::Result<(String, UdpSocket)> {
    let socket = UdpSocket::bind(address)?;
    Ok((socket.local_addr()?.to_string(), socket))
}

fn refused(address: SocketAddr, error: &io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another program uses this UDP port".to_owned(),
        _ => error.to_string(),
    };
    Error::usage(format!("cannot listen on {address}: {why}")).with_hint(
        "stop it, or let a new cluster listen elsewhere: --listen 127.0.0.1:0 takes free ports",
    )
}

/// A node of the cluster in a process of its own.
struct Node {
    number: u64,
    config: PathBuf,
    process: Child,
}

impl Node {
    async fn start(folder: &Folder, config: NodeConfig) -> Result<Self, Error> {
        let path = folder.config(config.node);
        let args: [OsString; 4] =
            ["node".into(), "--child".into(), "--config".into(), path.clone().into()];
        let process = Child::start("node", args).await.map_err(|error| {
            Error::internal(format!("node {}: {error}", config.node)).with_hint(format!(
                "what it said stands above; alone it is started with: stubborn node --config {}",
                path.display()
            ))
        })?;
        Ok(Self { number: config.node, config: path, process })
    }
}

/// The number of the leader, once a majority knows one. None if that takes too long.
async fn wait_for_leader(folder: &Folder) -> Result<Option<u64>, Error> {
    ask_until_told(async |wait| {
        let found = status::ask_folder(folder, wait).await?;
        Ok(status::leader(&found))
    })
    .await
}

/// Asks again, with more patience each time: a machine may be too busy for an answer that is soon.
async fn ask_until_told(
    mut ask: impl AsyncFnMut(Duration) -> Result<Option<u64>, Error>,
) -> Result<Option<u64>, Error> {
    let (mut wait, until) = (FIRST_WAIT, Instant::now() + ELECTION);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        if let Some(leader) = ask(wait.min(left)).await? {
            return Ok(Some(leader));
        }
        wait = LONGEST_WAIT.min(2 * wait);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn introduce(folder: &Folder, nodes: &[Node], leader: Option<u64>, out: &Output) {
    let data = folder.path().display();
    out.line(format_args!("a cluster of {} nodes in {data}", nodes.len()));
    for node in nodes {
        let leads = if leader == Some(node.number) { ", leads" } else { "" };
        let (number, address) = (node.number, node.process.address());
        out.line(format_args!("  node {number} on {address} (pid {}{leads})", node.process.pid()));
    }
    if leader.is_none() {
        out.warn("the nodes have not agreed on a leader yet: no call is answered until they have");
    }
    let option = match folder.path() == Path::new(DEFAULT_FOLDER) {
        true => String::new(),
        false => format!(" --data {data}"),
    };
    let first = nodes.first().map(|node| node.process.address().to_string()).unwrap_or_default();
    out.line("use it from another terminal:");
    for command in [
        format!("stubborn kv{option} put greeting hello"),
        format!("stubborn kv{option} get greeting"),
        format!("stubborn status{option}"),
        format!("stubborn describe {first} stubborn.kv.v1.Kv"),
    ] {
        out.line(format_args!("  {}", out.paint(Style::Strong, command)));
    }
    out.line("Ctrl-C stops all nodes; what they hold stays.");
    let addresses: Vec<_> = nodes.iter().map(|node| node.process.address().to_string()).collect();
    let shown = nodes.iter().map(|node| {
        json!({
            "node": node.number,
            "address": node.process.address().to_string(),
            "pid": node.process.pid(),
            "config": node.config.display().to_string(),
        })
    });
    out.json(&json!({
        "data": data.to_string(),
        "address": addresses.join(","),
        "leader": leader,
        "nodes": shown.collect::<Vec<_>>(),
    }));
}

/// Tells which nodes end, until all have, or until it is to stop them. None is started again
/// silently: why it has ended is to be seen first.
async fn watch(nodes: Vec<Node>, out: &Output) -> Result<(), Error> {
    let mut running = nodes;
    let stop = interrupted();
    tokio::pin!(stop);
    while !running.is_empty() {
        let (ended, at) = tokio::select! {
            ended = first_to_end(&mut running) => ended,
            () = &mut stop => break,
        };
        let node = running.swap_remove(at);
        out.warn(format_args!(
            "node {}: {ended}; {} others run. Start it again with: stubborn node --config {}",
            node.number,
            running.len(),
            node.config.display()
        ));
    }
    if running.is_empty() {
        return Err(Error::new(Exit::Internal, "all nodes have ended")
            .with_hint("start them again with: stubborn up")
            .printed_if(out.is_json()));
    }
    out.line("stopping");
    let ends = running.into_iter().map(|node| tokio::spawn(node.process.finish()));
    for end in ends.collect::<Vec<_>>() {
        let _ = end.await;
    }
    Ok(())
}

/// The first that ends by itself, and its place.
async fn first_to_end(nodes: &mut [Node]) -> (Error, usize) {
    let mut waits: Vec<_> = nodes.iter_mut().map(|node| Box::pin(node.process.ended())).collect();
    std::future::poll_fn(|cx| {
        for (at, wait) in waits.iter_mut().enumerate() {
            if let std::task::Poll::Ready(error) = wait.as_mut().poll(cx) {
                return std::task::Poll::Ready((error, at));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_slow_to_say_who_leads_are_asked_with_more_patience() {
        let mut waits = Vec::new();
        let told = block_on(ask_until_told(async |wait| {
            waits.push(wait.as_millis());
            Ok((wait >= Duration::from_secs(2)).then_some(3))
        }));
        assert_eq!((told.unwrap(), waits), (Some(3), vec![500, 1_000, 2_000]));
    }

    #[test]
    fn nodes_listen_on_ports_in_a_row_or_on_free_ones() {
        let ports = |first: &str, count| Ports::from(first.parse().unwrap(), count);
        assert!(ports("127.0.0.1:65535", 2).is_err());
        // An address of this machine that no other test uses.
        let row = ports("127.0.9.1:7400", 2).unwrap();
        assert_eq!(row.addresses, ["127.0.9.1:7400", "127.0.9.1:7401"]);
        let taken = ports("127.0.9.1:7399", 2).err().unwrap();
        assert!(taken.message().contains("127.0.9.1:7400: another program"), "{taken}");
        assert!(taken.hint().unwrap().contains("--listen"));
        let mut free = ports("127.0.0.1:0", 2).unwrap();
        assert_ne!(free.addresses[0], free.addresses[1]);
        assert!(UdpSocket::bind(&free.addresses[1]).is_err());
        free.release_next();
        free.release_next();
        assert!(UdpSocket::bind(&free.addresses[1]).is_ok());
    }
}
