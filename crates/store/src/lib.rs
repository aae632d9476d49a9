//! Durable storage of a replica: what it has promised, its log and its snapshots, in one folder.
//!
//! ```
//! use std::sync::Arc;
//! use stubborn_group::replication::{Ballot, Durable, Members, NodeId, Write};
//! use stubborn_store::{Folder, Identity, Options, Store};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path();
//! let node = NodeId::new(1).expect("a number");
//! let identity = Identity { group: 0x1234, node, created: 0, folder: None };
//! let folder = Arc::new(Folder::make(path)?);
//! let new_group = Durable::new_group(Members::of([node]));
//! let mut store = Store::create(folder.clone(), identity, &new_group, Options::default())?;
//!
//! // Work of consensus is written in order, with one sync for all that waits.
//! let ballot = Ballot { term: 1, vote: Some(node), committed: 0 };
//! let write = Write { ballot: Some(ballot), must_sync: true, ..Write::default() };
//! store.write(&[write])?;
//! store.close()?;
//!
//! // After a restart: what consensus starts with.
//! let (store, recovered) = Store::open(folder, Options::default())?;
//! let durable = store.durable(recovered)?;
//! assert_eq!(durable.ballot, ballot);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The folder holds:
//!
//! | file | what |
//! |---|---|
//! | `identity` | group, node, when it was made; a folder without it is no node's |
//! | `lock` | locked by the process that has the folder open |
//! | `log-N` | segments of the log: batches of records, each with checksums |
//! | `log-spare` | a segment that is not needed any more, to be written over |
//! | `snapshot-N` | the state machine after entry N |
//! | `*.new`, `log-new` | being made; removed when the folder is opened |
//!
//! What else is in the folder is left alone. Every promise is made to hold under a simulated disk
//! (feature `simulated`) that stops at any write and any sync, and loses and tears what was not
//! synced. Assumed of a real one: that it keeps what it said it had synced, and that a write that is
//! interrupted leaves each sector of 512 bytes either as it was or as it was to be.

pub mod backup;
#[cfg(any(target_os = "linux", feature = "simulated"))]
mod direct;
mod error;
mod fields;
mod folder;
mod identity;
mod log;
mod medium;
mod pieces;
mod record;
mod recover;
mod replay;
mod segment;
#[cfg(feature = "simulated")]
pub mod simulated;
mod snapshot;
mod store;
mod sum;
mod survey;

pub use error::{Damage, Error};
pub use folder::Folder;
pub use identity::Identity;
pub use log::Options;
pub use medium::{Medium, MediumFile, SyncedFile};
pub use snapshot::{FinishedSnapshot, SnapshotInfo, SnapshotReader, SnapshotWriter};
pub use store::{Recovered, Store};
/// What is stored: the types that consensus speaks.
pub use stubborn_group::replication;
pub use survey::{Progress, SegmentSurvey, Survey, survey, verify};
