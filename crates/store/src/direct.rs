//! Writes past the operating system's cache that are durable when they return (`O_DIRECT | O_DSYNC`).
//!
//! They go in whole blocks. The block in which the log ends is written again with what follows; what
//! it held before does not change by that, whichever of its sectors get through.

use std::io;

use crate::medium::SyncedFile;

/// Disks and file systems take blocks of this size, at such places in file and memory.
pub(crate) const BLOCK: usize = 4_096;

/// What is written in whole blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Where the last write ended, and what its last block holds up to there.
    end: u64,
    last: Vec<u8>,
    /// Memory of the last write.
    buffer: Vec<u8>,
}

impl Blocks {
    /// The blocks that bring `bytes` to `offset`, zeros behind them, and where they go. `read` reads
    /// the block at a place, as far as the file goes.
    pub(crate) fn around(
        &mut self,
        offset: u64,
        bytes: &[u8],
        read: impl FnOnce(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<(u64, &[u8])> {
        let before = (offset % BLOCK as u64) as usize;
        let start = offset - before as u64;
        let size = (before + bytes.len()).next_multiple_of(BLOCK);
        self.buffer.clear();
        self.buffer.resize(size + BLOCK, 0);
        let aligned = self.buffer.as_ptr().align_offset(BLOCK);
        let blocks = &mut self.buffer[aligned..aligned + size];
        if self.end == offset && self.last.len() == before {
            blocks[..before].copy_from_slice(&self.last);
        } else if before > 0 {
            read(start, &mut blocks[..BLOCK])?;
        }
        let used = before + bytes.len();
        blocks[before..used].copy_from_slice(bytes);
        // A block that was read may hold more.
        blocks[used..].fill(0);
        self.end = offset + bytes.len() as u64;
        self.last.clear();
        self.last.extend_from_slice(&blocks[used - used % BLOCK..used]);
        Ok((start, blocks))
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::open;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::path::Path;

    use rustix::fs::OFlags;

    use super::*;

    struct Direct {
        file: File,
        blocks: Blocks,
    }

    /// Opens a file that has at least a block. None where its file system cannot do it.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Box<dyn SyncedFile>>> {
        let flags = OFlags::DIRECT | OFlags::DSYNC;
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags.bits().cast_signed());
        let Ok(file) = options.open(path) else { return Ok(None) };
        // Some say so only when it is done: the first block is written as it is.
        let (mut first, mut blocks) = (vec![0; 2 * BLOCK], Blocks::default());
        let aligned = first.as_ptr().align_offset(BLOCK);
        let first = &mut first[aligned..aligned + BLOCK];
        if file.read_at(first, 0).ok() != Some(BLOCK) {
            return Ok(None);
        }
        let (_, first) = blocks.around(0, first, |_, _| Ok(()))?;
        if file.write_at(first, 0).ok() != Some(BLOCK) {
            return Ok(None);
        }
        Ok(Some(Box::new(Direct { file, blocks })))
    }

    impl SyncedFile for Direct {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let file = &self.file;
            let read = |start, block: &mut [u8]| {
                let mut done = 0;
                while done < block.len() {
                    match file.read_at(&mut block[done..], start + done as u64) {
                        Ok(0) => break,
                        Ok(count) => done += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            };
            let (start, blocks) = self.blocks.around(offset, bytes, read)?;
            file.write_all_at(blocks, start)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_what_was_before_and_zeros_behind() {
        let mut file = vec![0xee_u8; 5 * BLOCK];
        let mut expected = file.clone();
        let mut blocks = Blocks::default();
        let mut offset = 100;
        for size in [1, 50, 4_000, 4_096, 3, 8_000] {
            let bytes = vec![size as u8; size];
            let seen = file.clone();
            let read = |start: u64, block: &mut [u8]| {
                block.copy_from_slice(&seen[start as usize..start as usize + BLOCK]);
                Ok(())
            };
            let (start, written) = blocks.around(offset, &bytes, read).unwrap();
            assert_eq!((start % BLOCK as u64, written.len() % BLOCK), (0, 0));
            assert_eq!(written.as_ptr().align_offset(BLOCK), 0);
            let start = start as usize;
            file[start..start + written.len()].copy_from_slice(written);
            expected[offset as usize..][..size].copy_from_slice(&bytes);
            offset += size as u64;
            assert_eq!(file[..offset as usize], expected[..offset as usize]);
            let behind = (offset as usize).next_multiple_of(BLOCK);
            assert!(file[offset as usize..behind].iter().all(|byte| *byte == 0));
        }
    }
}
