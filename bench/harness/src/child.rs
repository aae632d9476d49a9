//! The processes of a run.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use bench_driver::protocol::{ClientOptions, Outcome, Ready, ServerOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// A process that answers in lines of JSON. Ends with it.
struct Process {
    child: Child,
    name: String,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

/// A server that listens.
pub(crate) struct Server {
    process: Process,
    pub(crate) ready: Ready,
}

impl Server {
    pub(crate) fn start(
        prefix: &[String],
        program: &Path,
        variant: &str,
        options: &ServerOptions,
    ) -> Result<Self, String> {
        let mut process = Process::start(prefix, program, "server", variant, options)?;
        let ready = process.answer(START)?;
        Ok(Self { process, ready })
    }

    pub(crate) fn pid(&self) -> i32 {
        // `ip netns exec` becomes the program it starts.
        self.process.child.id() as i32
    }
}

/// Runs a client to its end.
pub(crate) fn run_client(
    prefix: &[String],
    program: &Path,
    variant: &str,
    options: &ClientOptions,
    longest: Duration,
) -> Result<Outcome, String> {
    Process::start(prefix, program, "client", variant, options)?.answer(longest)
}

impl Process {
    fn start(
        prefix: &[String],
        program: &Path,
        role: &str,
        variant: &str,
        options: &impl Serialize,
    ) -> Result<Self, String> {
        let name = format!("the {role} of {variant}");
        let options = serde_json::to_string(options).map_err(|e| e.to_string())?;
        let program = program.to_string_lossy().into_owned();
        let words = [program, role.into(), variant.into(), options];
        let mut words = prefix.iter().cloned().chain(words);
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {name}: {e}"))?;
        let (to_lines, lines) = mpsc::channel();
        let (to_complaints, complaints) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.take_while(|line| to_lines.send(line.clone()).is_ok()).for_each(drop);
            });
        }
        if let Some(mut errors) = child.stderr.take() {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = errors.read_to_end(&mut text);
                let _ = to_complaints.send(String::from_utf8_lossy(&text).into_owned());
            });
        }
        Ok(Self { child, name, lines, complaints })
    }

    /// The next line.
    fn answer<T: DeserializeOwned>(&mut self, longest: Duration) -> Result<T, String> {
        let line = match self.lines.recv_timeout(longest) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("{} did not answer within {longest:?}", self.name));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.died()),
        };
        if let Ok(Outcome::Error(error)) = serde_json::from_str(&line) {
            return Err(format!("{}: {error}", self.name));
        }
        serde_json::from_str(&line).map_err(|_| format!("{} said: {line}", self.name))
    }

    fn died(&mut self) -> String {
        let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        let complaints = self.complaints.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let last = complaints.trim().lines().last().unwrap_or("it said nothing");
        format!("{} ended ({status}): {last}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
