//! The usual environment variable for logs of connections, which every command honours.

use stubborn::qlog::{Folder, QLOG_VARIABLE};

use crate::error::Error;

/// The folder that `$QLOGDIR` names, if it is set.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn from_env() -> Result<Option<Folder>, Error> {
    Folder::from_env().map_err(|error| {
        Error::usage(format!("cannot use the folder of ${QLOG_VARIABLE}: {error}"))
    })
}
