//! A cluster on disk: what `stubborn up` makes, a node is started from, and a client finds its
//! certificate in.

mod config;
mod folder;

pub(crate) use config::{ACCESS_EXAMPLE, Admission, EXAMPLE, NodeConfig, parse_group};
pub(crate) use folder::{Credentials, DEFAULT_FOLDER, Folder, NAME, Place, draw_group};
