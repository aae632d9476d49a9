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
    tell: Arc<Listener<SecurityError>>,
}

pub(crate) type Listener<E> = dyn Fn(&Result<(), E>) + Send + Sync;

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

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.certificates.clone(), self.private_key.clone()]
    }

    /// Hands each identity that is found in them from now on to `replace`. `used` is what was read
    /// before the identity that is in use.
    pub(crate) fn watch(
        self,
        replace: impl Fn(&Identity) -> Result<(), SecurityError> + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (every, tell) = (self.every, self.tell.clone());
        watch_files(self.paths(), every, tell, move || self.read().and_then(|read| replace(&read)))
    }
}

/// Lets `read` read files that may be renewed, whenever they are, and tells how it went.
pub(crate) fn watch_files<E: 'static>(
    paths: Vec<PathBuf>,
    every: Duration,
    tell: Arc<Listener<E>>,
    read: impl Fn() -> Result<(), E> + Send + Sync + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let mut watched = Watched::begin(paths, tell, read);
    async move {
        loop {
            tokio::time::sleep(every).await;
            // Looking takes no longer than reading small files.
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

/// Files and what was made of them.
struct Watched<R, E> {
    paths: Vec<PathBuf>,
    tell: Arc<Listener<E>>,
    read: R,
    /// Of what is in use, or was told to be wrong.
    done: Option<Vec<Option<Stamp>>>,
    /// At the last look: only what stays for one is read, since it may be half written before.
    seen: Option<Vec<Option<Stamp>>>,
}

impl<E, R: Fn() -> Result<(), E>> Watched<R, E> {
    fn begin(paths: Vec<PathBuf>, tell: Arc<Listener<E>>, read: R) -> Self {
        // What was replaced since it was read is noticed all the same, by reading it once more.
        Self { paths, tell, read, done: None, seen: None }
    }

    fn look(&mut self) {
        let now = Some(self.stamps());
        let stays = self.seen == now;
        self.seen.clone_from(&now);
        if !stays || now == self.done {
            return;
        }
        let result = (self.read)();
        if Some(self.stamps()) != now {
            return;
        }
        let first = self.done.is_none();
        self.done = now;
        if !first || result.is_err() {
            (self.tell)(&result);
        }
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.paths.iter().map(|file| Stamp::of(file)).collect()
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
        let read = || {
            used.lock().unwrap().push(files.read()?.fingerprint().unwrap());
            Ok::<_, SecurityError>(())
        };
        let mut watched = Watched::begin(files.paths(), files.tell.clone(), read);
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
