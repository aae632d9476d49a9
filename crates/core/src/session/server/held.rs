//! A value in its place in a table of which frozen copies are made.

use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};

/// The table's own, or shared with frozen copies: then the next change copies it, if they are still
/// there. A value that was never frozen costs nothing for it.
#[derive(Clone, Debug)]
pub(super) enum Held<T> {
    Own(T),
    Shared(Arc<T>),
}

impl<T> Held<T> {
    /// Shares the value from now on.
    pub(super) fn freeze(self) -> Arc<T> {
        match self {
            Self::Own(value) => Arc::new(value),
            Self::Shared(value) => value,
        }
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(value) => value,
            Self::Shared(value) => value,
        }
    }
}

impl<T: Clone> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Self::Own(value) => value,
            Self::Shared(value) => Arc::make_mut(value),
        }
    }
}
