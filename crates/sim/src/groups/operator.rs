//! An operator of a group: changes its members with calls, one or several at once, while everything
//! else goes wrong, and starts and stops nodes accordingly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::service::{CallError, CallState, Caller, Code, Encoded, Outcome, Status};
use stubborn_core::session::CallId;
use stubborn_group::replica::{Roster, RosterChange, Seat};
use stubborn_group::replication::NodeId;

use super::client::{Client, Manners, outgoing};
use super::cluster::Cluster;
use crate::nodes::{Nodes, host};
use crate::world::millis;

/// The number of the operator among the clients.
pub(super) const OPERATOR: u64 = 50;

/// Members that a group has at most, but while they are exchanged.
const MOST: usize = 6;

/// Once nothing goes wrong any more, clients know new members, and consensus has them, within this
/// time.
const BOUND: Duration = millis(10_000);

/// All that an operator waits for after healing takes so many times as long at most.
const MOST_WAITS: u32 = 12;

pub(super) struct Operator {
    cluster: Cluster,
    client: Client,
    random: Random,
    manners: Wishes,
    /// The number that the next new node gets.
    next: u64,
    /// The version of the roster that was told last.
    version: u64,
    left: BTreeMap<NodeId, Seat>,
}

/// What an operator is out for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// Milliseconds between two orders, at most.
    pub(super) pause: u64,
    /// Takes disks away.
    pub(super) wipes: bool,
    /// Members that a group has at least.
    pub(super) least: usize,
    /// Ends with none at an address that clients begin with.
    pub(super) replaces_all: bool,
}

/// What became of an order.
type Answered = Result<Encoded, Status>;

impl Operator {
    /// An operator of this group, which is about to be started.
    pub(super) fn new(cluster: Cluster, next: u64, manners: Wishes, random: Random) -> Self {
        let client = Client::with(cluster.clone(), OPERATOR, Manners::plain(0.0, 1), true);
        Self { cluster, client, random, manners, next, version: 0, left: BTreeMap::new() }
    }

    /// Changes members until nothing goes wrong any more, and the group is as it is wanted.
    pub(super) async fn run(mut self) {
        self.cluster.world.spawn(Self::tend(self.cluster.clone()));
        while !self.cluster.is_healed() {
            self.pause().await;
            if !self.replace_lost().await && !self.cluster.is_healed() {
                self.one().await;
            }
        }
        // Every disk has been looked at by then.
        self.cluster.world.sleep(millis(200)).await;
        self.replace_lost().await;
        if self.manners.replaces_all {
            self.replace_all().await;
        }
        self.wait_until_in_line().await;
        // One that lost its folder while it joined may be refused only now.
        while self.replace_lost().await {
            self.wait_until_in_line().await;
        }
        self.start_strangers().await;
        self.ends();
    }

    /// It has nothing more to do.
    pub(super) fn ends(self) {
        let mut shared = self.cluster.lock();
        shared.clients_done.insert(OPERATOR);
        shared.operated.as_mut().expect("this is its operator").is_done = true;
    }

    /// Waits for a while, though not when somebody is to be replaced.
    async fn pause(&mut self) {
        let until = self.cluster.world.now() + millis(self.random.below(self.manners.pause));
        let is_lost = |cluster: &Cluster| cluster.with_operated(|o| o.lost.is_some());
        while self.cluster.world.now() < until
            && !self.cluster.is_healed()
            && !is_lost(&self.cluster)
        {
            self.cluster.world.sleep(millis(20)).await;
        }
    }

    /// Gives the place of a node that is gone for good to a new one. Whether there was one.
    async fn replace_lost(&mut self) -> bool {
        let Some(lost) = self.cluster.with_operated(|operated| operated.lost) else { return false };
        let new = self.new_node();
        let change = RosterChange { add: vec![new], remove: vec![lost] };
        if self.carry_out(change).await {
            self.cluster.with_operated(|operated| operated.lost = None);
        }
        true
    }

    /// Some change, drawn by chance.
    async fn one(&mut self) {
        let wanted = self.wanted();
        let members: Vec<NodeId> = wanted.keys().copied().collect();
        let one = members[self.random.below(members.len() as u64) as usize];
        let change = match self.random.below(9) {
            0..=2 => return self.add_one(Some(one)).await,
            3 if wanted.len() < MOST => return self.add_one(None).await,
            4 if wanted.len() > self.manners.least => {
                RosterChange { remove: vec![one], ..RosterChange::default() }
            }
            5 => {
                let count = 2 + self.random.below(members.len() as u64) as usize;
                let remove: Vec<NodeId> = members.into_iter().take(count).collect();
                RosterChange { add: remove.iter().map(|_| self.new_node()).collect(), remove }
            }
            6 => {
                let other = members[self.random.below(members.len() as u64) as usize];
                let both = [one, other];
                return self.relocate(if one == other { &both[..1] } else { &both }).await;
            }
            7 if self.may_wipe() && self.cluster.is_in_line() => {
                let why = stubborn_store::Error::NoNode;
                return self.cluster.retire(one, &why);
            }
            _ => return self.ask_for_what_is_refused().await,
        };
        self.carry_out(change).await;
        self.often_wait().await;
    }

    /// Often the next change comes while the group is busy with this one.
    async fn often_wait(&mut self) {
        if self.random.chance(0.5) {
            self.wait_until_in_line().await;
        }
    }

    /// Adds a node, in the place of another one or beside all. Sometimes it loses its folder while it
    /// joins, and tries again with an empty one.
    async fn add_one(&mut self, gone: Option<NodeId>) {
        let new = self.new_node();
        let id = new.0;
        let change = RosterChange { add: vec![new], remove: gone.into_iter().collect() };
        let protected = self.cluster.knows_folders();
        let added = self.carry_out(change).await;
        if added && protected && self.random.chance(0.5) {
            self.cluster.world.sleep(millis(self.random.below(150))).await;
            if self.may_wipe() && !self.cluster.is_healed() {
                self.cluster.lose_folder(id);
            }
        }
        self.often_wait().await;
    }

    /// Whether a member's disk may be lost: one at a time.
    fn may_wipe(&self) -> bool {
        self.manners.wipes && !self.cluster.is_wounded() && self.wanted().len() > 2
    }

    /// Moves nodes to other addresses, by one order.
    pub(super) async fn relocate(&mut self, ids: &[NodeId]) {
        let (change, addresses) = self.moves(ids);
        if !addresses.is_empty() && self.carry_out(change).await {
            addresses.into_iter().for_each(|(id, at)| self.cluster.relocate(id, at));
        }
    }

    /// The same with all members there are. Clients go where they are told at once, the operator before its
    /// order is answered: so they move as soon as one of them has applied it, and clients that were not told
    /// hear of it by hand. `then` is done when they have moved, whether the order is answered or not.
    pub(super) async fn relocate_all(
        &mut self,
        ids: &[NodeId],
        then: impl Future<Output = ()> + Send + 'static,
    ) {
        let (change, addresses) = self.moves(ids);
        let (cluster, before) = (self.cluster.clone(), self.version);
        self.cluster.world.spawn(async move {
            while cluster.with_operated(|operated| operated.version) <= before {
                cluster.world.sleep(Duration::from_micros(100)).await;
            }
            addresses.iter().for_each(|(id, at)| cluster.relocate(*id, *at));
            let addresses: Vec<_> = addresses.into_iter().map(|(_, at)| at).collect();
            cluster.lead_clients_to(&addresses);
            then.await;
        });
        self.make(&change).await;
    }

    /// What is ordered so that those of the nodes move that are there, and where to.
    fn moves(&self, ids: &[NodeId]) -> (RosterChange, Vec<(NodeId, SocketAddr)>) {
        let (cluster, there) = (&self.cluster, self.cluster.nodes());
        let moving = ids.iter().filter(|id| there.contains(id));
        let addresses: Vec<_> =
            moving.map(|id| (*id, cluster.world.address_at(&host(*id)))).collect();
        let seat = |at: &SocketAddr| Seat { address: at.to_string(), key: Vec::new() };
        let add = addresses.iter().map(|(id, at)| (*id, seat(at))).collect();
        (RosterChange { add, ..RosterChange::default() }, addresses)
    }

    /// Who has left does not come back, neither under its number nor with its key.
    async fn ask_for_what_is_refused(&mut self) {
        let Some((id, seat)) = self.left.iter().next_back() else { return };
        let (id, seat) = (*id, seat.clone());
        let number = if self.random.chance(0.5) { id } else { self.new_number() };
        let change = RosterChange { add: vec![(number, seat)], ..RosterChange::default() };
        match self.order(&change).await {
            Err(status) if status.code() == Code::InvalidArgument => {
                self.cluster.lock().counts.refused_orders += 1;
            }
            answered => self.broken("who has left came back", &change, &answered),
        }
    }

    /// Replaces all who are at addresses that clients begin with.
    async fn replace_all(&mut self) {
        let first: BTreeSet<SocketAddr> =
            self.cluster.first_addresses().into_iter().map(|(_, address)| address).collect();
        let at_first = |seat: &Seat| {
            self.cluster.world.look_up(&seat.address).is_some_and(|at| first.contains(&at))
        };
        let wanted = self.wanted();
        let remove: Vec<NodeId> =
            wanted.iter().filter(|(_, seat)| at_first(seat)).map(|(id, _)| *id).collect();
        let add = remove.iter().map(|_| self.new_node()).collect();
        if remove.is_empty() || self.carry_out(RosterChange { add, remove }).await {
            self.cluster.lock().counts.all_replaced += 1;
        }
    }

    /// Has a change made, in two steps where clients would be left behind by one. Whether it was.
    async fn carry_out(&mut self, change: RosterChange) -> bool {
        let mut stays = self.wanted();
        for (id, _) in &change.add {
            stays.remove(id);
        }
        stays.retain(|id, _| !change.remove.contains(id));
        let leaves = stays.len() < self.wanted().len();
        if leaves && !self.clients_know(&stays, millis(500)).await {
            let comes = |(id, _): &&(NodeId, Seat)| !self.wanted().contains_key(id);
            let add: Vec<_> = change.add.iter().filter(comes).cloned().collect();
            if !add.is_empty() {
                stays.extend(add.iter().cloned());
                self.make(&RosterChange { add, remove: Vec::new() }).await;
            }
            // The only member there is has nobody to tell clients where it goes.
            if stays.is_empty() {
                return false;
            }
            if !self.clients_know(&stays, BOUND).await {
                return false;
            }
        }
        self.make(&change).await;
        true
    }

    /// Waits until every client knows one of these; for so long if nothing goes wrong.
    async fn clients_know(&self, seats: &BTreeMap<NodeId, Seat>, patience: Duration) -> bool {
        let addresses = seats.values().filter_map(|seat| self.cluster.world.look_up(&seat.address));
        let addresses: Vec<SocketAddr> = addresses.collect();
        let mut until = self.cluster.world.now() + patience;
        let calm = self.cluster.is_healed();
        let mut told = false;
        while !self.cluster.who_knows_none(&addresses).is_empty() {
            if self.cluster.world.now() > until {
                let judges = calm && patience == BOUND;
                if judges && !told && self.cluster.tell_forlorn_clients(&addresses) {
                    told = true;
                    until = self.cluster.world.now() + BOUND;
                    continue;
                }
                if judges {
                    let (ids, ignorant) = (seats.keys(), self.cluster.who_knows_none(&addresses));
                    let what = format!("{BOUND:?} after {ids:?} came {ignorant:?} know none");
                    self.cluster.judge(Err(("clients are told of members", what)));
                }
                return false;
            }
            self.cluster.world.sleep(millis(20)).await;
        }
        true
    }

    /// The same that is done [meanwhile](Self::tend), once more.
    async fn start_strangers(&self) {
        self.cluster.world.sleep(millis(2_000)).await;
        self.cluster.start_strangers();
    }

    /// While the operator waits for the group, a member without whose vote nothing is agreed on may know
    /// nobody who is there. It waits for so long and no longer.
    async fn tend(cluster: Cluster) {
        while !cluster.is_healed() {
            cluster.world.sleep(BOUND).await;
        }
        for _ in 0..MOST_WAITS {
            cluster.world.sleep(BOUND).await;
            if !cluster.is_operated() {
                return;
            }
            cluster.start_strangers();
        }
        let what = format!("{:?} after healing:{}", BOUND * MOST_WAITS, cluster.standings());
        cluster.judge(Err(("orders are carried out", what)));
    }

    async fn wait_until_in_line(&self) {
        let calm = self.cluster.is_healed();
        let until = self.cluster.world.now() + BOUND;
        let lost = || self.cluster.with_operated(|operated| operated.lost.is_some());
        while !self.cluster.is_in_line() && !lost() && self.cluster.is_healed() == calm {
            if self.cluster.world.now() > until {
                if calm {
                    let (wanted, standings) = (self.wanted(), self.cluster.standings());
                    let wanted: Vec<_> = wanted.keys().collect();
                    let what = format!("{BOUND:?} after healing, not yet {wanted:?}:{standings}");
                    self.cluster.judge(Err(("members are as they are wanted", what)));
                }
                return;
            }
            self.cluster.world.sleep(millis(20)).await;
        }
    }

    /// Has a change made that cannot be refused, and starts who comes.
    async fn make(&mut self, change: &RosterChange) {
        let (mut wanted, removed) = (self.wanted(), change.remove.iter().copied());
        self.cluster.with_operated(|operated| operated.removed.extend(removed));
        self.cluster.note(0, || format!("the operator orders {change:?}"));
        let answered = self.order(change).await;
        let Some(roster) = answered.as_ref().ok().and_then(Roster::of_reply) else {
            return self.broken("a change was refused", change, &answered);
        };
        let mut comes = Vec::new();
        for (id, seat) in &change.add {
            let key = wanted.get(id).map_or(&seat.key, |known| &known.key).clone();
            if wanted.insert(*id, Seat { key, ..seat.clone() }).is_none() {
                comes.push(*id);
            }
        }
        for id in &change.remove {
            let Some(seat) = wanted.remove(id) else { continue };
            self.cluster.with_operated(|operated| operated.leaving.insert(*id, seat.clone()));
            self.left.insert(*id, seat);
        }
        // Nobody else changes it.
        if *roster.seats() != wanted || roster.version() <= self.version {
            return self.broken("the roster is another one", change, &answered);
        }
        self.version = roster.version();
        self.cluster.lock().counts.ordered += 1;
        self.cluster.with_operated(|operated| operated.wanted = wanted);
        comes.into_iter().for_each(|id| self.cluster.join(id));
    }

    /// Asks the group for a change, until it is known what became of it.
    async fn order(&mut self, change: &RosterChange) -> Answered {
        loop {
            let hurry = self.random.chance(0.3) && !self.cluster.is_healed();
            let deadline = hurry.then(|| millis(1 + self.random.below(800)));
            let call = outgoing(&RosterChange::METHOD, change.encode(), deadline);
            let error = match self.client.caller.call(call).await {
                Ok(reply) => return Ok(reply.reply),
                Err(error) => error,
            };
            let answered = match error.outcome() {
                Outcome::Executed(status) => Some(Err(status.clone())),
                Outcome::NotExecuted(_) => None,
                Outcome::Pending(id) => self.ask(*id).await,
                _ => self.lost(&error),
            };
            if let Some(answered) = answered {
                return answered;
            }
            self.cluster.world.sleep(millis(20)).await;
        }
    }

    /// Asks what became of an order; none if it did not run, or that cannot be known.
    async fn ask(&mut self, id: CallId) -> Option<Answered> {
        loop {
            match self.client.caller.outcome(id).await {
                Ok(CallState::Replied(reply)) => return Some(Ok(reply.reply)),
                Ok(CallState::Executed(status)) => return Some(Err(status)),
                Ok(CallState::NotExecuted(_)) => return None,
                Ok(CallState::Lost) if self.cluster.habits.expires => return None,
                Ok(CallState::Executing | CallState::NotArrived) => {}
                Err(error) if matches!(error.outcome(), Outcome::Pending(_)) => {}
                Err(error) => return self.lost(&error),
                Ok(state) => {
                    let what = format!("{id} was asked for and is {state:?}");
                    self.cluster.judge(Err(("nothing is lost", what)));
                    return None;
                }
            }
            self.cluster.world.sleep(millis(20)).await;
        }
    }

    /// What it asked for may have been done: to ask for it again changes nothing then.
    fn lost(&self, error: &CallError) -> Option<Answered> {
        if !self.cluster.habits.expires {
            let what = format!("an order ended without a proof: {error}");
            self.cluster.judge(Err(("nothing is lost", what)));
        }
        None
    }

    fn wanted(&self) -> BTreeMap<NodeId, Seat> {
        self.cluster.with_operated(|operated| operated.wanted.clone())
    }

    /// A node that nobody has heard of, with a host, an address and a key.
    fn new_node(&mut self) -> (NodeId, Seat) {
        let id = self.new_number();
        self.cluster.give_address(id);
        (id, self.cluster.seat(id))
    }

    fn new_number(&mut self) -> NodeId {
        self.next += 1;
        NodeId::new(self.next - 1).expect("numbers begin at 1")
    }

    fn broken(&self, what: &str, change: &RosterChange, answered: &Answered) {
        let reply = answered.as_ref().map(Roster::of_reply);
        let what = format!("{what}: {change:?} was answered {reply:?}");
        self.cluster.judge(Err(("orders are carried out", what)));
    }
}
