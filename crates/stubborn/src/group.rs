//! How the nodes of a group stand: the service that `stubborn status` asks, and its client;
//! generated from `stubborn/group.proto`.

pub use crate::generated::stubborn::group::v1::*;
