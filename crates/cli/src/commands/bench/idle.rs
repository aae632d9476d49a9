//! `stubborn bench idle ADDR`

use std::time::Duration;

use serde_json::json;
use stubborn::client::ClientEndpoint;
use stubborn::{ChannelBuilder, Limits, Trust};

use super::measure::connect;
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::pins;
use crate::stubs::bench::v1::{EchoClient, Payload};
use crate::task::block_on;

/// Connections that are opened at once: few enough that no handshake waits for a Retry.
const AT_ONCE: usize = 32;

/// Open connections that do nothing, and say what memory each takes of the server.
///
/// Each connection has a session and has made one call. The server's resident memory is compared
/// before and after, once all of them are idle; they are kept alive meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address that `bench serve` printed. A server that has served other connections before
    /// has memory left over from them, which these will use: start a new one.
    #[arg(value_name = "ADDR")]
    address: String,

    /// Connections. They share a socket.
    #[arg(long, value_name = "C", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    connections: u32,

    /// How long they are idle before memory is looked at, in seconds.
    #[arg(long, value_name = "S", default_value_t = 5)]
    settle: u64,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(measure(&args, out))
}

async fn measure(args: &Args, out: &Output) -> Result<(), Error> {
    let (observer, _) = connect(&args.address, Duration::ZERO, None).await?;
    // What the first connection alone makes the server allocate is not counted.
    observer.echo(Payload::default()).await?;
    let before = observer.usage(()).await?.resident_bytes;
    let clients = open(args).await?;
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    let after = observer.usage(()).await?.resident_bytes;
    for client in &clients {
        client.echo(Payload::default()).await?;
    }
    let each = after.saturating_sub(before) as f64 / f64::from(args.connections);
    out.line(format_args!("{} idle connections", args.connections));
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    out.line(format_args!(
        "  server     {:.1} MiB resident before, {:.1} MiB with them",
        mebibytes(before),
        mebibytes(after)
    ));
    out.line(format_args!("  each       {:.2} KiB", each / 1_024.0));
    out.json(&json!({
        "connections": args.connections,
        "resident_before": before,
        "resident_after": after,
        "bytes_each": each,
    }));
    Ok(())
}

async fn open(args: &Args) -> Result<Vec<EchoClient>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Exit::Connect, e.to_string());
    let endpoint = ClientEndpoint::with_qlog(Limits::default(), crate::qlog::from_env()?)
        .map_err(|e| failed(&e))?;
    let mut clients = Vec::new();
    let mut left = args.connections as usize;
    while left > 0 {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..left.min(AT_ONCE) {
            let mut builder = ChannelBuilder::new(&args.address)
                .endpoint(&endpoint)
                .key_log(crate::key_log::from_env()?);
            if let Some(pin) = pins::find(&args.address) {
                builder = builder.trust(Trust::key(pin));
            }
            opening.spawn(builder.connect());
        }
        left -= opening.len();
        for channel in opening.join_all().await {
            let client = EchoClient::new(channel.map_err(|e| failed(&e))?);
            client.echo(Payload::default()).await?;
            clients.push(client);
        }
    }
    Ok(clients)
}
