//! Ids of traces and spans, drawn at random (W3C Trace Context §3.2.2.3 and §3.2.2.4).

use std::cell::RefCell;

use stubborn_core::random::Random;

thread_local! {
    /// Seeded from the system's entropy when the thread first needs it.
    static DRAWN: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// An id of a trace; `None` if the system gives no entropy.
pub(super) fn trace() -> Option<String> {
    draw::<16>()
}

/// An id of a span; `None` if the system gives no entropy.
pub(super) fn span() -> Option<String> {
    draw::<8>()
}

fn draw<const BYTES: usize>() -> Option<String> {
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_none() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).ok()?;
            *drawn = Some(Random::from_seed(seed));
        }
        let random = drawn.as_mut()?;
        let mut id: [u8; BYTES] = random.bytes();
        // All zeros is no id.
        id[BYTES - 1] |= u8::from(id == [0; BYTES]);
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_their_length_and_differ() {
        let (one, other) = (trace().unwrap(), trace().unwrap());
        assert_eq!((one.len(), span().unwrap().len()), (32, 16));
        assert_ne!(one, other);
    }
}
