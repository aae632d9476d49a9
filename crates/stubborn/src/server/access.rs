//! Who may call what, as a file says it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::service::CallContext;

use super::gate::Authenticator;
use super::permissions::Permissions;
use crate::security::{Fingerprint, Listener, watch_files};

/// How often a file is looked at, unless something else is chosen.
const EVERY: Duration = Duration::from_secs(10);

/// Permissions and tokens as text: lines of `WHAT = WHO, WHO, ...`. What follows a `#` is a comment.
///
/// WHAT is a service (`package.Service`), one of its methods (`package.Service/Method`), or `health`,
/// `reflection` or `metrics` for those that servers add by themselves. WHO is a SPIFFE id, or the beginning
/// of some and a `*`; `dns:NAME`, a name in the caller's certificate; `key:FINGERPRINT`, of its key;
/// `subject:NAME`, whose token it is; `certificate` for whoever shows one that is trusted; or `anybody`.
/// What no line names is refused.
///
/// A line `token NAME = DIGEST` says whose a bearer token is, by its SHA-256 in hex
/// (`printf %s TOKEN | sha256sum`): tokens are to be drawn at random, not chosen.
///
/// ```
/// let access: stubborn::Access = "
///     bank.v1.Bank = spiffe://bank.example/teller, subject:auditor
///     bank.v1.Bank/GetBalance = spiffe://bank.example/*
///     health = anybody
///     token auditor = 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
/// ".parse()?;
/// # Ok::<(), stubborn::AccessError>(())
/// ```
#[derive(Clone)]
#[must_use = "it is given to a server or a replica"]
pub struct Access {
    permissions: Permissions,
    tokens: BTreeMap<[u8; 32], String>,
}

/// Why a text says nothing about who may call what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessError(String);

/// A file with an [`Access`] that is looked at again and again: what is new holds from the next call on.
/// What cannot be used leaves what was before, and is told.
#[derive(Clone)]
#[must_use = "it is given to a server or a replica"]
pub struct AccessFile {
    path: PathBuf,
    every: Duration,
    tell: Arc<Listener<AccessError>>,
}

/// A caller of whom a line speaks.
enum Who {
    Spiffe(String),
    SpiffeBegins(String),
    Dns(String),
    Key([u8; 32]),
    Subject(String),
    Certificate,
    Anybody,
}

impl Access {
    pub(crate) fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// Says whose tokens are; `None` if there are none.
    pub(crate) fn authenticator(&self) -> Option<Authenticator> {
        let tokens = self.tokens.clone();
        (!tokens.is_empty()).then(|| {
            let subject = move |token: &str| {
                // What is compared is no secret: nobody finds a token for a digest.
                tokens.get(&stubborn_tls::sha256(token.as_bytes())).cloned()
            };
            Arc::new(subject) as Authenticator
        })
    }
}

impl FromStr for Access {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let mut access = Self { permissions: Permissions::new(), tokens: BTreeMap::new() };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                access =
                    access.with(line).map_err(|why| AccessError(format!("{number}: {why}")))?;
            }
        }
        Ok(access)
    }
}

impl Access {
    fn with(mut self, line: &str) -> Result<Self, String> {
        let (what, who) = line.split_once('=').ok_or("expected `WHAT = WHO, WHO`")?;
        let (what, who) = (what.trim(), who.trim());
        if let Some(name) = what.strip_prefix("token ") {
            let Fingerprint(digest) = who.parse().map_err(|_| "expected the SHA-256 of a token")?;
            return match self.tokens.insert(digest, name.trim().to_owned()) {
                None => Ok(self),
                Some(other) => Err(format!("this token is {other}'s already")),
            };
        }
        let callers: Vec<Who> =
            who.split(',').map(|who| who.trim().parse()).collect::<Result<_, String>>()?;
        let rule = move |call: &CallContext| callers.iter().any(|who| who.is(call));
        self.permissions = match what {
            "health" => self.permissions.allow_health_to(rule),
            "reflection" => self.permissions.allow_reflection(rule),
            "metrics" => self.permissions.allow_metrics(rule),
            name => self.permissions.allow(name, rule),
        };
        Ok(self)
    }
}

impl Who {
    fn is(&self, call: &CallContext) -> bool {
        let peer = &call.peer;
        match self {
            Self::Spiffe(id) => peer.spiffe().is_some_and(|caller| caller == id.as_str()),
            Self::SpiffeBegins(begin) => {
                peer.spiffe().is_some_and(|caller| caller.to_string().starts_with(begin))
            }
            Self::Dns(name) => peer.names.dns().any(|dns| dns == name),
            Self::Key(key) => peer.identity.as_ref() == Some(key),
            Self::Subject(subject) => peer.subject.as_deref() == Some(subject),
            Self::Certificate => peer.identity.is_some(),
            Self::Anybody => true,
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is nobody: expected spiffe://DOMAIN/PATH, dns:NAME, key:FINGERPRINT, \
                 subject:NAME, `certificate` or `anybody`"
            )
        };
        let named = |name: &str| match name.is_empty() {
            true => Err(unknown()),
            false => Ok(name.to_owned()),
        };
        if let Some(begin) = text.strip_suffix('*').filter(|text| text.starts_with("spiffe://")) {
            // `spiffe://bank.example*` would let in a domain that somebody else has registered.
            let path = begin["spiffe://".len()..].contains('/');
            return if path { Ok(Self::SpiffeBegins(begin.to_owned())) } else { Err(unknown()) };
        }
        match (text, text.split_once(':')) {
            ("certificate", _) => Ok(Self::Certificate),
            ("anybody", _) => Ok(Self::Anybody),
            (_, Some(("spiffe", _))) => {
                let id: stubborn_core::identity::SpiffeId =
                    text.parse().map_err(|error| format!("{text:?}: {error}"))?;
                Ok(Self::Spiffe(id.to_string()))
            }
            (_, Some(("dns", name))) => named(name).map(Self::Dns),
            (_, Some(("subject", name))) => named(name).map(Self::Subject),
            (_, Some(("key", key))) => {
                let Fingerprint(key) = key.parse().map_err(|error| format!("{error}"))?;
                Ok(Self::Key(key))
            }
            _ => Err(unknown()),
        }
    }
}

impl AccessFile {
    /// This file, looked at every ten seconds. What could not be used is told on standard error.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), every: EVERY, tell: Arc::new(warn) }
    }

    /// Looks at it so often.
    pub fn every(mut self, period: Duration) -> Self {
        self.every = period;
        self
    }

    /// Tells each reload, and each failure of one, to this instead of standard error.
    pub fn tell(
        mut self,
        listener: impl Fn(&Result<(), AccessError>) + Send + Sync + 'static,
    ) -> Self {
        self.tell = Arc::new(listener);
        self
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read, or says nothing; the error names file and line.
    pub fn read(&self) -> Result<Access, AccessError> {
        let text = fs::read_to_string(&self.path).map_err(|error| self.wrong(&error))?;
        text.parse::<Access>().map_err(|error| self.wrong(&error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Hands what is found in it from now on to `replace`.
    pub(crate) fn watch(
        self,
        replace: impl Fn(&Access) -> Result<(), String> + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (path, every, tell) = (self.path.clone(), self.every, self.tell.clone());
        let read = move || {
            let access = self.read()?;
            replace(&access).map_err(|why| self.wrong(&why))
        };
        watch_files(vec![path], every, tell, read)
    }

    fn wrong(&self, why: &dyn fmt::Display) -> AccessError {
        AccessError(format!("{}: {why}", self.path().display()))
    }
}

fn warn(result: &Result<(), AccessError>) {
    if let Err(error) = result {
        eprintln!(
            "stubborn: WARNING: permissions are not exchanged, those of before hold: {error}"
        );
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AccessError {}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects: Vec<_> = self.tokens.values().collect();
        let mut shown = f.debug_struct("Access");
        shown.field("permissions", &self.permissions).field("subjects", &subjects).finish()
    }
}

impl fmt::Debug for AccessFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stubborn_core::service::Peer;

    use super::*;

    fn is(who: &str, peer: Peer) -> bool {
        let who: Who = who.parse().unwrap();
        who.is(&CallContext { peer: Arc::new(peer), ..CallContext::default() })
    }

    fn spiffe(id: &str) -> Peer {
        let names = stubborn_core::identity::CertifiedNames::of([id], []);
        Peer { identity: Some([1; 32]), names, ..Peer::default() }
    }

    #[test]
    fn callers_are_who_a_line_names() {
        let teller = || spiffe("spiffe://bank.example/teller");
        for who in ["spiffe://bank.example/teller", "spiffe://bank.example/*", "certificate"] {
            assert!(is(who, teller()) && !is(who, Peer::default()), "{who}");
        }
        for who in ["spiffe://bank.example/tell", "spiffe://other.example/*", "dns:teller"] {
            assert!(!is(who, teller()), "{who}");
        }
        assert!(is("anybody", Peer::default()));
        let key = format!("key:{}", "01".repeat(32));
        assert!(is(&key, teller()) && !is(&key, Peer::default()));
        let ada = Peer { subject: Some("ada".into()), ..Peer::default() };
        assert!(is("subject:ada", ada.clone()) && !is("subject:bob", ada));
    }

    #[test]
    fn tokens_are_known_by_their_digests() {
        let access: Access = "
            # printf %s test | sha256sum
            token ada = 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        "
        .parse()
        .unwrap();
        let subject = access.authenticator().unwrap();
        assert_eq!((subject("test").as_deref(), subject("Test")), (Some("ada"), None));
        assert!(!format!("{access:?}").contains("9f86"));
        assert!("a.B = anybody".parse::<Access>().unwrap().authenticator().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (line, why) in [
            ("a.B", "expected `WHAT"),
            ("a.B =", "is nobody"),
            ("a.B = everybody", "is nobody"),
            ("a.B = anybody,", "is nobody"),
            ("a.B = spiffe://", "spiffe"),
            ("a.B = spiffe://bank.example*", "is nobody"),
            ("a.B = subject:", "is nobody"),
            ("a.B = key:12", ""),
            ("token ada = test", "SHA-256"),
        ] {
            let error = format!("\n{line}").parse::<Access>().unwrap_err().to_string();
            assert!(error.starts_with("2: ") && error.contains(why), "{line}: {error}");
        }
    }
}
