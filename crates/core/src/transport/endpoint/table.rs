//! Where the connections of an endpoint are kept, how they are found, and which need attention.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::ConnectionId;
use super::super::cid;
use super::super::connection::{Connection, IdChange, Traffic};
use super::ConnectionHandle;
use super::by_id::ById;
use super::timeouts::Timeouts;
use crate::time::{Duration, Instant};
use crate::wire::packet;

/// Reset tokens compared with one datagram at most, one for each connection to its sender. Further
/// connections to that address notice the loss of their peer's state by their idle timeout only.
const TOKENS_PER_ADDRESS: usize = 1_024;

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
    in_to_send: bool,
    in_to_tell: bool,
    in_held: bool,
}

/// The connections, by slot; indices by connection id, by reset token and by timeout; and two
/// queues of those that were touched: to send, and to tell events of.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: ById,
    /// Ids of another length than ours: what a client made up for its first packet.
    by_foreign_id: BTreeMap<ConnectionId, u32>,
    by_token: BTreeMap<SocketAddr, Vec<([u8; 16], u32)>>,
    /// Counts what was removed from the indices by id: a slot found before may be wrong after.
    ids_removed: u64,
    timeouts: Timeouts,
    to_send: VecDeque<u32>,
    to_tell: VecDeque<u32>,
    /// Those that owe an acknowledgement, which waits for something to ride on, and since when.
    held: VecDeque<(Instant, u32)>,
    /// Of connections that are forgotten.
    past: Traffic,
}

fn key(id: &ConnectionId) -> Option<u64> {
    id.local().map(u64::from_be_bytes)
}

impl Table {
    /// Connections there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The slot of a datagram with this destination.
    pub(super) fn find(&self, destination: &ConnectionId) -> Option<u32> {
        match key(destination) {
            Some(key) => self.by_id.get(key),
            None => self.by_foreign_id.get(destination).copied(),
        }
    }

    /// The slot of a datagram.
    pub(super) fn find_for(&self, datagram: &[u8]) -> Option<u32> {
        packet::destination(datagram).and_then(ConnectionId::new).and_then(|id| self.find(&id))
    }

    /// What [`find`](Self::find) has found stays right until this changes.
    pub(super) fn ids_removed(&self) -> u64 {
        self.ids_removed
    }

    /// The connection to `from` that expects this stateless reset token.
    pub(super) fn find_reset(&self, from: SocketAddr, token: &[u8; 16]) -> Option<u32> {
        let mut found = None;
        // Every token is compared, so that time does not tell which one was near.
        for (expected, slot) in self.by_token.get(&from)? {
            if cid::equal_in_constant_time(expected, token) {
                found = Some(*slot);
            }
        }
        found
    }

    /// Adds a connection and touches it.
    pub(super) fn insert(&mut self, connection: Box<Connection>) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                connection: None,
                in_to_send: false,
                in_to_tell: false,
                in_held: false,
            });
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize].connection = Some(connection);
        self.apply_id_changes(slot);
        self.touch(slot);
        slot
    }

    pub(super) fn handle_of(&self, slot: u32) -> ConnectionHandle {
        ConnectionHandle { slot, generation: self.slots[slot as usize].generation }
    }

    /// The slot of a handle, unless its connection is forgotten.
    pub(super) fn slot_of(&self, handle: ConnectionHandle) -> Option<u32> {
        let slot = self.slots.get(handle.slot as usize)?;
        (slot.generation == handle.generation && slot.connection.is_some()).then_some(handle.slot)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Connection> {
        self.slots.get(slot as usize)?.connection.as_deref()
    }

    /// Changes a connection. Follow with [`touch`](Self::touch).
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.slots.get_mut(slot as usize)?.connection.as_deref_mut()
    }

    /// Slots in use, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.slots.len() as u32).filter(|slot| self.slots[*slot as usize].connection.is_some())
    }

    /// What all connections have counted, also those that are forgotten.
    pub(super) fn traffic(&self) -> Traffic {
        let mut all = self.past;
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_deref());
        connections.for_each(|connection| all.add(&connection.stats()));
        all
    }

    /// A connection changed: it may have something to send or to tell.
    pub(super) fn touch(&mut self, slot: u32) {
        let s = &mut self.slots[slot as usize];
        if !core::mem::replace(&mut s.in_to_send, true) {
            self.to_send.push_back(slot);
        }
        if !core::mem::replace(&mut s.in_to_tell, true) {
            self.to_tell.push_back(slot);
        }
    }

    /// True if [`next_to_send`](Self::next_to_send) has one.
    pub(super) fn has_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }

    /// The connection whose turn it is to send.
    pub(super) fn next_to_send(&self) -> Option<u32> {
        self.to_send.front().copied()
    }

    /// It sent a batch and may have more: the others come first.
    pub(super) fn send_again_later(&mut self) {
        self.to_send.rotate_left(1);
    }

    /// It has nothing to send for now: its timeout is what counts.
    pub(super) fn sent_all(&mut self) {
        let Some(slot) = self.to_send.pop_front() else { return };
        self.slots[slot as usize].in_to_send = false;
        self.apply_id_changes(slot);
        self.index_timeout(slot);
    }

    /// It owes an acknowledgement only, which waits until it sends something, or
    /// [`release`](Self::release).
    pub(super) fn hold(&mut self, now: Instant) {
        if let Some(slot) = self.next_to_send()
            && !core::mem::replace(&mut self.slots[slot as usize].in_held, true)
        {
            self.held.push_back((now, slot));
        }
        self.sent_all();
    }

    /// Since when something is held back.
    pub(super) fn held_since(&self) -> Option<Instant> {
        self.held.front().map(|(since, _)| *since)
    }

    /// It has sent something, and what it owed went along.
    pub(super) fn has_sent(&mut self, slot: u32) {
        if core::mem::take(&mut self.slots[slot as usize].in_held) {
            self.held.retain(|(_, held)| *held != slot);
        }
    }

    /// What has been held back for so long is to be sent.
    pub(super) fn release(&mut self, now: Instant, longest: Duration) {
        while let Some((_, slot)) = self.held.pop_front_if(|(since, _)| *since + longest <= now) {
            self.slots[slot as usize].in_held = false;
            self.touch(slot);
        }
    }

    fn index_timeout(&mut self, slot: u32) {
        let connection = self.slots[slot as usize].connection.as_ref();
        self.timeouts.set(slot, connection.and_then(|c| c.poll_timeout()));
    }

    /// The connection that may have something to tell.
    pub(super) fn next_to_tell(&self) -> Option<u32> {
        self.to_tell.front().copied()
    }

    /// It has told everything. A drained connection is forgotten then.
    pub(super) fn told_all(&mut self) {
        let Some(slot) = self.to_tell.pop_front() else { return };
        let s = &mut self.slots[slot as usize];
        s.in_to_tell = false;
        if s.connection.as_ref().is_some_and(|c| c.is_drained()) {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let s = &mut self.slots[slot as usize];
        if let Some(connection) = &mut s.connection {
            connection.release_ids();
            self.past.add(&connection.stats());
        }
        self.apply_id_changes(slot);
        let s = &mut self.slots[slot as usize];
        s.connection = None;
        s.generation = s.generation.wrapping_add(1);
        self.timeouts.set(slot, None);
        if core::mem::take(&mut s.in_to_send) {
            self.to_send.retain(|queued| *queued != slot);
        }
        if core::mem::take(&mut self.slots[slot as usize].in_held) {
            self.held.retain(|(_, held)| *held != slot);
        }
        self.free.push(slot);
    }

    /// The earliest timeout.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.timeouts.first().map(|(at, _)| at)
    }

    /// Takes out a connection whose timeout is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (at, slot) = self.timeouts.first()?;
        if at > now {
            return None;
        }
        self.timeouts.set(slot, None);
        Some(slot)
    }

    /// Brings the indices up to what the connection says of its ids.
    pub(super) fn apply_id_changes(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else { return };
        while let Some(change) = connection.poll_id_change() {
            match change {
                IdChange::Add(id) => match key(&id) {
                    Some(key) => self.by_id.insert(key, slot),
                    None => drop(self.by_foreign_id.insert(id, slot)),
                },
                IdChange::Remove(id) => {
                    self.ids_removed += 1;
                    match key(&id) {
                        Some(key) => self.by_id.remove(key),
                        None => drop(self.by_foreign_id.remove(&id)),
                    }
                }
                IdChange::ExpectReset(address, token) => {
                    let tokens = self.by_token.entry(address).or_default();
                    if tokens.len() < TOKENS_PER_ADDRESS {
                        tokens.push((token, slot));
                    }
                }
                IdChange::ForgetReset(address, token) => {
                    if let Some(tokens) = self.by_token.get_mut(&address) {
                        tokens.retain(|entry| *entry != (token, slot));
                        if tokens.is_empty() {
                            self.by_token.remove(&address);
                        }
                    }
                }
            }
        }
    }
}
