//! Whether a history could have been made by one machine that does one thing at a time: the algorithm
//! of Wing and Gong (1993), with the memory of what was tried of Lowe (2017).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

/// A machine, and what can be asked of it.
pub(crate) trait Model {
    type State: Clone + Ord;
    /// What was asked and what was answered, or that no answer is known.
    type Operation;

    /// The state after the operation, if a machine in this state would have answered so.
    fn step(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation of a history, between two moments that no other operation shares.
#[derive(Clone, Debug)]
pub(crate) struct Span<O> {
    pub(crate) operation: O,
    pub(crate) begun: u64,
    /// None if it is not known to have ended: it may have been done at any time since, or never.
    pub(crate) ended: Option<u64>,
}

/// Whether there is an order of the operations that the machine could have done them in, in which
/// none comes before another that had ended when it began.
pub(crate) fn is_linearizable<M: Model>(
    initial: M::State,
    mut history: Vec<Span<M::Operation>>,
) -> bool {
    history.sort_by_key(|span| span.begun);
    let mut left = history.iter().filter(|span| span.ended.is_some()).count();
    let mut done = Done::new(history.len());
    let mut tried = BTreeSet::new();
    let (mut state, mut path, mut from) = (initial, Vec::new(), 0);
    while left > 0 {
        match next::<M>(&history, &done, &state, from) {
            Some((place, after)) => {
                done.flip(place);
                if tried.insert((done.clone(), after.clone())) {
                    left -= usize::from(history[place].ended.is_some());
                    path.push((place, std::mem::replace(&mut state, after)));
                    from = 0;
                } else {
                    done.flip(place);
                    from = place + 1;
                }
            }
            None => {
                let Some((place, before)) = path.pop() else { return false };
                done.flip(place);
                left += usize::from(history[place].ended.is_some());
                (state, from) = (before, place + 1);
            }
        }
    }
    true
}

/// The first operation from this place on that may be the next one: none that is left had ended when
/// it began, and the machine would answer so.
fn next<M: Model>(
    history: &[Span<M::Operation>],
    done: &Done,
    state: &M::State,
    from: usize,
) -> Option<(usize, M::State)> {
    let mut first_end = u64::MAX;
    for (place, span) in history.iter().enumerate() {
        if span.begun > first_end {
            break;
        }
        if !done.has(place) {
            first_end = first_end.min(span.ended.unwrap_or(u64::MAX));
        }
    }
    let may_come = history.iter().enumerate().skip(from);
    may_come
        .take_while(|(_, span)| span.begun < first_end)
        .filter(|(place, _)| !done.has(*place))
        .find_map(|(place, span)| Some((place, M::step(state, &span.operation)?)))
}

/// Which operations are done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Done(Vec<u64>);

impl Done {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn flip(&mut self, place: usize) {
        self.0[place / 64] ^= 1 << (place % 64);
    }
}
