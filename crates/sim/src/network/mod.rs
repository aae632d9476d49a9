//! The simulated network: links with rules, and attackers.

mod attack;
mod rule;
mod wire;

use std::time::Duration;

pub use attack::Attack;
pub(crate) use attack::Attacker;
pub use rule::Rule;
pub(crate) use rule::Scope;
pub(crate) use wire::{Datagram, Drop as Dropped, RuleId, Wire};

use crate::world::World;

/// The network of a world, or a part of it. Each method that changes it gives a [`Guard`]; the
/// change ends when the guard is dropped.
///
/// Without rules a datagram of at most 1,472 bytes takes 250 µs and arrives once, in order.
#[derive(Clone)]
pub struct Network {
    world: World,
    scope: Scope,
}

impl Network {
    pub(crate) fn new(world: World) -> Self {
        Self { world, scope: Scope::Everything }
    }

    /// Everything from and to this host.
    pub fn host(&self, name: &str) -> Self {
        self.part(Scope::Host(self.world.id(name)))
    }

    /// The link between two hosts, both ways.
    pub fn between(&self, a: &str, b: &str) -> Self {
        self.part(Scope::Between(self.world.id(a), self.world.id(b)))
    }

    /// The link from one host to another, one way.
    pub fn one_way(&self, from: &str, to: &str) -> Self {
        self.part(Scope::OneWay(self.world.id(from), self.world.id(to)))
    }

    /// Every link between these hosts and all others.
    pub fn across(&self, names: &[&str]) -> Self {
        self.part(Scope::Across(names.iter().map(|name| self.world.id(name)).collect()))
    }

    fn part(&self, scope: Scope) -> Self {
        Self { world: self.world.clone(), scope }
    }

    /// Loses each datagram with this probability.
    pub fn lose(&self, probability: f64) -> Guard {
        self.add(Rule::Lose(probability))
    }

    /// Delivers datagrams twice with this probability, the copy up to `later` after the first.
    pub fn duplicate(&self, chance: f64, later: Duration) -> Guard {
        self.add(Rule::Duplicate { chance, later })
    }

    /// Holds datagrams back with this probability, up to `later`, so that others overtake them.
    pub fn reorder(&self, chance: f64, later: Duration) -> Guard {
        self.add(Rule::Reorder { chance, later })
    }

    /// Makes each datagram take `base` longer, and up to `jitter` more; their order is kept.
    pub fn delay(&self, base: Duration, jitter: Duration) -> Guard {
        self.add(Rule::Delay { base, jitter })
    }

    /// Alters datagrams with this probability.
    pub fn corrupt(&self, probability: f64) -> Guard {
        self.add(Rule::Corrupt(probability))
    }

    /// Lets datagrams out at this rate and drops those that would wait behind `queue` bytes. Each
    /// link has a queue of its own.
    pub fn limit(&self, bytes_per_second: u64, queue: u64) -> Guard {
        self.add(Rule::Limit { bytes_per_second, queue })
    }

    /// Drops datagrams larger than this, silently.
    pub fn mtu(&self, bytes: usize) -> Guard {
        self.add(Rule::Mtu(bytes))
    }

    /// Lets nothing pass: a partition, in the form of the part of the network that this is.
    pub fn cut(&self) -> Guard {
        self.add(Rule::Cut)
    }

    /// Adds any rule.
    pub fn add(&self, rule: Rule) -> Guard {
        let id = self.world.state().wire.add(self.scope.clone(), rule);
        Guard { world: self.world.clone(), what: What::Rule(id) }
    }

    /// Puts an attacker on the network who sees everything, whatever part this is, and sends
    /// something `every` so often.
    pub fn attack(&self, every: Duration, kinds: &[Attack]) -> Guard {
        let attacker = self.world.state().add_attacker(every, kinds);
        Guard { world: self.world.clone(), what: What::Attacker(attacker) }
    }

    /// Gives a host another address, as a NAT does that has forgotten it.
    pub fn rebind(&self, name: &str) {
        let id = self.world.id(name);
        self.world.state().rebind(id);
    }

    /// Lifts every rule and sends every attacker home, whatever part this is. The guards then have
    /// nothing left to lift.
    pub fn heal(&self) {
        let mut state = self.world.state();
        state.wire.lift_all();
        state.attackers.clear();
    }
}

/// A change of the network; dropping it undoes it.
#[must_use = "a change of the network ends when its guard is dropped"]
pub struct Guard {
    world: World,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Rule(RuleId),
    Attacker(u64),
    Nothing,
}

impl Guard {
    /// Leaves the change in place until the world ends or heals.
    pub fn keep(mut self) {
        self.what = What::Nothing;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self.what {
            What::Rule(id) => self.world.state().wire.lift(id),
            What::Attacker(id) => {
                self.world.state().attackers.remove(&id);
            }
            What::Nothing => {}
        }
    }
}
