//! `stubborn node`

use std::path::PathBuf;

use stubborn::{ReplicaBuilder, ReplicaError, ReplicaHandle, ServeError, kv};

use crate::child;
use crate::cluster::{ACCESS_EXAMPLE, EXAMPLE, Folder, NodeConfig, load};
use crate::error::Error;
use crate::output::Output;
use crate::pins;
use crate::task::{block_on, interrupted};

/// Run one node of a replicated cluster, which serves `stubborn.kv.v1.Kv`.
///
/// `stubborn up` runs all nodes of a cluster on this machine; `stubborn up --prepare` makes the
/// folders of nodes for other machines.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["print_config", "print_access"])]
    config: Option<PathBuf>,

    /// Print a configuration file with an explanation of every line, and do nothing.
    #[arg(long)]
    print_config: bool,

    /// Print a file of who may call what, with an explanation, and do nothing.
    #[arg(long, conflicts_with = "print_config")]
    print_access: bool,

    /// Make the node's data folder: for its first start in a new group, and for no other. A node
    /// that has lost its disk must not come back under its number.
    #[arg(long)]
    create: bool,

    /// Join a cluster that runs, and was told of this node with `stubborn members --add`: makes the
    /// node's data folder if it is not there. A node that has lost its disk joins with a new number.
    #[arg(long, conflicts_with = "create")]
    join: bool,

    /// Say on standard output where it listens, and end when standard input does.
    #[arg(long, hide = true)]
    child: bool,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    if args.print_config {
        out.print(EXAMPLE);
        return Ok(());
    }
    if args.print_access {
        out.print(ACCESS_EXAMPLE);
        return Ok(());
    }
    let Some(path) = args.config else {
        return Err(Error::usage("no configuration file is named").with_hint("use --config FILE"));
    };
    let config = load(&path)?;
    block_on(async {
        let node = start(&config, args.create, args.join).await?;
        // The folder of the cluster is the one above the node's.
        let folder = path.parent().and_then(|node| node.parent()).map(Folder::at);
        let folder = folder.filter(|folder| folder.credentials().is_ok());
        let _left = folder.and_then(|folder| pins::leave_folder(node.local_addr(), folder.path()));
        if args.child {
            child::ready(node.local_addr());
            return ended(node.until(child::parent_gone()).await);
        }
        let (number, address) = (config.node, node.local_addr());
        out.line(format_args!("node {number} on {address} (Ctrl-C stops it)"));
        out.json(&serde_json::json!({ "node": number, "address": address.to_string() }));
        ended(node.until(interrupted()).await)
    })
}

async fn start(config: &NodeConfig, create: bool, join: bool) -> Result<ReplicaHandle, Error> {
    let builder = builder(config)?.create(create).join(join);
    builder.machine(kv::KvReplica::new(kv::Store::new())).start().await.map_err(Error::from)
}

/// A replica as its configuration file says.
pub(crate) fn builder(config: &NodeConfig) -> Result<ReplicaBuilder, Error> {
    let builder = config.builder()?;
    Ok(builder.key_log(crate::key_log::from_env()?).qlog(crate::qlog::from_env()?))
}

fn ended(how: Result<(), ReplicaError>) -> Result<(), Error> {
    how.map_err(|error| Error::internal(error.to_string()))
}

impl From<ReplicaError> for Error {
    fn from(error: ReplicaError) -> Self {
        let message = error.to_string();
        match error {
            ReplicaError::NoNode(_) => Error::usage(message).with_hint(
                "for the first start of a node in a new group, and only then: stubborn node \
                 --config FILE --create",
            ),
            ReplicaError::Settings(_)
            | ReplicaError::Member(..)
            | ReplicaError::Join(_)
            | ReplicaError::Serve(ServeError::Security(_)) => Error::usage(message),
            ReplicaError::Folder(..) => Error::internal(message).with_hint(
                "stop the process that has the folder, if one has; `stubborn verify DIR` says \
                 whether it is sound",
            ),
            _ => Error::internal(message),
        }
    }
}
