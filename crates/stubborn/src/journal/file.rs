//! The file of a journal: locked, private, synced, and written anew when most of it is settled.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::batch::{self, HEAD};
use super::book::Book;
use super::error::{JournalError, JournalErrorKind};
use super::record::Record;

/// A file below this size is not written anew.
const SMALL: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// Its size after it was last written anew.
    compact: u64,
    /// Held by this process alone.
    _lock: File,
}

impl JournalFile {
    /// Opens a journal, or begins one.
    ///
    /// # Errors
    /// If the file cannot be used, or another process uses it.
    pub(super) fn open(path: &Path) -> Result<(Self, Book), JournalError> {
        let error = |kind| JournalError::new(path, kind);
        let io_error = |e| error(JournalErrorKind::Io(e));
        let lock = private(&beside(path, "lock"), false).map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(error(JournalErrorKind::InUse)),
            Err(TryLockError::Error(e)) => return Err(io_error(e)),
        }
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes).map_err(io_error)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error(e)),
        }
        if !bytes.is_empty() && !bytes.starts_with(HEAD) {
            return Err(error(JournalErrorKind::NotAJournal));
        }
        let found = if bytes.is_empty() {
            Vec::new()
        } else {
            let damaged = |damage: batch::Damage| {
                let (offset, why) = (damage.offset as u64, damage.why);
                error(JournalErrorKind::Damaged { offset, why })
            };
            batch::decode_all(&bytes).map_err(damaged)?
        };
        let mut holder = [0; 8];
        getrandom::fill(&mut holder).map_err(|e| io_error(io::Error::other(e)))?;
        let mut book = Book::of(found);
        book.begin(u64::from_be_bytes(holder));
        // Written anew, so that what a crash tore is gone for good.
        let (file, length) = write_anew(path, &book).map_err(io_error)?;
        let path = path.to_owned();
        Ok((Self { path, file, length, compact: length, _lock: lock }, book))
    }

    /// Writes records, durably. After an error nothing more may be written.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let batch = batch::encode(self.length, records);
        self.file.write_all(&batch)?;
        self.file.sync_data()?;
        self.length += batch.len() as u64;
        Ok(())
    }

    /// Writes the file anew if most of it is settled.
    pub(super) fn compact(&mut self, book: &Book) -> io::Result<()> {
        if self.length > SMALL.max(4 * self.compact) {
            (self.file, self.length) = write_anew(&self.path, book)?;
            self.compact = self.length;
        }
        Ok(())
    }
}

/// Writes a whole journal beside the one that is there, then puts it in its place.
fn write_anew(path: &Path, book: &Book) -> io::Result<(File, u64)> {
    let new = beside(path, "new");
    let mut file = private(&new, true)?;
    let mut bytes = HEAD.to_vec();
    bytes.extend(batch::encode(HEAD.len() as u64, &book.records()));
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)?;
    Ok((file, bytes.len() as u64))
}

fn private(path: &Path, empty: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(empty);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file; its file system keeps names by itself.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
