//! Session tickets on disk, so that `stubborn outcome` can ask in a new process about a call whose
//! outcome was not known when `stubborn call` ended.
//!
//! A ticket holds the session's secret: files are readable by their user alone.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use stubborn::{CallId, SessionSecret, SessionTicket};

use crate::error::Error;
use crate::{private, state};

/// Tickets that no server remembers by now are removed after this time.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What was kept of a call.
pub(crate) struct Kept {
    pub(crate) ticket: SessionTicket,
    /// The full name of its method.
    pub(crate) method: String,
}

/// Keeps what it takes to ask for the outcome of this call later.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn keep(id: CallId, ticket: &SessionTicket, method: &str) -> Result<(), Error> {
    let directory = directory()?;
    private::make_directory(&directory)
        .map_err(|e| Error::io("make the directory", &directory, &e))?;
    state::remove_older(&directory, KEPT);
    let secret: String = ticket.secret.expose().iter().map(|b| format!("{b:02x}")).collect();
    let text = json!({ "secret": secret, "method": method }).to_string();
    let path = directory.join(id.to_string());
    private::write(&path, &text).map_err(|e| Error::io("write", &path, &e))
}

/// What was kept of this call; `None` if nothing.
///
/// # Errors
/// If there is a file and it cannot be read.
pub(crate) fn find(id: CallId) -> Result<Option<Kept>, Error> {
    let path = directory()?.join(id.to_string());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path, &error)),
    };
    let damaged = || Error::usage(format!("{} is damaged", path.display()));
    let value: Value = serde_json::from_str(&text).map_err(|_| damaged())?;
    let secret = value["secret"].as_str().and_then(unhex).ok_or_else(damaged)?;
    let method = value["method"].as_str().ok_or_else(damaged)?.to_owned();
    let ticket = SessionTicket { session: id.session, secret: SessionSecret::new(secret) };
    Ok(Some(Kept { ticket, method }))
}

/// The call is settled: nobody needs to ask again.
pub(crate) fn forget(id: CallId) {
    if let Ok(directory) = directory() {
        let _ = fs::remove_file(directory.join(id.to_string()));
    }
}

fn directory() -> Result<PathBuf, Error> {
    state::directory("calls").ok_or_else(|| {
        Error::internal("there is no place for session tickets: $HOME is not set")
            .with_hint("set XDG_STATE_HOME to a directory")
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    // A secret and a fingerprint are written alike.
    text.parse::<stubborn::Fingerprint>().ok().map(|f| f.0)
}
