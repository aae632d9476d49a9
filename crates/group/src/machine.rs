//! What a replicated service is written as: a deterministic state machine.

use std::fmt;

use bytes::Bytes;
use stubborn_core::service::{Answer, Call, Encoded, ServiceDescriptor};
use stubborn_core::time::Instant;

/// A state machine behind a service: every replica of a group has one, and applies the same calls in
/// the same order. Generated code implements it over the user's own trait.
///
/// # Determinism
/// What [`apply`](Self::apply) does and answers follows from the state, the call and `at` alone: no
/// clock, no randomness, no I/O, no address of memory, no iteration of unordered maps. Replicas that
/// break this drift apart, and nothing brings them together again.
pub trait Machine: Send + 'static {
    /// The service's name, methods and files.
    fn descriptor(&self) -> &'static ServiceDescriptor;

    /// Runs a command: a call of the method at this index of the descriptor, once. The answer is
    /// kept with the state that the call leaves. The clock of the call's context stands at the
    /// log's time.
    ///
    /// # Panics
    /// A panic stops the replica, and every other one that comes to the same entry.
    fn apply(&mut self, at: Applied, method: usize, request: Call<Encoded>) -> Answer;

    /// Answers a query: a call of a method without side effects. `at` is the last entry that was
    /// applied.
    fn query(&self, at: Applied, method: usize, request: Call<Encoded>) -> Answer;

    /// Writes the whole state. Machines with the same state write the same bytes.
    fn snapshot(&self, out: &mut SnapshotWriter);

    /// Takes the state of a snapshot in the place of its own.
    ///
    /// # Errors
    /// If the bytes are no snapshot of such a machine. The machine is not used any more then.
    fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), Unsound>;
}

impl<M: Machine + ?Sized> Machine for Box<M> {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        (**self).descriptor()
    }

    fn apply(&mut self, at: Applied, method: usize, request: Call<Encoded>) -> Answer {
        (**self).apply(at, method, request)
    }

    fn query(&self, at: Applied, method: usize, request: Call<Encoded>) -> Answer {
        (**self).query(at, method, request)
    }

    fn snapshot(&self, out: &mut SnapshotWriter) {
        (**self).snapshot(out);
    }

    fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), Unsound> {
        (**self).restore(from)
    }
}

/// Where in the log a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The entry that is being applied; for a query the last one that was. It never comes twice, so
    /// it serves as a revision.
    pub index: u64,
    /// The log's time: the same on every replica, never goes back, and stands still while the group
    /// has no leader. It is no time of day.
    pub now: Instant,
}

/// Bytes that are no snapshot of the machine that was to take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsound(pub String);

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot is unsound: {}", self.0)
    }
}

impl std::error::Error for Unsound {}

/// Takes the bytes of a snapshot, piece by piece.
#[derive(Clone, Debug, Default)]
pub struct SnapshotWriter {
    written: Vec<u8>,
}

impl SnapshotWriter {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes these bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }

    /// Writes a number, in eight bytes.
    pub fn number(&mut self, number: u64) {
        self.raw(&number.to_be_bytes());
    }

    /// Writes bytes with their length before them.
    pub fn sized(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    /// All that was written.
    pub fn finish(self) -> Bytes {
        self.written.into()
    }
}

/// Gives the bytes of a snapshot, piece by piece.
#[derive(Clone, Debug)]
pub struct SnapshotReader {
    rest: Bytes,
}

impl SnapshotReader {
    /// Reads from these bytes.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// The next so many bytes.
    ///
    /// # Errors
    /// If there are not as many.
    pub fn raw(&mut self, length: usize) -> Result<Bytes, Unsound> {
        if length > self.rest.len() {
            return Err(Unsound(format!("{length} bytes of {} are wanted", self.rest.len())));
        }
        Ok(self.rest.split_to(length))
    }

    /// A number.
    ///
    /// # Errors
    /// If there is none.
    pub fn number(&mut self) -> Result<u64, Unsound> {
        let mut number = [0; 8];
        number.copy_from_slice(&self.raw(8)?);
        Ok(u64::from_be_bytes(number))
    }

    /// Bytes with their length before them.
    ///
    /// # Errors
    /// If they are not all there.
    pub fn sized(&mut self) -> Result<Bytes, Unsound> {
        let length = self.number()?;
        self.raw(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// All that is left.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Makes sure that nothing is left.
    ///
    /// # Errors
    /// If something is.
    pub fn end(&self) -> Result<(), Unsound> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(Unsound(format!("{left} bytes are left over"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_missing_or_left_over_is_told() {
        let mut out = SnapshotWriter::new();
        out.number(70_000);
        out.sized(b"abc");
        out.raw(b"xyz");
        let mut from = SnapshotReader::new(out.finish());
        assert_eq!(from.number(), Ok(70_000));
        assert_eq!(from.sized().as_deref(), Ok(&b"abc"[..]));
        assert!(from.end().is_err() && !from.is_empty());
        assert!(from.raw(4).is_err());
        assert_eq!(from.rest(), &b"xyz"[..]);
        assert!(from.end().is_ok() && from.number().is_err());
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        let mut from = SnapshotReader::new(Bytes::from_static(&[0xff; 9]));
        assert!(from.sized().is_err());
    }
}
