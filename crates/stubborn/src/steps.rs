//! The service through which a server tells what happened to a call lately, and its client; generated
//! from `stubborn/trace.proto`. `stubborn trace` draws what several of them say.
//!
//! It tells who is let ask for metrics ([`MetricsFor`](crate::MetricsFor)), and nothing of what a call
//! carried. How many steps are kept is `limits.call_steps`; with 0 none are.

pub use stubborn_core::node::CallName;
use stubborn_core::node::{CallStep, StepKind};
use stubborn_core::service::Status;
use stubborn_core::session::LONGEST_KEY;
use stubborn_core::time::Instant;

pub use crate::generated::stubborn::trace::v1::*;
use crate::metrics::Board;

impl Trace for Board {
    async fn call(&self, call: crate::Call<CallRequest>) -> Result<CallReply, Status> {
        self.who.admit(&call.context().peer)?;
        let (now, kept, steps) = self.source.call_steps(name_of(&call)?);
        Ok(reply(now, kept, &steps))
    }
}

/// What a call is asked for by: its id, the id of its trace, or what its gRPC caller has named it.
///
/// # Errors
/// If it is none.
pub(crate) fn name_of(request: &CallRequest) -> Result<CallName, Status> {
    let name = request.call.as_str();
    let visible = name.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || name.len() > LONGEST_KEY || !visible {
        return Err(Status::invalid_argument("that is no id of a call"));
    }
    let id = name.parse().ok().map(CallName::Id);
    Ok(id.or_else(|| CallName::of_trace(name)).unwrap_or_else(|| CallName::of_key(name)))
}

pub(crate) fn reply(now: Instant, kept: bool, steps: &[CallStep]) -> CallReply {
    let steps = steps.iter().map(|step| {
        let mut told = Step { at_ns: step.at.as_nanos(), ..Step::default() };
        let kind = match step.kind {
            StepKind::Came => Kind::Came,
            StepKind::CameAgain => Kind::CameAgain,
            StepKind::FenceCame => Kind::FenceCame,
            StepKind::Executing => Kind::Executing,
            StepKind::Answered => Kind::Answered,
            StepKind::Taken => Kind::Taken,
            StepKind::Applied { entry, fence } => {
                told.entry = entry;
                if fence { Kind::FenceApplied } else { Kind::Applied }
            }
            StepKind::Streaming(passed) => {
                (told.received, told.sent) = (passed.received, passed.sent);
                Kind::Streaming
            }
            StepKind::Ended(passed) => {
                (told.received, told.sent) = (passed.received, passed.sent);
                Kind::Ended
            }
            StepKind::HalfClosed(messages) => {
                told.received = messages;
                Kind::HalfClosed
            }
            StepKind::Parted => Kind::Parted,
            StepKind::Resumed => Kind::Resumed,
        };
        told.set_kind(kind);
        told
    });
    CallReply { now_ns: now.as_nanos(), steps: steps.collect(), kept, ..CallReply::default() }
}
