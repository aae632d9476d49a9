//! Certificates and keys in files that are renewed while a program runs.

use std::fmt;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Identity, SecurityError};

/// How often the files are looked at, unless something else is chosen.
const EVERY: Duration = Duration::from_secs(10);

/// A certificate chain and a private key in PEM files that are looked at again and again: what is
/// renewed in them is used from the next handshake on. Connections stay.
///
/// Both files may be replaced one after the other: what does not fit together is tried again until it
/// does. Meanwhile, and for as long as a file cannot be used, the identity of before stays.
#[derive(Clone)]
#[must_use = "it is given to a server, a channel or a replica"]
pub struct IdentityFiles {
    certificates: PathBuf,
    private_key: PathBuf,
    every: Duration,
    tell: Arc<Listener>,
}

type Listener = dyn Fn(&Result<(), SecurityError>) + Send + Sync;

/// By what it shows that a file is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl IdentityFiles {
    /// These files, looked at every ten seconds. What could not be used is told on standard error.
    pub fn new(certificates: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        let (certificates, private_key) = (certificates.into(), private_key.into());
        Self { certificates, private_key, every: EVERY, tell: Arc::new(warn) }
    }

    /// Looks at them so often.
    pub fn every(mut self, period: Duration) -> Self {
        self.every = period;
        self
    }

    /// Tells each reload, and each failure of one, to this instead of standard error.
    pub fn tell(
        mut self,
        listener: impl Fn(&Result<(), SecurityError>) + Send + Sync + 'static,
    ) -> Self {
        self.tell = Arc::new(listener);
        self
    }

    /// Reads both.
    ///
    /// # Errors
    /// As [`Identity::from_pem_files`].
    pub fn read(&self) -> Result<Identity, SecurityError> {
        Identity::from_pem_files(&self.certificates, &self.private_key)
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificates, &self.private_key].map(|file| Stamp::of(file))
    }

    /// Hands each identity that is found in them from now on to `replace`. `used` is what was read
    /// before the identity that is in use.
    pub(crate) fn watch(
        self,
        replace: impl Fn(&Identity) -> Result<(), SecurityError> + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut watched = Watched::begin(self, replace);
        async move {
            loop {
                tokio::time::sleep(watched.files.every).await;
                // Looking takes no longer than reading two small files.
                let looking = tokio::task::spawn_blocking(move || {
                    watched.look();
                    watched
                });
                match looking.await {
                    Ok(looked) => watched = looked,
                    Err(_) => return,
                }
            }
        }
    }
}

/// Files and what was made of them.
struct Watched<R> {
    files: IdentityFiles,
    replace: R,
    /// Of what is in use, or was told to be wrong.
    done: [Option<Stamp>; 2],
    /// At the last look: only what stays for one is read, since it may be half written before.
    seen: [Option<Stamp>; 2],
}

impl<R: Fn(&Identity) -> Result<(), SecurityError>> Watched<R> {
    fn begin(files: IdentityFiles, replace: R) -> Self {
        // What was replaced since it was read is noticed all the same, by reading it once more.
        Self { files, replace, done: [None; 2], seen: [None; 2] }
    }

    fn look(&mut self) {
        let now = self.files.stamps();
        let stays = std::mem::replace(&mut self.seen, now) == now;
        if !stays || now == self.done {
            return;
        }
        let result = self.files.read().and_then(|identity| (self.replace)(&identity));
        if self.files.stamps() != now {
            return;
        }
        let first = self.done == [None; 2];
        self.done = now;
        if !first || result.is_err() {
            (self.files.tell)(&result);
        }
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let found = fs::metadata(file).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self { modified: found.modified().ok(), length: found.len(), inode })
    }
}

fn warn(result: &Result<(), SecurityError>) {
    if let Err(error) = result {
        eprintln!(
            "stubborn: WARNING: a renewed certificate is not used, the one of before stays: {error}"
        );
    }
}

impl fmt::Debug for IdentityFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFiles")
            .field("certificates", &self.certificates)
            .field("private_key", &self.private_key)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_is_broken_or_half_written_is_told_once_and_never_used() {
        let folder = tempfile::tempdir().unwrap();
        let (crt, key) = (folder.path().join("crt"), folder.path().join("key"));
        let write = |identity: &Identity| {
            fs::write(&crt, identity.certificate_pem()).unwrap();
            fs::write(&key, identity.key_pem()).unwrap();
        };
        let [first, second] = [(); 2].map(|()| Identity::self_signed(["localhost"]).unwrap());
        write(&first);
        let (told, used) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(Vec::new()));
        let tell = told.clone();
        let files = IdentityFiles::new(&crt, &key)
            .tell(move |result| tell.lock().unwrap().push(result.is_ok()));
        let mut watched = Watched::begin(files, |identity: &Identity| {
            used.lock().unwrap().push(identity.fingerprint().unwrap());
            Ok(())
        });
        let mut look = || (0..3).for_each(|_| watched.look());
        look();
        assert!(told.lock().unwrap().is_empty(), "nothing has changed");
        fs::write(&crt, "-----BEGIN CERTIFICATE-----\n").unwrap();
        look();
        fs::remove_file(&key).unwrap();
        look();
        assert_eq!(*told.lock().unwrap(), [false, false]);
        write(&second);
        look();
        assert_eq!(*told.lock().unwrap(), [false, false, true]);
        let [first, second] = [first, second].map(|identity| identity.fingerprint().unwrap());
        assert_eq!(*used.lock().unwrap(), [first, second]);
    }
}
