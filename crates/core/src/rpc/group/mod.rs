//! Sessions of a group of replicas: messages of clients as commands for a log, and the table that
//! every replica applies them to.

mod command;
mod ids;
mod message;
mod table;
#[cfg(test)]
mod tests;

pub use command::{IDS_SINCE, OWNERS_SINCE, SessionCommand};
pub use message::ClientMessage;
pub use table::{SessionTable, TableReader, Told, Unrun};

pub(crate) use command::{Attaching, Deadline, Said};
pub(crate) use message::Content;
