//! How a replica is run, and how it stands.

use std::fmt;

use stubborn_core::limits::Limits;
use stubborn_core::node::IDS_SINCE;
use stubborn_core::service::Unsupported;
use stubborn_core::time::{Duration, Instant};

use crate::replication::{self, Members, Status};

/// The version of a group from which on its roster knows folders.
pub(super) const FOLDERS_SINCE: u32 = 4;

/// How a replica is run. The same on every replica of a group.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How consensus is run; its times are in ticks.
    pub consensus: replication::Settings,
    /// How long a tick takes.
    pub tick: Duration,
    /// What the group holds for its clients at most. Part of the replicated state's behaviour: it
    /// must be the same on every replica.
    pub limits: Limits,
    /// Entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Bytes of entries after which a snapshot is taken.
    pub snapshot_bytes: u64,
    /// Bytes of commands that are put into one entry, unless one alone is larger.
    pub entry_bytes: usize,
    /// Bytes of a piece in which what is large is sent to another replica.
    pub piece_bytes: usize,
    /// Commands of its own clients that a replica holds until they are applied, at most.
    pub pending: usize,
    /// Bytes of them, at most. A leader holds as many of other replicas' that consensus does not
    /// take yet.
    pub pending_bytes: usize,
    /// How long a command is waited for before the leader is told of it again, and how long a read
    /// is before it is asked about again.
    pub patience: Duration,
    /// Whether a leader answers reads without a question to the others for as long as none of them can
    /// have elected another one. That rests on their clocks: `docs/decisions/0017-leases.md`.
    pub lease: bool,
    /// The newest version of the group itself that this replica reads: how sessions and their commands
    /// are written. An earlier one than [`Settings::VERSION`] is for tests of programs that are
    /// exchanged one by one.
    pub version: u32,
    /// How long an idle leader lets the log's time stand still while there are sessions.
    pub time_every: Duration,
}

impl Settings {
    /// The newest version of a group that this program reads. Version 1 knows clients by the keys of their
    /// certificates alone; from 2 on commands tell to whom such a key belongs, and why a call was refused; from 3 on
    /// calls that name themselves run once; from 4 on the roster says with which folder each member has begun.
    pub const VERSION: u32 = 4;

    /// Whether the program knows ids of calls.
    pub(crate) fn knows_ids(&self) -> bool {
        self.version >= IDS_SINCE
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consensus: replication::Settings::default(),
            tick: Duration::from_millis(10),
            limits: Limits::default(),
            snapshot_entries: 100_000,
            snapshot_bytes: 64 << 20,
            entry_bytes: 32 << 10,
            piece_bytes: 128 << 10,
            pending: 65_536,
            pending_bytes: 64 << 20,
            patience: Duration::from_millis(300),
            lease: false,
            version: Self::VERSION,
            time_every: Duration::from_secs(10),
        }
    }
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its part in consensus.
    pub consensus: Status,
    /// The members, as of the last entry that it has applied.
    pub members: Members,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The log's time.
    pub time: Instant,
    /// Sessions that the group remembers.
    pub sessions: usize,
    /// Commands of its own clients that are not applied.
    pub pending: usize,
    /// Reads that are not answered.
    pub reads: usize,
    /// The active version of each machine's commands, in the order of the machines.
    pub versions: Vec<u32>,
    /// The version of the group itself that is active.
    pub version: u32,
    /// Ids of calls that the group remembers.
    pub ids: usize,
    /// The last entry that is in its snapshot.
    pub snapshot: u64,
}

/// Why a replica has stopped for good: what it has must be looked at before it starts again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk holds what no replica can start from.
    Start(String),
    /// A machine panicked while it applied an entry.
    Panicked {
        /// The entry.
        index: u64,
        /// What it said.
        what: String,
    },
    /// A snapshot cannot be taken over.
    Snapshot(String),
    /// The group counts on entries that this replica has promised to keep and does not have: its
    /// disk has lost them. It has to join as a new one.
    LostDisk,
    /// The group has activated a version of commands that a machine does not support: nothing of it
    /// was applied.
    Version(Unsupported),
    /// The group knows this node by another folder, which has what the node has promised. It has to join as a
    /// new one.
    OtherFolder,
    /// The replica has left the group.
    Left,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(why) => f.write_str(why),
            Self::Panicked { index, what } => {
                write!(f, "the state machine panicked at entry {index}: {what}")
            }
            Self::Snapshot(why) => write!(f, "the snapshot cannot be taken over: {why}"),
            Self::LostDisk => f.write_str(
                "the disk has lost entries that this replica had promised to keep: let it join the \
                 group as a new one",
            ),
            Self::Version(unsupported) => {
                write!(f, "{unsupported}: start one on this node's folder that does")
            }
            Self::OtherFolder => f.write_str(
                "the group knows this node by another folder, and what the node has promised is in that \
                 one: start it from there; if that is lost, let it join as a new one, with a number and a \
                 key that the group has not seen",
            ),
            Self::Left => f.write_str(
                "this node has left the group: to come back it joins as a new one, with a number \
                 and a key that the group has not seen",
            ),
        }
    }
}

impl std::error::Error for Fault {}
