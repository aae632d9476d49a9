//! Reads that may be answered from an older state: any replica of the group may have them.
//!
//! Each message of a replica tells up to which entry of the group's log it has applied. The channel
//! keeps the last of them, and such a read is answered from that entry on: a caller reads its own
//! writes, and never sees the state go back.

use alloc::string::String;
use alloc::vec::Vec;

use super::Client;
use super::call::{State, Work};
use super::link::Link;
use super::replicas::{CHECK_REPLICA_EVERY, is_silent};
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelEvent, ChannelKey, Event, JournalEntry};
use crate::rpc::message::{RequestPayload, Staleness, ToServer};
use crate::time::Duration;
use crate::transport::endpoint::{ConnectionHandle, Endpoint};

/// Up to where a channel has seen the log of its group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    group: u64,
    index: u64,
    /// The entry that changed the members which the channel was told of last.
    members: u64,
}

impl Seen {
    /// The last entry that was seen of this group's log.
    pub(super) fn of(self, group: u64) -> u64 {
        self.in_group(group).index
    }

    fn in_group(self, group: u64) -> Self {
        if self.group == group { self } else { Self { group, index: 0, members: 0 } }
    }
}

impl Client {
    /// A replica at this link says something that is so once it has applied this entry.
    pub(super) fn saw(&mut self, key: u64, index: u64) {
        let Some(link) = self.links.get(key) else { return };
        let Some(group) = link.group else { return };
        let seen = &mut self.channels[link.channel.0 as usize].seen;
        *seen = Seen { index: seen.of(group).max(index), ..seen.in_group(group) };
    }

    /// The members of the group are others since this entry.
    pub(super) fn members_changed(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        version: u64,
        addresses: Vec<String>,
    ) {
        let Some(link) = self.links.get(key) else { return };
        let Some(group) = link.group else { return };
        let channel = &mut self.channels[link.channel.0 as usize];
        if !channel.config.follows_members {
            return;
        }
        let seen = &mut channel.seen;
        *seen = seen.in_group(group);
        if version > seen.members && !addresses.is_empty() {
            seen.members = version;
            if self.channels[link.channel.0 as usize].config.journal.is_some() {
                let entry = JournalEntry::Members(addresses.clone());
                cx.events.push(Event::Journal(link.channel, entry));
            }
            cx.events.push(Event::Channel(link.channel, ChannelEvent::Members(addresses)));
        }
    }

    /// Sends a read to the replica that is likely to answer it first, if it may be answered from an
    /// older state. `home` has the session. Returns whether it was sent.
    pub(super) fn send_stale(
        &mut self,
        cx: &mut Context<'_>,
        channel: ChannelKey,
        home: u64,
        key: CallKey,
    ) -> bool {
        let Some(at_most) = self.max_staleness(key) else { return false };
        let Some(group) = self.links.get(home).and_then(|link| link.group) else { return false };
        let (reader, by_standby) = self.reader(cx.endpoint, channel, (home, group));
        let seen = self.channels[channel.0 as usize].seen.of(group);
        let stale = Staleness { seen, at_most };
        self.read_at(cx, (reader, by_standby), key, |read, payload| ToServer::StaleRead {
            read,
            stale,
            payload,
        })
    }

    /// Sends a read to the replica at this link, by its standby or by the connection in use. Returns
    /// whether it was sent.
    pub(super) fn read_at(
        &mut self,
        cx: &mut Context<'_>,
        (reader, by_standby): (u64, bool),
        key: CallKey,
        message: impl FnOnce(u64, RequestPayload) -> ToServer,
    ) -> bool {
        let Some(call) = self.calls.get_mut(key.0) else { return false };
        let Some(payload) = call.payload(cx.now) else { return false };
        let Some(link) = self.links.get_mut(reader) else { return false };
        let read = link.next_number();
        let carrier = if by_standby { link.standby.as_mut() } else { link.live.as_mut() };
        let Some(carrier) = carrier else { return false };
        carrier.reads.insert(read, key);
        call.state = State::Reading { link: reader, read };
        let message = message(read, payload).encode(cx.buffer);
        carrier.outgoing.send(cx, carrier.handle, message, key.0);
        let handle = carrier.handle;
        if by_standby {
            self.watch_standby(cx, reader, handle);
        }
        true
    }

    /// A read was sent to a replica that stands by, which is looked at until it has answered.
    pub(super) fn watch_standby(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
    ) {
        if let Some(connection) = cx.endpoint.connection_mut(handle) {
            connection.await_answer(cx.now, true);
            connection.probe(cx.now);
        }
        if let Some(link) = self.links.get_mut(key) {
            link.check_at.get_or_insert(cx.now + CHECK_REPLICA_EVERY);
        }
        self.set_link_timer(key);
    }

    /// The replica cannot tell that its state is fresh enough: the read goes to the one that has the
    /// session, which asks its group.
    pub(super) fn read_too_stale(&mut self, key: u64, read: u64) {
        let Some(call) = self.links.get_mut(key).and_then(|link| link.take_read(read)) else {
            return;
        };
        self.avoid(key, call);
        self.read_elsewhere(call);
        self.after_answer(key);
    }

    /// Standbys that say nothing keep no read waiting.
    pub(super) fn leave_silent_standby(&mut self, cx: &mut Context<'_>, key: u64) {
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(standby) = link.standby.as_mut().filter(|standby| !standby.reads.is_empty())
        else {
            return;
        };
        if !is_silent(cx.endpoint, standby.handle) {
            link.check_at = Some(cx.now + CHECK_REPLICA_EVERY);
            return;
        }
        let reads = core::mem::take(&mut standby.reads);
        for call in reads.values() {
            standby.outgoing.cancel(call.0);
        }
        let channel = link.channel;
        reads.into_values().for_each(|call| self.read_elsewhere(call));
        self.pump(cx, channel);
    }

    /// A read that another replica than the session's did not answer.
    pub(super) fn read_elsewhere(&mut self, key: CallKey) {
        if let Some(Work::Read(request)) = self.calls.get_mut(key.0).map(|call| &mut call.work) {
            request.max_staleness = None;
        }
        self.enqueue_again(key);
    }

    fn max_staleness(&self, key: CallKey) -> Option<Duration> {
        match &self.calls.get(key.0)?.work {
            Work::Read(request) => request.max_staleness,
            _ => None,
        }
    }

    /// The link of this group that a read is best sent to, and whether to its standby: the nearest,
    /// unless many reads wait for it.
    pub(super) fn reader(
        &self,
        endpoint: &Endpoint,
        channel: ChannelKey,
        (home, group): (u64, u64),
    ) -> (u64, bool) {
        let links = self.channels[channel.0 as usize].links.iter().copied();
        let standbys = links.filter_map(|key| {
            let standby = self.standby_of(endpoint, group, key).filter(|_| key != home)?;
            Some((expected_wait(endpoint, standby.handle, standby.reads.len()), key, true))
        });
        let own = self.links.get(home).and_then(|link| {
            let live = link.live.as_ref()?;
            Some((expected_wait(endpoint, live.handle, live.reads.len()), home, false))
        });
        let nearest = standbys.chain(own).min_by_key(|(wait, _, standby)| (*wait, *standby));
        nearest.map_or((home, false), |(_, key, standby)| (key, standby))
    }

    /// The one after `avoid`, which could not answer: each has its turn, so that near ones that cannot
    /// keep nobody from a far one that can.
    pub(super) fn next_reader(
        &self,
        endpoint: &Endpoint,
        channel: ChannelKey,
        (home, group): (u64, u64),
        avoid: u64,
    ) -> (u64, bool) {
        let links = &self.channels[channel.0 as usize].links;
        let at = links.iter().position(|link| *link == avoid).unwrap_or(0);
        let mut others = (1..links.len()).map(|step| links[(at + step) % links.len()]);
        let next =
            others.find(|key| *key == home || self.standby_of(endpoint, group, *key).is_some());
        next.map_or((home, false), |key| (key, key != home))
    }
}

impl Link {
    /// The read of this number, which waits no longer.
    pub(super) fn take_read(&mut self, read: u64) -> Option<CallKey> {
        let carriers = self.live.iter_mut().chain(&mut self.standby);
        carriers.into_iter().find_map(|carrier| carrier.reads.remove(&read))
    }
}

/// About how long a read takes behind others on a connection.
fn expected_wait(endpoint: &Endpoint, handle: ConnectionHandle, reads: usize) -> Duration {
    /// What a read takes where the path takes nothing.
    const LEAST: Duration = Duration::from_micros(100);
    let rtt = endpoint.connection(handle).map_or(Duration::from_secs(1), |c| c.rtt());
    rtt.max(LEAST) * u32::try_from(reads + 1).unwrap_or(u32::MAX)
}
