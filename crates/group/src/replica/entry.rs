//! What entries of a group's log say, as bytes.
//!
//! A record is a version (one byte), the log's time in nanoseconds, the number of items and the
//! items: life (8 bytes), serial number, kind (one byte), and the item's own bytes behind their
//! length. Numbers are variable-length integers. An entry that is no record changes nothing, on
//! every replica alike.

use bytes::Bytes;
use stubborn_core::session::SessionId;
use stubborn_core::time::Instant;
use stubborn_core::wire::{Reader, varint};

/// The version of records, and of what replicas forward.
const VERSION: u8 = 1;

/// What an item has beside its own bytes, at most.
pub(super) const ITEM_OVERHEAD: usize = 8 + 8 + 1 + 4;

/// What an entry says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The time of the log, as its leader's clock had it.
    pub(super) time: Instant,
    /// What is done then, in order.
    pub(super) items: Vec<Item>,
}

/// Something that a replica wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) origin: Origin,
    pub(super) what: What,
}

/// Who wants it: one life of a replica, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    /// Drawn when the replica starts, so that nothing is taken for what its process before wanted.
    pub(super) life: u64,
    pub(super) serial: u64,
}

/// What a replica wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A client's message that changes sessions.
    Command(Bytes),
    /// The clients of sessions are there still.
    Renewal(Bytes),
    /// The group begins with this table of sessions.
    Founding(Bytes),
    /// What came before was the log of another group, which was restored from a backup: the group
    /// with this number (8 bytes) begins here.
    Refounding(Bytes),
    /// The group begins with these members.
    Roster(Bytes),
    /// These versions of the machines' commands are active, 4 bytes each.
    Activate(Bytes),
    /// A node has begun with a folder, 8 bytes each.
    Folder(Bytes),
}

/// The entry that ends a log that was restored from a backup of another group.
pub fn refounding(group: u64) -> Bytes {
    let what = What::Refounding(Bytes::copy_from_slice(&group.to_be_bytes()));
    let origin = Origin { life: 0, serial: 0 };
    Record { time: Instant::ZERO, items: vec![Item { origin, what }] }.encode()
}

impl What {
    pub(super) fn bytes(&self) -> &Bytes {
        match self {
            Self::Command(bytes)
            | Self::Renewal(bytes)
            | Self::Founding(bytes)
            | Self::Refounding(bytes)
            | Self::Roster(bytes)
            | Self::Activate(bytes)
            | Self::Folder(bytes) => bytes,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Command(_) => 1,
            Self::Renewal(_) => 2,
            Self::Founding(_) => 3,
            Self::Refounding(_) => 4,
            Self::Roster(_) => 5,
            Self::Activate(_) => 6,
            Self::Folder(_) => 7,
        }
    }
}

impl Record {
    pub(super) fn encode(&self) -> Bytes {
        let size: usize =
            self.items.iter().map(|item| item.what.bytes().len() + ITEM_OVERHEAD).sum();
        let mut out = Vec::with_capacity(size + 16);
        out.push(VERSION);
        let time = self.time.since(Instant::ZERO).as_nanos();
        varint::encode(u64::try_from(time).unwrap_or(u64::MAX).min(varint::MAX), &mut out);
        encode_items(&self.items, &mut out);
        out.into()
    }

    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let time = Instant::from_nanos(reader.varint().ok()?);
        let items = decode_items(&mut reader, bytes)?;
        reader.is_empty().then_some(Self { time, items })
    }
}

/// The bytes of a renewal: incarnation and number of each session, 8 bytes each.
pub(super) fn encode_sessions(sessions: &[SessionId]) -> Bytes {
    let numbers = sessions.iter().flat_map(|session| [session.incarnation, session.number]);
    numbers.flat_map(u64::to_be_bytes).collect()
}

/// The sessions of a renewal; of bytes that are none as many as there are.
pub(super) fn decode_sessions(bytes: &[u8]) -> Vec<SessionId> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let sessions = bytes.chunks_exact(16);
    let session = |of: &[u8]| SessionId { incarnation: number(&of[..8]), number: number(&of[8..]) };
    sessions.map(session).collect()
}

pub(super) fn encode_items(items: &[Item], out: &mut Vec<u8>) {
    varint::encode(items.len() as u64, out);
    for Item { origin, what } in items {
        out.extend_from_slice(&origin.life.to_be_bytes());
        varint::encode(origin.serial, out);
        out.push(what.kind());
        varint::encode(what.bytes().len() as u64, out);
        out.extend_from_slice(what.bytes());
    }
}

pub(super) fn decode_items(reader: &mut Reader<'_>, bytes: &Bytes) -> Option<Vec<Item>> {
    let count = usize::try_from(reader.varint().ok()?).ok()?;
    // Each item takes more than ten bytes, so what is reserved is bounded by what came.
    let mut items = Vec::with_capacity(count.min(reader.remaining() / 10 + 1));
    for _ in 0..count {
        let life = u64::from_be_bytes(reader.array().ok()?);
        let origin = Origin { life, serial: reader.varint().ok()? };
        let kind = reader.u8().ok()?;
        let data = bytes.slice_ref(reader.length_prefixed().ok()?);
        let what = match kind {
            1 => What::Command(data),
            2 => What::Renewal(data),
            3 => What::Founding(data),
            4 => What::Refounding(data),
            5 => What::Roster(data),
            6 => What::Activate(data),
            7 => What::Folder(data),
            _ => return None,
        };
        items.push(Item { origin, what });
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item() -> impl Strategy<Value = Item> {
        (any::<u64>(), 0..varint::MAX, any::<bool>(), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(life, serial, command, bytes)| {
                let what = if command { What::Command } else { What::Renewal };
                Item { origin: Origin { life, serial }, what: what(bytes.into()) }
            })
    }

    #[test]
    fn the_sessions_of_a_renewal_survive_the_log() {
        let session = |number| SessionId { incarnation: u64::MAX - 1, number };
        let sessions = [session(1), session(u64::MAX)];
        assert_eq!(decode_sessions(&encode_sessions(&sessions)), sessions);
        assert_eq!(decode_sessions(&[1; 17]).len(), 1);
    }

    proptest! {
        #[test]
        fn records_survive_the_log(time in 0..varint::MAX, items in prop::collection::vec(item(), 0..9)) {
            let record = Record { time: Instant::from_nanos(time), items };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes.into());
        }
    }
}
