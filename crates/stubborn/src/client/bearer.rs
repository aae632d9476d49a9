//! Bearer tokens: where they come from, and how calls take them along.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use stubborn_core::service::{
    Begun, BoxFuture, CallError, CallState, Caller, Channel, IncomingReply, Method, NotExecuted,
    Outcome, OutgoingCall, Port,
};
use stubborn_core::session::{CallId, NotExecutedReason};

use super::late::LatePort;
use crate::server::AUTHORIZATION;
use crate::{deadline, trace};

/// What stands around a channel.
#[derive(Default)]
pub(crate) struct Around {
    pub(super) bearer: Option<Bearer>,
    pub(super) interceptors: Vec<Arc<Interceptor>>,
}

type Interceptor = dyn Fn(&mut OutgoingCall) -> Result<(), Cow<'static, str>> + Send + Sync;

impl Around {
    /// The channel with all of it around.
    pub(crate) fn channel(&self, channel: Channel) -> Channel {
        let bearing = self.bearing(channel);
        self.interceptors.iter().rev().fold(bearing, |channel, interceptor| {
            let interceptor = Arc::clone(interceptor);
            channel.intercept(move |call| interceptor(call))
        })
    }

    /// The channel whose calls take the token along: for calls that went through the rest before.
    pub(crate) fn bearing(&self, channel: Channel) -> Channel {
        match &self.bearer {
            Some(bearer) => bearer.around(channel),
            None => channel,
        }
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn has_bearer(&self) -> bool {
        self.bearer.is_some()
    }
}

/// A bearer token. What it says is shown to nobody but servers.
#[derive(Clone)]
pub struct Token {
    /// As it stands in the metadata.
    value: Arc<str>,
    good_for: Option<Duration>,
}

/// Where the bearer tokens of channels come from ([`ChannelBuilder::bearer`]). Cheap to clone; clones
/// share the token.
///
/// [`ChannelBuilder::bearer`]: crate::ChannelBuilder::bearer
#[derive(Clone)]
pub struct Bearer(Arc<Inner>);

struct Inner {
    source: Option<Source>,
    held: Mutex<Option<Held>>,
    /// One fetches, the others wait.
    fetching: tokio::sync::Mutex<()>,
}

type Source = Box<dyn Fn() -> BoxFuture<Result<Token, String>> + Send + Sync>;

struct Held {
    value: Arc<str>,
    /// When another one is fetched, and when this one is good for nothing.
    renew: Option<Instant>,
    expires: Option<Instant>,
}

impl Token {
    /// A token that is good until it is replaced.
    pub fn new(token: impl AsRef<str>) -> Self {
        Self { value: format!("Bearer {}", token.as_ref()).into(), good_for: None }
    }

    /// It is good for this long from now on. Another one is fetched when nine tenths of it have passed.
    pub fn good_for(mut self, time: Duration) -> Self {
        self.good_for = Some(time);
        self
    }

    fn is_well_formed(&self) -> bool {
        let token = self.value.strip_prefix("Bearer ").unwrap_or_default();
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl From<&str> for Token {
    fn from(token: &str) -> Self {
        Self::new(token)
    }
}

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self::new(token)
    }
}

impl Bearer {
    /// This token, until it is [replaced](Self::replace).
    pub fn token(token: impl Into<Token>) -> Self {
        let bearer = Self::of(None);
        bearer.replace(token);
        bearer
    }

    /// Tokens that are fetched when the first call needs one, and again before they expire. Calls wait
    /// for it, within their deadlines; one that gets no token is not sent. While a token is still good,
    /// a failure to fetch the next one is no failure of calls.
    ///
    /// ```
    /// # async fn ask_the_issuer() -> Result<String, std::io::Error> { Ok("x".into()) }
    /// use std::time::Duration;
    /// use stubborn::{Bearer, Token};
    ///
    /// let bearer = Bearer::fetched(|| async {
    ///     let token = ask_the_issuer().await?;
    ///     Ok::<_, std::io::Error>(Token::new(token).good_for(Duration::from_secs(300)))
    /// });
    /// ```
    pub fn fetched<F, R, E>(fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Token, E>> + Send + 'static,
        E: Display,
    {
        Self::of(Some(Box::new(move || {
            let fetched = fetch();
            Box::pin(async move { fetched.await.map_err(|error| error.to_string()) })
        })))
    }

    fn of(source: Option<Source>) -> Self {
        Self(Arc::new(Inner { source, held: Mutex::default(), fetching: Default::default() }))
    }

    /// From now on calls take this token.
    pub fn replace(&self, token: impl Into<Token>) {
        let Token { value, good_for } = token.into();
        let now = Instant::now();
        let renew = good_for.and_then(|time| now.checked_add(time * 9 / 10));
        let expires = good_for.and_then(|time| now.checked_add(time));
        *self.held() = Some(Held { value, renew, expires });
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, if it need not be fetched.
    fn at_hand(&self) -> Option<Arc<str>> {
        let now = Instant::now();
        let fresh = |held: &&Held| {
            // What cannot be fetched is used to its end.
            let until = if self.0.source.is_some() { held.renew } else { held.expires };
            until.is_none_or(|until| now < until)
        };
        self.held().as_ref().filter(fresh).map(|held| held.value.clone())
    }

    /// # Errors
    /// Why there is none.
    async fn get(&self) -> Result<Arc<str>, String> {
        let _turn = self.0.fetching.lock().await;
        if let Some(value) = self.at_hand() {
            return Ok(value);
        }
        let Some(source) = &self.0.source else { return Err("the token has expired".into()) };
        let failed = match source().await {
            Ok(token) if token.is_well_formed() => {
                let value = token.value.clone();
                self.replace(token);
                return Ok(value);
            }
            Ok(_) => "a token is visible ASCII characters".into(),
            Err(why) => why,
        };
        let good = |held: &&Held| held.expires.is_none_or(|at| Instant::now() < at);
        let held = self.held().as_ref().filter(good).map(|held| held.value.clone());
        held.ok_or(failed)
    }

    /// The channel whose calls take the token along.
    pub(super) fn around(&self, inner: Channel) -> Channel {
        Channel::new(Bearing { inner, bearer: self.clone() })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// A channel whose calls take a token along.
struct Bearing {
    inner: Channel,
    bearer: Bearer,
}

/// A call that waits for its token. If nobody waits any more, the number that it has is given up.
struct Prepared {
    inner: Channel,
    call: Option<OutgoingCall>,
}

impl Prepared {
    /// Waits for the token and adds it.
    async fn token(mut self, bearer: Bearer) -> Result<(Channel, OutgoingCall), CallError> {
        let call = self.call.as_mut().expect("it is taken at the end");
        let began = Instant::now();
        call.deadline = deadline::shorten(call.deadline, None);
        let fetched = match call.deadline {
            None => bearer.get().await,
            Some(left) => match tokio::time::timeout(left, bearer.get()).await {
                Ok(fetched) => fetched,
                Err(_) => {
                    let why = "the deadline passed before a bearer token was there";
                    return Err(refused(call, NotExecutedReason::Deadline, why.into()));
                }
            },
        };
        call.deadline = call.deadline.map(|left| left.saturating_sub(began.elapsed()));
        let token = fetched.map_err(|why| {
            refused(call, NotExecutedReason::NeverSent, format!("no bearer token: {why}"))
        })?;
        add(call, &token)?;
        Ok((self.inner.clone(), self.call.take().expect("it was there a line ago")))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(id) = self.call.as_ref().and_then(|call| call.reserved) {
            Caller::abandon(&self.inner, id);
        }
    }
}

/// Adds the token, unless the call has one of its own.
fn add(call: &mut OutgoingCall, token: &str) -> Result<(), CallError> {
    if call.metadata.get(AUTHORIZATION).is_some() {
        return Ok(());
    }
    let added = call.metadata.insert(AUTHORIZATION, token);
    added.map_err(|error| refused(call, NotExecutedReason::NeverSent, error.to_string()))
}

fn refused(call: &OutgoingCall, reason: NotExecutedReason, why: String) -> CallError {
    let outcome = Outcome::NotExecuted(NotExecuted::because(reason, why));
    CallError::new(call.method.name().to_owned(), outcome).with_id(call.reserved)
}

impl Bearing {
    fn prepared(&self, call: OutgoingCall) -> Prepared {
        Prepared { inner: self.inner.clone(), call: Some(call) }
    }
}

impl Caller for Bearing {
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        let prepared = self.prepared(call).token(self.bearer.clone());
        Box::pin(async move {
            let (inner, call) = prepared.await?;
            inner.call(call).await
        })
    }

    fn begin(&self, call: &mut OutgoingCall, waker: &Waker) -> Begun {
        let Some(token) = self.bearer.at_hand() else {
            return Begun::Future(self.call(call.take()));
        };
        match add(call, &token) {
            Ok(()) => Caller::begin(&self.inner, call, waker),
            Err(error) => {
                drop(self.prepared(call.take()));
                Begun::Failed(error)
            }
        }
    }

    fn poll_begun(
        &self,
        key: u64,
        method: &Method,
        waker: &Waker,
    ) -> Poll<Result<IncomingReply, CallError>> {
        self.inner.poll_begun(key, method, waker)
    }

    fn leave(&self, key: u64) {
        self.inner.leave(key);
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        self.inner.reserve(method)
    }

    fn abandon(&self, id: CallId) {
        Caller::abandon(&self.inner, id);
    }

    fn open(&self, mut call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        if let Some(token) = self.bearer.at_hand() {
            add(&mut call, &token)?;
            return Caller::open(&self.inner, call);
        }
        // What it inherits from a handler that runs here does not reach the task.
        call.deadline = deadline::shorten(call.deadline, None);
        trace::carry(&mut call.metadata);
        let method = call.method.clone();
        let prepared = self.prepared(call).token(self.bearer.clone());
        let opened = async move {
            let (inner, call) = prepared.await?;
            Caller::open(&inner, call)
        };
        Ok(LatePort::begin(method, opened))
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        Caller::outcome(&self.inner, id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn counted(good_for: Duration) -> (Bearer, Arc<AtomicU64>) {
        let fetched = Arc::new(AtomicU64::new(0));
        let count = fetched.clone();
        let bearer = Bearer::fetched(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    1 => Err("the issuer is away"),
                    _ => Ok(Token::new(format!("t{number}")).good_for(good_for)),
                }
            }
        });
        (bearer, fetched)
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_for_all_who_wait_and_again_only_when_it_is_old() {
        let (bearer, fetched) = counted(Duration::from_secs(1_000));
        let (one, other) = tokio::join!(bearer.get(), bearer.get());
        assert_eq!((one.as_deref(), other.as_deref()), (Ok("Bearer t0"), Ok("Bearer t0")));
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
        assert!(bearer.at_hand().is_some());
    }

    #[tokio::test]
    async fn what_cannot_be_fetched_fails_only_when_the_old_token_is_good_for_nothing() {
        let (bearer, _) = counted(Duration::ZERO);
        bearer.get().await.unwrap();
        assert_eq!(bearer.get().await, Err("the issuer is away".to_owned()));
        assert_eq!(bearer.get().await.as_deref(), Ok("Bearer t2"));
        let malformed = Bearer::fetched(|| async { Ok::<_, String>(Token::new("a\nb")) });
        assert!(malformed.get().await.unwrap_err().contains("visible"));
    }

    #[test]
    fn a_token_is_never_printed() {
        let bearer = Bearer::token("hush");
        let token = Token::new("hush");
        assert!(!format!("{bearer:?} {token:?}").contains("hush"));
    }
}
