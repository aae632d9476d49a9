//! The usual environment variable for the secrets of connections, which every command honours.

use std::sync::Once;

use stubborn::KeyLog;
use stubborn::security::KEY_LOG_VARIABLE;

use crate::error::Error;

/// The log that `$SSLKEYLOGFILE` names, if it is set. Said once on standard error: whoever reads the
/// file reads what is sent.
///
/// # Errors
/// If the file cannot be opened.
pub(crate) fn from_env() -> Result<Option<KeyLog>, Error> {
    static SAID: Once = Once::new();
    let log = KeyLog::from_env().map_err(|error| {
        Error::usage(format!("cannot open the file of ${KEY_LOG_VARIABLE}: {error}"))
    })?;
    if log.is_some() {
        SAID.call_once(|| {
            eprintln!(
                "stubborn: the keys of connections are appended to the file of ${KEY_LOG_VARIABLE}: \
                 whoever reads it can read what is sent"
            );
        });
    }
    Ok(log)
}
