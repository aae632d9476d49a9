//! Messages that lie in several packets, put together as far as they are shown.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::wire::Side;
use stubborn_core::wire::frame::Message;

/// Bytes of a message that are kept and shown: what Wireshark takes in one record is 256 KiB.
pub(super) const SHOWN: usize = 128 << 10;

/// Bytes that are held of all messages that are not whole, and of what is known of those that were: the
/// oldest one goes first.
const HELD: usize = 32 << 20;

/// What a message and a range of its bytes take beside those that are shown.
const BESIDE: usize = 128;

/// A message whose last missing byte was in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeMessage {
    /// Its number among those of its sender.
    pub id: u64,
    /// Frames that it came in, copies included.
    pub parts: u32,
    /// Bytes that it has.
    pub length: u64,
    /// Its bytes, up to the first 128 KiB.
    pub bytes: Bytes,
}

/// A connection, who sends, and which of that side's messages.
type Key = (usize, bool, u64);

/// The messages of all connections that are not whole yet.
#[derive(Debug)]
pub(super) struct Messages {
    open: BTreeMap<Key, Assembly>,
    by_age: BTreeMap<u64, Key>,
    begun: u64,
    held: usize,
    most: usize,
}

#[derive(Debug)]
struct Assembly {
    age: u64,
    bytes: Vec<u8>,
    /// What is here: from where to where, none of them next to each other.
    ranges: BTreeMap<u64, u64>,
    length: Option<u64>,
    parts: u32,
    /// It was whole, and copies of its frames are nothing new.
    told: bool,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self { open: BTreeMap::new(), by_age: BTreeMap::new(), begun: 0, held: 0, most: HELD }
    }

    /// A frame of a message; returns the message if it was in several and this one completes it.
    pub(super) fn take(
        &mut self,
        connection: usize,
        sender: Side,
        frame: &Message<'_>,
    ) -> Option<WholeMessage> {
        if frame.offset == 0 && frame.end {
            return None;
        }
        let key = (connection, sender.is_client(), frame.id);
        let assembly = self.open.entry(key).or_insert_with(|| {
            self.begun += 1;
            self.by_age.insert(self.begun, key);
            self.held += BESIDE;
            Assembly::new(self.begun)
        });
        let before = assembly.cost();
        let whole = assembly.take(frame);
        self.held = self.held + assembly.cost() - before;
        while self.held > self.most {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.forget(oldest);
        }
        whole
    }

    /// Its sender has given a message up.
    pub(super) fn reset(&mut self, connection: usize, sender: Side, id: u64) {
        self.forget((connection, sender.is_client(), id));
    }

    fn forget(&mut self, key: Key) {
        if let Some(assembly) = self.open.remove(&key) {
            self.by_age.remove(&assembly.age);
            self.held -= BESIDE + assembly.cost();
        }
    }
}

impl Assembly {
    fn new(age: u64) -> Self {
        let (bytes, ranges) = (Vec::new(), BTreeMap::new());
        Self { age, bytes, ranges, length: None, parts: 0, told: false }
    }

    fn cost(&self) -> usize {
        self.bytes.len() + self.ranges.len() * BESIDE
    }

    fn take(&mut self, frame: &Message<'_>) -> Option<WholeMessage> {
        if self.told {
            return None;
        }
        let from = frame.offset;
        let to = from.checked_add(frame.data.len() as u64)?;
        self.parts = self.parts.saturating_add(1);
        if frame.end {
            self.length = Some(to);
        }
        self.keep(from, frame.data);
        self.join(from, to);
        let length = self.length?;
        if length > 0 && self.ranges.get(&0).is_none_or(|end| *end < length) {
            return None;
        }
        self.told = true;
        self.ranges.clear();
        let bytes = std::mem::take(&mut self.bytes).into();
        Some(WholeMessage { id: frame.id, parts: self.parts, length, bytes })
    }

    /// Keeps what will be shown.
    fn keep(&mut self, from: u64, data: &[u8]) {
        let Some(from) = usize::try_from(from).ok().filter(|from| *from < SHOWN) else { return };
        let data = &data[..data.len().min(SHOWN - from)];
        if self.bytes.len() < from + data.len() {
            self.bytes.resize(from + data.len(), 0);
        }
        self.bytes[from..from + data.len()].copy_from_slice(data);
    }

    /// Notes that these bytes are here, together with what they touch.
    fn join(&mut self, mut from: u64, mut to: u64) {
        while let Some((&start, &end)) = self.ranges.range(..=to).next_back() {
            if end < from {
                break;
            }
            self.ranges.remove(&start);
            (from, to) = (from.min(start), to.max(end));
        }
        self.ranges.insert(from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: u64, offset: u64, data: &[u8], end: bool) -> Message<'_> {
        Message { id, offset, data, end }
    }

    #[test]
    fn a_message_is_told_once_with_its_last_missing_byte() {
        let mut messages = Messages::new();
        let mut take =
            |offset, data: &[u8], end| messages.take(0, Side::Client, &frame(7, offset, data, end));
        assert_eq!(take(4, b"ef", true), None);
        assert_eq!(take(0, b"ab", false), None);
        assert_eq!(take(0, b"abc", false), None, "a copy of a part that was cut otherwise");
        let whole = take(3, b"d", false).unwrap();
        let bytes = Bytes::from_static(b"abcdef");
        assert_eq!(whole, WholeMessage { id: 7, parts: 4, length: 6, bytes });
        assert_eq!(take(0, b"abcdef", false), None);
        assert_eq!(take(4, b"ef", true), None, "copies are nothing new");
    }

    #[test]
    fn messages_of_both_sides_and_of_other_connections_are_others() {
        let mut messages = Messages::new();
        let (begin, end) = (frame(1, 0, b"a", false), frame(1, 1, b"b", true));
        assert_eq!(messages.take(0, Side::Client, &begin), None);
        assert_eq!(messages.take(0, Side::Server, &end), None);
        assert_eq!(messages.take(1, Side::Client, &end), None);
        assert!(messages.take(0, Side::Client, &end).is_some());
        messages.reset(0, Side::Server, 1);
        messages.reset(0, Side::Server, 1);
        assert_eq!(messages.take(0, Side::Server, &begin), None);
    }

    #[test]
    fn of_a_long_message_the_beginning_is_shown_and_the_length_told() {
        let mut messages = Messages::new();
        let piece = vec![5; SHOWN / 2 + 1];
        let mut whole = None;
        for at in 0..8 {
            let offset = at * piece.len() as u64;
            whole = messages.take(0, Side::Client, &frame(1, offset, &piece, at == 7));
        }
        let whole = whole.unwrap();
        assert_eq!((whole.length, whole.bytes.len()), (8 * piece.len() as u64, SHOWN));
    }

    #[test]
    fn frames_that_say_anything_hold_no_more_than_the_bound() {
        let mut messages = Messages::new();
        messages.most = 1 << 20;
        let data = [0; 900];
        for n in 0..3_000_u64 {
            let offset = (n * 7_919) % 200_000 * u64::from(n % 3 != 0);
            let data = &data[..(n % 900) as usize];
            messages.take(0, Side::Client, &frame(n % 100, offset, data, n % 97 == 0));
            assert!(messages.held <= messages.most);
        }
        messages.take(0, Side::Client, &frame(1, u64::MAX, &data, true));
        for key in messages.open.keys().copied().collect::<Vec<_>>() {
            messages.forget(key);
        }
        assert_eq!((messages.held, messages.by_age.len()), (0, 0));
    }
}
