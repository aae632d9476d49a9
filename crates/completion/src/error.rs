//! Why a handler's transaction did not begin or was not committed, as the status that its handler ends
//! with.

use std::fmt;

use stubborn_core::service::{Code, Status};

use crate::store::StoreError;

/// What [`begin`](crate::Completions::begin) and a guard say. As a [`Status`] it ends the handler.
#[derive(Clone, Debug, PartialEq)]
pub enum CompletionError {
    /// The call has its record already: another copy of it was executed, or it was fenced. What this
    /// handler answers is not told to anybody.
    Settled,
    /// The database could not be used. Nothing was changed, and nothing is recorded: the call is run
    /// again, as its client sends it again.
    Again(String),
    /// The call has no number, or is not a call of a server with these completions, or has a
    /// transaction already.
    Misused(&'static str),
    /// The database refuses. Nothing was changed; the caller learns that the call failed.
    Refused(String),
    /// The handler refuses: so the call ends, and nothing is changed.
    Status(Status),
}

/// The details of a status that stands for [`CompletionError::Again`].
const AGAIN: &[u8] = b"stubborn: nothing was changed or recorded\xd1\x5e\x02\xa9";

impl CompletionError {
    /// Whether a handler that ended with this status is to be run again.
    pub(crate) fn is_again(status: &Status) -> bool {
        status.details().as_ref() == AGAIN
    }
}

impl fmt::Display for CompletionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled => f.write_str("the call has ended already, by another copy of it"),
            Self::Again(why) => write!(f, "the call is to be run again: {why}"),
            Self::Misused(why) => f.write_str(why),
            Self::Refused(why) => f.write_str(why),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

impl std::error::Error for CompletionError {}

impl From<CompletionError> for Status {
    fn from(error: CompletionError) -> Self {
        match error {
            CompletionError::Status(status) => status,
            CompletionError::Again(_) => {
                Status::new(Code::Unavailable, error.to_string()).with_details(AGAIN)
            }
            CompletionError::Settled => Status::new(Code::Aborted, error.to_string()),
            CompletionError::Misused(_) | CompletionError::Refused(_) => {
                Status::internal(error.to_string())
            }
        }
    }
}

impl From<Status> for CompletionError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<StoreError> for CompletionError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Broken(_) => Self::Refused(error.to_string()),
            StoreError::Locked | StoreError::Unavailable(_) | StoreError::Unknown(_) => {
                Self::Again(error.to_string())
            }
        }
    }
}
