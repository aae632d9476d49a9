//! What goes wrong in a run, drawn from its seed: every class of failure, in any combination.

use std::time::Duration;

use stubborn_core::random::Random;

use super::unwell::Ailment;
use crate::network::{Attack, Guard, Rule};
use crate::world::{World, millis};

/// Something that is wrong for a while.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A rule for a part of the network.
    Rule(Part, Rule),
    Attack(Vec<Attack>, Duration),
    Kill(String),
    Pause(String),
    Slow(String, Duration),
    Skew(String, i32),
    Jump(String, Duration),
    JumpBack(String, Duration),
    Rebind(String),
    /// A server drains, and is restarted afterwards.
    Drain(String),
    /// A server has fewer slots to give.
    FewSlots(String, u32),
    /// A server's handlers are not well.
    Ail(String, Ailment),
    /// Somebody who lies takes a server's place, with its certificate.
    Lie(String),
    /// A client's channels lead to some of their servers only, and to others a while later.
    Retarget(String),
}

/// Which part of the network.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Everything,
    Host(String),
    Between(String, String),
    OneWay(String, String),
    Across(Vec<String>),
}

/// A fault, when it begins and how long it lasts.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub(super) begins: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

/// Draws from the hosts of a run.
pub(crate) struct Dice<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) servers: &'a [String],
    pub(crate) clients: &'a [String],
}

impl Dice<'_> {
    /// An episode in a run of this length.
    pub(super) fn episode(&mut self, length: Duration) -> Episode {
        let begins = self.up_to(length.mul_f64(0.8));
        let short = self.random.chance(0.6);
        let lasts = self.up_to(if short { millis(1_500) } else { length - begins });
        Episode { begins, lasts, fault: self.fault() }
    }

    fn fault(&mut self) -> Fault {
        match self.random.below(26) {
            0..4 => Fault::Kill(self.server()),
            4 => Fault::Kill(self.client()),
            5 | 6 => Fault::Pause(self.server()),
            7 => Fault::Pause(self.client()),
            8 => Fault::Slow(self.host(), Duration::from_micros(self.random.below(3_000))),
            9 => Fault::Skew(self.host(), self.random.below(400_000) as i32 - 200_000),
            10 => Fault::Jump(self.host(), self.up_to(Duration::from_secs(40))),
            11 => Fault::JumpBack(self.host(), self.up_to(Duration::from_secs(5))),
            12 => Fault::Rebind(self.client()),
            13 => Fault::Drain(self.server()),
            14 | 15 => Fault::FewSlots(self.server(), 1 + self.random.below(3) as u32),
            16..18 => self.attack(),
            18..21 => Fault::Rule(self.part(), Rule::Cut),
            _ => {
                let rule = self.rule();
                Fault::Rule(self.part(), rule)
            }
        }
    }

    fn attack(&mut self) -> Fault {
        let kinds = Attack::ALL.into_iter().filter(|_| self.random.chance(0.6)).collect();
        Fault::Attack(kinds, Duration::from_micros(1_000 + self.random.below(100_000)))
    }

    /// A rule that lets something pass.
    pub(crate) fn rule(&mut self) -> Rule {
        let share = self.random.unit();
        match self.random.below(9) {
            0 | 1 => Rule::Lose(share * 0.5),
            2 => Rule::Duplicate { chance: share, later: self.delay() },
            3 => Rule::Reorder { chance: share * 0.5, later: self.delay() },
            4 => Rule::Delay { base: self.up_to(millis(150)), jitter: self.up_to(millis(100)) },
            5 => Rule::Corrupt(share * 0.3),
            6 => Rule::Limit {
                bytes_per_second: 20_000 + self.random.below(2_000_000),
                queue: 3_000 + self.random.below(60_000),
            },
            7 => Rule::Mtu(1_200 + self.random.below(8_000) as usize),
            _ if share < 0.5 => Rule::MarkCongestion(share),
            _ => Rule::ClearEcn,
        }
    }

    /// Mostly short; sometimes minutes, so that copies of packets arrive when nobody expects them.
    fn delay(&mut self) -> Duration {
        let limit = match self.random.below(10) {
            0 => Duration::from_secs(600),
            1 | 2 => Duration::from_secs(10),
            _ => millis(200),
        };
        self.up_to(limit)
    }

    pub(crate) fn part(&mut self) -> Part {
        match self.random.below(5) {
            0 => Part::Everything,
            1 => Part::Host(self.host()),
            2 => Part::Between(self.client(), self.server()),
            3 if self.random.chance(0.5) => Part::OneWay(self.client(), self.server()),
            3 => Part::OneWay(self.server(), self.client()),
            _ => Part::Across(vec![self.host(), self.host()]),
        }
    }

    pub(crate) fn server(&mut self) -> String {
        self.servers[self.random.below(self.servers.len() as u64) as usize].clone()
    }

    pub(crate) fn client(&mut self) -> String {
        self.clients[self.random.below(self.clients.len() as u64) as usize].clone()
    }

    fn host(&mut self) -> String {
        if self.random.chance(0.5) { self.server() } else { self.client() }
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(self.random.below(limit.as_nanos() as u64 + 1))
    }
}

impl Part {
    pub(crate) fn add(&self, world: &World, rule: Rule) -> Guard {
        let network = world.network();
        let network = match self {
            Self::Everything => network,
            Self::Host(name) => network.host(name),
            Self::Between(a, b) => network.between(a, b),
            Self::OneWay(from, to) => network.one_way(from, to),
            Self::Across(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                network.across(&names)
            }
        };
        network.add(rule)
    }
}
