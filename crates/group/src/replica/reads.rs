//! Linearizable reads without a write (Raft thesis, section 6.4). A read asks the leader how far the
//! log is committed, and is answered here once that much is applied. All reads that come while a
//! question is under way share the next one.

use std::collections::BTreeMap;

use stubborn_core::random::Random;
use stubborn_core::time::{Duration, Instant};

use crate::replication::NodeId;

/// The reads of this replica, and what others ask it as their leader.
#[derive(Debug)]
pub(super) struct Reads {
    random: Random,
    /// Came since the question that is under way was asked.
    waiting: Vec<u64>,
    asked: Option<Asked>,
    /// May be answered once the entry of this index is applied.
    known: BTreeMap<u64, Vec<u64>>,
    /// Questions of others, by the number under which consensus has them.
    others: BTreeMap<u64, Other>,
    /// A question is to be asked though no read waits for it.
    wanted: bool,
    /// The oldest answer that is not applied: when it was asked for, and up to where the log was
    /// committed then.
    confirmed: Option<(Instant, u64)>,
    /// The state holds everything that was committed at this time of the replica's clock.
    fresh_at: Option<Instant>,
}

/// An answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// When it was asked.
    pub(super) asked: Instant,
    /// The other replica that asked, and its number for it.
    pub(super) other: Option<(NodeId, u64)>,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    at: Instant,
    reads: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    node: NodeId,
    read: u64,
    at: Instant,
}

/// Questions of others that wait for a majority, at most; a further one is dropped, and asked again.
const OTHERS: usize = 1_024;

impl Reads {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            waiting: Vec::new(),
            asked: None,
            known: BTreeMap::new(),
            others: BTreeMap::new(),
            wanted: false,
            confirmed: None,
            fresh_at: None,
        }
    }

    pub(super) fn add(&mut self, read: u64) {
        self.waiting.push(read);
    }

    pub(super) fn len(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |asked| asked.reads.len());
        self.waiting.len() + asked + self.known.values().map(Vec::len).sum::<usize>()
    }

    /// The number of a question that is to be asked now. Numbers are drawn, so that the late answer
    /// to a question of an earlier life is not taken for one to this.
    pub(super) fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.asked.is_some() || self.waiting.is_empty() && !self.wanted {
            return None;
        }
        self.wanted = false;
        let (number, reads) = (self.random.u64(), std::mem::take(&mut self.waiting));
        self.asked = Some(Asked { number, at: now, reads });
        Some(number)
    }

    /// Nobody could be asked, or whoever was may not answer any more: ask again.
    pub(super) fn ask_again(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.wanted |= asked.reads.is_empty();
            self.waiting.splice(0..0, asked.reads);
        }
    }

    /// Forgets questions that were not answered for so long.
    pub(super) fn handle_timeout(&mut self, now: Instant, patience: Duration) {
        if self.asked.as_ref().is_some_and(|asked| now.since(asked.at) >= patience) {
            self.ask_again();
        }
        self.others.retain(|_, other| now.since(other.at) < patience);
    }

    /// Another replica asks: the number under which consensus is to be asked.
    pub(super) fn ask_for(&mut self, now: Instant, node: NodeId, read: u64) -> Option<u64> {
        if self.others.len() >= OTHERS {
            return None;
        }
        let number = self.random.u64();
        self.others.insert(number, Other { node, read, at: now });
        Some(number)
    }

    /// Consensus does not take the question.
    pub(super) fn drop_other(&mut self, number: u64) {
        self.others.remove(&number);
    }

    /// A question of this replica or of another one has its answer: the log was committed up to
    /// `index` when it was asked, or later.
    pub(super) fn answered(&mut self, number: u64, index: u64) -> Option<Answered> {
        if let Some(asked) = self.asked.take_if(|asked| asked.number == number) {
            if !asked.reads.is_empty() {
                self.known.entry(index).or_default().extend(asked.reads);
            }
            self.confirmed.get_or_insert((asked.at, index));
            return Some(Answered { asked: asked.at, other: None });
        }
        let Other { node, read, at } = self.others.remove(&number)?;
        Some(Answered { asked: at, other: Some((node, read)) })
    }

    /// Whether a question would be asked if it could.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty() || self.wanted
    }

    /// The log is known to be committed up to `index` now, and no further, without a question.
    pub(super) fn need_not_ask(&mut self, now: Instant, index: u64) {
        if !self.waiting.is_empty() {
            let reads = std::mem::take(&mut self.waiting);
            self.known.entry(index).or_default().extend(reads);
        }
        if std::mem::take(&mut self.wanted) {
            self.confirmed.get_or_insert((now, index));
        }
    }

    /// Asks as soon as no question is under way, though no read waits.
    pub(super) fn ask_soon(&mut self) {
        self.wanted = true;
    }

    /// How old the state is at most; none if nobody knows.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.fresh_at.map(|at| now.since(at))
    }

    /// Takes the reads that may be answered now.
    pub(super) fn due(&mut self, applied: u64) -> Vec<u64> {
        if let Some((asked, _)) = self.confirmed.take_if(|(_, index)| *index <= applied) {
            self.fresh_at = self.fresh_at.max(Some(asked));
        }
        let mut due = Vec::new();
        while let Some(first) = self.known.first_entry().filter(|first| *first.key() <= applied) {
            due.extend(first.remove());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads() -> Reads {
        Reads::new(Random::from_seed([3; 32]))
    }

    #[test]
    fn a_read_that_comes_after_the_question_waits_for_the_next_one() {
        let mut reads = reads();
        reads.add(1);
        let first = reads.ask(Instant::ZERO).unwrap();
        reads.add(2);
        assert_eq!(reads.ask(Instant::ZERO), None);
        assert_eq!(reads.answered(first, 7).unwrap().other, None);
        assert!(reads.due(6).is_empty());
        assert_eq!(reads.due(7), [1]);
        let second = reads.ask(Instant::ZERO).unwrap();
        assert_eq!(reads.answered(first, 9), None, "a late copy of the first answer");
        assert!(reads.due(9).is_empty());
        reads.answered(second, 9);
        assert_eq!(reads.due(9), [2]);
    }

    #[test]
    fn a_question_that_is_not_answered_is_asked_under_another_number() {
        let mut reads = reads();
        reads.add(1);
        let first = reads.ask(Instant::ZERO).unwrap();
        let patience = Duration::from_millis(5);
        reads.handle_timeout(Instant::ZERO + patience, patience);
        let second = reads.ask(Instant::ZERO).unwrap();
        assert_ne!(first, second);
        reads.answered(first, 1);
        assert!(reads.due(1).is_empty());
        reads.answered(second, 1);
        assert_eq!(reads.due(1), [1]);
    }
}
