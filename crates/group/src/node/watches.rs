//! Streams of reads at this node: questions for what follows a position, kept until there is
//! something to answer. Each is shown the state again after it has changed, a bounded number of them
//! at a time; nothing else is kept of a stream.

use std::collections::{BTreeMap, BTreeSet};

use stubborn_core::node::{Batch, RequestKey, Watch};
use stubborn_core::service::{Answer, Encoded, Machines, Metadata, MethodId, Next, Status};
use stubborn_core::time::{Duration, Instant, earliest};

/// Questions that are shown the state at once; the others follow after a pause, so that many of them
/// do not keep the node from its commands.
const AT_ONCE: usize = 64;

/// The pause.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes of an answer at most, unless one message has more.
const LARGEST: u64 = 1 << 20;

/// How long a question is kept at most, whatever its client says.
const LONGEST: Duration = Duration::from_secs(5);

/// Steps over what is of no interest to a stream at most, before others have their turn.
const STEPS: usize = 64;

/// A question that waits for something to answer.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) key: RequestKey,
    pub(super) method: MethodId,
    pub(super) request: Encoded,
    pub(super) watch: Watch,
}

/// What a question is answered.
#[derive(Debug)]
pub(super) enum Found {
    /// These messages, up to this position.
    Messages(u64, Batch),
    /// The stream has ended.
    End(Answer),
    /// Nothing yet.
    Nothing,
    /// Nothing as far as it was looked: there may be more.
    Unfinished,
}

/// The questions that wait.
#[derive(Debug, Default)]
pub(super) struct Watches {
    waiting: BTreeMap<u64, Watching>,
    /// When each is answered though there is nothing.
    until: BTreeSet<(Instant, u64)>,
    ends: BTreeMap<u64, Instant>,
    /// Those that have not seen the state as it is.
    unseen: BTreeSet<u64>,
    /// The one that has its turn next, so that all have theirs.
    turn: u64,
    /// The last entry of the state that they were, or are to be, shown.
    applied: u64,
    /// Not shown more before.
    paused_until: Option<Instant>,
}

impl Watches {
    /// Keeps a question, which has seen the state as it is or not.
    pub(super) fn keep(&mut self, now: Instant, id: u64, watching: Watching, seen: bool) {
        let until = now + watching.watch.hold.min(LONGEST);
        self.until.insert((until, id));
        self.ends.insert(id, until);
        self.waiting.insert(id, watching);
        if !seen {
            self.unseen.insert(id);
            self.paused_until.get_or_insert(now + PAUSE);
        }
    }

    /// Takes a question away.
    pub(super) fn remove(&mut self, id: u64) -> Option<Watching> {
        if let Some(until) = self.ends.remove(&id) {
            self.until.remove(&(until, id));
        }
        self.unseen.remove(&id);
        self.waiting.remove(&id)
    }

    /// When [`look`](Self::look) or [`take_over`](Self::take_over) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let paused = self.paused_until.filter(|_| !self.unseen.is_empty());
        earliest(self.until.first().map(|(at, _)| *at), paused)
    }

    /// Shows the state to questions that have not seen it, and takes out what is found.
    pub(super) fn look(
        &mut self,
        now: Instant,
        applied: u64,
        machines: &Machines,
    ) -> Vec<(RequestKey, Found)> {
        if self.applied != applied {
            self.applied = applied;
            self.unseen.extend(self.waiting.keys());
        }
        if self.unseen.is_empty() || self.paused_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for _ in 0..AT_ONCE {
            let next = self.unseen.range(self.turn..).next().or_else(|| self.unseen.first());
            let Some(&id) = next else { break };
            self.unseen.remove(&id);
            self.turn = id + 1;
            let Some(watching) = self.waiting.get_mut(&id) else { continue };
            let key = watching.key;
            match watching.find(machines) {
                Found::Nothing => {}
                Found::Unfinished => {
                    self.unseen.insert(id);
                    break;
                }
                what => {
                    self.remove(id);
                    found.push((key, what));
                }
            }
        }
        self.paused_until = (!self.unseen.is_empty()).then_some(now + PAUSE);
        found
    }

    /// The next question that was kept for long enough.
    pub(super) fn take_over(&mut self, now: Instant) -> Option<Watching> {
        let (_, id) = *self.until.first().filter(|(until, _)| *until <= now)?;
        self.remove(id)
    }
}

impl Watching {
    /// What follows its position. Notes how far there is nothing.
    pub(super) fn find(&mut self, machines: &Machines) -> Found {
        let room = self.watch.room.min(LARGEST);
        let (mut batch, mut position) = (Batch::new(), self.watch.position);
        let (mut steps, mut finished) = (0, false);
        while steps < STEPS {
            match machines.next(self.method, &self.request, position) {
                Ok(Next::Message(message, at)) => {
                    if at <= position {
                        return Found::End(still(position));
                    }
                    if !batch.has_room(room, &message) {
                        finished = true;
                        break;
                    }
                    batch.push(message);
                    position = at;
                }
                Ok(Next::Wait(at)) if at > position => {
                    steps += 1;
                    position = at;
                }
                Ok(Next::Wait(_)) => {
                    finished = true;
                    break;
                }
                // The messages before the end go first.
                Ok(Next::End) | Err(_) if !batch.is_empty() => {
                    finished = true;
                    break;
                }
                Ok(Next::End) => {
                    let nothing = Encoded::from_body(self.method, bytes::Bytes::new());
                    return Found::End(Answer::Reply(nothing, Metadata::new()));
                }
                Err(answer) => return Found::End(answer),
            }
        }
        self.watch.position = position;
        match (batch.is_empty(), finished) {
            (false, _) => Found::Messages(position, batch),
            (true, true) => Found::Nothing,
            (true, false) => Found::Unfinished,
        }
    }
}

fn still(position: u64) -> Answer {
    Answer::Status(Status::internal(format!(
        "the machine's stream stands still at position {position}"
    )))
}
