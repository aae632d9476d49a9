//! What a handler sends beside its reply: metadata, and whether the reply is compressed.
//!
//! It belongs to the handler that runs where it is said: tasks that a handler spawns say nothing by it.
//! Outside of handlers nothing comes of it.

use std::cell::Cell;

use stubborn_core::service::{Answer, Metadata, MetadataError};
#[cfg(feature = "grpc")]
use stubborn_grpc::door::Early;

/// What a handler has said so far.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    early: Metadata,
    late: Metadata,
    #[cfg_attr(not(feature = "grpc"), allow(dead_code))]
    compress: Option<bool>,
    /// What is early has gone.
    gone: bool,
}

enum Current {
    Outside,
    Inside(Option<Box<Beside>>),
}

thread_local! {
    /// Of the handler that this thread polls at this moment.
    static CURRENT: Cell<Current> = const { Cell::new(Current::Outside) };
}

/// Adds metadata to the reply, or to the status that the handler ends with. In gRPC it is in the
/// trailers.
///
/// # Errors
/// If the key is not a valid one or there is too much of it; nothing is added then.
pub fn metadata(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<(), MetadataError> {
    say(|beside| beside.late.insert(key, value)).unwrap_or(Ok(()))
}

/// Adds metadata that goes ahead of the reply. In gRPC it is in the headers, as long as a stream has
/// sent no message; else, and over datagrams, it comes with [`metadata`].
///
/// # Errors
/// As [`metadata`].
pub fn early_metadata(
    key: impl Into<String>,
    value: impl Into<Vec<u8>>,
) -> Result<(), MetadataError> {
    let add = |beside: &mut Beside| {
        if beside.gone { beside.late.insert(key, value) } else { beside.early.insert(key, value) }
    };
    say(add).unwrap_or(Ok(()))
}

/// Whether the reply is compressed for callers of gRPC that can read it; as the request was, if this is
/// not said. Of a stream it counts before the first message. Datagrams are never compressed.
pub fn compress(on: bool) {
    say(|beside| beside.compress = Some(on));
}

fn say<T>(what: impl FnOnce(&mut Beside) -> T) -> Option<T> {
    CURRENT.with(|current| match current.replace(Current::Outside) {
        Current::Outside => None,
        Current::Inside(beside) => {
            let mut beside = beside.unwrap_or_default();
            let said = what(&mut beside);
            current.set(Current::Inside(Some(beside)));
            Some(said)
        }
    })
}

/// Runs `f` as part of the handler that has said this so far.
pub(crate) fn enter<R>(beside: &mut Option<Box<Beside>>, f: impl FnOnce() -> R) -> R {
    struct Restore<'a>(&'a mut Option<Box<Beside>>, Current);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            let outer = std::mem::replace(&mut self.1, Current::Outside);
            if let Current::Inside(beside) = CURRENT.replace(outer) {
                *self.0 = beside;
            }
        }
    }
    let outer = CURRENT.replace(Current::Inside(beside.take()));
    let _restore = Restore(beside, outer);
    f()
}

impl Beside {
    /// Adds what was said to the answer; what is early only if it does not go ahead by itself.
    pub(crate) fn add_to(&mut self, answer: &mut Answer, early: bool) {
        let mut pairs = Vec::new();
        if early {
            pairs.push(std::mem::take(&mut self.early));
        }
        pairs.push(std::mem::take(&mut self.late));
        let add = |to: &mut Metadata| {
            for (key, value) in pairs.iter().flat_map(Metadata::iter) {
                // What is too much together is left out: the answer is worth more.
                let _ = to.insert(key, value);
            }
        };
        match answer {
            Answer::Reply(_, metadata) => add(metadata),
            Answer::Status(status) => {
                let mut metadata = status.metadata().clone();
                add(&mut metadata);
                *status = status.clone().with_metadata(metadata);
            }
            Answer::NotExecuted(_) => {}
        }
    }
}

/// What goes ahead of the first message of the handler that is polled here, and with it now.
#[cfg(feature = "grpc")]
pub(crate) fn take_early() -> Early {
    let take = |beside: &mut Beside| {
        beside.gone = true;
        Early { metadata: std::mem::take(&mut beside.early), compress: beside.compress }
    };
    say(take).unwrap_or_default()
}

#[cfg(feature = "grpc")]
impl Beside {
    /// What goes ahead of an answer.
    pub(crate) fn into_early(self) -> Early {
        Early { metadata: self.early, compress: self.compress }
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{Encoded, Status};

    use super::*;

    #[test]
    fn what_is_said_inside_stays_with_its_handler() {
        let (mut outer, mut inner) = (None, None);
        enter(&mut outer, || {
            metadata("a", "outer").unwrap();
            enter(&mut inner, || metadata("a", "inner").unwrap());
            early_metadata("b", "outer").unwrap();
        });
        let mut answer = Answer::Reply(Encoded::default(), Metadata::new());
        outer.unwrap().add_to(&mut answer, true);
        let Answer::Reply(_, said) = answer else { panic!("a reply") };
        assert_eq!((said.get_str("a"), said.get_str("b")), (Some("outer"), Some("outer")));
        assert_eq!(said.len(), 2);
        assert_eq!(inner.unwrap().late.get_str("a"), Some("inner"));
    }

    #[test]
    fn outside_of_handlers_and_after_a_panic_nothing_is_kept() {
        metadata("a", "b").unwrap();
        let mut said = None;
        let enter = || enter(&mut said, || panic!("here"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(enter)).is_err());
        assert!(say(|_| ()).is_none());
    }

    #[test]
    fn a_status_takes_metadata_and_stays_what_it_was() {
        let mut said = None;
        enter(&mut said, || metadata("why", "because").unwrap());
        let mut answer = Answer::Status(Status::aborted("x").with_details(vec![1]));
        said.unwrap().add_to(&mut answer, true);
        let Answer::Status(status) = answer else { panic!("a status") };
        assert_eq!(status.metadata().get_str("why"), Some("because"));
        assert_eq!((status.message(), &status.details()[..]), ("x", &[1][..]));
    }
}
