//! The disk of a node: the medium that the store which ships runs on, simulated, and what was
//! promised to be on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn_core::random::Random;
use stubborn_group::replication::{Durable, FolderId, NodeId, Write};
use stubborn_store::simulated::{Fault, Loss, SimulatedDisk};
use stubborn_store::{Error, Identity, Options, Store};

use super::cluster::GROUP;
use super::invariants::Promised;
use crate::nodes::Broken;

/// Bytes that a disk loses at once.
const SECTOR: u64 = 512;

/// The disk of a node. It outlives the process: clones are the same disk.
#[derive(Clone)]
pub(super) struct NodeDisk {
    medium: SimulatedDisk,
    notes: Arc<Mutex<Notes>>,
}

/// What is known of it from outside.
struct Notes {
    promised: Promised,
    options: Options,
    /// The file that was damaged while the node was down.
    damaged: Option<String>,
}

/// How a folder was opened.
pub(super) enum Opened {
    Whole(Box<Store>, Durable),
    /// The disk failed meanwhile.
    Failed(Error),
    /// It is damaged: refused, with what the store says.
    Refused(Error),
}

impl NodeDisk {
    /// Makes the folder of a new node.
    pub(super) fn new(id: NodeId, durable: Durable, mut random: Random) -> Self {
        let folder = FolderId::new(random.u64());
        let options =
            Options { segment: 8_192 + random.below(120_000), step: 512 << random.below(5) };
        let mut medium = SimulatedDisk::new(random);
        if id.get().is_multiple_of(2) {
            medium = medium.with_synced_writes();
        }
        let identity = Identity { group: GROUP, node: id, created: 0, folder };
        let store = Store::create(Arc::new(medium.clone()), identity, &durable, options);
        drop(store.expect("nothing fails yet"));
        let notes = Notes { promised: Promised::new(durable), options, damaged: None };
        Self { medium, notes: Arc::new(Mutex::new(notes)) }
    }

    /// A process begins: with a disk that has lost power, or not.
    pub(super) fn restart(&self, loss: Loss) {
        self.medium.restart(loss);
    }

    /// Opens the folder; what is in it must be what was promised.
    pub(super) fn open(&self) -> Result<Opened, Broken> {
        let options = self.notes().options;
        let medium = Arc::new(self.medium.clone());
        let found = Store::open(medium, options).and_then(|(store, recovered)| {
            let mut durable = store.durable(recovered)?;
            // Read now, since the disk may fail later.
            let (mut reader, mut state) = (store.read_snapshot()?, Vec::new());
            while let Some(piece) = reader.next_piece()? {
                state.extend_from_slice(piece);
            }
            durable.snapshot.data = state.into();
            Ok((store, durable))
        });
        let mut notes = self.notes();
        match found {
            Ok((store, durable)) => {
                notes.promised.found(&durable)?;
                notes.damaged = None;
                Ok(Opened::Whole(Box::new(store), durable))
            }
            Err(error @ Error::Io { .. }) => Ok(Opened::Failed(error)),
            Err(error) => {
                let Some(file) = &notes.damaged else {
                    return Err(("durability", format!("a folder is refused: {error}")));
                };
                match &error {
                    Error::Corrupt(damage) if damage.file != *file => {
                        let what = format!("{file} was damaged, and it is said that {error}");
                        Err(("damage is named", what))
                    }
                    _ => Ok(Opened::Refused(error)),
                }
            }
        }
    }

    /// Handed to the store from now on.
    pub(super) fn note_written(&self, write: &Write) {
        self.notes().promised.written(write.clone());
    }

    /// The store says that all of it is durable.
    pub(super) fn note_synced(&self) {
        self.notes().promised.synced();
    }

    /// Lets one of the next operations fail.
    pub(super) fn fail_soon(&self, operations: u64, fault: Fault) {
        self.medium.fail_at(self.medium.operations() + 1 + operations, fault);
    }

    /// Nothing fails that has not failed yet.
    pub(super) fn heal(&self) {
        self.medium.fail_at(0, Fault::Crash);
    }

    /// Damages a byte of what was synced, or a whole sector, while no process runs.
    pub(super) fn damage(&self, random: &mut Random) {
        let matters =
            |name: &str| name == "identity" || name.ends_with(|c: char| c.is_ascii_digit());
        let files: Vec<_> =
            self.medium.files().into_iter().filter(|(name, _)| matters(name)).collect();
        let (name, content) = &files[random.below(files.len() as u64) as usize];
        let Some(at) = (content.len() as u64).checked_sub(1).map(|last| random.below(last + 1))
        else {
            return;
        };
        let sector = random.chance(0.3);
        let range =
            if sector { at / SECTOR * SECTOR..at / SECTOR * SECTOR + SECTOR } else { at..at + 1 };
        for offset in range {
            let bits = if sector { random.below(256) as u8 } else { 1 << random.below(8) };
            self.medium.damage(name, offset as usize, bits);
        }
        self.notes().damaged = Some(name.clone());
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
