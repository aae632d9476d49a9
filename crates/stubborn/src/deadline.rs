//! Deadlines that travel: a call made inside a handler inherits what is left of the handler's own.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use stubborn_core::time::earliest;

thread_local! {
    /// The deadline of the handler that this thread polls at this moment.
    static CURRENT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// When the caller of the handler that runs here stops waiting; `None` outside of handlers and for
/// calls without a deadline. Calls made here inherit it.
pub fn current() -> Option<Instant> {
    CURRENT.get()
}

/// Runs a future under a deadline: calls made in it wait no longer than that. For tasks that a
/// handler spawns, which do not inherit its deadline by themselves. An outer deadline that is
/// earlier stays in force.
pub async fn within<F: Future>(deadline: Instant, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        enter(earliest(Some(deadline), current()), || future.as_mut().poll(cx))
    })
    .await
}

/// Runs `f` with `deadline` as the current one, then restores what was before, also on a panic.
pub(crate) fn enter<R>(deadline: Option<Instant>, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Instant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(deadline));
    f()
}

/// The shorter of what a caller asked for, else of what is usual, and what is left here.
pub(crate) fn shorten(asked: Option<Duration>, usual: Option<Duration>) -> Option<Duration> {
    let asked = asked.or(usual);
    match current() {
        None => asked,
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            Some(asked.map_or(left, |asked| asked.min(left)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_call_waits_no_longer_than_its_handler_may() {
        let now = Instant::now();
        enter(Some(now + Duration::from_secs(60)), || {
            assert!(shorten(None, None).unwrap() <= Duration::from_secs(60));
            let second = Duration::from_secs(1);
            assert_eq!(shorten(Some(second), None), Some(second));
            assert_eq!(shorten(None, Some(second)), Some(second));
            assert!(
                shorten(Some(Duration::from_secs(600)), None).unwrap() <= Duration::from_secs(60)
            );
        });
        assert_eq!(shorten(None, None), None);
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_nothing() {
        enter(Some(Instant::now()), || assert_eq!(shorten(None, None), Some(Duration::ZERO)));
    }

    #[tokio::test]
    async fn the_earlier_of_two_nested_deadlines_holds_and_neither_leaks() {
        let soon = Instant::now() + Duration::from_secs(1);
        let late = soon + Duration::from_secs(1);
        within(soon, async {
            within(late, async { assert_eq!(current(), Some(soon)) }).await;
            tokio::task::yield_now().await;
            assert_eq!(current(), Some(soon));
        })
        .await;
        assert_eq!(current(), None);
    }

    #[test]
    fn a_panic_does_not_leave_its_deadline_behind() {
        let result = std::panic::catch_unwind(|| enter(Some(Instant::now()), || panic!("here")));
        assert!(result.is_err());
        assert_eq!(current(), None);
    }
}
