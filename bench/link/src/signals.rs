//! Cleaning up when the program is interrupted.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::namespace;

/// From now on, an interrupt (ctrl-C), a hang-up or a request to terminate removes the namespaces of
/// this process, kills what runs in them, and ends the program with status 128 + the signal's
/// number.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn clean_up_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            namespace::remove_all();
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
