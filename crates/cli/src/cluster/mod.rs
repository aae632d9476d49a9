//! A cluster on disk: what `stubborn up` makes, a node is started from, and a client finds its
//! certificate in.

mod examples;
mod folder;

use std::path::Path;

pub(crate) use stubborn::replica::{Clients, GrpcPort, NodeConfig, parse_group};

use crate::error::Error;

pub(crate) use examples::{ACCESS_EXAMPLE, EXAMPLE};
pub(crate) use folder::{
    Credentials, DEFAULT_FOLDER, Folder, NAME, Place, draw_folder, draw_group,
};

/// The configuration of a node.
pub(crate) fn load(path: &Path) -> Result<NodeConfig, Error> {
    NodeConfig::load(path).map_err(|error| {
        let hint = "`stubborn node --print-config` prints one, with an explanation of every line";
        Error::from(error).with_hint(hint)
    })
}
