//! The seam to files: the same store runs on a folder of the operating system and on a simulated
//! disk that loses, tears and damages what is written.

use std::any::Any;
use std::io;

/// A folder. What is written or renamed is there for good only once it is synced.
pub trait Medium: Send + Sync {
    /// The names of its files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file to read and write it.
    fn open(&self, name: &str) -> io::Result<Box<dyn MediumFile>>;

    /// Opens a file only to read it.
    fn open_to_read(&self, name: &str) -> io::Result<Box<dyn MediumFile>>;

    /// Opens a file, whose content is synced, for writes that are durable when they return; none where
    /// that is not cheaper than to write and sync.
    fn open_synced(&self, _name: &str) -> io::Result<Option<Box<dyn SyncedFile>>> {
        Ok(None)
    }

    /// Makes an empty file in the place of whatever has the name.
    fn create(&self, name: &str) -> io::Result<Box<dyn MediumFile>>;

    /// Gives a file another name, in the place of whatever has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: what was made, renamed and removed.
    fn sync_names(&self) -> io::Result<()>;

    /// Keeps other processes out for as long as the guard lives; none if one is in.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send>>>;
}

/// An open file.
pub trait MediumFile: Send {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads as many bytes as there are, at most those that fit; none at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes; the file grows as needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Lets the next read come from the disk. After a failed sync an operating system may go on to
    /// show what never reached the disk; a process that starts then must not believe it.
    fn forget_cached(&mut self) -> io::Result<()>;
}

/// An open file whose writes are durable when they return.
pub trait SyncedFile: Send {
    /// Writes all bytes. What follows them, to the end of their block, has no meaning afterwards.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// Reads `buffer` full, or as far as the file goes.
pub(crate) fn read_full(
    file: &dyn MediumFile,
    offset: u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(offset + done as u64, &mut buffer[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A file that is written or read from front to back.
pub(crate) struct Stream {
    pub(crate) file: Box<dyn MediumFile>,
    pub(crate) offset: u64,
}

impl Stream {
    pub(crate) fn new(file: Box<dyn MediumFile>) -> Self {
        Self { file, offset: 0 }
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}
