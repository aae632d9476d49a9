//! Requests for votes that are sent again.

use raft::StateRole;

use super::{Frame, Outgoing};

/// Ticks between two requests for the same vote.
const AGAIN_EVERY: u32 = 2;

/// What a candidate has asked for. A voter that has heard the leader not long ago does not even say
/// no (Raft thesis, section 4.2.3), and may think otherwise a moment later: were it asked once, the
/// candidate would wait for another election timeout.
#[derive(Debug, Default)]
pub(super) struct Votes {
    stage: Option<(u64, StateRole)>,
    asked: Vec<Outgoing>,
    ticks: u32,
}

impl Votes {
    /// Frames leave while the node is in this stage: its term, and what it is.
    pub(super) fn note(&mut self, stage: (u64, StateRole), frames: &[Outgoing]) {
        self.enter(stage);
        let asks = |out: &&Outgoing| matches!(out.frame, Frame::RequestVote { .. });
        let mut asked = frames.iter().filter(asks).peekable();
        if asked.peek().is_some() {
            self.asked = asked.cloned().collect();
            self.ticks = 0;
        }
    }

    /// A tick passes. Returns what is to be asked again.
    pub(super) fn tick(&mut self, stage: (u64, StateRole)) -> Vec<Outgoing> {
        self.enter(stage);
        self.ticks += 1;
        let due = self.ticks.is_multiple_of(AGAIN_EVERY);
        if due { self.asked.clone() } else { Vec::new() }
    }

    fn enter(&mut self, stage: (u64, StateRole)) {
        if self.stage != Some(stage) {
            *self = Self { stage: Some(stage), ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NodeId, Position};
    use super::*;

    #[test]
    fn votes_are_asked_for_every_other_tick_until_the_node_is_something_else() {
        let at = Position { index: 3, term: 1 };
        let frame =
            Frame::RequestVote { pre: true, term: 2, last: at, committed: at, transfer: false };
        let to = NodeId::new(2).expect("not 0");
        let asked = vec![Outgoing { to, frame }];
        let (asks, leads) = ((1, StateRole::PreCandidate), (2, StateRole::Leader));
        let mut votes = Votes::default();
        votes.note(asks, &asked);
        votes.note(asks, &[]);
        let again: Vec<bool> = (0..6).map(|_| votes.tick(asks) == asked).collect();
        assert_eq!(again, [false, true, false, true, false, true]);
        assert!((0..4).all(|_| votes.tick(leads).is_empty()));
        assert!((0..4).all(|_| votes.tick(asks).is_empty()), "that was another candidacy");
    }
}
