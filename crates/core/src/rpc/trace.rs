//! What happened to calls lately: a ring that costs a store for each call, for people who ask why one
//! took so long or where it went.

use alloc::vec::Vec;

use crate::session::{CallId, SessionId};
use crate::time::Instant;

/// A step of a call at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStep {
    /// When, by the node's clock.
    pub at: Instant,
    /// What.
    pub kind: StepKind,
}

/// What happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Its request was here, whole, for the first time.
    Came,
    /// The request came again, and was answered from what is known.
    CameAgain,
    /// The client fenced it.
    FenceCame,
    /// Its handler runs since it came.
    Executing,
    /// The handler was done, and the answer was sent.
    Answered,
    /// This replica leads, and took it from another one for the log.
    Taken,
    /// This replica applied the entry of the log that it is in.
    Applied {
        /// The entry.
        entry: u64,
        /// It was a fence.
        fence: bool,
    },
}

/// The latest steps of all calls of a node, up to a bound; each new one takes the place of the oldest.
#[derive(Debug)]
pub struct CallLog {
    steps: Vec<Logged>,
    next: usize,
    most: usize,
}

/// As small as it can be: one is written for each call.
#[derive(Clone, Copy, Debug)]
struct Logged {
    session: SessionId,
    sequence: u64,
    at: Instant,
    /// Of [`What::Done`] when it came, in nanoseconds; of an applied one its entry.
    number: u64,
    slot: u32,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Came,
    CameAgain,
    FenceCame,
    Executing,
    Answered,
    Taken,
    Applied,
    FenceApplied,
    /// It came, and was answered: as one, since nearly all calls do just that.
    Done,
}

impl Logged {
    fn is_of(&self, call: CallId) -> bool {
        self.session == call.session && self.slot == call.slot && self.sequence == call.sequence
    }
}

impl CallLog {
    /// Room for so many steps; with 0 nothing is kept. The memory is taken with the first one.
    pub fn new(most: usize) -> Self {
        Self { steps: Vec::new(), next: 0, most }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.most > 0
    }

    /// A call came at `came` and was answered now.
    #[inline]
    pub(crate) fn done(&mut self, now: Instant, call: CallId, came: Instant) {
        self.put(now, call, What::Done, came.as_nanos());
    }

    /// Something happened to a call.
    pub fn push(&mut self, now: Instant, call: CallId, kind: StepKind) {
        let (what, number) = match kind {
            StepKind::Came => (What::Came, 0),
            StepKind::CameAgain => (What::CameAgain, 0),
            StepKind::FenceCame => (What::FenceCame, 0),
            StepKind::Executing => (What::Executing, 0),
            StepKind::Answered => (What::Answered, 0),
            StepKind::Taken => (What::Taken, 0),
            StepKind::Applied { entry, fence: false } => (What::Applied, entry),
            StepKind::Applied { entry, fence: true } => (What::FenceApplied, entry),
        };
        self.put(now, call, what, number);
    }

    /// What is known of a call, in the order of time.
    pub fn steps(&self, call: CallId) -> Vec<CallStep> {
        let (newer, older) = self.steps.split_at(self.next.min(self.steps.len()));
        let mut steps = Vec::new();
        for logged in older.iter().chain(newer).filter(|logged| logged.is_of(call)) {
            let (mut at, entry) = (logged.at, logged.number);
            let kind = match logged.what {
                What::Came => StepKind::Came,
                What::CameAgain => StepKind::CameAgain,
                What::FenceCame => StepKind::FenceCame,
                What::Executing => StepKind::Executing,
                What::Answered => StepKind::Answered,
                What::Taken => StepKind::Taken,
                What::Applied => StepKind::Applied { entry, fence: false },
                What::FenceApplied => StepKind::Applied { entry, fence: true },
                What::Done => {
                    steps.push(CallStep { at, kind: StepKind::Answered });
                    at = Instant::from_nanos(logged.number);
                    StepKind::Came
                }
            };
            steps.push(CallStep { at, kind });
        }
        steps.sort_by_key(|step| (step.at, step.kind == StepKind::Answered));
        steps
    }

    #[inline]
    fn put(&mut self, at: Instant, call: CallId, what: What, number: u64) {
        let CallId { session, slot, sequence } = call;
        let logged = Logged { session, sequence, at, number, slot, what };
        match self.steps.get_mut(self.next) {
            Some(oldest) => *oldest = logged,
            None => return self.grow(logged),
        }
        self.next += 1;
        if self.next == self.most {
            self.next = 0;
        }
    }

    #[cold]
    fn grow(&mut self, logged: Logged) {
        if self.most == 0 {
            return;
        }
        self.steps.reserve_exact(self.most - self.steps.len());
        self.steps.push(logged);
        self.next = self.steps.len() % self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn call(sequence: u64) -> CallId {
        CallId { session: SessionId { incarnation: 1, number: 2 }, slot: 3, sequence }
    }

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    #[test]
    fn the_latest_steps_are_kept_and_told_in_the_order_of_time() {
        let mut log = CallLog::new(3);
        log.push(at(1), call(1), StepKind::FenceCame);
        log.done(at(9), call(2), at(4));
        log.push(at(6), call(2), StepKind::CameAgain);
        let steps = log.steps(call(2));
        let kinds: Vec<_> = steps.iter().map(|step| (step.at, step.kind)).collect();
        let expected =
            [(at(4), StepKind::Came), (at(6), StepKind::CameAgain), (at(9), StepKind::Answered)];
        assert_eq!(kinds, expected);
        log.push(at(10), call(3), StepKind::Taken);
        assert_eq!(log.steps(call(1)), []);
        for n in 10..17 {
            log.done(at(n), call(n), at(n));
        }
        assert_eq!(log.steps(call(2)), []);
        assert_eq!(log.steps(call(14)).len(), 2);
        assert_eq!(log.steps(call(13)).len(), 0);
        assert_eq!(log.steps.capacity(), 3);
    }

    #[test]
    fn one_that_is_off_takes_no_memory() {
        let mut log = CallLog::new(0);
        log.done(at(1), call(1), at(1));
        assert_eq!((log.is_on(), log.steps.capacity(), log.steps(call(1)).len()), (false, 0, 0));
    }
}
