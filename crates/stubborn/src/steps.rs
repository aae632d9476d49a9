//! The service through which a server tells what happened to a call lately, and its client; generated
//! from `stubborn/trace.proto`. `stubborn trace` draws what several of them say.
//!
//! It tells who is let ask for metrics ([`MetricsFor`](crate::MetricsFor)), and nothing of what a call carried. How many
//! steps are kept is `limits.call_steps`; with 0 none are.

use stubborn_core::node::{CallStep, StepKind};
use stubborn_core::service::Status;
use stubborn_core::session::CallId;
use stubborn_core::time::Instant;

pub use crate::generated::stubborn::trace::v1::*;
use crate::metrics::Board;

impl Trace for Board {
    async fn call(&self, call: crate::Call<CallRequest>) -> Result<CallReply, Status> {
        self.who.admit(&call.context().peer)?;
        let id = id_of(&call)?;
        let (now, kept, steps) = self.source.call_steps(id);
        Ok(reply(now, kept, &steps))
    }
}

/// # Errors
/// If it is none.
pub(crate) fn id_of(request: &CallRequest) -> Result<CallId, Status> {
    request.call.parse().map_err(|_| Status::invalid_argument("that is no id of a call"))
}

pub(crate) fn reply(now: Instant, kept: bool, steps: &[CallStep]) -> CallReply {
    let steps = steps.iter().map(|step| {
        let (kind, entry) = match step.kind {
            StepKind::Came => (Kind::Came, 0),
            StepKind::CameAgain => (Kind::CameAgain, 0),
            StepKind::FenceCame => (Kind::FenceCame, 0),
            StepKind::Executing => (Kind::Executing, 0),
            StepKind::Answered => (Kind::Answered, 0),
            StepKind::Taken => (Kind::Taken, 0),
            StepKind::Applied { entry, fence: false } => (Kind::Applied, entry),
            StepKind::Applied { entry, fence: true } => (Kind::FenceApplied, entry),
        };
        Step { at_ns: step.at.as_nanos(), kind: kind.into(), entry }
    });
    CallReply { now_ns: now.as_nanos(), steps: steps.collect(), kept, ..CallReply::default() }
}
