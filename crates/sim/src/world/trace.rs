//! What happened, as a hash that two runs of one seed share, and as lines for people.

use std::fmt;
use std::io::{self, Write};

use stubborn_core::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A run's trace.
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    out: Option<Box<dyn Write + Send>>,
    failed: Option<io::Error>,
}

impl Trace {
    pub(crate) fn new(out: Option<Box<dyn Write + Send>>) -> Self {
        Self { hash: 0, events: 0, out, failed: None }
    }

    /// Adds an event: everything that tells it from another goes into `words` and `bytes`. `line`
    /// is only asked for when lines are written.
    pub(crate) fn event(
        &mut self,
        at: Instant,
        words: [u64; 3],
        bytes: &[u8],
        line: impl FnOnce() -> String,
    ) {
        let mut head = [0; 32];
        for (part, word) in head.chunks_exact_mut(8).zip([at.as_nanos()].iter().chain(&words)) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        self.hash = xxh3_64_with_seed(&head, self.hash);
        if !bytes.is_empty() {
            self.hash = xxh3_64_with_seed(bytes, self.hash);
        }
        self.events += 1;
        if let Some(out) = &mut self.out
            && let Err(error) = writeln!(out, "{} {}", Stamp(at), line())
        {
            self.failed.get_or_insert(error);
        }
    }

    /// The hash of everything so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// If any line could not be written.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(out) = &mut self.out {
            out.flush()?;
        }
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// A time as seconds since the world began.
pub(crate) struct Stamp(pub(crate) Instant);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{:>4}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
    }
}
