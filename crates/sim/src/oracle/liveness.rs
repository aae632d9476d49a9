//! After every fault has been lifted, every call resolves within ten simulated seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use stubborn_core::time::Instant;

use super::calls::Token;

/// How long a call may stay unresolved once nothing is wrong any more.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Liveness {
    open: BTreeMap<Token, Instant>,
    healed: Option<Instant>,
}

impl Liveness {
    pub(crate) fn began(&mut self, token: Token, now: Instant) {
        self.open.insert(token, now);
    }

    /// The call resolved, or nobody waits for it any more.
    pub(crate) fn ended(&mut self, token: Token) {
        self.open.remove(&token);
    }

    /// The last fault was lifted.
    pub(crate) fn healed(&mut self, now: Instant) {
        self.healed = Some(now);
    }

    /// Calls that have not resolved.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// To be asked when the bound has passed.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        let Some(healed) = self.healed else { return Ok(()) };
        let overdue = self.open.iter().find(|(_, begun)| now.since(healed.max(**begun)) >= BOUND);
        match overdue {
            None => Ok(()),
            Some((token, begun)) => Err(format!(
                "the call {token}, begun at {} s, has not resolved {:?} after all faults were lifted \
                 ({} calls are open)",
                crate::world::Stamp(*begun).to_string().trim_start(),
                now.since(healed),
                self.open.len()
            )),
        }
    }
}
