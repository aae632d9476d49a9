//! Calls of methods that stream: a JSON value for each message, one after another.

use std::future::poll_fn;
use std::sync::Arc;

use serde_json::json;
use stubborn::trace::TRACEPARENT;
use stubborn::{CallError, Encoded, IncomingReply, NotTaken, Port, Replies, Shape};

use super::{Args, Prepared, Traced, not_replied, note};
use crate::error::Error;
use crate::notes;
use crate::output::Output;
use crate::pending;
use crate::remote::Link;

/// Makes the call: sends messages if the client streams, and prints what comes.
pub(super) async fn run(
    args: &Args,
    link: Link,
    call: Prepared,
    out: &Output,
) -> Result<(), Error> {
    let Prepared { callable, request, messages } = call;
    let method = &callable.method;
    let channel = link.channel();
    let mut stream = channel.raw_streaming::<Replies<()>>(method, request);
    for (key, value) in &args.metadata {
        stream = stream.metadata(key.as_str(), value.as_bytes());
    }
    if let Some(deadline) = args.deadline {
        stream = stream.deadline(deadline);
    }
    let trace = Traced::new(args)?;
    if let Some(parent) = &trace.parent {
        stream = stream.metadata(TRACEPARENT, parent.as_bytes());
    }
    let (mut came, sent) = (0u64, notes::now());
    let ended = async {
        let port = stream.begin()?;
        let show = |message: Encoded| {
            came += 1;
            let incoming = IncomingReply { reply: message, ..IncomingReply::default() };
            let message = callable.reply(&incoming)?;
            out.line(&message);
            out.json(&json!({ "message": message }));
            Ok::<_, Error>(())
        };
        let (_, shown) = tokio::join!(send(&port, messages), receive(&port, show));
        if let Err(error) = shown {
            return Ok(Err(error));
        }
        poll_fn(|cx| port.poll_end(cx)).await.map(Ok)
    };
    let ended: Result<Result<IncomingReply, Error>, CallError> =
        pending::unless_interrupted(method.name(), None, ended).await;
    if let Some(name) = trace.id {
        note(args, method, name, sent, ended.as_ref().err());
    }
    let reply = match ended {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => {
            link.close().await;
            return Err(error);
        }
        Err(error) => {
            let taken = error.taken().filter(|_| method.shape().client_streams());
            let error = not_replied(args, link, error).await;
            return Err(match taken {
                Some(taken) => error.with_hint(format!("{taken} messages were taken")),
                None => error,
            });
        }
    };
    link.close().await;
    let taken = reply.stream.as_ref().map_or(0, |end| end.taken);
    let mut end = json!({ "method": method.name(), "outcome": "executed", "taken": taken });
    if method.shape() == Shape::ClientStreaming {
        let reply = callable.reply(&reply)?;
        out.line(&reply);
        end["reply"] = json!(reply);
    } else {
        end["messages"] = json!(came);
    }
    out.json(&end);
    Ok(())
}

async fn send(port: &Arc<dyn Port>, messages: Vec<Encoded>) -> Result<(), NotTaken> {
    for message in messages {
        let mut message = Some(message);
        poll_fn(|cx| port.poll_send(cx, &mut message)).await?;
    }
    port.end();
    Ok(())
}

async fn receive(
    port: &Arc<dyn Port>,
    mut show: impl FnMut(Encoded) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Some(message) = poll_fn(|cx| port.poll_take(cx)).await {
        show(message)?;
    }
    Ok(())
}
