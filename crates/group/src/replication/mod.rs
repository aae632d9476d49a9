//! One log on several nodes: consensus behind a narrow seam.
//!
//! [`Consensus`] is the only type that knows the library below it. What it takes and gives are
//! types of our own: [`Frame`]s between nodes, [`Work`] for the disk and the state machine.

mod check;
mod consensus;
mod frame;
mod log;
mod translate;
mod types;
mod votes;

pub use check::Refusal;
pub use consensus::{Consensus, Fault, Refused, Role, Settings, Status};
pub use frame::{Frame, MAX_ENTRIES, Malformed};
pub use types::{
    Ballot, Durable, Entry, EntryKind, FolderId, MemberChange, Members, NodeId, Outgoing, Position,
    ReadIndex, Snapshot, Work, Write,
};
