//! The group behaves as one machine: there is an order of all that clients did to each register in
//! which every answer is right, and nothing comes before what had ended when it began.

use std::collections::BTreeMap;

use super::super::ledger::Put;
use crate::linearizability::{Model, Span, is_linearizable};
use crate::nodes::Broken;

/// What clients did to registers.
#[derive(Default)]
pub(in crate::groups) struct Registers {
    /// By key.
    spans: BTreeMap<u64, Vec<Span<Asked>>>,
    moments: u64,
}

/// An operation under way: of which register, and which one of its.
#[derive(Clone, Copy, Debug)]
pub(in crate::groups) struct Begun(u64, usize);

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// And whether it was done, if that is known.
    Put(Put, Option<bool>),
    /// The value, if it was answered.
    Look(Option<u64>),
    /// It did not happen.
    Nothing,
}

struct Register;

impl Model for Register {
    type State = u64;
    type Operation = Asked;

    fn step(state: &u64, operation: &Asked) -> Option<u64> {
        match operation {
            Asked::Put(put, answer) => {
                let changes = put.expected.is_none_or(|expected| expected == *state);
                let fits = answer.is_none_or(|answer| answer == changes);
                fits.then_some(if changes { put.value } else { *state })
            }
            Asked::Look(answer) => answer.is_none_or(|value| value == *state).then_some(*state),
            Asked::Nothing => Some(*state),
        }
    }
}

impl Registers {
    pub(in crate::groups) fn begin_put(&mut self, put: Put) -> Begun {
        self.begin(put.key, Asked::Put(put, None))
    }

    pub(in crate::groups) fn begin_look(&mut self, key: u64) -> Begun {
        self.begin(key, Asked::Look(None))
    }

    fn begin(&mut self, key: u64, operation: Asked) -> Begun {
        self.moments += 1;
        let spans = self.spans.entry(key).or_default();
        spans.push(Span { operation, begun: self.moments, ended: None });
        Begun(key, spans.len() - 1)
    }

    /// The operation was answered with this.
    pub(in crate::groups) fn answered(&mut self, begun: Begun, answer: u64) {
        self.end(begun, |operation| match operation {
            Asked::Put(put, _) => Asked::Put(put, Some(answer != 0)),
            Asked::Look(_) | Asked::Nothing => Asked::Look(Some(answer)),
        });
    }

    /// The operation was proved not to have been done.
    pub(in crate::groups) fn not_executed(&mut self, begun: Begun) {
        self.end(begun, |_| Asked::Nothing);
    }

    fn end(&mut self, Begun(key, place): Begun, change: impl FnOnce(Asked) -> Asked) {
        self.moments += 1;
        let span = &mut self.spans.get_mut(&key).expect("it was begun")[place];
        span.operation = change(span.operation);
        span.ended = Some(self.moments);
    }

    pub(super) fn at_rest(&self) -> Result<(), Broken> {
        for (key, spans) in &self.spans {
            if !is_linearizable::<Register>(0, spans.clone()) {
                let what = format!("no order explains what was seen of register {key}: {spans:?}");
                return Err(("linearizability", what));
            }
        }
        Ok(())
    }
}
