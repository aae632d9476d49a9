//! The processes of a system.

use std::future::Future;
use std::io::{self, Read, Write};
use std::process::exit;
use std::thread;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime, Runtime};

use crate::protocol::{ClientOptions, Outcome, Ready, ServerOptions, Work};
use crate::{Result, process};

/// Tells the harness that a server is ready.
#[derive(Debug)]
pub struct Announce(());

impl Announce {
    /// It listens. From now on the process ends when its standard input does.
    pub fn ready(self, ready: &Ready) {
        say(ready);
        thread::spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            exit(0);
        });
    }
}

/// The runtime of a server with so many workers: of one thread if that is enough.
///
/// # Errors
/// If the system gives no threads.
pub fn runtime(workers: usize) -> Result<Runtime> {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(workers.max(1)).enable_all().build()?)
}

/// A runtime of one thread, where `spawn_local` works: that of every client, and of servers that stay
/// on one thread.
///
/// # Errors
/// If the system refuses.
pub fn local_runtime() -> Result<LocalRuntime> {
    Ok(Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?)
}

/// What a server answers that has no methods.
pub fn echo_or_count(work: Work, request: Bytes) -> Bytes {
    match work {
        Work::Echo => request,
        Work::Upload => Bytes::copy_from_slice(&(request.len() as u64).to_le_bytes()),
    }
}

/// Lets other tasks run once, so that what awaits it is not ready when first polled.
pub fn yield_once() -> impl Future<Output = ()> {
    tokio::task::yield_now()
}

/// Reads the command line, does what it says, ends the process.
pub(crate) fn main(
    serve: impl FnOnce(&str, ServerOptions, Announce) -> Result,
    call: impl FnOnce(&str, ClientOptions) -> Result<Outcome>,
) -> ! {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, variant, options] = arguments.as_slice() else {
        eprintln!("started by `cargo xtask bench`: server|client VARIANT OPTIONS");
        exit(2)
    };
    let result = process::raise_file_limit().and_then(|()| match role.as_str() {
        "server" => {
            let options: ServerOptions = parse(options)?;
            process::pin(&options.cores)?;
            serve(variant, options, Announce(()))
        }
        _ => {
            let options: ClientOptions = parse(options)?;
            process::pin(&options.cores)?;
            say(&call(variant, options)?);
            Ok(())
        }
    });
    if let Err(error) = result {
        say(&Outcome::Error(error.to_string()));
        exit(1);
    }
    exit(0)
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| format!("cannot read the options: {e}").into())
}

/// A line of JSON. A harness that is gone needs none.
fn say<T: Serialize>(what: &T) {
    let line = serde_json::to_string(what).expect("these types are JSON");
    let _ = writeln!(io::stdout().lock(), "{line}");
}
