//! What this replica wants in the log and has not seen there. It is sent again when the leader
//! changes or is silent: a copy does no harm, the slot table tells it.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::node::SessionCommand;
use stubborn_core::service::MethodId;
use stubborn_core::session::CallId;
use stubborn_core::time::{Duration, Instant};

use super::entry::{ITEM_OVERHEAD, Item, Origin, What};

/// The replica holds as much as it may: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the replica holds as many commands as it may")
    }
}

impl std::error::Error for Full {}

/// Something that is wanted in the log.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Command(SessionCommand),
    Renewal(Bytes),
}

#[derive(Debug)]
pub(super) struct Pending {
    life: u64,
    next: u64,
    items: BTreeMap<u64, Waiting>,
    /// Those that nobody was sent, in order.
    unsent: Vec<u64>,
    /// Those that were taken beyond the bound, since they only free memory.
    beyond: Vec<u64>,
    /// The last that was not.
    last_within: u64,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    wanted: Wanted,
    came: Instant,
    sent: Instant,
    /// It may be in the log as it is.
    was_sent: bool,
}

impl Wanted {
    fn only_frees(&self) -> bool {
        matches!(self, Self::Command(command) if command.only_frees())
    }

    fn size(&self) -> usize {
        ITEM_OVERHEAD
            + match self {
                Self::Command(command) => command.size() + COMMAND_OVERHEAD,
                Self::Renewal(sessions) => sessions.len(),
            }
    }
}

/// What an encoded command has beside the client's message, at most.
const COMMAND_OVERHEAD: usize = 160;

impl Pending {
    pub(super) fn new(life: u64, most: usize, most_bytes: usize) -> Self {
        Self {
            life,
            next: 0,
            items: BTreeMap::new(),
            unsent: Vec::new(),
            beyond: Vec::new(),
            last_within: 0,
            bytes: 0,
            most,
            most_bytes,
        }
    }

    pub(super) fn add(&mut self, now: Instant, wanted: Wanted) -> Result<(), Box<Wanted>> {
        let size = wanted.size();
        if !self.has_room(1, size) {
            // What frees memory is not sent again by its client, so there is room for it when there is
            // none for calls.
            if !wanted.only_frees() {
                return Err(Box::new(wanted));
            }
            if self.absorb(&wanted) {
                return Ok(());
            }
            if !self.has_room(2, size) {
                return Err(Box::new(wanted));
            }
            self.beyond.push(self.next + 1);
        } else {
            self.last_within = self.next + 1;
        }
        self.bytes += size;
        self.next += 1;
        let waiting = Waiting { wanted, came: now, sent: now, was_sent: false };
        self.items.insert(self.next, waiting);
        self.unsent.push(self.next);
        Ok(())
    }

    fn has_room(&self, times: usize, size: usize) -> bool {
        self.items.len() < self.most * times && self.bytes + size <= self.most_bytes * times
    }

    /// Lets one that waits beyond the bound say what this one says, too, unless a call came after it.
    /// Returns whether one does.
    fn absorb(&mut self, wanted: &Wanted) -> bool {
        let Self { items, beyond, last_within, bytes, most_bytes, .. } = self;
        beyond.retain(|serial| items.contains_key(serial));
        let Wanted::Command(later) = wanted else { return false };
        if *bytes + wanted.size() > *most_bytes * 2 {
            return false;
        }
        beyond.iter().filter(|serial| *serial > last_within).any(|serial| {
            let Some(waiting) = items.get_mut(serial).filter(|waiting| !waiting.was_sent) else {
                return false;
            };
            let before = waiting.wanted.size();
            let Wanted::Command(earlier) = &mut waiting.wanted else { return false };
            let absorbed = earlier.absorb(later);
            *bytes = *bytes - before + waiting.wanted.size();
            absorbed
        })
    }

    /// When this came, if it is waited for here.
    pub(super) fn came(&self, origin: Origin) -> Option<Instant> {
        let own = origin.life == self.life;
        self.items.get(&origin.serial).filter(|_| own).map(|waiting| waiting.came)
    }

    /// The calls that wait here, each once, with their methods.
    pub(super) fn calls(&self) -> BTreeMap<CallId, MethodId> {
        let commands = self.items.values().filter_map(|waiting| match &waiting.wanted {
            Wanted::Command(command) => Some(command),
            Wanted::Renewal(_) => None,
        });
        commands.filter_map(|command| Some((command.call()?.0, command.method()?))).collect()
    }

    /// An entry with this was applied.
    pub(super) fn applied(&mut self, origin: Origin) {
        if origin.life == self.life
            && let Some(waiting) = self.items.remove(&origin.serial)
        {
            self.bytes -= waiting.wanted.size();
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes what is to be sent, of about so many bytes unless the first alone has more. A leader
    /// says at which time of the log it takes it.
    pub(super) fn take(
        &mut self,
        now: Instant,
        bytes: usize,
        taken_at: Option<Instant>,
    ) -> Vec<Item> {
        let (mut taken, mut items, mut total) = (0, Vec::new(), 0);
        for serial in &self.unsent {
            if let Some(waiting) = self.items.get_mut(serial) {
                total += waiting.wanted.size();
                if total > bytes && !items.is_empty() {
                    break;
                }
                (waiting.sent, waiting.was_sent) = (now, true);
                let origin = Origin { life: self.life, serial: *serial };
                items.push(Item { origin, what: waiting.encode(now, taken_at) });
            }
            taken += 1;
        }
        self.unsent.drain(..taken);
        items
    }

    /// These could not be sent after all.
    pub(super) fn put_back(&mut self, items: &[Item]) {
        let serials = items.iter().map(|item| item.origin.serial);
        self.unsent.splice(0..0, serials);
    }

    /// The leader is another one: everything is sent again.
    pub(super) fn send_all_again(&mut self) {
        self.unsent = self.items.keys().copied().collect();
    }

    /// Sends again what was sent that long ago.
    pub(super) fn send_old_again(&mut self, now: Instant, patience: Duration) {
        let old = |waiting: &Waiting| now.since(waiting.sent) >= patience;
        if self.items.first_key_value().is_some_and(|(_, oldest)| old(oldest)) {
            let due = self.items.iter().filter(|(_, waiting)| old(waiting));
            self.unsent.extend(due.map(|(serial, _)| *serial));
            self.unsent.sort_unstable();
            self.unsent.dedup();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

impl Waiting {
    fn encode(&self, now: Instant, taken_at: Option<Instant>) -> What {
        match &self.wanted {
            Wanted::Renewal(sessions) => What::Renewal(sessions.clone()),
            Wanted::Command(command) => {
                let mut command = command.clone();
                command.waited(now.since(self.came));
                if let Some(at) = taken_at {
                    command.taken_at(at);
                }
                let mut bytes = Vec::with_capacity(command.size() + COMMAND_OVERHEAD);
                command.encode(&mut bytes);
                What::Command(bytes.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending::new(1, 3, 1_000)
    }

    fn wanted(text: &'static str) -> Wanted {
        Wanted::Renewal(Bytes::from_static(text.as_bytes()))
    }

    fn take(pending: &mut Pending, now: Instant, bytes: usize) -> Vec<u64> {
        pending.take(now, bytes, None).iter().map(|item| item.origin.serial).collect()
    }

    #[test]
    fn what_is_not_applied_is_sent_again_to_another_leader_and_after_silence() {
        let (mut pending, at) = (pending(), |ms| Instant::ZERO + Duration::from_millis(ms));
        for text in ["a", "b", "c"] {
            pending.add(at(0), wanted(text)).unwrap();
        }
        assert!(pending.add(at(0), wanted("d")).is_err());
        assert_eq!(take(&mut pending, at(0), 1_000), [1, 2, 3]);
        assert!(take(&mut pending, at(0), 1_000).is_empty());
        pending.applied(Origin { life: 1, serial: 2 });
        pending.applied(Origin { life: 9, serial: 3 });
        pending.send_all_again();
        assert_eq!(take(&mut pending, at(10), 1), [1]);
        assert_eq!(take(&mut pending, at(20), 1), [3]);
        pending.send_old_again(at(115), Duration::from_millis(100));
        assert_eq!(take(&mut pending, at(115), 1_000), [1]);
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn a_full_replica_has_room_for_what_frees_memory_within_a_bound() {
        let mut pending = pending();
        for text in ["a", "b", "c"] {
            assert!(pending.has_room(1, 10));
            pending.add(Instant::ZERO, wanted(text)).unwrap();
        }
        assert!(!pending.has_room(1, 10) && pending.has_room(2, 10));
        assert!(!pending.has_room(2, 2_000));
        pending.most = 1;
        assert!(!pending.has_room(2, 10));
    }

    #[test]
    fn what_could_not_be_sent_keeps_its_turn() {
        let mut pending = pending();
        pending.add(Instant::ZERO, wanted("a")).unwrap();
        pending.add(Instant::ZERO, wanted("b")).unwrap();
        let items = pending.take(Instant::ZERO, 1, None);
        pending.put_back(&items);
        assert_eq!(take(&mut pending, Instant::ZERO, 1_000), [1, 2]);
    }
}
