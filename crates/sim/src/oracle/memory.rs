//! What a node holds stays within what its limits add up to.

use stubborn_core::limits::Limits;
use stubborn_core::node::Footprint;

/// What a message has beside its body, at most.
const HEADS: u64 = 32 << 10;

/// Looks every so many times, since adding up what a node holds takes longer than most steps.
const EVERY: u32 = 32;

#[derive(Default)]
pub(crate) struct Memory {
    asked: u32,
}

impl Memory {
    pub(crate) fn check(
        &mut self,
        host: &str,
        limits: &Limits,
        footprint: impl FnOnce() -> Footprint,
    ) -> Result<(), String> {
        self.asked = self.asked.wrapping_add(1);
        if !self.asked.is_multiple_of(EVERY) {
            return Ok(());
        }
        let held = footprint();
        let connections = limits.connections as u64;
        let executing =
            limits.slots_in_all + connections * u64::from(limits.reads) + limits.maybe_calls as u64;
        let rows = [
            ("connections", held.connections as u64, connections),
            ("sessions", held.sessions as u64, limits.sessions as u64),
            ("slots", held.slots, limits.slots_in_all),
            ("bytes of kept replies", held.kept_replies, limits.kept_replies),
            ("bytes of held replies", held.held_replies, limits.held_replies),
            ("requests at work", held.executing as u64, executing),
            (
                "bytes being assembled",
                held.assembling,
                limits.assembly + 2 * (limits.message + HEADS),
            ),
        ];
        match rows.iter().find(|(_, held, limit)| held > limit) {
            None => Ok(()),
            Some((what, held, limit)) => Err(format!("{host} holds {held} {what}, limit {limit}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_over_its_limit_is_seen() {
        let (limits, mut memory) = (Limits::default(), Memory::default());
        let mut footprint = Footprint::default();
        footprint.sessions = limits.sessions + 1;
        let seen = (0..EVERY).any(|_| memory.check("bank", &limits, || footprint).is_err());
        assert!(seen);
        footprint.sessions = limits.sessions;
        assert!((0..EVERY).all(|_| memory.check("bank", &limits, || footprint).is_ok()));
    }
}
