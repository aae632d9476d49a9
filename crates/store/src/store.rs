//! The store: what a replica has promised, and its log and snapshots, in one folder.

use std::any::Any;
use std::sync::Arc;

use stubborn_core::service::Image;
use stubborn_group::replication::{Ballot, Durable, Entry, Members, Position, Snapshot, Write};

use crate::error::{Doing, Error};
use crate::log::{self, Log, Options, Tip};
use crate::medium::Medium;
use crate::recover::Scan;
use crate::segment;
use crate::snapshot::{self, FinishedSnapshot, SnapshotReader, SnapshotWriter};
use crate::{Identity, SnapshotInfo, identity};

/// The file that keeps a second process out.
pub(crate) const LOCK: &str = "lock";

/// A folder that is open. Blocking: a driver calls it on a thread of its own.
///
/// After [`write`](Self::write), or [`append`](Self::append) and [`sync`](Self::sync), have returned
/// without an error, what was written survives the death of the process and the loss of power. Each
/// [`Write`] is there as a whole or not at all, and none without those before it. After an error the
/// store is unusable and says so: nothing is tried again on the same files.
pub struct Store {
    medium: Arc<dyn Medium>,
    identity: Identity,
    log: Log,
    tip: Tip,
    /// Of the current snapshot.
    members: Members,
    /// Older snapshots, to be removed once the log that names the current one is synced.
    replaced: Vec<u64>,
    failed: Option<String>,
    _lock: Box<dyn Any + Send>,
}

/// What a folder held when it was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose it is.
    pub identity: Identity,
    /// What it has promised.
    pub ballot: Ballot,
    /// The snapshot; [`Store::read_snapshot`] reads the state machine.
    pub snapshot: SnapshotInfo,
    /// The entries after the snapshot.
    pub entries: Vec<Entry>,
    /// Whether the log ended in a write that did not get through, which was cut off.
    pub torn: bool,
}

impl Store {
    /// Makes the folder of a new node: of a group's first members with what all of them begin with
    /// ([`Durable::new_group`]), or of a node that joins.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the folder has files of a node; [`Error::InUse`].
    pub fn create(
        medium: Arc<dyn Medium>,
        identity: Identity,
        durable: &Durable,
        options: Options,
    ) -> Result<Self, Error> {
        let mut new = NewFolder::begin(medium, identity)?;
        let Snapshot { at, members, data } = &durable.snapshot;
        let snapshot = new.snapshot(*at, members.clone())?.write_all(data)?;
        new.finish(snapshot, options, |store| {
            let (entries, ballot) = (durable.entries.clone(), Some(durable.ballot));
            store.append(&[Write { entries, ballot, ..Write::default() }])
        })
    }

    /// Opens a node's folder, and cuts off what a crash has left half written.
    ///
    /// # Errors
    /// [`Error::NoNode`] if the folder has no identity; [`Error::InUse`]; [`Error::Corrupt`] with the
    /// place if anything that had been synced is damaged: then nothing in the folder has changed.
    pub fn open(medium: Arc<dyn Medium>, options: Options) -> Result<(Self, Recovered), Error> {
        let lock = lock(&*medium)?;
        forget_cached(&*medium)?;
        let mut scan = Scan::read(&*medium, &mut |_, _| {})?;
        let snapshot = SnapshotReader::open(&*medium, &scan.identity, scan.replay.snapshot)?;
        let info = snapshot.info().clone();
        let has_spare = remove_leftovers(&*medium, &scan.leftovers)?;
        let log = Log::resume(medium.clone(), options, &scan, has_spare)?;
        let tip = Tip {
            ballot: scan.replay.ballot,
            snapshot: scan.replay.snapshot,
            last: scan.replay.last(),
        };
        let recovered = Recovered {
            identity: scan.identity,
            ballot: scan.replay.ballot,
            snapshot: info.clone(),
            entries: scan.replay.take_entries(),
            torn: scan.torn,
        };
        let store = Self {
            medium,
            identity: scan.identity,
            log,
            tip,
            members: info.members,
            replaced: Vec::new(),
            failed: None,
            _lock: lock,
        };
        Ok((store, recovered))
    }

    /// The same, if it is the folder of this node of this group.
    ///
    /// # Errors
    /// As of [`Store::open`]; [`Error::OtherNode`].
    pub fn open_as(
        medium: Arc<dyn Medium>,
        options: Options,
        group: u64,
        node: u64,
    ) -> Result<(Self, Recovered), Error> {
        let names = medium.list().doing("list", "the folder")?;
        if !names.iter().any(|name| name == identity::FILE) {
            return Err(Error::NoNode);
        }
        let found = Identity::read(&*medium)?;
        if (found.group, found.node.get()) != (group, node) {
            return Err(Error::OtherNode { found, group, node });
        }
        Self::open(medium, options)
    }

    /// Whether the folder holds a node.
    pub fn exists(medium: &dyn Medium) -> bool {
        medium.list().is_ok_and(|names| names.iter().any(|name| name == identity::FILE))
    }

    /// Whose folder it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Writes in order, with one sync for all of them if any has to be synced. Snapshots in them take
    /// syncs of their own. To write a large one while the log goes on, see
    /// [`begin_snapshot`](Self::begin_snapshot).
    ///
    /// # Errors
    /// Of the disk. Then the store is unusable.
    ///
    /// # Panics
    /// If a snapshot is not newer than the one that is here, or entries do not fit the log: that is a
    /// bug of the caller.
    pub fn write(&mut self, writes: &[Write]) -> Result<(), Error> {
        self.append(writes)?;
        if writes.iter().any(|write| write.must_sync) { self.sync() } else { Ok(()) }
    }

    /// Writes in order, without a sync but for snapshots.
    ///
    /// # Errors
    /// As of [`Store::write`].
    ///
    /// # Panics
    /// As of [`Store::write`].
    pub fn append(&mut self, writes: &[Write]) -> Result<(), Error> {
        self.guarded(|store| store.append_all(writes))
    }

    /// Makes durable all that was written.
    ///
    /// # Errors
    /// Of the disk. Then the store is unusable: whether it is durable is not known.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.guarded(|store| {
            store.log.sync()?;
            store.drop_replaced()
        })
    }

    /// Nothing waits to be written: notes what is synced, so that damage to the last writes can be
    /// told from a write that was torn; and writes zeros where the log will go on, now and then, so
    /// that later writes rarely have to. Without it, and without [`Store::close`], damage to what the
    /// last sync took along looks as if that had been torn.
    ///
    /// # Errors
    /// Of the disk. Then the store is unusable.
    pub fn rest(&mut self) -> Result<(), Error> {
        if self.log.holds() {
            // Nothing stands behind the last sync yet.
            self.sync()?;
        }
        self.guarded(|store| {
            if store.log.is_synced() {
                store.log.note_synced()?;
                store.log.prepare_ahead()?;
            }
            Ok(())
        })
    }

    /// Begins a snapshot of this node's state machine as it is after entry `at`, or of a leader's
    /// that arrives in pieces. It is written aside while the log goes on, on any thread. Hand it to
    /// [`Store::compact`] or [`Store::install`].
    ///
    /// # Errors
    /// Of the disk; the store stays usable.
    pub fn begin_snapshot(&self, at: Position, members: Members) -> Result<SnapshotWriter, Error> {
        self.check()?;
        SnapshotWriter::begin(self.medium.clone(), &self.identity, at, members)
    }

    /// Lets a snapshot of this node's state machine count, and frees what it covers. Of a snapshot that
    /// is not newer than the current one nothing remains. Either way, all that was written is durable
    /// when it returns.
    ///
    /// # Errors
    /// Of the disk. Then the store is unusable.
    pub fn compact(&mut self, snapshot: FinishedSnapshot) -> Result<(), Error> {
        self.guarded(|store| store.compact_to(&snapshot))
    }

    /// The same with a snapshot that is not written yet.
    ///
    /// # Errors
    /// Of the disk. Then the store is unusable.
    pub fn compact_with(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.guarded(|store| {
            let finished = store.write_aside(snapshot)?;
            store.compact_to(&finished)
        })
    }

    /// Writes a piece of consensus' work whose snapshot was received in pieces: the snapshot takes
    /// the place of the whole log, then entries and ballot follow. Durable when it returns.
    ///
    /// # Errors
    /// Of the disk. Then the store is unusable.
    ///
    /// # Panics
    /// If the snapshot is not newer than the one that is here: that is a bug of the caller.
    pub fn install(&mut self, snapshot: FinishedSnapshot, write: &Write) -> Result<(), Error> {
        self.guarded(|store| {
            store.install_then(&snapshot, write)?;
            store.log.sync()?;
            store.drop_replaced()
        })
    }

    /// Reads the current snapshot, piece by piece.
    ///
    /// # Errors
    /// Of the disk, or if it is damaged.
    pub fn read_snapshot(&self) -> Result<SnapshotReader, Error> {
        self.check()?;
        SnapshotReader::open(&*self.medium, &self.identity, self.tip.snapshot)
    }

    /// What consensus starts with. The state machine of the snapshot is checked here, and read piece by
    /// piece when it is restored: before a later snapshot takes its place.
    ///
    /// # Errors
    /// As of [`Store::read_snapshot`].
    pub fn durable(&self, recovered: Recovered) -> Result<Durable, Error> {
        let mut reader = self.read_snapshot()?;
        while reader.next_piece()?.is_some() {}
        let (medium, identity, expected) = (self.medium.clone(), self.identity, self.tip.snapshot);
        let data = Image::read_by(move || {
            let opened = SnapshotReader::open(&*medium, &identity, expected);
            snapshot::pieces(opened)
        });
        let SnapshotInfo { at, members, .. } = recovered.snapshot;
        let snapshot = Snapshot { at, members, data };
        Ok(Durable { ballot: recovered.ballot, snapshot, entries: recovered.entries })
    }

    /// Syncs everything and notes that it is synced: whatever is damaged later is found.
    ///
    /// # Errors
    /// Of the disk.
    pub fn close(mut self) -> Result<(), Error> {
        self.guarded(|store| {
            store.log.sync()?;
            store.drop_replaced()?;
            store.log.note_synced()?;
            store.log.sync()
        })
    }

    /// The members of the current snapshot.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The last entry.
    pub fn last(&self) -> Position {
        self.tip.last
    }
}

impl Store {
    fn check(&self) -> Result<(), Error> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(Error::Failed(why.clone())))
    }

    /// Does something that writes; after an error nothing is done any more.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.check()?;
        let result = work(self);
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }

    fn compact_to(&mut self, snapshot: &FinishedSnapshot) -> Result<(), Error> {
        if snapshot.info.at.index <= self.tip.snapshot.at.index {
            self.medium.remove(&snapshot.aside).doing("remove", &snapshot.aside)?;
            return self.log.sync();
        }
        assert!(snapshot.info.at <= self.tip.last, "a snapshot of what is not in the log");
        self.adopt(snapshot)?;
        self.append_batch(Some((snapshot, false)), &[], None)?;
        self.log.sync()?;
        self.drop_replaced()
    }

    fn append_all(&mut self, writes: &[Write]) -> Result<(), Error> {
        let mut rest = writes;
        while let Some(place) = rest.iter().position(has_snapshot) {
            let (before, from) = rest.split_at(place);
            let (write, after) = from.split_first().expect("it was found");
            self.append_plain(before)?;
            match &write.snapshot {
                Some(snapshot) => {
                    let finished = self.write_aside(snapshot)?;
                    self.install_then(&finished, write)?;
                }
                None => self.append_plain(std::slice::from_ref(write))?,
            }
            if let Some(snapshot) = &write.compact {
                let finished = self.write_aside(snapshot)?;
                self.compact_to(&finished)?;
            }
            rest = after;
        }
        self.append_plain(rest)
    }

    /// Several writes without snapshots, in one batch unless they are large.
    fn append_plain(&mut self, writes: &[Write]) -> Result<(), Error> {
        const ENOUGH: usize = 4 << 20;
        let size =
            |write: &Write| write.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        let mut rest = writes;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |write: &&Write| {
                bytes += size(write);
                bytes <= ENOUGH
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            rest = later;
            if now.iter().all(|write| write.entries.is_empty() && write.ballot.is_none()) {
                continue;
            }
            self.append_batch(None, now, None)?;
        }
        Ok(())
    }

    fn install_then(&mut self, snapshot: &FinishedSnapshot, write: &Write) -> Result<(), Error> {
        assert!(
            snapshot.info.at.index > self.tip.snapshot.at.index,
            "a snapshot that is not newer takes the place of the log"
        );
        self.adopt(snapshot)?;
        self.append_batch(Some((snapshot, true)), &[], Some(write))?;
        // Segments from before it are removed with the snapshots that it replaces.
        self.log.sync()?;
        self.log.forget_older_entries();
        self.drop_replaced()
    }

    fn write_aside(&self, snapshot: &Snapshot) -> Result<FinishedSnapshot, Error> {
        let writer = self.begin_snapshot(snapshot.at, snapshot.members.clone())?;
        writer.write_all(&snapshot.data)
    }

    /// Gives a finished snapshot its name. It does not count yet.
    fn adopt(&mut self, snapshot: &FinishedSnapshot) -> Result<(), Error> {
        let FinishedSnapshot { aside, info, .. } = snapshot;
        self.medium.rename(aside, &snapshot::name(info.at.index)).doing("rename", aside)?;
        self.medium.sync_names().doing("sync", "the folder")
    }

    fn append_batch(
        &mut self,
        snapshot: Option<(&FinishedSnapshot, bool)>,
        writes: &[Write],
        after: Option<&Write>,
    ) -> Result<(), Error> {
        if self.log.is_full() {
            self.log.rotate(&self.tip)?;
        }
        let mut batch = self.log.begin();
        if let Some((snapshot, installed)) = snapshot {
            batch.snapshot(&snapshot.reference, installed);
            self.note_snapshot(snapshot, installed);
        }
        for write in writes.iter().chain(after) {
            check_order(&self.tip, &write.entries);
            for entry in &write.entries {
                batch.entry(entry);
                self.log.names_entry(entry.at.index);
                self.tip.last = entry.at;
            }
            if let Some(ballot) = &write.ballot {
                batch.ballot(ballot);
                self.tip.ballot = *ballot;
            }
        }
        self.log.append(batch)
    }

    fn note_snapshot(&mut self, snapshot: &FinishedSnapshot, installed: bool) {
        self.replaced.push(self.tip.snapshot.at.index);
        self.tip.snapshot = snapshot.reference;
        self.members = snapshot.info.members.clone();
        if installed {
            self.tip.last = snapshot.info.at;
            let committed = &mut self.tip.ballot.committed;
            *committed = (*committed).max(snapshot.info.at.index);
        }
    }

    /// Removes what the current snapshot replaces, after the log that names it was synced.
    fn drop_replaced(&mut self) -> Result<(), Error> {
        if self.replaced.is_empty() {
            return Ok(());
        }
        for index in self.replaced.drain(..) {
            let name = snapshot::name(index);
            self.medium.remove(&name).doing("remove", &name)?;
        }
        self.log.drop_covered(self.tip.snapshot.at.index)
    }
}

fn has_snapshot(write: &Write) -> bool {
    write.snapshot.is_some() || write.compact.is_some()
}

/// What could not be read again must not be written: that is a bug of the caller.
fn check_order(tip: &Tip, entries: &[Entry]) {
    let Some(first) = entries.first().map(|entry| entry.at.index) else { return };
    assert!(
        first > tip.snapshot.at.index && first <= tip.last.index + 1,
        "entry {first} does not fit a log of {} to {}",
        tip.snapshot.at.index + 1,
        tip.last.index
    );
    let pairs = entries.windows(2);
    let follows = |(a, b): (&Entry, &Entry)| b.at.index == a.at.index + 1 && b.at.term >= a.at.term;
    assert!(pairs.map(|pair| (&pair[0], &pair[1])).all(follows), "entries are not in order");
}

/// A folder that is not a node's yet: it becomes one with the last step.
pub(crate) struct NewFolder {
    medium: Arc<dyn Medium>,
    identity: Identity,
    lock: Box<dyn Any + Send>,
}

impl NewFolder {
    pub(crate) fn begin(medium: Arc<dyn Medium>, identity: Identity) -> Result<Self, Error> {
        let lock = lock(&*medium)?;
        let names = medium.list().doing("list", "the folder")?;
        let is_unfinished = names.iter().any(|name| name == identity::UNFINISHED);
        if names.iter().any(|name| name == identity::FILE) {
            return Err(Error::Occupied);
        }
        for name in names.iter().filter(|name| is_ours(name)) {
            // Without its identity a folder is no node's, and not a new one's either.
            if !is_unfinished {
                return Err(Error::Occupied);
            }
            medium.remove(name).doing("remove", name)?;
        }
        identity.begin(&*medium)?;
        medium.sync_names().doing("sync", "the folder")?;
        Ok(Self { medium, identity, lock })
    }

    pub(crate) fn snapshot(
        &mut self,
        at: Position,
        members: Members,
    ) -> Result<SnapshotWriter, Error> {
        SnapshotWriter::begin(self.medium.clone(), &self.identity, at, members)
    }

    /// `fill` writes what comes after the snapshot.
    pub(crate) fn finish(
        self,
        snapshot: FinishedSnapshot,
        options: Options,
        fill: impl FnOnce(&mut Store) -> Result<(), Error>,
    ) -> Result<Store, Error> {
        let Self { medium, identity, lock } = self;
        let FinishedSnapshot { aside, info, reference } = snapshot;
        medium.rename(&aside, &snapshot::name(info.at.index)).doing("rename", &aside)?;
        let tip = Tip { ballot: Ballot::default(), snapshot: reference, last: info.at };
        let log = Log::create(medium.clone(), identity, options, &tip)?;
        let mut store = Store {
            medium,
            identity,
            log,
            tip,
            members: info.members,
            replaced: Vec::new(),
            failed: None,
            _lock: lock,
        };
        fill(&mut store)?;
        store.sync()?;
        store.medium.sync_names().doing("sync", "the folder")?;
        Identity::finish(&*store.medium)?;
        Ok(store)
    }
}

/// Whether a file is one that a store makes, but for the identity.
fn is_ours(name: &str) -> bool {
    let logs = [log::SPARE, log::UNFINISHED];
    logs.contains(&name)
        || segment::number(name).is_some()
        || snapshot::index(name).is_some()
        || snapshot::is_unfinished(name)
}

fn lock(medium: &dyn Medium) -> Result<Box<dyn Any + Send>, Error> {
    medium.lock(LOCK).doing("lock", LOCK)?.ok_or(Error::InUse)
}

/// Lets everything be read from the disk, and makes durable what an earlier process left in memory.
fn forget_cached(medium: &dyn Medium) -> Result<(), Error> {
    for name in medium.list().doing("list", "the folder")? {
        if !(is_ours(&name) || name == identity::FILE) {
            continue;
        }
        let mut file = medium.open(&name).doing("open", &name)?;
        file.sync().doing("sync", &name)?;
        file.forget_cached().doing("read", &name)?;
    }
    medium.sync_names().doing("sync", "the folder")
}

/// Removes files that are not needed, and says whether there is one to be written over.
fn remove_leftovers(medium: &dyn Medium, leftovers: &[String]) -> Result<bool, Error> {
    for name in leftovers {
        medium.remove(name).doing("remove", name)?;
    }
    let names = medium.list().doing("list", "the folder")?;
    if names.iter().any(|name| name == log::UNFINISHED) {
        medium.remove(log::UNFINISHED).doing("remove", log::UNFINISHED)?;
        // Or a later file under this name could be mistaken for it, when names get lost.
        medium.sync_names().doing("sync", "the folder")?;
    }
    Ok(names.iter().any(|name| name == log::SPARE))
}
