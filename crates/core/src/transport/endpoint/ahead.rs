//! Reading ahead: while a datagram is handled, what later ones need is on its way to the caches.
//!
//! With many connections nothing of a connection is there when its datagram comes, and it lies in some
//! thirty places, each of which would be waited for. A batch of datagrams says which connections are next
//! (as databases and key-value stores use it: Chen, Ailamaki, Gibbons and Mowry, "Improving hash join
//! performance through prefetching", ICDE 2004).

use alloc::vec::Vec;

use stubborn_rope::ahead::read_ahead;

use super::{ConnectionHandle, Endpoint, Received, split};
use crate::time::Instant;

/// With fewer connections than this, what their packets need stays in the caches of itself.
const MANY: usize = 64;

/// How many datagrams ahead a connection is read, then what it points to, then what that points to.
const FAR: usize = 9;
const HALF_WAY: usize = 6;
const NEAR: usize = 3;
const NEXT: usize = 1;

/// A batch of datagrams that are about to be handled, as the slots of their connections.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    slots: Vec<Option<u32>>,
    /// [`Table::ids_removed`](super::table::Table::ids_removed) when they were found.
    ids_removed: u64,
}

impl Endpoint {
    /// These datagrams are handled next, in this order. To be followed by
    /// [`read_ahead`](Self::read_ahead) before each. False if there is no need to.
    pub(crate) fn look_ahead(&mut self, batch: &[Received]) -> bool {
        self.ahead.slots.clear();
        if self.table.len() < MANY || batch.len() < 2 {
            return false;
        }
        self.ahead.ids_removed = self.table.ids_removed();
        self.ahead.slots.extend(batch.iter().map(|datagram| self.table.find_for(&datagram.data)));
        for place in 0..FAR {
            self.read_connection(place);
            if place >= FAR - HALF_WAY {
                self.read_behind(place + HALF_WAY - FAR);
            }
        }
        true
    }

    /// The datagram at this place of the batch is handled next.
    pub(crate) fn read_ahead(&self, place: usize) {
        self.read_connection(place + FAR);
        self.read_behind(place + HALF_WAY);
        if let Some(connection) =
            self.slot_ahead(place + NEAR).and_then(|slot| self.table.get(slot))
        {
            connection.read_further_ahead();
        }
    }

    /// The connections of later datagrams, of which what others know is to be read ahead, then what that
    /// points to, then what that points to.
    pub(crate) fn connections_ahead(&self, place: usize) -> [Option<ConnectionHandle>; 3] {
        [HALF_WAY, NEAR, NEXT]
            .map(|ahead| Some(self.table.handle_of(self.slot_ahead(place + ahead)?)))
    }

    /// Takes in the datagram at this place of the batch.
    pub(crate) fn handle_ahead(&mut self, now: Instant, place: usize, datagram: Received) {
        match self.ahead.slots[place] {
            Some(slot) if self.ahead.ids_removed == self.table.ids_removed() => {
                self.hand_to(now, slot, split(datagram));
            }
            _ => self.handle(now, datagram),
        }
    }

    /// The slot of the connection of a datagram. Of several in a row for one connection that of the
    /// first, since with it everything is read.
    fn slot_ahead(&self, place: usize) -> Option<u32> {
        let slot = (*self.ahead.slots.get(place)?)?;
        let before = place.checked_sub(1).and_then(|before| self.ahead.slots[before]);
        (before != Some(slot)).then_some(slot)
    }

    fn read_connection(&self, place: usize) {
        if let Some(connection) = self.slot_ahead(place).and_then(|slot| self.table.get(slot)) {
            read_ahead(connection);
        }
    }

    fn read_behind(&self, place: usize) {
        if let Some(connection) = self.slot_ahead(place).and_then(|slot| self.table.get(slot)) {
            connection.read_ahead();
        }
    }
}
