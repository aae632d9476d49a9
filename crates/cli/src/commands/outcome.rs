//! `stubborn outcome ADDR CALL`

use serde_json::{Value, json};
use stubborn::{CallError, CallId, CallState, IncomingReply, SessionSecret, SessionTicket};

use crate::error::{Error, Exit};
use crate::output::Output;
use crate::remote::{self, Link, Remote};
use crate::schema::Source;
use crate::task::block_on;
use crate::tickets;

/// Ask what became of a call.
///
/// The call must be one that `stubborn call` of the same user left pending, or one of a session
/// that belongs to the certificate given with --cert. Asking changes nothing, unless --final.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,

    /// The id of the call, as it was printed.
    call: CallId,

    /// Make the answer final: a call that has not started never will. Takes the session over from
    /// a program that may still use it.
    #[arg(long = "final")]
    settle: bool,

    /// The method of the call, if `stubborn call` did not make it, to print its reply.
    #[arg(long, value_name = "pkg.Service/Method")]
    method: Option<String>,

    #[command(flatten)]
    source: Source,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let kept = tickets::find(args.call)?;
    let method = args.method.clone().or_else(|| kept.as_ref().map(|kept| kept.method.clone()));
    let ticket = kept.map_or(
        SessionTicket { session: args.call.session, secret: SessionSecret::NONE },
        |kept| kept.ticket,
    );
    block_on(async {
        let (link, state) = ask(&args, ticket).await?;
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                link.close().await;
                return Err(Error::from(error));
            }
        };
        let told = tell(&args, &link, method.as_deref(), state).await;
        let settled = matches!(&told, Ok(told) if told.settled);
        if settled && args.settle {
            tickets::forget(args.call);
        }
        // The call's own session stays as long as somebody may ask again.
        if settled || !args.settle {
            link.close().await;
        }
        let Told { text, outcome, reply, exit, hint, .. } = told?;
        let call = args.call.to_string();
        match exit {
            None => {
                out.line(&text);
                out.json(&json!({ "call_id": call, "outcome": outcome, "reply": reply }));
                Ok(())
            }
            Some(exit) => {
                let error = Error::new(exit, text).with("call_id", call).with("outcome", outcome);
                Err(if hint.is_empty() { error } else { error.with_hint(hint) })
            }
        }
    })
}

type Asked = Result<CallState<IncomingReply>, CallError>;

async fn ask(args: &Args, ticket: SessionTicket) -> Result<(Link, Asked), Error> {
    remote::not_grpc(&args.remote.addr, "ask for outcomes")?;
    if args.settle {
        let link = args.remote.connect_with(|builder| builder.resume(ticket)).await?;
        let state = link.channel().raw_outcome(args.call).await;
        return Ok((link, state));
    }
    let link = args.remote.connect().await?;
    let connection = link.connection().expect("over datagrams");
    let state = connection.outcome_of(args.call, Some(ticket)).await;
    Ok((link, state))
}

/// An outcome in words.
struct Told {
    text: String,
    outcome: &'static str,
    reply: Value,
    /// None for success.
    exit: Option<Exit>,
    hint: &'static str,
    /// Whether the answer will stay.
    settled: bool,
}

async fn tell(
    args: &Args,
    link: &Link,
    method: Option<&str>,
    state: CallState<IncomingReply>,
) -> Result<Told, Error> {
    let told = |text: &str, outcome, exit, hint, settled| {
        Ok(Told { text: text.to_owned(), outcome, reply: Value::Null, exit, hint, settled })
    };
    match state {
        CallState::Replied(incoming) => {
            let (reply, text) = reply(args, link, method, &incoming).await?;
            let text = format!("executed: {text}");
            Ok(Told { text, outcome: "executed", reply, exit: None, hint: "", settled: true })
        }
        CallState::Executed(status) => {
            told(&format!("executed: {status}"), "executed", Some(Exit::Failed), "", true)
        }
        CallState::ReplyNotKept => {
            told("executed: its reply was too large to be kept", "executed", None, "", true)
        }
        CallState::NotExecuted(why) => {
            let text = format!("not executed: {why}");
            told(&text, "not_executed", Some(Exit::NotExecuted), "", true)
        }
        CallState::Executing => {
            let hint = "ask again later";
            told("still executing", "executing", Some(Exit::Unknown), hint, false)
        }
        CallState::NotArrived => {
            let hint = "a copy may still be under way: ask again later, or make sure that it never \
                        runs with --final";
            told("not arrived so far", "not_arrived", Some(Exit::Unknown), hint, false)
        }
        CallState::AlreadySettled => {
            told("settled: its caller was told the outcome", "settled", None, "", true)
        }
        CallState::Lost => {
            let hint = "the server has restarted or forgotten the session since, or the session is \
                        not yours: ask with the user or certificate that made the call";
            told("lost: it cannot be known whether it ran", "lost", Some(Exit::Unknown), hint, true)
        }
    }
}

async fn reply(
    args: &Args,
    link: &Link,
    method: Option<&str>,
    incoming: &IncomingReply,
) -> Result<(Value, String), Error> {
    let Some(name) = method else {
        let size = incoming.reply.body.len();
        let text = format!("a reply of {size} bytes (--method pkg.Service/Method prints it)");
        return Ok((Value::Null, text));
    };
    let value = args.source.callable(link, name).await?.reply(incoming)?;
    Ok((value.clone(), value.to_string()))
}
