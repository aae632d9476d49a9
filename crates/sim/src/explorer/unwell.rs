//! Servers that are not well, though their packets come and go: handlers that hang, take long or fail,
//! and servers in whose place somebody lies. And channels whose targets change while calls go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stubborn_core::limits::Limits;
use stubborn_core::random::Random;
use stubborn_core::service::Code;
use stubborn_core::time::Instant;

use super::faults::{Dice, Episode, Fault};
use crate::world::{World, millis};

/// What is wrong with a server's handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    /// They answer when it is over.
    Hang,
    /// They take so much longer.
    Slow(Duration),
    /// They answer whatever they are asked with this status.
    Fail(Code),
}

/// Which servers of a world are not well, and until when. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Ailments(Arc<Mutex<BTreeMap<String, (Ailment, Instant)>>>);

impl Ailments {
    /// A server is not well until then.
    pub(super) fn begin(&self, server: &str, ailment: Ailment, until: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(server.to_owned(), (ailment, until));
    }

    /// Waits as long as a handler of the server has to that begins now, and says with which status it
    /// ends if it is not the one that it would end with.
    pub(super) async fn bear(&self, world: &World, server: &str) -> Option<Code> {
        let found = self.of(world, server);
        let (ailment, until) = found?;
        match ailment {
            Ailment::Hang => world.sleep(until.since(world.now())).await,
            Ailment::Slow(longer) => world.sleep(longer).await,
            Ailment::Fail(code) => return Some(code),
        }
        None
    }

    /// What a server has now, and until when.
    pub(super) fn of(&self, world: &World, server: &str) -> Option<(Ailment, Instant)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(server).copied().filter(|(_, until)| *until > world.now())
    }
}

/// What a run has of this beside all else. Drawn apart, so that what a seed does otherwise stays as it
/// was.
pub(super) struct Unwell {
    random: Random,
    /// Servers beside those that there would be, where there are several.
    pub(super) more_servers: u64,
}

impl Unwell {
    pub(super) fn draw(seed: u64) -> Self {
        let mut bytes = [0x3c; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = Random::from_seed(bytes);
        let more_servers = if random.chance(0.4) { 1 + random.below(2) } else { 0 };
        Self { random, more_servers }
    }

    /// In half of all runs.
    pub(super) fn episodes(
        &mut self,
        servers: &[String],
        clients: &[String],
        length: Duration,
    ) -> Vec<Episode> {
        if self.random.chance(0.5) {
            return Vec::new();
        }
        let mut dice = Dice { random: &mut self.random, servers, clients };
        (0..1 + dice.random.below(3)).map(|_| dice.unwell(length)).collect()
    }

    /// In a fifth of all runs there is little room to put messages together.
    pub(super) fn limit(&mut self, limits: &mut Limits) {
        if self.random.chance(0.2) {
            limits.message = 400_000;
            limits.assembly = 50_000 + self.random.below(1_950_000);
        }
    }
}

impl Dice<'_> {
    fn unwell(&mut self, length: Duration) -> Episode {
        let begins = length.mul_f64(self.random.unit() * 0.8);
        let lasts = (length - begins).mul_f64(self.random.unit());
        let fault = match self.random.below(8) {
            0 | 1 => Fault::Ail(self.server(), Ailment::Hang),
            2 => {
                let longer = millis(self.random.below(3_000));
                Fault::Ail(self.server(), Ailment::Slow(longer))
            }
            3 => {
                let codes = [Code::Unavailable, Code::Internal, Code::ResourceExhausted];
                let code = codes[self.random.below(3) as usize];
                Fault::Ail(self.server(), Ailment::Fail(code))
            }
            4 | 5 => Fault::Lie(self.server()),
            _ => Fault::Retarget(self.client()),
        };
        Episode { begins, lasts, fault }
    }
}
