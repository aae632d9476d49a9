//! `stubborn kv`: keys and values of a cluster, from the shell.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use stubborn::UnaryCall;
use stubborn::kv::compare_and_swap_request::Expected;
use stubborn::kv::{
    Change, CompareAndSwapReply, CompareAndSwapRequest, DeleteRequest, GetRequest, KvClient,
    ListRequest, Pair, PutRequest, Removal, WatchRequest, change, watch_request,
};

use crate::error::{Error, Exit};
use crate::output::Output;
use crate::pending;
use crate::remote::{Cluster, Link, duration};
use crate::task::{answered, block_on};

/// Read and change keys and values of a cluster: what `stubborn up` and `stubborn node` serve.
///
/// A change runs exactly once, whatever fails; a read sees every change that ended before it began.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Cluster,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Give a key a value.
    Put {
        /// The key.
        key: String,
        /// The value; `-` reads standard input, `@FILE` a file.
        value: String,
    },
    /// Print the value of a key.
    Get {
        /// The key.
        key: String,
        /// Let any node answer from a state that is up to this much older than now.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        max_staleness: Option<Duration>,
    },
    /// Take a key away.
    Delete {
        /// The key.
        key: String,
    },
    /// Change a key if it is as expected.
    Cas {
        /// The key.
        key: String,
        /// Its value from then on; `-` reads standard input, `@FILE` a file.
        #[arg(required_unless_present = "delete")]
        value: Option<String>,
        /// Take it away instead.
        #[arg(long, conflicts_with = "value")]
        delete: bool,
        /// Expect this revision; 0: that the key is not there.
        #[arg(long, value_name = "N", required_unless_present = "expect")]
        revision: Option<u64>,
        /// Expect this value.
        #[arg(long, value_name = "VALUE", conflicts_with = "revision")]
        expect: Option<String>,
    },
    /// List keys.
    List {
        /// What they begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// List no more than this many.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Print the changes of keys as they come, until interrupted.
    ///
    /// In the order of their revisions, each once, also when nodes fail. Prints REVISION, what was done
    /// (put or delete), KEY and VALUE; with --json an object for each, and one at the beginning with
    /// the revision after which the changes are. The cluster keeps the latest changes, 16 MiB of them:
    /// if the next one is not kept any more, the command ends and says so. List the keys then, and
    /// watch from the revision after that of the list.
    Watch {
        /// What the keys begin with.
        #[arg(default_value = "")]
        prefix: String,
        /// Begin with the change of this revision; else with the next one.
        #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
        from: Option<u64>,
        /// Watch the key PREFIX alone, not those that begin with it.
        #[arg(long, requires = "prefix")]
        key: bool,
    },
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let request = read(args.command)?;
    let addr = args.cluster.address()?;
    block_on(async {
        let connecting = args.cluster.connect();
        // Elsewhere Ctrl-C simply ends the program.
        let link = match request.changes() {
            Some(method) => pending::before_sending(&full(method), connecting).await?,
            None => connecting.await?,
        };
        let watches = matches!(request, Request::Watch(_));
        let performing = perform(&link, &addr, request, out);
        let done = if watches { performing.await } else { answered(out, performing).await };
        // A call that is pending keeps its session.
        if done.as_ref().err().is_none_or(|error| error.exit() != Exit::Unknown) {
            link.close().await;
        }
        done
    })
}

enum Request {
    Put(PutRequest),
    Get(GetRequest, Option<Duration>),
    Delete(DeleteRequest),
    Swap(CompareAndSwapRequest),
    List { prefix: String, limit: usize },
    Watch(WatchRequest),
}

impl Request {
    /// The method of one that changes something.
    fn changes(&self) -> Option<&'static str> {
        match self {
            Self::Put(_) => Some("Put"),
            Self::Delete(_) => Some("Delete"),
            Self::Swap(_) => Some("CompareAndSwap"),
            Self::Get(..) | Self::List { .. } | Self::Watch(_) => None,
        }
    }
}

fn full(method: &str) -> String {
    format!("stubborn.kv.v1.Kv/{method}")
}

fn read(command: Command) -> Result<Request, Error> {
    Ok(match command {
        Command::Put { key, value } => Request::Put(PutRequest { key, value: bytes(&value)? }),
        Command::Get { key, max_staleness } => Request::Get(GetRequest { key }, max_staleness),
        Command::Delete { key } => Request::Delete(DeleteRequest { key }),
        Command::Cas { key, value, delete: _, revision, expect } => {
            let expected = match (revision, expect) {
                (Some(revision), _) => Some(Expected::Revision(revision)),
                (None, expect) => expect.map(|value| Expected::Value(value.into())),
            };
            let swap = value.as_deref().map(bytes).transpose()?;
            Request::Swap(CompareAndSwapRequest { key, expected, swap })
        }
        Command::List { prefix, limit } => {
            Request::List { prefix, limit: limit.unwrap_or(usize::MAX) }
        }
        Command::Watch { prefix, from, key } => {
            let keys = match key {
                true => watch_request::Keys::Key(prefix),
                false => watch_request::Keys::Prefix(prefix),
            };
            Request::Watch(WatchRequest { keys: Some(keys), from: from.unwrap_or(0) })
        }
    })
}

fn bytes(argument: &str) -> Result<Bytes, Error> {
    match argument.strip_prefix('@') {
        _ if argument == "-" => Ok(super::read_stdin()?.into()),
        Some(file) => match std::fs::read(file) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(Error::usage(format!("cannot read {file}: {error}"))),
        },
        None => Ok(Bytes::copy_from_slice(argument.as_bytes())),
    }
}

async fn perform(link: &Link, addr: &str, request: Request, out: &Output) -> Result<(), Error> {
    let client = KvClient::new(link.channel());
    match request {
        Request::Put(request) => {
            let reply = change(link, addr, "Put", client.put(request)).await?;
            out.line(format_args!("revision {}", reply.revision));
            out.json(&json!({ "revision": reply.revision, "previous": reply.previous }));
        }
        Request::Get(request, max_staleness) => {
            let key = request.key.clone();
            let mut call = client.get(request);
            if let Some(at_most) = max_staleness {
                call = call.max_staleness(at_most);
            }
            let reply = call.await?;
            let Some(pair) = reply.pair else {
                return Err(Error::new(Exit::Failed, format!("there is no key {key:?}"))
                    .with("revision", reply.revision));
            };
            out.line(String::from_utf8_lossy(&pair.value));
            out.json(&shown(&pair));
        }
        Request::Delete(request) => {
            let reply = change(link, addr, "Delete", client.delete(request)).await?;
            out.line(match reply.previous {
                0 => "it was not there".to_owned(),
                _ => format!("revision {}", reply.revision),
            });
            out.json(&json!({ "revision": reply.revision, "previous": reply.previous }));
        }
        Request::Swap(request) => {
            let call = client.compare_and_swap(request);
            return swapped(&change(link, addr, "CompareAndSwap", call).await?, out);
        }
        Request::List { prefix, limit } => return list(&client, prefix, limit, out).await,
        Request::Watch(request) => return watch(&client, request, out).await,
    }
    Ok(())
}

/// Makes a change whose outcome can be asked for later, if it is interrupted or gets no reply.
async fn change<T>(
    link: &Link,
    addr: &str,
    method: &str,
    mut call: UnaryCall<T>,
) -> Result<T, Error> {
    let method = full(method);
    let id = match link.is_grpc() {
        true => None,
        false => Some(pending::before_sending(&method, call.id()).await?),
    };
    let replied = pending::unless_interrupted(&method, id, call.into_future()).await;
    replied.map_err(|error| pending::told(link, addr, error))
}

fn swapped(reply: &CompareAndSwapReply, out: &Output) -> Result<(), Error> {
    out.json(&json!({ "swapped": reply.swapped, "revision": reply.revision }));
    if reply.swapped {
        out.line(format_args!("revision {}", reply.revision));
        return Ok(());
    }
    let is = match reply.revision {
        0 => "it is not there".to_owned(),
        revision => format!("its revision is {revision}"),
    };
    Err(Error::new(Exit::Failed, format!("the key is not as expected: {is}")).printed())
}

async fn list(client: &KvClient, prefix: String, limit: usize, out: &Output) -> Result<(), Error> {
    let (mut pairs, mut after, mut left) = (Vec::new(), String::new(), limit);
    let mut revision;
    loop {
        let page = u32::try_from(left).unwrap_or(0).min(1_000);
        let request = ListRequest { prefix: prefix.clone(), after, limit: page, keys_only: false };
        let reply = client.list(request).await?;
        revision = reply.revision;
        left -= reply.pairs.len().min(left);
        for pair in reply.pairs {
            out.line(format_args!("{}\t{}", pair.key, String::from_utf8_lossy(&pair.value)));
            if out.is_json() {
                pairs.push(shown(&pair));
            }
        }
        after = reply.next;
        if after.is_empty() || left == 0 {
            break;
        }
    }
    out.json(&json!({ "pairs": pairs, "revision": revision, "more": !after.is_empty() }));
    Ok(())
}

async fn watch(client: &KvClient, request: WatchRequest, out: &Output) -> Result<(), Error> {
    let mut replies = client.watch(request).await?;
    let mut begun = false;
    while let Some(reply) = replies.message().await? {
        if !std::mem::replace(&mut begun, true) {
            out.json(&json!({ "event": "watching", "revision": reply.revision }));
        }
        for Change { change } in reply.changes {
            match change {
                Some(change::Change::Put(pair)) => {
                    let Pair { key, value, revision, .. } = &pair;
                    let value = String::from_utf8_lossy(value);
                    out.line(format_args!("{revision}\tput\t{key}\t{value}"));
                    if out.is_json() {
                        let mut told = shown(&pair);
                        told["event"] = "put".into();
                        out.json(&told);
                    }
                }
                Some(change::Change::Removal(Removal { key, revision })) => {
                    out.line(format_args!("{revision}\tdelete\t{key}"));
                    out.json(&json!({ "event": "delete", "key": key, "revision": revision }));
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// A value that is text is shown as it is, another one as an array of bytes.
fn shown(pair: &Pair) -> Value {
    let value = match std::str::from_utf8(&pair.value) {
        Ok(text) => json!(text),
        Err(_) => json!(pair.value.to_vec()),
    };
    let Pair { key, revision, created, .. } = pair;
    json!({ "key": key, "value": value, "revision": revision, "created": created })
}
