//! Where the program keeps what it remembers from one run to the next: a folder for each kind, with a file
//! for each call.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The folder of this kind; `None` where the system has no place for it.
pub(crate) fn directory(kind: &str) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .or_else(|| variable("LOCALAPPDATA"))?;
    Some(state.join("stubborn").join(kind))
}

/// Removes files that were written longer ago than this.
pub(crate) fn remove_older(directory: &Path, kept: Duration) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|m| m.modified());
        let age = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > kept) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
