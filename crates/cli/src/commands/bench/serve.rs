//! `stubborn bench serve ADDR`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use stubborn::{Call, Identity, Limits, Server, Status};

use super::{cpu, memory};
use crate::error::Error;
use crate::output::{Output, Style};
use crate::pins;
use crate::remote::socket_address;
use crate::stubs::bench::v1::{Echo, EchoServer, Payload, UsageReply};
use crate::task::block_on;

/// Serve what `bench run` calls, until interrupted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:7500", value_parser = socket_address)]
    address: SocketAddr,

    /// Workers: threads that share the connections. 0 for one per processor.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(..=256))]
    workers: u16,

    /// How long a worker looks for datagrams before it sleeps, in microseconds: faster answers for
    /// processor time.
    #[arg(long, value_name = "US", default_value_t = 0)]
    busy_poll: u32,

    /// Let each handler give way once before it answers, so that it is not ready at once.
    #[arg(long = "yield")]
    yields: bool,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        // A new key at each start: `bench run` is told it, by the user or by what is left below.
        let identity = Identity::self_signed(["localhost"])
            .map_err(|e| Error::internal(format!("cannot make a certificate: {e}")))?;
        let pin = identity.fingerprint().map_err(|e| Error::internal(e.to_string()))?;
        let server = Server::bind(args.address)
            .identity(identity)
            .key_log(crate::key_log::from_env()?)
            .qlog(crate::qlog::from_env()?)
            .service(EchoServer::new(Echoes { yields: args.yields }))
            .busy_poll(Duration::from_micros(args.busy_poll.into()))
            .limits(limits())
            .workers(args.workers.into())
            .start()
            .await
            .map_err(|e| Error::internal(e.to_string()))?;
        let reachable = reachable(server.local_addr());
        let address = format!("stubborn://{reachable}?pin={pin}");
        let left = pins::leave(reachable, pin);
        out.line(format_args!("serving on {}; measure it with:", server.local_addr()));
        let enough = left.as_ref().map(|_| format!("stubborn bench run {reachable}"));
        if let Some(command) = &enough {
            let command = out.paint(Style::Strong, command);
            out.line(format_args!("  {command}   (same user, same machine)"));
        }
        let command = format!("stubborn bench run '{address}'");
        out.line(format_args!("  {}", out.paint(Style::Strong, command)));
        out.json(&json!({ "address": address }));
        tokio::select! {
            () = interrupted() => server.stop().await,
            () = server.failed() => return Err(Error::internal("the server has ended by itself")),
        }
        Ok(())
    })
}

/// Until the user, or whoever started the program, wants it to end.
async fn interrupted() {
    let interrupt = async { drop(tokio::signal::ctrl_c().await) };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    interrupt.await;
}

/// An address that clients on this machine can call: not "all addresses".
fn reachable(mut local: SocketAddr) -> SocketAddr {
    if local.ip().is_unspecified() {
        local.set_ip(match local.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    local
}

/// One machine makes all the connections of a benchmark.
fn limits() -> Limits {
    let default = Limits::default();
    Limits { sessions_per_address: default.sessions, ..default }
}

/// The largest reply that can be asked for: what a message may have by default.
const LARGEST_REPLY: usize = 64 << 20;

struct Echoes {
    yields: bool,
}

impl Echo for Echoes {
    async fn echo(&self, call: Call<Payload>) -> Result<Payload, Status> {
        if self.yields {
            tokio::task::yield_now().await;
        }
        let request = call.into_message();
        let Some(size) = request.reply else { return Ok(request) };
        match usize::try_from(size) {
            Ok(size) if size <= LARGEST_REPLY => {
                Ok(Payload { data: Bytes::from(vec![0; size]), reply: None })
            }
            _ => Err(Status::invalid_argument("a reply has 64 MiB at most")),
        }
    }

    async fn usage(&self, _: Call<()>) -> Result<UsageReply, Status> {
        let cpu_nanos = u64::try_from(cpu::used().as_nanos()).unwrap_or(u64::MAX);
        Ok(UsageReply { cpu_nanos, resident_bytes: memory::resident() })
    }
}
