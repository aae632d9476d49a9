//! The secrets of connections, written down for those who look at captured packets.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

/// The usual environment variable for the file of a key log.
pub const KEY_LOG_VARIABLE: &str = "SSLKEYLOGFILE";

/// A file to which the secrets of connections are appended, in the format of NSS that Wireshark and
/// others read (`draft-ietf-tls-keylogfile`). **Whoever reads the file reads the connections.**
///
/// Nothing writes one unless it is given to a client or a server. Several of them, also of several
/// processes, may share a file. A line that cannot be written is left out: no connection fails for its
/// log.
#[derive(Clone)]
pub struct KeyLog(Arc<File>);

impl KeyLog {
    /// Appends to this file, which is made for its owner alone if it is not there.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn to_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self(Arc::new(options.open(path)?)))
    }

    /// Appends to the file that the environment variable `SSLKEYLOGFILE` names; none if it is not set
    /// or empty.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn from_env() -> io::Result<Option<Self>> {
        let named = std::env::var_os(KEY_LOG_VARIABLE).filter(|name| !name.is_empty());
        named.map(Self::to_file).transpose()
    }

    pub(crate) fn to_rustls(&self) -> Arc<dyn rustls::KeyLog> {
        Arc::new(self.clone())
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = 2 * (client_random.len() + secret.len());
        // Of this size from the start: what a buffer leaves behind as it grows is not wiped.
        let mut line = Zeroizing::new(Vec::with_capacity(label.len() + hex + 3));
        line.extend_from_slice(label.as_bytes());
        for bytes in [client_random, secret] {
            line.push(b' ');
            bytes.iter().for_each(|byte| line.extend([byte >> 4, byte & 15].map(digit)));
        }
        line.push(b'\n');
        // In one write, so that lines of several processes do not mix.
        let _ = (&*self.0).write_all(&line);
    }
}

fn digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value)]
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog(..)")
    }
}
