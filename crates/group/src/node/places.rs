//! Reads of clients under load. What they take is the time of the node's thread, which also does all
//! that the group does: how many are answered in a turn is found as for the handlers of any server, by how
//! long turns take. Further ones wait, ordered by what matters, and are refused where that is in vain.
//!
//! What nodes tell each other, commands, and questions of streams of reads never wait here. Nor does a
//! read wait for the leader's word with a place: that takes time, and nothing else.

use std::collections::BTreeMap;

use stubborn_core::node::{PlaceEnd, PlaceRequest, RequestKey};
use stubborn_core::service::{Answer, NotExecuted};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Instant;

use super::{GroupNode, Read, ReadCall};
use crate::served::Ending;

#[derive(Debug, Default)]
pub(super) struct Places {
    /// Reads that wait for one, by it.
    waiting: BTreeMap<RequestKey, u64>,
    /// Those of reads that were answered in this turn, which takes as long for each of them.
    answered: Vec<RequestKey>,
    /// Another turn is due, as others may have them now.
    turn_due: Option<Instant>,
}

impl Places {
    pub(super) fn answered(&mut self, place: Option<RequestKey>) {
        self.answered.extend(place);
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn_due = None;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.turn_due
    }
}

impl GroupNode {
    /// Whether a read may be answered now, as far as the load allows; if not, it waits.
    pub(super) fn has_place(&mut self, now: Instant, read: u64) -> bool {
        let Some(Read::Call(call)) = self.reads.get_mut(&read) else { return true };
        let ReadCall { method, priority, deadline, .. } = *call;
        if deadline.is_some_and(|deadline| deadline <= now) {
            let why = "its deadline passed while it waited for the group's word";
            self.end_read(now, read, NotExecuted::because(NotExecutedReason::Deadline, why));
            return false;
        }
        let bytes = call.request.body.len() as u64;
        let request = PlaceRequest { method, priority, deadline, bytes };
        let Some((place, at_once)) = self.node.ask_place(now, request) else { return true };
        call.place = Some(place);
        if !at_once {
            self.places.waiting.insert(place, read);
        }
        at_once
    }

    /// A read that has waited has a place.
    pub(super) fn placed(&mut self, now: Instant, place: RequestKey) {
        let Some(read) = self.places.waiting.remove(&place) else { return };
        let Some(Read::Call(call)) = self.reads.get_mut(&read) else { return };
        match call.stale {
            // The state is not new enough any more: it waits for the leader's word, and without a place.
            Some(stale) if !self.replica.is_new_enough(now, &stale) => {
                call.place = None;
                self.withdraw(now, Some(place));
                self.begin_read(now, read, Some(stale));
            }
            _ => self.answer_read(now, read),
        }
    }

    /// A read that has waited gets none.
    pub(super) fn not_placed(&mut self, now: Instant, place: RequestKey, why: NotExecuted) {
        if let Some(read) = self.places.waiting.remove(&place) {
            self.end_read(now, read, why);
        }
    }

    fn end_read(&mut self, now: Instant, read: u64, why: NotExecuted) {
        let Some(Read::Call(call)) = self.reads.remove(&read) else { return };
        self.read_of.remove(&call.key);
        let answer = Answer::NotExecuted(why);
        self.replica.served.note(call.method, Ending::of(&answer), now.since(call.came));
        self.node.answer(now, call.key, answer);
    }

    /// A read that is not answered leaves its place, or waits for it no longer.
    pub(super) fn withdraw(&mut self, now: Instant, place: Option<RequestKey>) {
        if let Some(place) = place {
            self.places.waiting.remove(&place);
            self.node.leave_place(now, place, PlaceEnd::Withdrawn);
        }
    }

    /// The turn is over: what was answered in it leaves its places.
    pub(super) fn leave_places(&mut self, now: Instant) {
        if self.places.answered.is_empty() {
            return;
        }
        for place in self.places.answered.drain(..) {
            self.node.leave_place(now, place, PlaceEnd::Answered);
        }
        if !self.places.waiting.is_empty() {
            self.places.turn_due = Some(now);
        }
    }
}
