//! `stubborn trace ADDR CALL`

mod gather;
mod picture;
mod svg;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Exit};
use crate::notes::{self, Note};
use crate::output::Output;
use crate::remote::{Access, duration};
use crate::task::block_on;

use gather::Witness;
use picture::Picture;

/// Show what happened to a call, hop by hop, as a drawing of messages in time.
///
/// Servers and replicas keep the latest steps of calls, those of slow, failed and repeated calls for
/// longer, and tell them to callers with a certificate and to those on their own machine. What
/// `stubborn call` of this user sent is known here as well. Nothing of what a call carried is kept or shown.
///
/// A call is known by its id; a read, a stream, or a call over gRPC by the id of its trace (the second
/// part of its `traceparent`), and a call over gRPC also by its `stubborn-call-id`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The servers that may know of it, HOST:PORT[,HOST:PORT], and the id of the call or of its trace.
    /// Without servers, those that `stubborn call` was told; without an id, its last call.
    #[arg(value_names = ["ADDR", "CALL"], num_args = 0..=2)]
    what: Vec<String>,

    #[command(flatten)]
    access: Access,

    /// How long to wait for the answer of a server.
    #[arg(short = 'W', long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    wait: Duration,

    /// Also draw it into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let (call, addresses, note) = which(&args.what)?;
    let nodes = gather::nodes(&args.access, &addresses)?;
    let asking = gather::ask(nodes, &args.access, &call, args.wait);
    let witnesses = block_on(async { Ok(asking.await) })?;
    let picture = Picture::new(&call, note.as_ref(), &witnesses);
    for witness in &witnesses {
        if let Err(error) = &witness.said {
            let why = error.message().lines().next().unwrap_or_default();
            out.warn(format_args!("{} is not asked: {why}", witness.address));
        }
    }
    if picture.is_empty() {
        return Err(nothing(&call, &witnesses));
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::draw(&picture)).map_err(|e| Error::io("write", path, &e))?;
    }
    picture.lines().iter().for_each(|line| out.line(line));
    out.json(&to_json(&picture));
    Ok(())
}

/// The call, whom to ask, and what `stubborn call` has noted.
fn which(what: &[String]) -> Result<(String, String, Option<Note>), Error> {
    let id = |text: &String| match notes::is_noted(text) {
        true => Ok(text.clone()),
        false => Err(Error::usage(format!("{text} is no id of a call"))),
    };
    let (address, call) = match what {
        [] => (None, None),
        [call] => (None, Some(id(call)?)),
        // What a gRPC caller has named its call may be anything.
        [address, call, ..] => (Some(address.clone()), Some(call.clone())),
    };
    let note = match &call {
        Some(call) => notes::find(call),
        None => Some(notes::last().ok_or_else(|| {
            Error::usage("`stubborn call` has noted no call here").with_hint("name its id")
        })?),
    };
    let call = call.or(note.as_ref().map(|note| note.call.clone())).expect("one of both is there");
    let address = address.or_else(|| note.as_ref().map(|note| note.address.clone()));
    let address = address.ok_or_else(|| {
        Error::usage("nobody is named who may know of the call").with_hint(format!(
            "name the servers before it: stubborn trace HOST:PORT,HOST:PORT {call}"
        ))
    })?;
    Ok((call, address, note))
}

fn nothing(call: &str, witnesses: &[Witness]) -> Error {
    let answered = witnesses.iter().filter(|witness| witness.said.is_ok()).count();
    let message = match answered {
        0 => "no server answers".to_owned(),
        _ => format!("nothing is known of call {call} any more, or was ever"),
    };
    let exit = if answered == 0 { Exit::Connect } else { Exit::Failed };
    let error = witnesses.iter().find_map(|witness| witness.said.as_ref().err());
    let hint = match error {
        Some(error) => error.to_string(),
        None => "servers keep the latest steps of all calls together, and of reads that carry a \
                 trace; a server that was restarted has forgotten them"
            .to_owned(),
    };
    Error::new(exit, message).with_hint(hint)
}

fn to_json(picture: &Picture) -> Value {
    let steps: Vec<Value> = picture
        .rows
        .iter()
        .map(|row| {
            json!({
                "ms": row.ms(),
                "at": picture.columns[row.column].name,
                "what": row.what,
                "from": row.arrow.map(|(from, _)| &picture.columns[from].name),
                "to": row.arrow.map(|(_, to)| &picture.columns[to].name),
            })
        })
        .collect();
    let columns: Vec<Value> = picture
        .columns
        .iter()
        .map(|column| json!({ "name": column.name, "uncertain_ms": column.uncertain_ms() }))
        .collect();
    json!({ "call_id": picture.call, "method": picture.method, "columns": columns, "steps": steps })
}
