//! Processes that this program starts of itself: each says on standard output where it listens, and
//! ends when its standard input ends, so that none outlives its parent, however that ends.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::error::Error;

/// A process that was started, and listens; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    address: SocketAddr,
}

/// A process that was started; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    what: &'static str,
    process: tokio::process::Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with other arguments and waits until it says where it listens.
    pub(crate) async fn start(
        what: &'static str,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, Error> {
        let mut process = Process::start(what, args)?;
        let first = process.line().await.and_then(|line| line.parse().ok());
        let address = first.ok_or_else(|| cannot_start(what, "it ended before it was ready"))?;
        Ok(Self { process, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number; 0 when it has ended.
    pub(crate) fn pid(&self) -> u32 {
        self.process.process.id().unwrap_or(0)
    }

    /// Waits until it ends by itself, which it should not.
    pub(crate) async fn ended(&mut self) -> Error {
        self.process.ended().await
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Lets it end, and returns the last line that it printed.
    pub(crate) async fn finish(self) -> Option<String> {
        self.process.finish().await
    }
}

impl Process {
    /// Starts this program with other arguments.
    pub(crate) fn start(
        what: &'static str,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, Error> {
        let failed = |error: std::io::Error| cannot_start(what, error);
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or_else(|| cannot_start(what, "it has no output"))?;
        Ok(Self { what, process, stdin, lines: BufReader::new(stdout).lines() })
    }

    /// The next line that it prints; `None` if it has ended.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.lines.next_line().await.ok().flatten()
    }

    /// Waits until it ends by itself, which it should not.
    pub(crate) async fn ended(&mut self) -> Error {
        let how = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Error::internal(format!("the process of the {} has ended: {how}", self.what))
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        let _ = self.process.kill().await;
    }

    /// Lets it end, and returns the last line that it printed.
    pub(crate) async fn finish(mut self) -> Option<String> {
        drop(self.stdin.take());
        let mut last = None;
        while let Some(line) = self.line().await {
            last = Some(line);
        }
        let _ = self.process.wait().await;
        last
    }
}

fn cannot_start(what: &str, why: impl std::fmt::Display) -> Error {
    Error::internal(format!("cannot start the process of the {what}: {why}"))
}

/// In a child: tells the parent where it listens.
pub(crate) fn ready(address: SocketAddr) {
    say(&address.to_string());
}

/// In a child: prints a line for the parent, which may be gone.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// In a child: waits until the parent has closed this process's standard input, or is gone.
pub(crate) async fn parent_gone() {
    let (gone, wait) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a pipe's end cannot be awaited everywhere.
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while std::io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
        drop(gone);
    });
    let _ = wait.await;
}
