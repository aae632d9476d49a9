//! What comes in over gRPC: its calls pass no node, so they are counted and traced here.

use std::collections::BTreeMap;

use stubborn_core::node::{CallLog, CallName, CallStep, Passed, StepKind};
use stubborn_core::service::{Metadata, MethodId, Registry};
use stubborn_core::time::Instant;
use stubborn_grpc::CALL_ID;

use super::meter::{Begun, Ending, Meter};
use crate::driver::NodeClock;

/// The calls of a door. It has a clock of its own.
pub(crate) struct DoorBook {
    pub(super) meter: Meter,
    log: CallLog,
    clock: NodeClock,
    /// Calls that execute and that somebody may ask for; the door bounds how many there are.
    running: BTreeMap<u64, (Names, Instant)>,
    begun: u64,
}

/// What a call may be asked for by: its trace, and the id that its caller has given it.
type Names = [Option<CallName>; 2];

/// A call that was begun. Its end is to be told, once.
#[must_use = "a call that was begun is in flight until its end is told"]
pub(crate) struct DoorCall {
    begun: Begun,
    number: u64,
    names: Names,
    came: Instant,
}

impl DoorBook {
    /// That of a server with these services, which keeps so many steps of calls.
    pub(crate) fn new(registry: &Registry, clock: NodeClock, steps: usize) -> Self {
        let (meter, log) = (Meter::of(registry), CallLog::new(steps));
        Self { meter, log, clock, running: BTreeMap::new(), begun: 0 }
    }

    pub(crate) fn begin(&mut self, method: MethodId, metadata: &Metadata) -> DoorCall {
        let came = self.clock.now();
        let names = names(metadata);
        self.begun += 1;
        if names != [None, None] && self.log.is_on() {
            self.running.insert(self.begun, (names, came));
        }
        DoorCall { begun: self.meter.begin(method, came), number: self.begun, names, came }
    }

    /// The end of a call; of a stream with how many messages have passed.
    pub(crate) fn end(&mut self, call: DoorCall, ending: Ending, passed: Option<Passed>) {
        let DoorCall { begun, number, names, came } = call;
        let now = self.clock.now();
        self.meter.end(begun, now, ending);
        self.running.remove(&number);
        let failed = ending != Ending::Replied;
        for name in names.into_iter().flatten() {
            match passed {
                Some(passed) => self.log.stream_ended(now, name, came, passed, failed),
                None if failed => self.log.failed(now, name, came),
                None => self.log.done_as(now, name, came),
            }
        }
    }

    /// A copy of a call came, and was answered as that was.
    pub(crate) fn copied(&mut self, metadata: &Metadata) {
        let now = self.clock.now();
        for name in names(metadata).into_iter().flatten() {
            self.log.push(now, name, StepKind::CameAgain);
        }
    }

    /// The client of a stream has sent its last message, of so many.
    pub(crate) fn half_closed(&mut self, metadata: &Metadata, messages: u64) {
        let now = self.clock.now();
        for name in names(metadata).into_iter().flatten() {
            self.log.push(now, name, StepKind::HalfClosed(messages));
        }
    }

    /// What happened to a call, by a clock that shows `now`.
    pub(super) fn call_steps(&self, name: CallName, now: Instant) -> (bool, Vec<CallStep>) {
        let mut steps = self.log.steps(name);
        for (names, came) in self.running.values().filter(|(names, _)| names.contains(&Some(name)))
        {
            debug_assert!(names.contains(&Some(name)));
            let step = |kind| CallStep { at: *came, kind };
            steps.extend([StepKind::Came, StepKind::Executing].map(step));
        }
        let own = self.clock.now();
        for step in &mut steps {
            let ago = own.as_nanos().saturating_sub(step.at.as_nanos());
            step.at = Instant::from_nanos(now.as_nanos().saturating_sub(ago));
        }
        (self.log.is_on(), steps)
    }
}

fn names(metadata: &Metadata) -> Names {
    if metadata.is_empty() {
        return [None, None];
    }
    [CallName::trace_of(metadata), metadata.get_str(CALL_ID).map(CallName::of_key)]
}
