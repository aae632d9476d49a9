//! A disk in memory that behaves as badly as a real one may: it loses and tears what was not synced,
//! forgets names that were not synced, fails, fills up, and damages what it holds.
//!
//! Everything follows from one seed. What is written is seen at once by every handle, as an
//! operating system's cache shows it; what of it is on the disk is decided when power is lost.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn_core::random::Random;
use stubborn_group::replication::{Ballot, Position};
use xxhash_rust::xxh3::Xxh3;

use crate::Identity;
use crate::direct::{BLOCK, Blocks};
use crate::medium::{Medium, MediumFile, SyncedFile};
use crate::record::{Batch, HEAD_SIZE, Head, SnapshotRef};
use crate::sum::Salt;

/// Bytes that are written as a whole or not at all.
const SECTOR: usize = 512;

/// What a failed operation says.
pub const FAILED: &str = "the disk has failed";

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies in the midst of the operation.
    Crash,
    /// There is no room: a write gets through in part. Everything that needs room fails from then on.
    Full,
    /// The operation fails. Of a sync that fails some bytes do not reach the disk, and no later sync
    /// brings them there, while readers are shown them until power is lost.
    Fails,
}

/// What the end of a process, or of its machine, takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process was killed.
    Nothing,
    /// What was not synced, or parts of it: power was lost.
    Power,
}

/// A disk with one folder. Clones are the same disk; it outlives the process that uses it.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<Contents>>);

struct Contents {
    /// As readers see them.
    names: BTreeMap<String, u64>,
    /// As they are on the disk.
    durable_names: BTreeMap<String, u64>,
    /// Changes of names that are not synced.
    changes: Vec<Change>,
    files: BTreeMap<u64, FileContents>,
    next_file: u64,
    /// Handles of earlier lives are dead.
    life: u64,
    locked: bool,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Nothing works until the next life.
    dead: bool,
    full: bool,
    /// Whether there are writes that are durable when they return.
    synced_writes: bool,
    random: Random,
}

#[derive(Default)]
struct FileContents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Writes that are not synced, in order: where, and what.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Made(String, u64),
    Renamed(String, String),
    Removed(String),
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(Contents {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            life: 0,
            locked: false,
            operations: 0,
            fault: None,
            dead: false,
            full: false,
            synced_writes: false,
            random,
        })))
    }

    /// With writes that are durable when they return, in whole blocks.
    #[must_use]
    pub fn with_synced_writes(self) -> Self {
        self.lock().synced_writes = true;
        self
    }

    /// How many operations have changed or synced something so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets the operation of this number fail, counted from the first that ever was.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.lock().fault = Some((operation, fault));
    }

    /// Ends the life of the process that uses the disk, if it has not ended, and begins the next.
    /// No fault is planned then, and a full disk has room again.
    pub fn restart(&self, loss: Loss) {
        let mut contents = self.lock();
        contents.life += 1;
        contents.locked = false;
        contents.dead = false;
        contents.full = false;
        contents.fault = None;
        if loss == Loss::Power {
            contents.lose_power();
        }
    }

    /// The names and contents of all files, as readers see them.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let contents = self.lock();
        let content = |file: &u64| contents.files[file].seen.clone();
        contents.names.iter().map(|(name, file)| (name.clone(), content(file))).collect()
    }

    /// Puts a file on the disk, in the place of whatever has the name. It is durable.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut contents = self.lock();
        let file = contents.next_file;
        contents.next_file += 1;
        let content = content.to_vec();
        let made = FileContents { seen: content.clone(), durable: content, unsynced: Vec::new() };
        contents.files.insert(file, made);
        contents.names.insert(name.to_owned(), file);
        contents.durable_names.insert(name.to_owned(), file);
    }

    /// Lets a file disappear.
    pub fn lose(&self, name: &str) {
        let mut contents = self.lock();
        contents.names.remove(name);
        contents.durable_names.remove(name);
    }

    /// Flips bits of a byte, if the file has it.
    pub fn damage(&self, name: &str, offset: usize, bits: u8) {
        let mut contents = self.lock();
        let Some(file) = contents.names.get(name).copied() else { return };
        let file = contents.files.get_mut(&file).expect("a name has its file");
        for side in [&mut file.seen, &mut file.durable] {
            if let Some(byte) = side.get_mut(offset) {
                *byte ^= bits;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of an operation.
enum Fate {
    Done,
    /// It is done in part, then this is said.
    Partly(io::Error),
    Not(io::Error),
}

impl Contents {
    /// Counts an operation that changes or syncs something.
    fn operation(&mut self, life: u64, needs_room: bool) -> Fate {
        if let Err(error) = self.alive(life) {
            return Fate::Not(error);
        }
        self.operations += 1;
        if self.full && needs_room {
            return Fate::Not(io::ErrorKind::StorageFull.into());
        }
        let Some((_, fault)) = self.fault.take_if(|(at, _)| *at == self.operations) else {
            return Fate::Done;
        };
        match fault {
            Fault::Crash => {
                self.dead = true;
                Fate::Partly(io::Error::other("the process has died"))
            }
            Fault::Full if needs_room => {
                self.full = true;
                Fate::Partly(io::ErrorKind::StorageFull.into())
            }
            Fault::Full => {
                self.full = true;
                Fate::Done
            }
            Fault::Fails => Fate::Partly(io::Error::other(FAILED)),
        }
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        if self.dead || life != self.life {
            return Err(io::Error::other("the process has died"));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lose_power(&mut self) {
        // Three sorts of bad luck: all is lost, a prefix is kept, anything is kept.
        let sort = self.random.below(3);
        let changes = std::mem::take(&mut self.changes);
        let prefix = self.random.below(changes.len() as u64 + 1) as usize;
        for (place, change) in changes.iter().enumerate() {
            let kept = match sort {
                0 => false,
                1 => place < prefix,
                _ => self.random.chance(0.5),
            };
            if kept {
                apply(&mut self.durable_names, change);
            }
        }
        self.names = self.durable_names.clone();
        for file in self.files.values_mut() {
            file.lose_power(sort, &mut self.random);
        }
    }
}

impl FileContents {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put_at(&mut self.seen, offset, bytes);
        self.unsynced.push((offset, bytes.to_vec()));
    }

    /// What an earlier sync has failed to bring to the disk is not tried again.
    fn sync(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            put_at(&mut self.durable, offset, &bytes);
        }
    }

    fn lose_power(&mut self, sort: u64, random: &mut Random) {
        let writes = std::mem::take(&mut self.unsynced);
        let prefix = random.below(writes.len() as u64 + 1) as usize;
        for (place, (offset, bytes)) in writes.into_iter().enumerate() {
            match sort {
                0 => {}
                1 if place < prefix => put_at(&mut self.durable, offset, &bytes),
                // The first one that is lost is torn.
                1 if place == prefix => self.keep_sectors(offset, &bytes, random),
                1 => {}
                _ => self.keep_sectors(offset, &bytes, random),
            }
        }
        self.seen.clone_from(&self.durable);
    }

    /// Some sectors of a write reach the disk.
    fn keep_sectors(&mut self, offset: usize, bytes: &[u8], random: &mut Random) {
        let mut from = 0;
        while from < bytes.len() {
            let to = ((offset + from) / SECTOR * SECTOR + SECTOR - offset).min(bytes.len());
            if random.chance(0.5) {
                put_at(&mut self.durable, offset + from, &bytes[from..to]);
            }
            from = to;
        }
    }

    /// A sync fails: some sectors are on the disk, the others count as written and are not.
    fn fail_sync(&mut self, random: &mut Random) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            self.keep_sectors(offset, &bytes, random);
        }
    }
}

fn put_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Made(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Renamed(from, to) => {
            // What the name stood for may itself not have reached the disk.
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Removed(name) => {
            names.remove(name);
        }
    }
}

impl Medium for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn MediumFile>> {
        let contents = self.lock();
        let (file, life) = (contents.find(name)?, contents.life);
        drop(contents);
        Ok(Box::new(Handle { disk: self.clone(), file, life }))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn MediumFile>> {
        self.open(name)
    }

    fn open_synced(&self, name: &str) -> io::Result<Option<Box<dyn SyncedFile>>> {
        let contents = self.lock();
        if !contents.synced_writes {
            return Ok(None);
        }
        contents.alive(contents.life)?;
        let (file, life) = (contents.find(name)?, contents.life);
        drop(contents);
        let handle = Handle { disk: self.clone(), file, life };
        Ok(Some(Box::new(SyncedHandle { handle, blocks: Blocks::default() })))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn MediumFile>> {
        let mut contents = self.lock();
        let life = contents.life;
        let fate = contents.operation(life, true);
        if let Fate::Not(error) = fate {
            return Err(error);
        }
        let file = contents.next_file;
        contents.next_file += 1;
        contents.files.insert(file, FileContents::default());
        contents.change(Change::Made(name.to_owned(), file));
        drop(contents);
        match fate {
            Fate::Partly(error) => Err(error),
            _ => Ok(Box::new(Handle { disk: self.clone(), file, life })),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.name_change(Change::Renamed(from.to_owned(), to.to_owned()), from)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.name_change(Change::Removed(name.to_owned()), name)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut contents = self.lock();
        let life = contents.life;
        match contents.operation(life, false) {
            Fate::Done => {
                contents.durable_names = contents.names.clone();
                contents.changes.clear();
                Ok(())
            }
            Fate::Partly(error) | Fate::Not(error) => Err(error),
        }
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send>>> {
        if self.open(name).is_err() {
            self.put(name, &[]);
        }
        let mut contents = SimulatedDisk::lock(self);
        if std::mem::replace(&mut contents.locked, true) {
            return Ok(None);
        }
        let life = contents.life;
        drop(contents);
        Ok(Some(Box::new(Guard { disk: self.clone(), life })))
    }
}

impl SimulatedDisk {
    fn name_change(&self, change: Change, name: &str) -> io::Result<()> {
        let mut contents = self.lock();
        let life = contents.life;
        contents.find(name)?;
        match contents.operation(life, false) {
            Fate::Done => {
                contents.change(change);
                Ok(())
            }
            Fate::Partly(error) => {
                if contents.random.chance(0.5) {
                    contents.change(change);
                }
                Err(error)
            }
            Fate::Not(error) => Err(error),
        }
    }
}

/// A segment with right checksums around arbitrary records, for fuzzing: `data` is a list of kind (one
/// byte), length (one byte) and fields; kind 0 ends a batch.
#[doc(hidden)]
pub fn forge_log(identity: &Identity, data: &[u8]) -> Vec<u8> {
    let salt = Salt::log(identity, 1);
    let head = Head {
        identity: *identity,
        segment: 1,
        batch: 1,
        run: 1,
        ballot: Ballot::default(),
        snapshot: SnapshotRef { sum: Xxh3::new().digest(), ..SnapshotRef::default() },
        last: Position::default(),
    };
    let mut log = head.encode();
    let mut rest = data;
    for number in 1.. {
        let mut batch = Batch::begin(Vec::new(), salt, log.len() as u64);
        while let Some(([kind, length], after)) = rest.split_first_chunk::<2>() {
            let (fields, after) = after.split_at((*length as usize).min(after.len()));
            rest = after;
            if *kind == 0 {
                break;
            }
            batch.record(*kind, |out| out.extend_from_slice(fields));
        }
        if rest.len() < 2 {
            rest = &[];
        }
        log.extend(batch.finish(number, 1, HEAD_SIZE));
        if rest.is_empty() {
            break;
        }
    }
    log
}

/// A handle of a process.
struct Handle {
    disk: SimulatedDisk,
    file: u64,
    life: u64,
}

impl Handle {
    fn with<T>(
        &self,
        work: impl FnOnce(&mut FileContents, &mut Random) -> T,
        contents: &mut Contents,
    ) -> T {
        let file = contents.files.get_mut(&self.file).expect("a handle has its file");
        work(file, &mut contents.random)
    }
}

impl MediumFile for Handle {
    fn length(&self) -> io::Result<u64> {
        let contents = self.disk.lock();
        contents.alive(self.life)?;
        Ok(contents.files[&self.file].seen.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let contents = self.disk.lock();
        contents.alive(self.life)?;
        let seen = &contents.files[&self.file].seen;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
        let count = buffer.len().min(seen.len() - offset);
        buffer[..count].copy_from_slice(&seen[offset..offset + count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let contents = &mut *self.disk.lock();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let grows = contents.files[&self.file].seen.len() < offset + bytes.len();
        match contents.operation(self.life, grows) {
            Fate::Done => {
                self.with(|file, _| file.write(offset, bytes), contents);
                Ok(())
            }
            Fate::Partly(error) => {
                let some = |file: &mut FileContents, random: &mut Random| {
                    let count = random.below(bytes.len() as u64 + 1) as usize;
                    file.write(offset, &bytes[..count]);
                };
                self.with(some, contents);
                Err(error)
            }
            Fate::Not(error) => Err(error),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let contents = &mut *self.disk.lock();
        match contents.operation(self.life, false) {
            Fate::Done => {
                self.with(|file, _| file.sync(), contents);
                Ok(())
            }
            // A process that dies has asked for it all the same, and may find it done or not.
            Fate::Partly(error) => {
                if !contents.dead {
                    self.with(FileContents::fail_sync, contents);
                }
                Err(error)
            }
            Fate::Not(error) => Err(error),
        }
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        let contents = &mut *self.disk.lock();
        contents.alive(self.life)?;
        self.with(
            |file, _| {
                if file.unsynced.is_empty() {
                    file.seen.clone_from(&file.durable);
                }
            },
            contents,
        );
        Ok(())
    }
}

/// The same, for writes that are durable when they return.
struct SyncedHandle {
    handle: Handle,
    blocks: Blocks,
}

impl SyncedFile for SyncedHandle {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let handle = &self.handle;
        let read = |start, block: &mut [u8]| handle.read_at(start, block).map(drop);
        let (start, blocks) = self.blocks.around(offset, bytes, read)?;
        // Each block may get through without the one before it.
        for (place, block) in blocks.chunks(BLOCK).enumerate() {
            self.handle.write_at(start + (place * BLOCK) as u64, block)?;
        }
        self.handle.sync()
    }
}

/// Keeps others out until it is dropped.
struct Guard {
    disk: SimulatedDisk,
    life: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut contents = self.disk.lock();
        if contents.life == self.life {
            contents.locked = false;
        }
    }
}
