//! What must hold of a group and its clients, whatever goes wrong.

use std::collections::BTreeMap;

use stubborn_core::time::{Duration, Instant};
use stubborn_group::replication::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use super::ledger::{Command, Ledger};
use crate::nodes::Broken;
use crate::replicas::History;

/// Watches a group and its clients from outside.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) history: History,
    /// What clients were told last.
    fates: BTreeMap<Command, Fate>,
    /// The state of the first replica that came to an entry.
    images: BTreeMap<u64, (NodeId, u64)>,
    /// When each count that was larger than any before was first told to a client.
    told: Vec<(Instant, u64)>,
}

/// What a client was told of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Counted(u64),
    NotExecuted,
}

impl Judge {
    /// A client was told that its command made the count this.
    pub(super) fn counted(&mut self, command: Command, count: u64) -> Result<(), Broken> {
        self.settle(command, Fate::Counted(count))
    }

    /// A client was told that its command did not run and never will.
    pub(super) fn not_executed(&mut self, command: Command) -> Result<(), Broken> {
        self.settle(command, Fate::NotExecuted)
    }

    /// A client was told this count.
    pub(super) fn saw(&mut self, now: Instant, count: u64) {
        if self.told.last().is_none_or(|(_, largest)| *largest < count) {
            self.told.push((now, count));
        }
    }

    /// A client that had been told `before` was told this count by a read that might be of an older
    /// state: a session never goes back in time.
    pub(super) fn on_session_read(&self, before: u64, count: u64) -> Result<(), Broken> {
        if count >= before {
            return Ok(());
        }
        Err(("sessions", format!("a client saw {count} after it had seen {before}")))
    }

    /// The same read began at `began`, and asked for a state that is at most so old.
    pub(super) fn on_stale_read(
        &self,
        began: Instant,
        at_most: Duration,
        count: u64,
    ) -> Result<(), Broken> {
        let known = self.told.partition_point(|(told, _)| *told + at_most <= began);
        let Some((_, least)) = known.checked_sub(1).map(|last| self.told[last]) else {
            return Ok(());
        };
        if count >= least {
            return Ok(());
        }
        let what = format!("a read of a state at most {at_most:?} old saw {count}, not {least}");
        Err(("staleness", what))
    }

    fn settle(&mut self, command: Command, fate: Fate) -> Result<(), Broken> {
        match self.fates.insert(command, fate) {
            Some(before) if before != fate => {
                let what = format!("{command:?} ended as {before:?}, then as {fate:?}");
                Err(("outcomes", what))
            }
            _ => Ok(()),
        }
    }

    /// A replica has applied entries up to `index`, and its state is `image`: that of all others
    /// there, byte for byte.
    pub(super) fn on_image(&mut self, id: NodeId, index: u64, image: &[u8]) -> Result<(), Broken> {
        let hash = xxh3_64(image);
        let (first, known) = *self.images.entry(index).or_insert((id, hash));
        if known == hash {
            return Ok(());
        }
        let what = format!("{first} and {id} have different states after entry {index}");
        Err(("state machine safety", what))
    }

    /// All is quiet, and the replicas have this ledger: what clients were told agrees with it.
    pub(super) fn at_rest(&self, ledger: &Ledger) -> Result<(), Broken> {
        for (command, fate) in &self.fates {
            let fact =
                ledger.0.get(command).map_or(Fate::NotExecuted, |count| Fate::Counted(*count));
            if fact != *fate {
                let what = format!("{command:?} was told {fate:?}, and is {fact:?}");
                return Err(("acknowledged is true", what));
            }
        }
        Ok(())
    }
}
