//! `stubborn call ADDR --journal FILE`: settles what an earlier run left.

use serde_json::{Value, json};
use stubborn::journal::Unfinished;
use stubborn::{CallState, IncomingReply, Outcome};

use super::{Args, connect, written};
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::remote::Link;
use crate::task::block_on;

/// What became of one call.
struct Settled {
    outcome: &'static str,
    text: String,
    reply: Value,
    /// Whether it is known.
    known: bool,
}

pub(super) fn run(args: &Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        let link = connect(args).await?;
        let connection = link.connection().expect("over datagrams");
        let journal = connection.journal().expect("asked for");
        let (mut all, mut unknown) = (Vec::new(), 0);
        for call in journal.unfinished() {
            let (id, method) = (call.id().to_string(), call.method().to_owned());
            let settled = settle(args, &link, call).await;
            unknown += usize::from(!settled.known);
            out.line(format!("{id} {method}: {}", settled.text));
            all.push(json!({
                "call_id": id,
                "method": method,
                "outcome": settled.outcome,
                "reply": settled.reply,
            }));
        }
        written(&link).await;
        drop(journal);
        link.close().await;
        if all.is_empty() {
            out.line("every call of the journal was settled");
        }
        if unknown > 0 {
            let text = format!("the outcome of {unknown} of {} calls is not known", all.len());
            return Err(Error::new(Exit::Unknown, text).with("calls", all));
        }
        out.json(&json!({ "calls": all }));
        Ok(())
    })
}

async fn settle(args: &Args, link: &Link, call: Unfinished) -> Settled {
    let method = call.method().to_owned();
    let state = if args.fence {
        match call.fence().await {
            Ok(state) => state,
            Err(error) => return told("pending", error.to_string(), false),
        }
    } else {
        match call.resend().await {
            Ok(reply) => CallState::Replied(reply),
            Err(error) => match error.outcome() {
                Outcome::Executed(status) => CallState::Executed(status.clone()),
                Outcome::NotExecuted(why) => CallState::NotExecuted(why.clone()),
                Outcome::Lost => return told("lost", error.to_string(), false),
                _ => return told("pending", error.to_string(), false),
            },
        }
    };
    match state {
        CallState::Replied(incoming) => match reply(args, link, &method, &incoming).await {
            Ok(reply) => Settled {
                outcome: "executed",
                text: format!("executed: {reply}"),
                reply,
                known: true,
            },
            Err(error) => told("executed", format!("executed: {}", error.message()), true),
        },
        CallState::Executed(status) => told("executed", format!("executed: {status}"), true),
        CallState::ReplyNotKept => {
            told("executed", "executed: its reply was not kept".into(), true)
        }
        CallState::NotExecuted(why) => told("not_executed", format!("not executed: {why}"), true),
        CallState::AlreadySettled => told("settled", "settled before".into(), true),
        CallState::Lost => told("lost", "lost: the server has forgotten its session".into(), false),
        CallState::Executing | CallState::NotArrived => {
            told("executing", "still executing".into(), false)
        }
    }
}

fn told(outcome: &'static str, text: String, known: bool) -> Settled {
    Settled { outcome, text, reply: Value::Null, known }
}

async fn reply(
    args: &Args,
    link: &Link,
    method: &str,
    incoming: &IncomingReply,
) -> Result<Value, Error> {
    args.source.callable(link, method).await?.reply(incoming)
}
