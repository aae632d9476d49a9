//! Whose sessions are, where callers are known by tokens.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use stubborn_core::session::SessionId;

/// Remembers the subject of each session that has made a call lately.
///
/// Sessions end without a word here, so the table is two generations: what is used is in the young one,
/// and when that is full the old one is dropped. It never forgets the sessions that made a call last, as
/// many as a server may have.
pub(crate) struct Subjects {
    room: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<SessionId, Arc<str>>,
    old: HashMap<SessionId, Arc<str>>,
}

impl Subjects {
    /// For so many sessions at once.
    pub(crate) fn new(room: usize) -> Self {
        Self { room: room.max(1), generations: Mutex::default() }
    }

    /// Whether the session is this subject's; one that is nobody's yet becomes so.
    pub(super) fn belongs(&self, session: SessionId, subject: &Arc<str>) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let Generations { young, old } = &mut *generations;
        if let Some(owner) = young.get(&session) {
            return owner == subject;
        }
        let owner = old.remove(&session);
        if young.len() >= self.room {
            *old = mem::take(young);
        }
        let owner =
            young.entry(session).or_insert_with(|| owner.unwrap_or_else(|| subject.clone()));
        owner == subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u64) -> SessionId {
        SessionId { incarnation: 7, number }
    }

    #[test]
    fn the_sessions_used_last_are_never_forgotten_and_memory_is_bounded() {
        let subjects = Subjects::new(4);
        let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
        for number in 0..1_000 {
            assert!(subjects.belongs(session(number), &ada));
            for recent in number.saturating_sub(3)..=number {
                assert!(!subjects.belongs(session(recent), &bob), "{recent} of {number}");
            }
        }
        let generations = subjects.generations.lock().unwrap();
        assert!(generations.young.len() <= 4 && generations.old.len() <= 4);
    }
}
