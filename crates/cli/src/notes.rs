//! Which calls `stubborn call` has made lately, so that `stubborn trace` can tell of them: when, to
//! whom, and how they ended. Nothing of what they carried.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stubborn::CallId;
use stubborn::steps::CallName;

use crate::{private, state};

/// Notes are removed after this time.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What was noted of a call.
pub(crate) struct Note {
    /// Its id; of a call that has none, a read or a stream, the id of its trace.
    pub(crate) call: String,
    /// As `stubborn call` was told it.
    pub(crate) address: String,
    pub(crate) method: String,
    /// In nanoseconds since 1970, by this machine's clock.
    pub(crate) sent: u64,
    pub(crate) ended: u64,
    pub(crate) outcome: String,
}

/// How a call is noted that was answered.
pub(crate) const REPLIED: &str = "replied";

impl Note {
    /// Whether the call was answered.
    pub(crate) fn replied(&self) -> bool {
        self.outcome == REPLIED
    }
}

/// Notes a call. One that cannot be written is missed by nobody else.
pub(crate) fn keep(note: &Note) {
    let Some(directory) = directory() else { return };
    if private::make_directory(&directory).is_err() {
        return;
    }
    state::remove_older(&directory, KEPT);
    let text = json!({
        "address": note.address, "method": note.method, "sent": note.sent, "ended": note.ended,
        "outcome": note.outcome,
    });
    if is_noted(&note.call) {
        let _ = private::write(&directory.join(&note.call), &text.to_string());
    }
}

/// What was noted of this call.
pub(crate) fn find(call: &str) -> Option<Note> {
    if !is_noted(call) {
        return None;
    }
    let text = fs::read_to_string(directory()?.join(call)).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    Some(Note {
        call: call.to_owned(),
        address: text("address")?,
        method: text("method")?,
        sent: value["sent"].as_u64()?,
        ended: value["ended"].as_u64()?,
        outcome: text("outcome")?,
    })
}

/// The call that was noted last.
pub(crate) fn last() -> Option<Note> {
    let calls = fs::read_dir(directory()?).ok()?.flatten();
    let calls = calls.filter_map(|entry| find(entry.file_name().to_str()?));
    calls.max_by_key(|note| note.sent)
}

/// Whether it is an id of a call or of a trace, which are also names of files.
pub(crate) fn is_noted(name: &str) -> bool {
    name.parse::<CallId>().is_ok() || CallName::of_trace(name).is_some()
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn directory() -> Option<PathBuf> {
    state::directory("made")
}
