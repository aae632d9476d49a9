//! Data folders of nodes: where they are, and what is wrong with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stubborn_store::{Error as StoreError, Folder};

use crate::error::{Error, Exit};

/// What every data folder has.
const IDENTITY: &str = "identity";

const NAME: &str =
    "name the data folder of a node (with `stubborn up --data DIR`: DIR/node-1/data)";

/// The data folders in a folder: itself, that of the node it belongs to, or those of a cluster's
/// nodes.
pub(crate) fn find(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_one = |path: &PathBuf| path.join(IDENTITY).exists();
    if !path.is_dir() {
        return Err(Error::usage(format!("{} is no folder", path.display())).with_hint(NAME));
    }
    let below = (1..).map(|node| path.join(format!("node-{node}")));
    let cluster = below.take_while(|node| node.is_dir()).map(|node| node.join("data"));
    let found: Vec<PathBuf> =
        [path.to_owned(), path.join("data")].into_iter().chain(cluster).filter(is_one).collect();
    if found.is_empty() {
        return Err(Error::usage(format!("{} holds no node", path.display())).with_hint(NAME));
    }
    Ok(found)
}

/// The only data folder in a folder.
pub(crate) fn find_one(path: &Path) -> Result<PathBuf, Error> {
    let mut found = find(path)?;
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (first, _) => {
            let first = first.unwrap_or_default();
            let message = format!("{} holds several nodes", path.display());
            Err(Error::usage(message)
                .with_hint(format!("name the folder of one of them, as {}", first.display())))
        }
    }
}

/// Opens a folder that is there.
pub(crate) fn open(path: &Path) -> Result<Arc<Folder>, Error> {
    Folder::at(path).map(Arc::new).map_err(|e| Error::io("open", path, &e))
}

/// What a store says of this folder.
pub(crate) fn told(path: &Path, error: &StoreError) -> Error {
    let message = format!("{}: {error}", path.display());
    match error {
        StoreError::Corrupt(damage) => Error::new(Exit::Failed, message)
            .with("file", damage.file.as_str())
            .with("offset", damage.offset)
            .with("damaged", damage.what.as_str())
            .with_hint(
                "a node does not start on damaged data: let it join its group anew under another \
                 number, or restore a backup",
            ),
        StoreError::InUse => {
            Error::usage(message).with_hint("stop the node that runs on it, then try again")
        }
        StoreError::NoNode | StoreError::Occupied | StoreError::OtherNode { .. } => {
            Error::usage(message)
        }
        _ => Error::internal(message),
    }
}

/// So many bytes, for people.
pub(crate) fn bytes(bytes: u64) -> impl std::fmt::Display {
    indicatif::HumanBytes(bytes)
}
