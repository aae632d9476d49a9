//! `stubborn udp`

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use stubborn::datagram::{Datagram, Datagrams, DatagramsExt, UdpEndpoint};

use crate::error::{Error, Exit};
use crate::output::{Output, Style};
use crate::remote::{duration, socket_address};
use crate::task::block_on;

/// Send and receive plain datagrams, as any UDP program does. Nothing is encrypted, and what is
/// lost is lost.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what comes, and answer it if asked to.
    Listen {
        /// Where to listen, for example 0.0.0.0:9000; port 0 takes a free one.
        #[arg(value_parser = socket_address)]
        addr: SocketAddr,

        /// Send each datagram back to where it came from. Only where strangers cannot reach it:
        /// the sender's address can be forged.
        #[arg(long)]
        echo: bool,

        /// End after this many datagrams.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Send one datagram and wait for a reply.
    Send {
        /// Where to, for example 127.0.0.1:9000.
        addr: String,

        /// What to send; `-` reads standard input.
        text: String,

        /// How long to wait for a reply; 0 does not wait.
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
        wait: Duration,
    },
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    match args.command {
        Command::Listen { addr, echo, count } => block_on(listen(addr, echo, count, out)),
        Command::Send { addr, text, wait } => block_on(send(addr, text, wait, out)),
    }
}

async fn listen(
    addr: SocketAddr,
    echo: bool,
    count: Option<u64>,
    out: &Output,
) -> Result<(), Error> {
    let endpoint = UdpEndpoint::bind(addr)
        .map_err(|e| Error::new(Exit::Connect, format!("cannot listen on {addr}: {e}")))?;
    let local = endpoint.local_addr();
    // Programs need the port that was chosen before the first datagram comes.
    let _ = writeln!(std::io::stderr(), "listening on {local}");
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let Datagram { from, data } = endpoint.recv_from().await.map_err(broken)?;
        seen += 1;
        let text = String::from_utf8_lossy(&data);
        let shown: String = text.trim_end_matches('\n').escape_debug().collect();
        out.line(format_args!("{} {shown}", out.paint(Style::Faint, format_args!("{from}:"))));
        // One object per datagram: this command's result has no end.
        out.json(&json!({ "from": from.to_string(), "bytes": data.len(), "text": text }));
        if echo && let Err(error) = endpoint.send_to(&data, from).await {
            out.warn(format_args!("no answer to {from}: {error}"));
        }
    }
    Ok(())
}

async fn send(addr: String, text: String, wait: Duration, out: &Output) -> Result<(), Error> {
    let data = if text == "-" { super::read_stdin()? } else { text.into_bytes() };
    let to = tokio::net::lookup_host(&addr)
        .await
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| Error::usage(format!("{addr:?} is no address: expected HOST:PORT")))?;
    let endpoint = UdpEndpoint::bind_any()
        .map_err(|e| Error::new(Exit::Connect, format!("no UDP socket: {e}")))?;
    let sent = Instant::now();
    endpoint.send_to(&data, to).await.map_err(broken)?;
    if wait.is_zero() {
        out.line(format_args!("sent {} bytes to {to}; nobody knows if they arrive", data.len()));
        out.json(&json!({ "to": to.to_string(), "bytes": data.len(), "reply": null }));
        return Ok(());
    }
    let reply = tokio::time::timeout(wait, async {
        loop {
            match endpoint.recv_from().await {
                Ok(datagram) if datagram.from == to => return Ok(datagram.data),
                Ok(_) => {} // From a stranger: no reply to this.
                Err(error) => return Err(error),
            }
        }
    });
    let Ok(reply) = reply.await else {
        let what = format!("no reply from {to} within {} ms", wait.as_millis());
        return Err(Error::new(Exit::Failed, what)
            .with("to", to.to_string())
            .with("bytes", data.len())
            .with_hint(
                "the datagram or its reply may have been lost, nobody may listen there, or the \
                 listener may not answer: UDP does not tell",
            ));
    };
    let reply = reply.map_err(broken)?;
    let text = String::from_utf8_lossy(&reply);
    out.line(text.trim_end_matches('\n').escape_debug());
    out.json(&json!({
        "to": to.to_string(),
        "bytes": data.len(),
        "reply": text,
        "rtt_us": u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX),
    }));
    Ok(())
}

fn broken(error: stubborn::datagram::DatagramError) -> Error {
    Error::new(Exit::Failed, error.to_string())
}
