//! A state that comes in pieces: it is put together beside the one that the replica has, and takes
//! its place when all of it is there and counts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use stubborn_core::node::{SessionTable, TableReader};
use stubborn_core::service::{Machines, Piece, RestoreError};
use stubborn_core::wire::Reader;

use super::Fault;
use super::image::{Record, Records};
use super::roster::Roster;
use super::state::panic_text;
use super::versions::Active;

/// A state that is being restored. Each machine keeps what it was given of it apart, and is given
/// its last piece only when the state is [complete and adopted](super::state::State::adopt).
#[derive(Debug, Default)]
pub(super) struct Restoring {
    records: Records,
    head: Option<Head>,
    sessions: TableReader,
    /// How many machines were named; the pieces are of the last one of them.
    machines: usize,
    /// The machine whose pieces come has had its first one.
    has_first: bool,
    /// The last piece of each machine.
    last: Vec<LastPiece>,
    ended: bool,
    /// Why it can never be adopted.
    failed: Option<Fault>,
}

#[derive(Debug)]
pub(super) struct Head {
    pub(super) founded: bool,
    pub(super) roster: Roster,
    /// Versions of commands were activated.
    pub(super) versioned: bool,
    pub(super) active: Active,
}

#[derive(Debug)]
struct LastPiece {
    bytes: Vec<u8>,
    is_first: bool,
}

/// All of a state that machines do not hold themselves.
pub(super) struct Complete {
    pub(super) head: Head,
    pub(super) table: SessionTable,
    last: Vec<LastPiece>,
}

impl Restoring {
    /// Takes the next bytes of a state. What is wrong with them is said by
    /// [`complete`](Self::complete): a snapshot that does not come to count harms nobody.
    pub(super) fn take(&mut self, bytes: &[u8], machines: &mut Machines) {
        if self.failed.is_some() {
            return;
        }
        let mut records = std::mem::take(&mut self.records);
        let taken = records.take(bytes, |record| self.record(record, machines));
        self.records = records;
        self.failed = taken.err();
    }

    /// The end of the stream has come.
    ///
    /// # Errors
    /// If it is no state of a group with these machines, or one that they cannot read.
    pub(super) fn complete(self) -> Result<Complete, Fault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        let torn = || unsound("it ends too early");
        let head = self.head.filter(|_| self.ended && !self.records.is_torn()).ok_or_else(torn)?;
        let table = self.sessions.finish().map_err(|_| malformed())?;
        Ok(Complete { head, table, last: self.last })
    }

    fn record(&mut self, record: Record<'_>, machines: &mut Machines) -> Result<(), Fault> {
        if self.ended {
            return Err(unsound("something is left over"));
        }
        match record {
            Record::Head(bytes) => self.head = Some(read_head(bytes)?),
            Record::Sessions(bytes) => self.sessions.take(bytes).map_err(|_| malformed())?,
            Record::Ids(bytes) => self.sessions.take_ids(bytes).map_err(|_| malformed())?,
            Record::Machine(name) => return self.begin_machine(name, machines),
            Record::Piece(bytes) => {
                let machine = self.machine()?;
                let piece = Piece::new(bytes, !self.has_first, false);
                self.has_first = true;
                guarded(|| machines.restore(machine, piece))?;
            }
            Record::LastPiece(bytes) => {
                self.machine()?;
                self.last.push(LastPiece { bytes: bytes.to_vec(), is_first: !self.has_first });
            }
            Record::End => {
                let missing = machines.descriptors().nth(self.last.len()).map(|of| of.name);
                if let Some(name) = missing {
                    return Err(Fault::Snapshot(format!("it has nothing of {name}")));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    fn begin_machine(&mut self, name: &[u8], machines: &Machines) -> Result<(), Fault> {
        if self.last.len() != self.machines {
            return Err(unsound("a machine has no end"));
        }
        let found = String::from_utf8_lossy(name);
        match machines.descriptors().nth(self.machines).map(|of| of.name) {
            None => return Err(Fault::Snapshot(format!("it has another service, {found}"))),
            Some(known) if known != found => {
                return Err(Fault::Snapshot(format!("{found} stands where {known} should")));
            }
            Some(_) => {}
        }
        (self.machines, self.has_first) = (self.machines + 1, false);
        Ok(())
    }

    /// The machine whose pieces come.
    fn machine(&self) -> Result<usize, Fault> {
        let is_open = self.machines == self.last.len() + 1;
        if is_open { Ok(self.machines - 1) } else { Err(unsound("a piece is of no machine")) }
    }
}

impl Complete {
    /// Lets the machines have what they were given.
    pub(super) fn finish(self, machines: &mut Machines) -> Result<(Head, SessionTable), Fault> {
        let Self { head, table, last } = self;
        if head.versioned {
            machines.activate(&head.active.machines).map_err(Fault::Version)?;
        }
        for (machine, LastPiece { bytes, is_first }) in last.into_iter().enumerate() {
            guarded(|| machines.restore(machine, Piece::new(&bytes, is_first, true)))?;
        }
        Ok((head, table))
    }
}

fn read_head(bytes: &[u8]) -> Result<Head, Fault> {
    let mut reader = Reader::new(bytes);
    let torn = |_| unsound("its head is malformed");
    let founded = reader.u8().map_err(torn)? != 0;
    let malformed = || unsound("its roster is malformed");
    let mut roster = Roster::decode(&mut reader).ok_or_else(malformed)?;
    let versioned = reader.u8().map_err(torn)? != 0;
    let active = Active::decode(reader.length_prefixed().map_err(torn)?);
    roster.decode_folders(&mut reader).ok_or_else(malformed)?;
    if !reader.is_empty() {
        return Err(unsound("its head is malformed"));
    }
    Ok(Head { founded, roster, versioned, active })
}

fn malformed() -> Fault {
    unsound("its sessions are malformed")
}

fn unsound(what: &str) -> Fault {
    Fault::Snapshot(what.to_owned())
}

/// A machine that panics at a snapshot cannot take it.
fn guarded(restore: impl FnOnce() -> Result<(), RestoreError>) -> Result<(), Fault> {
    catch_unwind(AssertUnwindSafe(restore))
        .map_err(|panic| Fault::Snapshot(panic_text(&*panic)))?
        .map_err(Fault::from)
}

impl From<RestoreError> for Fault {
    fn from(error: RestoreError) -> Self {
        Self::Snapshot(error.to_string())
    }
}
