//! The process of a node: the group node that ships, a disk, a socket.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use stubborn_core::datagram::{Datagram, Datagrams};
use stubborn_core::node::NodeConfig;
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::{Ecn, Received};
use stubborn_group::node::{GroupConfig, GroupEvent, GroupNode};
use stubborn_group::replica::{Fault, PacketError, Settings};
use stubborn_group::replication::{NodeId, Refusal};
use stubborn_store::Error;

use super::cluster::{Cluster, GROUP};
use super::disk::{NodeDisk, Opened};
use super::gate::Permissions;
use super::ledger::Ledger;
use super::storage::Storage;
use crate::nodes::{Nodes, Order, host};
use crate::world::{SimSocket, millis};

/// A node that runs.
pub(super) struct Process {
    cluster: Cluster,
    id: NodeId,
    storage: Storage,
    socket: SimSocket,
    node: GroupNode,
    buffer: Vec<u8>,
    applied: u64,
    /// Names of members that are being looked up, and when they are found.
    looked_up: Vec<(Instant, NodeId, String)>,
}

/// What wakes the process.
enum Wake {
    Came(Datagram),
    Timeout,
    Disk,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long every second node holds receipts back, as drivers do that stay awake.
const RECEIPTS_WAIT: Duration = Duration::from_micros(300);

/// Between two states of a replica that are compared with those of others: so many entries.
const COMPARED_EVERY: u64 = 5;

impl Process {
    pub(super) async fn run(cluster: Cluster, id: NodeId, disk: NodeDisk) {
        let (store, durable) = match disk.open() {
            Ok(Opened::Whole(store, durable)) => (*store, durable),
            Ok(Opened::Failed(error)) => return cluster.disk_failed(id, &error),
            Ok(Opened::Refused(error)) => return cluster.retire(id, &error),
            Err(broken) => return cluster.judge(Err(broken)),
        };
        let verdict = cluster.lock().judge.on_start(id, &durable);
        cluster.judge(verdict);
        let socket = cluster.world.socket_again(&host(id), cluster.address(id));
        let now = cluster.world.local_time(&host(id));
        let seed = cluster.lock().random.bytes();
        let program = cluster.program(id);
        let config =
            GroupConfig { folder: store.identity().folder, ..config(&cluster, id, program) };
        let machines = Ledger::machines(program);
        let mut node = GroupNode::new(now, config, durable, machines, seed)
            .unwrap_or_else(|fault| panic!("{id} cannot start: {fault}"));
        if id.get().is_multiple_of(2) {
            node.hold_receipts(RECEIPTS_WAIT);
        }
        let storage = Storage::new(cluster.clone(), disk, store);
        let mut process = Self {
            cluster,
            id,
            storage,
            socket,
            node,
            buffer: Vec::new(),
            applied: 0,
            looked_up: Vec::new(),
        };
        // When the process fails, its host is killed, and this task with it.
        if let Err(error) = process.live().await {
            process.cluster.disk_failed(id, &error);
        }
    }

    /// Works until the disk fails, or is to be damaged.
    async fn live(&mut self) -> Result<(), Error> {
        loop {
            self.work()?;
            let wake = self.wait().await;
            self.on_wake(wake)?;
            let to_damage = self.cluster.lock().to_damage == Some(self.id);
            if to_damage && self.storage.rest(true)? {
                self.cluster.damage_at_start(self.id);
                let down = millis(1 + self.cluster.below(500));
                self.cluster.crash(self.id, down);
                return std::future::pending().await;
            }
        }
    }

    fn now(&self) -> Instant {
        self.cluster.world.local_time(&host(self.id))
    }

    async fn wait(&mut self) -> Wake {
        let due = self.node.poll_timeout().expect("a replica ticks");
        // Clocks are changed under a timer's feet, so none is trusted for long.
        let until = self.cluster.world.time_until(&host(self.id), due);
        let mut timer: Sleep =
            Box::pin(self.cluster.world.sleep(until.min(Duration::from_millis(20))));
        poll_fn(|cx| {
            if self.storage.poll(cx).is_ready() {
                return Poll::Ready(Wake::Disk);
            }
            if let Poll::Ready(Ok(datagram)) = self.socket.poll_recv_from(cx) {
                return Poll::Ready(Wake::Came(datagram));
            }
            timer.as_mut().poll(cx).map(|()| Wake::Timeout)
        })
        .await
    }

    fn on_wake(&mut self, wake: Wake) -> Result<(), Error> {
        let now = self.now();
        match wake {
            Wake::Timeout => {
                if self.node.poll_timeout().is_some_and(|due| due <= now) {
                    self.node.handle_timeout(now);
                }
                self.take_found(now);
                self.take_order();
                self.storage.rest(false)?;
            }
            Wake::Came(first) => {
                let mut next = Some(first);
                while let Some(Datagram { from, data }) = next {
                    let data = BytesMut::from(&data[..]);
                    let local = Some(self.socket.local_addr().ip());
                    self.node.handle(now, Received { from, local, ecn: Ecn::NotEct, data });
                    let mut cx = Context::from_waker(Waker::noop());
                    next = match self.socket.poll_recv_from(&mut cx) {
                        Poll::Ready(Ok(datagram)) => Some(datagram),
                        _ => None,
                    };
                }
            }
            Wake::Disk => {
                if let Some(number) = self.storage.go_on()? {
                    self.node.written(number);
                }
            }
        }
        Ok(())
    }

    /// Does all that the node wants done.
    fn work(&mut self) -> Result<(), Error> {
        let now = self.now();
        while let Some(event) = self.node.poll_event(now) {
            match event {
                GroupEvent::Leader(leader) => {
                    let id = self.id;
                    self.cluster.note(id.get(), || format!("{id} follows {leader:?}"));
                }
                // One that was no member when the others were upgraded: it gets the newer program.
                GroupEvent::Stopped if matches!(self.node.fault(), Some(Fault::Version(_))) => {
                    self.cluster.upgrade(self.id);
                }
                GroupEvent::Stopped if matches!(self.node.fault(), Some(Fault::Left)) => {
                    self.cluster.has_left(self.id);
                }
                GroupEvent::Stopped
                    if matches!(self.node.fault(), Some(Fault::OtherFolder))
                        && self.cluster.has_lost_folder(self.id) =>
                {
                    self.cluster.lock().counts.folders_refused += 1;
                    self.cluster.retire(self.id, &Error::NoNode);
                }
                GroupEvent::Stopped => {
                    let fault = self.node.fault().map(ToString::to_string).unwrap_or_default();
                    let promise = match self.node.fault() {
                        Some(Fault::LostDisk) => "what was promised is kept",
                        _ => "exactly once",
                    };
                    self.cluster.judge(Err((promise, format!("{}: {fault}", self.id))));
                }
                GroupEvent::LookUp(id, name) => {
                    self.cluster.lock().counts.looked_up += 1;
                    let takes = millis(self.cluster.below(300));
                    self.looked_up.push((self.cluster.world.now() + takes, id, name));
                }
                GroupEvent::Node(_) => {}
            }
        }
        // What a leader sent before it was synced and lost with its power may be acknowledged to its
        // next life.
        let late = PacketError::Refused(Refusal::NeverWritten);
        let is_due = |(from, error): &&(NodeId, PacketError)| {
            let forgetful =
                self.cluster.has_lost_folder(*from) || self.cluster.has_lost_folder(self.id);
            *error == late || *error == PacketError::OtherFolder && forgetful
        };
        if let Some((from, error)) = self.node.refused().filter(|refused| !is_due(refused)) {
            let what = format!("{} refuses {from}: {error}", self.id);
            self.cluster.judge(Err(("honest peers are listened to", what)));
        }
        while let Some((number, write)) = self.node.poll_write() {
            let mut shared = self.cluster.lock();
            shared.counts.note_write(&write);
            let verdict = shared.judge.on_write(self.id, &write);
            drop(shared);
            self.cluster.judge(verdict);
            self.storage.write(number, write);
        }
        self.stand();
        self.transmit(now);
        if let Some(number) = self.storage.begin()? {
            self.node.written(number);
            return self.work();
        }
        Ok(())
    }

    fn transmit(&mut self, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            buffer.clear();
            let Some(transmit) = self.node.poll_transmit(now, &mut buffer) else { break };
            let size = transmit.segment.unwrap_or(transmit.size).max(1);
            for segment in buffer[..transmit.size].chunks(size) {
                // A simulated socket is always ready.
                let _ = self.socket.poll_send_to(&mut cx, segment, transmit.to);
            }
        }
        self.buffer = buffer;
    }

    /// Tells the node what was looked up meanwhile.
    fn take_found(&mut self, now: Instant) {
        let world = self.cluster.world.clone();
        for (_, id, name) in self.looked_up.extract_if(.., |(at, ..)| *at <= world.now()) {
            if let Some(address) = world.look_up(&name) {
                self.node.found(now, id, &name, address);
            }
        }
    }

    fn take_order(&mut self) {
        let Some(order) = self.cluster.lock().order.take() else { return };
        let done = match &order {
            Order::Change(change) => self.node.change_members(change),
            Order::Transfer(to) => self.node.transfer(*to),
        };
        let mut shared = self.cluster.lock();
        match (done, &order) {
            (Err(_), _) => shared.order = Some(order), // somebody else's
            (Ok(()), Order::Change(_)) => shared.counts.member_changes += 1,
            (Ok(()), Order::Transfer(_)) => shared.counts.transfers += 1,
        }
    }

    fn stand(&mut self) {
        // One that has stopped did so in front of an entry that it took: its state is behind its log.
        if self.node.fault().is_some() {
            return;
        }
        let standing = self.node.standing();
        let applied = standing.applied;
        self.cluster.note_versions(&standing.versions, standing.version);
        self.cluster.note_roster(self.node.replica().roster().version());
        let healed = self.cluster.lock().healed;
        let verdict = self.cluster.lock().judge.on_standing(self.id, &standing);
        self.cluster.judge(verdict);
        if applied != self.applied {
            self.cluster.lock().counts.applied += applied.saturating_sub(self.applied);
            self.applied = applied;
            let id = self.id;
            self.cluster.note(applied, || format!("{id} applied {applied}"));
            if applied.is_multiple_of(COMPARED_EVERY) || healed {
                let image = self.node.freeze().to_bytes().expect("it is in memory");
                let verdict = self.cluster.lock().judge.on_image(self.id, applied, &image);
                self.cluster.judge(verdict);
            }
        }
        self.cluster.lock().crowded += u64::from(self.node.node().load().waiting > 0);
        let now = self.now();
        let addresses = self.cluster.addresses();
        let relaying = addresses.iter().any(|(id, _)| self.node.relay(now, *id).is_some());
        {
            let mut shared = self.cluster.lock();
            if relaying {
                shared.relaying.insert(self.id)
            } else {
                shared.relaying.remove(&self.id)
            };
        }
        let ledger = healed.then(|| Ledger::of(self.node.replica().machines()));
        self.cluster.stand(self.id, standing, ledger);
    }
}

fn config(cluster: &Cluster, id: NodeId, program: u32) -> GroupConfig {
    let (peers, roster) = cluster.configured(id);
    let (mut endpoint, server, client) = cluster.world.identity_of(&host(id));
    endpoint.limits.concurrency = cluster.habits.places;
    GroupConfig {
        group: GROUP,
        id,
        folder: None,
        peers,
        roster,
        name_of: host,
        node: NodeConfig { endpoint },
        server,
        client,
        settings: Settings {
            version: cluster.group_version(program),
            ..cluster.habits.settings.clone()
        },
        gate: cluster.habits.permissions.then(|| Arc::new(Permissions { node: id }) as _),
    }
}
