//! The network's state: who has which address, what the rules do to a datagram, when it arrives.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::Ecn;

use super::rule::{Rule, Scope};
use crate::world::HostId;

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ecn: Ecn,
    pub(crate) data: BytesMut,
    /// Sent by the owner of `from` after something from `to` had reached it there: its arrival
    /// shows that the owner receives at that address.
    pub(crate) answers: bool,
}

/// What the network does with a datagram.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// When copies arrive: none if it is dropped.
    pub(crate) arrivals: Vec<(Instant, Datagram)>,
    /// Why it was dropped, for the trace.
    pub(crate) dropped: Option<Drop>,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drop {
    NoSuchAddress,
    Cut,
    Loss,
    Mtu,
    QueueFull,
}

/// Names a rule, for lifting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleId(u64);

/// The time a datagram takes where no rule says more.
const BASE_DELAY: Duration = Duration::from_micros(250);

/// What Ethernet carries: 1,500 bytes less the headers of IPv4 and UDP.
const BASE_MTU: usize = 1_472;

pub(crate) struct Wire {
    random: Random,
    rules: Vec<(RuleId, Scope, Rule)>,
    next_rule: u64,
    owners: BTreeMap<SocketAddr, HostId>,
    next_port: u16,
    /// The latest arrival per link: datagrams keep their order unless a rule says otherwise.
    arrivals: BTreeMap<(HostId, HostId), Instant>,
    /// When the queue of a limit is empty, per rule and link.
    queues: BTreeMap<(RuleId, HostId, HostId), Instant>,
}

impl Wire {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            random,
            rules: Vec::new(),
            next_rule: 0,
            owners: BTreeMap::new(),
            next_port: 20_000,
            arrivals: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }

    /// Gives a host its first address.
    pub(crate) fn join(&mut self, host: HostId) -> SocketAddr {
        let [_, _, high, low] = (host.0 + 1).to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 7_400));
        self.owners.insert(address, host);
        address
    }

    /// Gives a host another port, as a NAT does that has forgotten it. The old one is nobody's.
    pub(crate) fn rebind(&mut self, host: HostId, old: SocketAddr) -> SocketAddr {
        self.owners.remove(&old);
        let address = SocketAddr::from((old.ip(), self.take_port()));
        self.owners.insert(address, host);
        address
    }

    /// Ports are given in turn, so that a port just left is not somebody's at once.
    fn take_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
        port
    }

    /// Gives a host a further address.
    pub(crate) fn open(&mut self, host: HostId) -> SocketAddr {
        let [_, _, high, low] = (host.0 + 1).to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, high, low), self.take_port()));
        self.owners.insert(address, host);
        address
    }

    /// Who receives at an address.
    pub(crate) fn owner(&self, address: SocketAddr) -> Option<HostId> {
        self.owners.get(&address).copied()
    }

    pub(crate) fn add(&mut self, scope: Scope, rule: Rule) -> RuleId {
        let id = RuleId(self.next_rule);
        self.next_rule += 1;
        self.rules.push((id, scope, rule));
        id
    }

    pub(crate) fn lift(&mut self, id: RuleId) {
        self.rules.retain(|(rule, ..)| *rule != id);
        self.queues.retain(|(rule, ..), _| *rule != id);
    }

    pub(crate) fn lift_all(&mut self) {
        self.rules.clear();
        self.queues.clear();
    }

    /// Sends a datagram from `from` (who may lie about its address).
    pub(crate) fn send(&mut self, now: Instant, from: HostId, datagram: Datagram) -> Fate {
        let Some(to) = self.owner(datagram.to) else { return Fate::dropped(Drop::NoSuchAddress) };
        let mut passage = Passage::new(now, datagram);
        for (id, scope, rule) in &self.rules {
            if !scope.covers(from, to) {
                continue;
            }
            let queue = (*id, from, to);
            if let Err(why) = passage.apply(rule, queue, &mut self.queues, &mut self.random) {
                return Fate::dropped(why);
            }
        }
        if passage.datagram.data.len() > passage.mtu.unwrap_or(BASE_MTU) {
            return Fate::dropped(Drop::Mtu);
        }
        let latest = self.arrivals.entry((from, to)).or_default();
        passage.arrive(latest)
    }
}

impl Fate {
    fn dropped(why: Drop) -> Self {
        Self { arrivals: Vec::new(), dropped: Some(why) }
    }
}

/// One datagram passing the rules.
struct Passage {
    datagram: Datagram,
    at: Instant,
    mtu: Option<usize>,
    overtaken: Option<Duration>,
    copy_later: Option<Duration>,
}

impl Passage {
    fn new(now: Instant, datagram: Datagram) -> Self {
        let at = now + BASE_DELAY;
        Self { datagram, at, mtu: None, overtaken: None, copy_later: None }
    }

    fn apply(
        &mut self,
        rule: &Rule,
        queue_id: (RuleId, HostId, HostId),
        queues: &mut BTreeMap<(RuleId, HostId, HostId), Instant>,
        random: &mut Random,
    ) -> Result<(), Drop> {
        match *rule {
            Rule::Cut => return Err(Drop::Cut),
            Rule::Lose(p) if random.chance(p) => return Err(Drop::Loss),
            Rule::Latency(latency) => self.at = self.at + latency - BASE_DELAY,
            Rule::Delay { base, jitter } => self.at += base + up_to(jitter, random),
            Rule::Mtu(mtu) => self.mtu = Some(self.mtu.map_or(mtu, |old| old.min(mtu))),
            Rule::Limit { bytes_per_second, queue } => {
                let size = self.datagram.data.len() as u64;
                let free = queues.entry(queue_id).or_default();
                let start = (*free).max(self.at);
                let waiting = nanos(start.since(self.at)) as u128 * u128::from(bytes_per_second)
                    / 1_000_000_000;
                if waiting + u128::from(size) > u128::from(queue.max(size)) {
                    return Err(Drop::QueueFull);
                }
                let took = size.saturating_mul(1_000_000_000) / bytes_per_second.max(1);
                *free = start + Duration::from_nanos(took);
                self.at = *free;
            }
            Rule::Duplicate { chance, later } if random.chance(chance) => {
                self.copy_later = Some(up_to(later, random));
            }
            Rule::Reorder { chance, later } if random.chance(chance) => {
                self.overtaken = Some(self.overtaken.unwrap_or_default() + up_to(later, random));
            }
            Rule::Corrupt(p) if random.chance(p) => corrupt(&mut self.datagram.data, random),
            Rule::MarkCongestion(p) if self.datagram.ecn != Ecn::NotEct && random.chance(p) => {
                self.datagram.ecn = Ecn::Ce;
            }
            Rule::ClearEcn => self.datagram.ecn = Ecn::NotEct,
            Rule::Lose(_)
            | Rule::Duplicate { .. }
            | Rule::Reorder { .. }
            | Rule::Corrupt(_)
            | Rule::MarkCongestion(_) => {}
        }
        Ok(())
    }

    fn arrive(self, latest: &mut Instant) -> Fate {
        let at = match self.overtaken {
            Some(later) => self.at + later,
            None => {
                *latest = self.at.max(*latest);
                *latest
            }
        };
        let mut arrivals = Vec::with_capacity(1);
        if let Some(later) = self.copy_later {
            arrivals.push((at + later, self.datagram.clone()));
        }
        arrivals.push((at, self.datagram));
        Fate { arrivals, dropped: None }
    }
}

/// Flips up to three bits, or cuts the end off.
pub(crate) fn corrupt(data: &mut BytesMut, random: &mut Random) {
    if data.is_empty() {
        return;
    }
    if random.chance(0.1) {
        data.truncate(random.below(data.len() as u64) as usize);
        return;
    }
    for _ in 0..=random.below(3) {
        let bit = random.below(data.len() as u64 * 8);
        data[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

fn up_to(limit: Duration, random: &mut Random) -> Duration {
    Duration::from_nanos(random.below(nanos(limit).saturating_add(1)))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
#[path = "wire/tests.rs"]
mod tests;
