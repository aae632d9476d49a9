//! `stubborn restore FILE`

use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;
use stubborn_store::backup::{BackupInfo, Restored, read_info, restore};
use stubborn_store::replication::{Members, NodeId};
use stubborn_store::{Error as StoreError, Folder as DataFolder, Identity, Options};

use super::{inspect, up};
use crate::cluster::{
    Clients, Folder, NodeConfig, Place, draw_folder, draw_group, load, parse_group,
};
use crate::error::{Error, Exit};
use crate::folders;
use crate::output::Output;
use crate::remote::socket_address;

/// Make a new group from a backup.
///
/// The new group has the data of the old one and a number of its own: calls and sessions of the old
/// group are lost to it, so that nothing can run twice or be taken for something else.
///
///   stubborn restore FILE --data DIR       a cluster for `stubborn up --data DIR`
///   stubborn restore FILE --config FILE    the data of one node of a cluster on several machines:
///                                          at each of them, from the same backup
///   stubborn restore FILE --folder DIR     the data of one replica of your own service
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group = clap::ArgGroup::new("into").required(true).args(["data", "config", "folder"]))]
pub(crate) struct Args {
    /// The backup.
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,

    /// Make the folder of a cluster on this machine.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// How many nodes that cluster has.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7), conflicts_with_all = ["config", "folder"])]
    nodes: u16,

    /// Where its first node listens; each further one takes the next port. Port 0 takes free ones.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400", conflicts_with_all = ["config", "folder"], value_parser = socket_address)]
    listen: SocketAddr,

    /// Make the data folder of the node with this configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Make this data folder.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,

    /// The number of the new group, 16 hex digits of which the last two are 00; drawn at random
    /// without it. The other members need the one that the first has got.
    #[arg(long, value_name = "ID", requires = "folder", value_parser = parse_group)]
    group: Option<u64>,

    /// Which member this folder is for.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "folder", value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,

    /// The members of the new group; without it that node alone.
    #[arg(long, value_name = "N,N,...", requires = "folder", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    members: Vec<u64>,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let from = check(&args.backup)?;
    if let Some(data) = &args.data {
        let cluster = Folder::at(data);
        if cluster.holds_cluster() {
            let message = format!("{} holds a cluster already", data.display());
            return Err(Error::usage(message).with_hint("name another folder with --data DIR"));
        }
        let places = up::Ports::planned(args.listen, args.nodes)?.into_iter().map(Place::here);
        cluster.make(&places.collect::<Vec<_>>(), Clients::Certificate)?;
        let configs = cluster.nodes()?;
        for config in &configs {
            restore_config(&args.backup, config)?;
        }
        let group = configs.first().map_or(0, |config| config.group);
        let next = format!("stubborn up --data {}", data.display());
        return tell(&from, group, data, &next, out);
    }
    if let Some(path) = &args.config {
        let config = load(path)?;
        restore_config(&args.backup, &config)?;
        let next = format!("stubborn node --config {}", path.display());
        return tell(&from, config.group, &config.data, &next, out);
    }
    let folder = args.folder.as_deref().unwrap_or(Path::new("."));
    let group = args.group.map_or_else(draw_group, Ok)?;
    let members = if args.members.is_empty() { vec![args.node] } else { args.members.clone() };
    if !members.contains(&args.node) {
        return Err(Error::usage(format!("node {} is not among the members", args.node)));
    }
    restore_folder(&args.backup, folder, group, args.node, &members)?;
    tell(&from, group, folder, "your service with this group's number", out)
}

/// Reads where the backup comes from, so that nothing is made of a file that is none.
fn check(backup: &Path) -> Result<BackupInfo, Error> {
    let mut file = open(backup)?;
    read_info(&mut file).map_err(|error| of_backup(backup, &error))
}

fn open(backup: &Path) -> Result<BufReader<File>, Error> {
    let file = File::open(backup);
    let file = file.map_err(|e| {
        Error::usage(format!("cannot read {}: {e}", backup.display()))
            .with_hint("name a file that `stubborn backup` has written")
    })?;
    Ok(BufReader::new(file))
}

fn restore_config(backup: &Path, config: &NodeConfig) -> Result<(), Error> {
    let members: Vec<u64> = config.members.iter().map(|member| member.number).collect();
    restore_folder(backup, &config.data, config.group, config.node, &members)
}

fn restore_folder(
    backup: &Path,
    folder: &Path,
    group: u64,
    node: u64,
    members: &[u64],
) -> Result<(), Error> {
    let number = |node: u64| NodeId::new(node).ok_or_else(|| Error::usage("there is no node 0"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let identity = Identity {
        group,
        node: number(node)?,
        created: now.as_secs(),
        folder: Some(draw_folder()?),
    };
    let members: Result<Vec<NodeId>, Error> = members.iter().map(|node| number(*node)).collect();
    let input = open(backup)?;
    let medium = DataFolder::make(folder).map_err(|e| Error::io("make the folder", folder, &e))?;
    let members = Members::of(members?);
    match restore(input, Arc::new(medium), identity, members, Options::default()) {
        Ok(Restored { .. }) => Ok(()),
        Err(error @ StoreError::Corrupt(_)) => Err(of_backup(backup, &error)),
        Err(error) => Err(folders::told(folder, &error)),
    }
}

fn of_backup(backup: &Path, error: &StoreError) -> Error {
    let exit = match error {
        StoreError::Corrupt(_) => Exit::Failed,
        _ => Exit::Usage,
    };
    Error::new(exit, format!("{}: {error}", backup.display()))
        .with_hint("name another file that `stubborn backup` has written")
}

fn tell(
    from: &BackupInfo,
    group: u64,
    folder: &Path,
    next: &str,
    out: &Output,
) -> Result<(), Error> {
    let folder = folder.display().to_string();
    out.line(format_args!(
        "{folder}: group {group:016x}, from the backup of group {:016x} of {}",
        from.group,
        inspect::time(from.made)
    ));
    out.line(format_args!("start it: {next}"));
    out.json(&json!({
        "data": folder,
        "group": format!("{group:016x}"),
        "from_group": format!("{:016x}", from.group),
        "made": from.made,
    }));
    Ok(())
}
