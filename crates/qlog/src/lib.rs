//! What happens in connections, as qlog: `draft-ietf-quic-qlog-main-schema` and
//! `draft-ietf-quic-qlog-quic-events`, as qvis reads them (version 0.3, JSON-SEQ of RFC 7464).
//!
//! [`Folder`] records each connection of an endpoint in a file of its own. Drivers and the simulator,
//! which may not see each other, share it.

mod event;
mod frame;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use stubborn_core::time::Instant;
use stubborn_core::transport::Side;
use stubborn_core::transport::record::{Beginning, Event, Record, Recorder, Recording};

/// The usual environment variable for the folder.
pub const QLOG_VARIABLE: &str = "QLOGDIR";

/// A folder with a file for each connection: `ID_client.sqlog` and `ID_server.sqlog`, where ID is the
/// destination of the client's first packet and so the same at both sides.
///
/// It holds no bytes of messages, but who talks to whom, when, and how much. Files are written by who
/// drives the connection: a slow disk slows it. What cannot be written is left out.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Whether times count from the zero of a simulated world, and not from 1970.
    simulated: bool,
}

impl Folder {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(path.as_ref(), false)
    }

    /// The same for a simulated world, whose time begins with zero.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn of_simulation(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::new(path.as_ref(), true)
    }

    /// The folder that the environment variable `QLOGDIR` names; none if it is not set or empty.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn from_env() -> io::Result<Option<Self>> {
        let named = std::env::var_os(QLOG_VARIABLE).filter(|name| !name.is_empty());
        named.map(Self::at).transpose()
    }

    /// For the configuration of an endpoint.
    pub fn recording(&self) -> Recording {
        Recording(Some(Arc::new(self.clone())))
    }

    fn new(path: &Path, simulated: bool) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self(Arc::new(Place { path: path.to_owned(), simulated })))
    }
}

impl Recorder for Folder {
    fn begin(&self, at: Instant, beginning: &Beginning) -> Option<Box<dyn Record>> {
        let side = name(beginning.side);
        let mut file = String::new();
        event::hex(&mut file, &beginning.original);
        let file = File::create(self.0.path.join(format!("{file}_{side}.sqlog"))).ok()?;
        let (start, reference) = match self.0.simulated {
            true => (Instant::ZERO, 0.0),
            false => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                (at, now.as_secs_f64() * 1_000.0)
            }
        };
        let side = beginning.side;
        let mut log = Log { side, start, line: String::new(), file: BufWriter::new(file) };
        log.entry(|line| event::header(line, beginning, reference));
        log.event(at, |line| event::started(line, beginning));
        Some(Box::new(log))
    }
}

/// The file of one connection.
struct Log {
    side: Side,
    start: Instant,
    line: String,
    file: BufWriter<File>,
}

impl Log {
    /// Writes an object, as RFC 7464 has it.
    fn entry(&mut self, fields: impl FnOnce(&mut String)) {
        self.line.clear();
        self.line.push_str("\u{1e}{");
        fields(&mut self.line);
        self.line.push_str("}\n");
        let _ = self.file.write_all(self.line.as_bytes());
    }

    /// Writes an event: `name` and `data`.
    fn event(&mut self, at: Instant, fields: impl FnOnce(&mut String)) {
        let time = at.since(self.start);
        self.entry(|line| {
            let _ =
                write!(line, "\"time\":{}.{:06},", time.as_millis(), time.as_nanos() % 1_000_000);
            fields(line);
        });
    }
}

impl Record for Log {
    fn take(&mut self, at: Instant, event: Event<'_>) {
        let side = self.side;
        self.event(at, |line| event::event(line, side, &event));
        if let Event::Closed(_) = event {
            let _ = self.file.flush();
        }
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}
