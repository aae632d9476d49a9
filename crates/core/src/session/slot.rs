//! One slot of a session at the server: the sequence counter that everything rests on.

use bytes::Bytes;

pub use self::record::{RecordedState, SlotRecord};
use super::{MAX_SEQUENCE, NotExecutedReason, QueryAnswer, Violation};

/// A slot: the last sequence number that it saw and what became of it.
///
/// It takes the next number as a new call, answers the same number from memory, calls lower ones
/// stale and further ones a violation. The number n+1 comes only when the client has settled n, so
/// it frees what is kept of n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot<R> {
    last: u64,
    state: State<R>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State<R> {
    /// `last` was never used by a call of this slot: it is only the floor to start above.
    Idle,
    Executing {
        digest: u64,
    },
    Done {
        digest: u64,
        reply: R,
        keep: Keep,
    },
    DoneNotKept {
        digest: u64,
    },
    Released,
    Fenced(NotExecutedReason),
}

/// A reply that can be kept in a slot.
///
/// What is kept for long must own its memory: a slice of a receive buffer would hold the whole buffer
/// for as long as the reply is kept.
pub trait KeptReply: Clone + Default {
    /// Bytes that keeping it holds.
    fn size(&self) -> usize;

    /// Moves it to memory of its own, if it shares that of others.
    fn own(&mut self) {}
}

/// A reply that becomes what a slot keeps.
pub trait ToKeep<R> {
    /// Bytes that keeping it will hold.
    fn kept_size(&self) -> usize;

    /// Writes it where it is kept. `place` holds an empty reply before.
    fn write(self, place: &mut R);
}

impl<R: KeptReply> ToKeep<R> for R {
    fn kept_size(&self) -> usize {
        self.size()
    }

    fn write(self, place: &mut R) {
        *place = self;
    }
}

impl KeptReply for Bytes {
    fn size(&self) -> usize {
        self.len()
    }
}

/// A reply as head (digest, status, metadata) and body, so that the body is not copied to be kept.
impl KeptReply for (Bytes, Bytes) {
    fn size(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

/// How long a reply is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until it is released or the session expires.
    Session,
    /// As long as the session has a connection: it is too large, or there are too many.
    Connection,
}

/// What a server answers about a number that it already knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<R> {
    /// It is executing; the reply follows when it is done.
    Working,
    /// It was executed; this is the reply.
    Reply(R),
    /// It was executed; the reply is not kept.
    NotKept,
    /// It was not executed and never will be.
    NotExecuted(NotExecutedReason),
    /// The client settled it before.
    Stale,
}

/// What a server does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<R> {
    /// A new call: run it, then tell the slot how it ended.
    Execute,
    /// A copy: answer from memory.
    Answer(Answer<R>),
    /// The number is taken by a request with another digest: refuse this one.
    FalseRetry,
}

/// A slot's state as it is told in the answer to an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotState {
    /// Its number was not used by a call.
    Idle,
    /// The call of its number is executing.
    Executing,
    /// Executed, the reply is kept.
    Done,
    /// Executed, the reply is not kept.
    NotKept,
    /// The client has released the reply.
    Released,
    /// Its number is fenced: the call is not executed and never will be.
    Fenced,
    /// The client has given the slot back.
    NotGranted,
}

/// One line of the answer to an attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// Which slot.
    pub slot: u32,
    /// The last number that it saw; 0 for none.
    pub sequence: u64,
    /// What became of that number.
    pub state: SlotState,
}

/// What a slot, session or server holds: counted so that it can be bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Calls that are executing.
    pub executing: u64,
    /// Calls whose end the client is not known to have learnt, executing ones included.
    pub unsettled: u64,
    /// Bytes of replies kept for the session.
    pub kept: u64,
    /// Bytes of replies kept for the connection.
    pub held: u64,
}

impl<R: KeptReply> Slot<R> {
    /// A slot whose first call takes the number above `floor`.
    pub fn new(floor: u64) -> Self {
        Self { last: floor, state: State::Idle }
    }

    /// The last number that the slot saw, or its floor.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether `sequence` is the next number, and its predecessor is settled.
    pub fn is_next(&self, sequence: u64) -> bool {
        matches!(self.place(sequence), Ok(Place::Next))
    }

    /// A whole request with this number and digest has arrived.
    ///
    /// Only whole requests may come here: a number that was given up with part of it never sent
    /// must not have started.
    ///
    /// # Errors
    /// A number that no correct client sends.
    #[inline]
    pub fn request(&mut self, sequence: u64, digest: u64) -> Result<Decision<R>, Violation> {
        match self.place(sequence)? {
            Place::Next => {
                self.last = sequence;
                self.state = State::Executing { digest };
                Ok(Decision::Execute)
            }
            Place::Last if self.planted_bug_runs_again() => {
                self.state = State::Executing { digest };
                Ok(Decision::Execute)
            }
            Place::Last if self.digest().is_some_and(|known| known != digest) => {
                Ok(Decision::FalseRetry)
            }
            Place::Last => Ok(Decision::Answer(self.answer())),
            Place::Before => Ok(Decision::Answer(Answer::Stale)),
        }
    }

    /// Makes sure that `sequence` never starts if it has not; else answers as to a retry.
    ///
    /// # Errors
    /// A number that no correct client sends.
    pub fn fence(
        &mut self,
        sequence: u64,
        reason: NotExecutedReason,
    ) -> Result<Answer<R>, Violation> {
        match self.place(sequence)? {
            Place::Next => {
                self.last = sequence;
                self.state = State::Fenced(reason);
                Ok(Answer::NotExecuted(reason))
            }
            Place::Last => Ok(self.answer()),
            Place::Before => Ok(Answer::Stale),
        }
    }

    /// The call of `sequence` has been executed. `kept` is the reply where it is to be kept.
    /// Returns false, and changes nothing, if that number is not executing.
    #[inline]
    pub fn complete(&mut self, sequence: u64, kept: Option<(impl ToKeep<R>, Keep)>) -> bool {
        let State::Executing { digest } = self.state else { return false };
        if self.last != sequence {
            return false;
        }
        match kept {
            Some(_) if cfg!(feature = "planted-freed-reply") => self.state = State::Released,
            Some((kept, keep)) => {
                // A reply is large to move: it is written where it stays.
                self.state = State::Done { digest, reply: R::default(), keep };
                if let State::Done { reply, .. } = &mut self.state {
                    kept.write(reply);
                }
            }
            None => self.state = State::DoneNotKept { digest },
        }
        true
    }

    /// The reply of `sequence`, if it is kept for the session, gets memory of its own.
    pub fn own(&mut self, sequence: u64) {
        if let State::Done { reply, keep: Keep::Session, .. } = &mut self.state
            && self.last == sequence
        {
            reply.own();
        }
    }

    /// The call of `sequence` was taken for execution, but its handler was not and will not be
    /// started. Returns false, and changes nothing, if that number is not executing.
    pub fn give_up(&mut self, sequence: u64, reason: NotExecutedReason) -> bool {
        let executing = matches!(self.state, State::Executing { .. }) && self.last == sequence;
        if executing {
            self.state = State::Fenced(reason);
        }
        executing
    }

    /// The client has learnt the outcome of every number up to `sequence`.
    ///
    /// # Errors
    /// The number is executing, or has not been seen.
    pub fn release(&mut self, sequence: u64) -> Result<(), Violation> {
        if sequence > self.last {
            return Err(Violation::Gap);
        }
        if sequence == self.last {
            match self.state {
                State::Executing { .. } => return Err(Violation::Unsettled),
                State::Idle => {}
                _ => self.state = State::Released,
            }
        }
        Ok(())
    }

    /// The session has no connection any more: replies kept for the connection only are dropped.
    pub fn connection_ended(&mut self) {
        if let State::Done { digest, keep: Keep::Connection, .. } = self.state {
            self.state = State::DoneNotKept { digest };
        }
    }

    /// What is known of `sequence`, without changing anything.
    pub fn query(&self, sequence: u64) -> QueryAnswer<R> {
        if sequence > self.last {
            return QueryAnswer::NotArrived;
        }
        if sequence < self.last {
            return QueryAnswer::AlreadySettled;
        }
        match self.answer() {
            Answer::Working => QueryAnswer::Executing,
            Answer::Reply(reply) => QueryAnswer::Done(reply),
            Answer::NotKept => QueryAnswer::NotKept,
            Answer::NotExecuted(reason) => QueryAnswer::NotExecuted(reason),
            Answer::Stale => QueryAnswer::AlreadySettled,
        }
    }

    /// The state as the answer to an attach tells it.
    pub fn state(&self) -> SlotState {
        match self.state {
            State::Idle => SlotState::Idle,
            State::Executing { .. } => SlotState::Executing,
            State::Done { .. } => SlotState::Done,
            State::DoneNotKept { .. } => SlotState::NotKept,
            State::Released => SlotState::Released,
            State::Fenced(_) => SlotState::Fenced,
        }
    }

    /// What the slot holds.
    #[inline]
    pub fn footprint(&self) -> Footprint {
        // Number by number, so that they stay in registers.
        let executing = u64::from(matches!(self.state, State::Executing { .. }));
        let unsettled = u64::from(!matches!(self.state, State::Idle | State::Released));
        let kept = match &self.state {
            State::Done { reply, keep: Keep::Session, .. } => reply.size() as u64,
            _ => 0,
        };
        let held = match &self.state {
            State::Done { reply, keep: Keep::Connection, .. } => reply.size() as u64,
            _ => 0,
        };
        Footprint { executing, unsettled, kept, held }
    }

    #[inline]
    fn place(&self, sequence: u64) -> Result<Place, Violation> {
        if sequence < self.last {
            return Ok(Place::Before);
        }
        if sequence == self.last {
            return Ok(Place::Last);
        }
        if sequence != self.last + 1 || sequence > MAX_SEQUENCE {
            return Err(Violation::Gap);
        }
        match self.state {
            State::Executing { .. } => Err(Violation::Unsettled),
            _ => Ok(Place::Next),
        }
    }

    /// Always false, unless a bug is planted for the simulator to find.
    fn planted_bug_runs_again(&self) -> bool {
        let fenced = matches!(self.state, State::Fenced(_));
        cfg!(feature = "planted-duplicate") && !fenced || cfg!(feature = "planted-fence") && fenced
    }

    fn digest(&self) -> Option<u64> {
        match self.state {
            State::Executing { digest }
            | State::Done { digest, .. }
            | State::DoneNotKept { digest } => Some(digest),
            State::Idle | State::Released | State::Fenced(_) => None,
        }
    }

    fn answer(&self) -> Answer<R> {
        match &self.state {
            State::Idle | State::Released => Answer::Stale,
            State::Executing { .. } => Answer::Working,
            State::Done { reply, .. } => Answer::Reply(reply.clone()),
            State::DoneNotKept { .. } => Answer::NotKept,
            State::Fenced(reason) => Answer::NotExecuted(*reason),
        }
    }
}

/// Where a number stands relative to the slot's last.
enum Place {
    Before,
    Last,
    Next,
}

impl SlotState {
    const ALL: [Self; 7] = [
        Self::Idle,
        Self::Executing,
        Self::Done,
        Self::NotKept,
        Self::Released,
        Self::Fenced,
        Self::NotGranted,
    ];

    /// The number on the wire.
    pub const fn to_wire(self) -> u64 {
        match self {
            Self::Idle => 0,
            Self::Executing => 1,
            Self::Done => 2,
            Self::NotKept => 3,
            Self::Released => 4,
            Self::Fenced => 5,
            Self::NotGranted => 6,
        }
    }

    /// The state of a number; `None` for one that this version does not know.
    pub fn from_wire(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.to_wire() == number)
    }
}

impl Footprint {
    /// Replaces the part `before` of this sum by `after`.
    #[inline]
    pub(super) fn exchange(&mut self, before: Self, after: Self) {
        self.executing = self.executing - before.executing + after.executing;
        self.unsettled = self.unsettled - before.unsettled + after.unsettled;
        self.kept = self.kept - before.kept + after.kept;
        self.held = self.held - before.held + after.held;
    }
}

mod image;
mod record;
#[cfg(test)]
mod tests;
