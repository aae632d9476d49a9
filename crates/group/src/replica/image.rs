//! The replicated state as a stream of records, and the way back: a state is written while the
//! replica goes on, and restored beside the one that it has, with no more than a piece in memory.
//!
//! ```text
//! state     version 1 | records
//! record    kind 1 | length 8 | bytes
//! ```
//! The records: the head; the sessions in pieces; the ids of calls in pieces, if the group keeps any, which
//! earlier programs could not read; for each machine its name and its pieces, of which
//! the last one says so; the end.

use std::iter::once;
use std::sync::Arc;

use bytes::Bytes;
use stubborn_core::service::{Image, Pieces, RestoreError};

/// Earlier forms were one piece.
const VERSION: u8 = 3;

const HEAD: u8 = 1;
const SESSIONS: u8 = 2;
const MACHINE: u8 = 3;
const PIECE: u8 = 4;
const LAST_PIECE: u8 = 5;
const END: u8 = 6;
const IDS: u8 = 7;

/// Bytes of a record before its own.
const FRONT: usize = 9;

/// A record of a state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// What is small.
    Head(&'a [u8]),
    /// A piece of the sessions.
    Sessions(&'a [u8]),
    /// A piece of the ids of calls.
    Ids(&'a [u8]),
    /// The pieces of this machine follow.
    Machine(&'a [u8]),
    /// One of them.
    Piece(&'a [u8]),
    /// The last one of them.
    LastPiece(&'a [u8]),
    /// The state is complete.
    End,
}

/// The state that has these parts.
pub(super) fn image(
    head: Vec<u8>,
    sessions: Image,
    ids: Option<Image>,
    machines: Vec<(&'static str, Image)>,
) -> Image {
    let (head, machines) = (Bytes::from(head), Arc::<[(&str, Image)]>::from(machines));
    Image::read_by(move || {
        let begin = once(Ok(Bytes::from_static(&[VERSION]))).chain(record(HEAD, Ok(head.clone())));
        let sessions = sessions.pieces().flat_map(|piece| record(SESSIONS, piece));
        let ids = ids.clone().into_iter().flat_map(|ids| ids.pieces());
        let ids = ids.flat_map(|piece| record(IDS, piece));
        let machines = Arc::clone(&machines);
        let machines = (0..machines.len()).flat_map(move |at| {
            let (name, image) = &machines[at];
            let name = Bytes::from_static(name.as_bytes());
            record(MACHINE, Ok(name)).chain(pieces_of_machine(image.pieces()))
        });
        Box::new(
            begin.chain(sessions).chain(ids).chain(machines).chain(record(END, Ok(Bytes::new()))),
        )
    })
}

/// A machine without pieces has an empty one.
fn pieces_of_machine(pieces: Pieces) -> impl Iterator<Item = Result<Bytes, RestoreError>> + Send {
    let mut pieces = pieces.peekable();
    let mut next = Some(pieces.next().unwrap_or_else(|| Ok(Bytes::new())));
    let records = std::iter::from_fn(move || {
        let piece = next.take()?;
        next = pieces.next();
        Some(record(if next.is_some() { PIECE } else { LAST_PIECE }, piece))
    });
    records.flatten()
}

fn record(
    kind: u8,
    bytes: Result<Bytes, RestoreError>,
) -> impl Iterator<Item = Result<Bytes, RestoreError>> + Send {
    let front = bytes.as_ref().map(|bytes| {
        let mut front = vec![kind];
        front.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        front.into()
    });
    let front = front.map_err(Clone::clone);
    once(front).chain(once(bytes))
}

/// Cuts a stream into records, however it comes.
#[derive(Debug, Default)]
pub(super) struct Records {
    has_version: bool,
    /// The front of a record, and as many of its bytes as there are.
    begun: Vec<u8>,
}

impl Records {
    /// Takes the next bytes of the stream; `each` gets every record that they complete.
    pub(super) fn take<E: From<RestoreError>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some((version, rest)) = bytes.split_first().filter(|_| !self.has_version) {
            if *version != VERSION {
                return Err(RestoreError::new("it was written by another version").into());
            }
            (self.has_version, bytes) = (true, rest);
        }
        loop {
            let whole = self.fill(&mut bytes, FRONT) && {
                let length = length_of(&self.begun)?;
                self.fill(&mut bytes, FRONT.saturating_add(length))
            };
            if !whole {
                return Ok(());
            }
            each(read(self.begun[0], &self.begun[FRONT..])?)?;
            self.begun.clear();
            // A large one does not keep its memory.
            self.begun.shrink_to(1 << 20);
        }
    }

    /// Whether a record was begun and did not end.
    pub(super) fn is_torn(&self) -> bool {
        !self.begun.is_empty()
    }

    fn fill(&mut self, bytes: &mut &[u8], size: usize) -> bool {
        let missing = size.saturating_sub(self.begun.len());
        let (now, later) = bytes.split_at(missing.min(bytes.len()));
        self.begun.extend_from_slice(now);
        *bytes = later;
        now.len() == missing
    }
}

fn length_of(front: &[u8]) -> Result<usize, RestoreError> {
    let length = front[1..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    usize::try_from(length).map_err(|_| RestoreError::new("a record is too long"))
}

fn read(kind: u8, bytes: &[u8]) -> Result<Record<'_>, RestoreError> {
    Ok(match kind {
        HEAD => Record::Head(bytes),
        SESSIONS => Record::Sessions(bytes),
        IDS => Record::Ids(bytes),
        MACHINE => Record::Machine(bytes),
        PIECE => Record::Piece(bytes),
        LAST_PIECE => Record::LastPiece(bytes),
        END if bytes.is_empty() => Record::End,
        _ => return Err(RestoreError::new("it has a record that is none")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&'static str]) -> Image {
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| (*piece).into()).collect();
        Image::in_pieces(pieces.into_iter())
    }

    fn state() -> Bytes {
        let machines = vec![("a.One", cut(&["x", "yz"])), ("a.Two", Image::default())];
        let ids = Some(cut(&["i1"]));
        image(b"head".to_vec(), cut(&["s1", "s2"]), ids, machines).to_bytes().unwrap()
    }

    fn records(chunks: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<String>, RestoreError> {
        let (mut reader, mut seen) = (Records::default(), Vec::new());
        for chunk in chunks {
            reader.take(chunk, |record| {
                seen.push(match record {
                    Record::Head(bytes) => format!("head {}", text(bytes)),
                    Record::Sessions(bytes) => format!("sessions {}", text(bytes)),
                    Record::Ids(bytes) => format!("ids {}", text(bytes)),
                    Record::Machine(bytes) => format!("machine {}", text(bytes)),
                    Record::Piece(bytes) => format!("piece {}", text(bytes)),
                    Record::LastPiece(bytes) => format!("last {}", text(bytes)),
                    Record::End => "end".into(),
                });
                Ok::<_, RestoreError>(())
            })?;
        }
        assert!(!reader.is_torn() || seen.last().is_none_or(|last| last != "end"));
        Ok(seen)
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn records_come_back_as_they_were_however_the_stream_is_cut() {
        let state = state();
        let whole = records(&mut once(&state[..])).unwrap();
        let expected = [
            "head head",
            "sessions s1",
            "sessions s2",
            "ids i1",
            "machine a.One",
            "piece x",
            "last yz",
            "machine a.Two",
            "last ",
            "end",
        ];
        assert_eq!(whole, expected);
        for size in 1..state.len() {
            assert_eq!(records(&mut state.chunks(size)).unwrap(), whole, "{size}");
        }
    }

    #[test]
    fn what_is_none_of_a_state_is_refused_and_a_claimed_length_takes_no_memory() {
        let mut other = state().to_vec();
        other[0] = 2;
        assert!(records(&mut once(&other[..])).is_err());
        let mut unknown = state().to_vec();
        unknown[1] = 99;
        assert!(records(&mut once(&unknown[..])).is_err());
        let mut long = vec![VERSION, PIECE];
        long.extend_from_slice(&[0xff; 8]);
        long.push(7);
        let mut reader = Records::default();
        let taken = reader.take(&long, |_| Ok::<_, RestoreError>(()));
        assert!(taken.is_ok() && reader.is_torn() && reader.begun.capacity() < 100);
    }

    #[test]
    fn an_image_that_cannot_be_read_breaks_the_stream() {
        let broken = Image::read_by(|| Box::new(once(Err(RestoreError::new("torn")))));
        let state = image(Vec::new(), Image::default(), None, vec![("a.One", broken)]);
        assert!(state.to_bytes().is_err());
    }
}
