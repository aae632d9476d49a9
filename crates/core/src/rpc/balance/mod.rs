//! Spreading calls over servers, apart from what a server is: which of several gets the next call, and
//! which are left out for a while.
//!
//! Whoever keeps servers (channels over datagrams, clients of gRPC's servers) names them by numbers,
//! and says which of them can take a call.

mod chooser;
mod outliers;
mod ring;

pub use chooser::{Candidates, Chooser};
pub use outliers::{Health, Turn, after_failure, probe_pause, sweep};

use crate::service::{Code, Outcome};
use crate::session::NotExecutedReason;

/// Whether the outcome of a call says that its server is at fault.
pub fn is_fault(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Executed(status) => matches!(
            status.code(),
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
        Outcome::NotExecuted(why) => why.reason == NotExecutedReason::Overloaded,
        Outcome::Pending(_) | Outcome::Lost | Outcome::Unanswered => true,
    }
}
