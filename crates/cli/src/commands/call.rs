//! `stubborn call ADDR METHOD JSON`

mod settle;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use stubborn::trace::TRACEPARENT;
use stubborn::{
    CallError, CallId, Connection, Encoded, IncomingReply, Metadata, Method, Outcome, Semantics,
    Shape,
};

use crate::error::{Error, Exit};
use crate::notes::{self, Note};
use crate::output::Output;
use crate::pending;
use crate::remote::{self, Link, Remote, duration};
use crate::schema::{self, Callable, Source};
use crate::task::{answered, block_on};

/// Call a method and print its reply as JSON.
///
/// If the outcome is not known in time, the call's id is printed and `stubborn outcome` asks again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,

    /// pkg.Service/Method
    #[arg(default_value = "", hide_default_value = true)]
    method: String,

    /// The request as JSON; `-` reads standard input, `@FILE` a file.
    #[arg(default_value = "{}")]
    request: String,

    /// Wait no longer than this for the reply, for example 100ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,

    /// Send this with the call; may be given more than once.
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// Keep a journal in this file, so that the call can be settled after this program was killed.
    /// Without a method, what is in the journal is settled.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,

    /// With --journal and no method: make sure that what has not started never does, instead of
    /// sending it again.
    #[arg(long, requires = "journal")]
    fence: bool,

    /// Print the call's id on standard error, for `stubborn trace` and `stubborn outcome`.
    #[arg(long)]
    id: bool,

    #[command(flatten)]
    source: Source,
}

/// A call that is ready to be made.
struct Prepared {
    callable: Callable,
    request: Encoded,
    /// Of a client that streams.
    messages: Vec<Encoded>,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    if args.method.is_empty() && args.journal.is_some() {
        return settle::run(&args, out);
    }
    let input = super::read_input(&args.request)?;
    check_json(&input)?;
    check_metadata(&args)?;
    schema::split(&args.method)?;
    block_on(async {
        let link = pending::before_sending(&args.method, connect(&args)).await?;
        let preparing = prepare(&args, &link, &input);
        let prepared = match pending::before_sending(&args.method, preparing).await {
            Ok(prepared) => prepared,
            Err(error) => {
                link.close().await;
                return Err(error);
            }
        };
        match prepared.callable.method.shape() {
            Shape::Unary => call(&args, link, prepared, out).await,
            _ => stream::run(&args, link, prepared, out).await,
        }
    })
}

async fn connect(args: &Args) -> Result<Link, Error> {
    if args.journal.is_some() {
        remote::not_grpc(&args.remote.addr, "ask for outcomes, for which a journal is kept")?;
    }
    let journal = args.journal.clone();
    args.remote
        .connect_with(|builder| match journal {
            Some(path) => builder.journal(path),
            None => builder,
        })
        .await
}

async fn prepare(args: &Args, link: &Link, input: &str) -> Result<Prepared, Error> {
    let callable = args.source.callable(link, &args.method).await?;
    let (request, messages) = (callable.request(input)?, callable.stream(input)?);
    Ok(Prepared { callable, request, messages })
}

async fn call(args: &Args, link: Link, call: Prepared, out: &Output) -> Result<(), Error> {
    let Prepared { callable, request, .. } = call;
    let method = &callable.method;
    let channel = link.channel();
    let mut unary = channel.raw_unary::<()>(method, request);
    for (key, value) in &args.metadata {
        unary = unary.metadata(key.as_str(), value.as_bytes());
    }
    if let Some(deadline) = args.deadline {
        unary = unary.deadline(deadline);
    }
    let reserved = match method.semantics().takes_slot() && !link.is_grpc() {
        true => match pending::before_sending(method.name(), unary.id()).await {
            Ok(id) => Some(id),
            Err(error) => {
                drop(unary);
                link.close().await;
                return Err(error);
            }
        },
        false => None,
    };
    let mut name = reserved.map(|call| call.to_string());
    if reserved.is_none() {
        // It has no id, so that its trace is what it is asked for by.
        let trace = Traced::new(args)?;
        if let Some(parent) = &trace.parent {
            unary = unary.metadata(TRACEPARENT, parent.as_bytes());
        }
        name = trace.id;
    }
    let sent = notes::now();
    let answer = answered(out, unary.raw());
    let result = pending::unless_interrupted(method.name(), reserved, answer).await;
    if let Some(call) = name {
        note(args, method, call, sent, result.as_ref().err());
    }
    match result {
        Ok(reply) => {
            written(&link).await;
            link.close().await;
            print(&callable, reserved, reply, out)
        }
        Err(error) => Err(not_replied(args, link, error).await),
    }
}

/// Remembers a call for `stubborn trace`, and tells its id if that is wanted.
fn note(args: &Args, method: &Method, call: String, sent: u64, error: Option<&CallError>) {
    let outcome = error.map_or(notes::REPLIED, outcome_of).to_owned();
    if args.id {
        eprintln!("call {call}");
    }
    let (address, method) = (args.remote.addr.clone(), method.name().to_owned());
    notes::keep(&Note { call, address, method, sent, ended: notes::now(), outcome });
}

/// The trace of a call that has no id of its own.
struct Traced {
    /// What is to be added to its metadata.
    parent: Option<String>,
    /// The trace's id, if it is known.
    id: Option<String>,
}

impl Traced {
    /// That which the user has named, or a new one.
    fn new(args: &Args) -> Result<Self, Error> {
        let own = args.metadata.iter().find(|(key, _)| key.as_str() == TRACEPARENT);
        if let Some((_, own)) = own {
            let id = own.split('-').nth(1).filter(|id| notes::is_noted(id));
            return Ok(Self { parent: None, id: id.map(str::to_owned) });
        }
        let mut drawn = [0_u8; 24];
        getrandom::fill(&mut drawn)
            .map_err(|error| Error::new(Exit::Failed, format!("no random numbers: {error}")))?;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (id, span) = (hex(&drawn[..16]), hex(&drawn[16..]));
        Ok(Self { parent: Some(format!("00-{id}-{span}-01")), id: Some(id) })
    }
}

/// How a call without a reply ended, in few words.
fn outcome_of(error: &CallError) -> &'static str {
    match error.outcome() {
        Outcome::Executed(_) => "executed, with an error",
        Outcome::NotExecuted(_) => "not executed",
        Outcome::Pending(_) => "given up: pending",
        _ => "no answer",
    }
}

/// Waits until the journal, if there is one, has what was told.
async fn written(link: &Link) {
    if let Some(journal) = link.connection().and_then(Connection::journal) {
        journal.flush().await;
    }
}

/// Says what became of a call without a reply. A call that is pending keeps its session, so that
/// its outcome can be asked for from a new process.
async fn not_replied(args: &Args, link: Link, error: CallError) -> Error {
    written(&link).await;
    let Outcome::Pending(id) = *error.outcome() else {
        link.close().await;
        return error.into();
    };
    if let Some(journal) = &args.journal {
        let (addr, journal) = (&args.remote.addr, journal.display());
        return Error::from(error).with_hint(format!(
            "the call is {id}; settle it with: stubborn call {addr} --journal {journal}"
        ));
    }
    pending::told(&link, &args.remote.addr, error)
}

fn print(
    callable: &Callable,
    id: Option<CallId>,
    incoming: IncomingReply,
    out: &Output,
) -> Result<(), Error> {
    let method = &callable.method;
    if method.semantics() == Semantics::Maybe {
        out.line("sent; a maybe call has no reply");
        out.json(&json!({ "method": method.name(), "outcome": "sent" }));
        return Ok(());
    }
    let reply = callable.reply(&incoming)?;
    out.line(&reply);
    out.json(&json!({
        "method": method.name(),
        "outcome": "executed",
        "call_id": id.map(|id| id.to_string()),
        "reply": reply,
    }));
    Ok(())
}

/// Tells what no method could read before anybody is asked for one.
fn check_json(input: &str) -> Result<(), Error> {
    // A client that streams sends one value after another.
    let mut values = serde_json::Deserializer::from_str(input).into_iter::<serde_json::Value>();
    match values.find_map(Result::err) {
        None => Ok(()),
        Some(error) => Err(Error::usage(format!("the request is not JSON: {error}"))
            .with_hint("a message is written like {\"by\": 5}; quote it for the shell")),
    }
}

fn check_metadata(args: &Args) -> Result<(), Error> {
    let mut metadata = Metadata::new();
    args.metadata.iter().try_for_each(|(key, value)| {
        let inserted = metadata.insert(key.as_str(), value.as_bytes());
        inserted.map_err(|error| Error::usage(format!("--metadata {key}: {error}")))
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
