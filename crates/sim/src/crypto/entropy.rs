//! The randomness that rustls draws in a simulated world.
//!
//! rustls wants its sources of randomness as statics, so the world's generator lies in a
//! thread-local for as long as the world runs on the thread. Outside a world there is none, and
//! drawing fails.

use std::cell::RefCell;
use std::marker::PhantomData;

use stubborn_core::random::Random;

thread_local! {
    static SOURCE: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// While it lives, cryptography on this thread draws from one seed.
pub(crate) struct Entropy {
    before: Option<Random>,
    // The source is this thread's: the guard must be dropped where it was made.
    not_send: PhantomData<*const ()>,
}

impl Entropy {
    /// Draws from `random` until the guard is dropped; then from what was there before.
    pub(crate) fn install(random: Random) -> Self {
        let before = SOURCE.with_borrow_mut(|source| source.replace(random));
        Self { before, not_send: PhantomData }
    }
}

impl Drop for Entropy {
    fn drop(&mut self) {
        SOURCE.with_borrow_mut(|source| *source = self.before.take());
    }
}

/// Fills `out`; false outside a world.
pub(super) fn fill(out: &mut [u8]) -> bool {
    SOURCE.with_borrow_mut(|source| source.as_mut().map(|random| random.fill(out)).is_some())
}
