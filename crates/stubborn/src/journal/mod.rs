//! A client's journal: a file with what it takes to settle every call after the client itself has
//! crashed.
//!
//! Each number and request is synced to the file before it is first sent, and each outcome before the
//! server may forget it. After kill -9 or power loss the next process opens the same file, resumes
//! the session, and [`Journal::unfinished`] has every call whose outcome was not told:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stubborn::ChannelBuilder;
//!
//! let connection =
//!     ChannelBuilder::new("stubborn://bank.example:7400").journal("bank.journal").open().await?;
//! for call in connection.journal().expect("it keeps one").unfinished() {
//!     let (id, method) = (call.id(), call.method().to_owned());
//!     // Or `call.fence()`: then it never runs, if it has not.
//!     match call.resend().await {
//!         Ok(_) => println!("{id}: {method} was executed"),
//!         Err(error) => println!("{id}: {error}"),
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! A call is settled when its outcome was handed to its caller, unless the application settles by hand
//! ([`ChannelBuilder::settled_by_hand`](crate::ChannelBuilder::settled_by_hand)). One whose future was
//! dropped stays until [`Journal::settle`], or until the next process was told; of calls with an
//! outcome the journal keeps the latest 4,096.
//!
//! A channel with several servers has a session at each; all of them are resumed that have a call
//! without an outcome. Where the members of a group were when that was last told is in the journal, too,
//! and tried beside the address that is given.
//!
//! Only one process can have it open. Of copies the one that is used first after the others has the
//! session, and the others are refused for good.

mod batch;
mod book;
mod error;
mod file;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use stubborn_core::node::{CallKey, ChannelConfig, ChannelKey, JournalRequest};
use stubborn_core::service::{
    CallError, CallState, Channel, Code, Encoded, IncomingReply, NotExecuted, Outcome,
    OutgoingCall, Status,
};
use stubborn_core::session::{CallId, NotExecutedReason, SessionId};
use tokio::sync::oneshot;

use self::book::Book;
use self::file::JournalFile;
pub(crate) use self::writer::Job;
use self::writer::{Channels, Writer};
use crate::client::{NodeCaller, Open, ask};
use crate::driver::Shared;

pub use self::error::{JournalError, JournalErrorKind};

/// The journal of an open channel.
#[derive(Clone)]
pub struct Journal(Arc<Open>);

/// A call of an earlier process whose outcome that process was not told.
///
/// As long as it is neither sent again nor fenced nor [settled](Journal::settle), it stays in the
/// journal.
pub struct Unfinished {
    /// The channel that has its session.
    open: Arc<Open>,
    id: CallId,
    request: Option<JournalRequest>,
}

/// A journal that no channel has yet.
pub(crate) struct Opened {
    file: JournalFile,
    book: Arc<Mutex<Book>>,
    jobs: Receiver<Job>,
    handle: Handle,
}

/// What a channel keeps of its journal.
pub(crate) struct Handle {
    book: Arc<Mutex<Book>>,
    jobs: Sender<Job>,
    /// The sessions when the journal was opened, and their calls that nobody was told of.
    sessions: Vec<SessionId>,
    earlier: Vec<CallId>,
    /// Numbers of those sessions that are of no use to anybody.
    to_fence: Vec<CallId>,
    /// Only the application settles calls.
    by_hand: bool,
}

impl Opened {
    /// Reads a journal, or begins one. Blocks.
    pub(crate) fn open(path: &Path, by_hand: bool) -> Result<Self, JournalError> {
        let (file, book) = JournalFile::open(path)?;
        let (sender, jobs) = channel();
        let earlier = book.unfinished().collect();
        let to_fence = book.to_fence().collect();
        let sessions = book.sessions().map(|ticket| ticket.session).collect();
        let book = Arc::new(Mutex::new(book));
        let handle =
            Handle { book: Arc::clone(&book), jobs: sender, sessions, earlier, to_fence, by_hand };
        Ok(Self { file, book, jobs, handle })
    }

    /// What the channel is to know before it is opened.
    pub(crate) fn configure(&self, config: &mut ChannelConfig) {
        let book = locked(&self.book);
        config.resume = book.last_session();
        config.journal = Some(book.start(config.resume.as_ref().map(|ticket| ticket.session)));
    }

    /// The same of channels for the sessions before the last: they are for the calls of these alone.
    pub(crate) fn others<'a>(
        &self,
        config: &'a ChannelConfig,
    ) -> impl Iterator<Item = (SessionId, ChannelConfig)> + use<'a> {
        let book = locked(&self.book);
        let last = self.handle.sessions.len().saturating_sub(1);
        let tickets: Vec<_> = book.sessions().take(last).cloned().collect();
        let starts: Vec<_> =
            tickets.iter().map(|ticket| Some(book.start(Some(ticket.session)))).collect();
        tickets.into_iter().zip(starts).map(|(ticket, journal)| {
            let session = ticket.session;
            let resume = Some(ticket);
            (session, ChannelConfig { resume, journal, opens: false, ..config.clone() })
        })
    }

    /// Where the members of the group were when that was last told.
    pub(crate) fn members(&self) -> Vec<String> {
        locked(&self.book).members.clone()
    }

    /// Where the node's entries go.
    pub(crate) fn jobs(&self) -> Sender<Job> {
        self.handle.jobs.clone()
    }

    /// Begins to write for a channel that was opened, and for those of the other sessions.
    pub(crate) fn start(
        self,
        shared: Weak<Shared>,
        last: ChannelKey,
        others: Vec<(SessionId, ChannelKey)>,
    ) -> std::io::Result<Handle> {
        let Self { file, book, jobs, handle } = self;
        let channels = Channels { last, others };
        let to_fence: Vec<_> =
            handle.to_fence.iter().map(|id| (channels.of(id.session), *id)).collect();
        let keys = Default::default();
        let holder = locked(&book).holder;
        let writer = Writer { file, book, shared: shared.clone(), channels, holder, keys };
        let name = "stubborn-journal".into();
        thread::Builder::new().name(name).spawn(move || writer.run(&jobs))?;
        if let Some(shared) = shared.upgrade() {
            shared.change(|state, now| {
                for (channel, id) in to_fence {
                    state.node.abandon_reserved(now, channel, id);
                }
            });
        }
        Ok(handle)
    }
}

impl Handle {
    /// The outcome of a call was told.
    pub(crate) fn told(&self, key: CallKey) {
        let job = if self.by_hand { Job::Dropped(key) } else { Job::Told(key) };
        let _ = self.jobs.send(job);
    }

    /// Nobody waits for a call any more; the journal keeps it.
    pub(crate) fn dropped(&self, key: CallKey) {
        let _ = self.jobs.send(Job::Dropped(key));
    }

    fn settle(&self, id: CallId) {
        let _ = self.jobs.send(Job::Settled(id));
    }
}

impl Journal {
    /// The journal of a channel that keeps one.
    pub(crate) fn of(open: &Arc<Open>) -> Option<Self> {
        open.journal.is_some().then(|| Self(Arc::clone(open)))
    }

    /// The calls of earlier processes whose outcomes were not told, in the order of their numbers.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let Some(handle) = &self.0.journal else { return Vec::new() };
        let book = locked(&handle.book);
        let earlier = handle.earlier.iter().filter_map(|id| {
            let known = book.calls.get(id)?;
            let open = Open::of_session(&self.0, id.session);
            Some(Unfinished { open, id: *id, request: known.request.clone() })
        });
        earlier.collect()
    }

    /// The application knows what became of a call, or does not want to know: it is not told again.
    pub fn settle(&self, id: CallId) {
        if let Some(handle) = &self.0.journal {
            handle.settle(id);
        }
    }

    /// Waits until all that was handed over is durable.
    pub async fn flush(&self) {
        self.request(Job::Flush).await;
    }

    /// The same, then closes the file, so that it can be opened again. Nothing more is sent on the
    /// channel that would have to be written down first.
    pub async fn close(&self) {
        self.request(Job::Close).await;
    }

    async fn request(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) {
        let (done, waiting) = oneshot::channel();
        if let Some(handle) = &self.0.journal {
            let _ = handle.jobs.send(job(done));
        }
        // A writer that has failed has nothing more to do.
        let _ = waiting.await;
    }
}

impl Unfinished {
    /// Its number.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// The full name of its method.
    pub fn method(&self) -> &str {
        self.request.as_ref().map_or("", |request| request.method.name())
    }

    /// Its request, as it was or would have been sent.
    pub fn request(&self) -> Option<&Encoded> {
        self.request.as_ref().map(|request| &request.encoded)
    }

    /// Sends it again under the same number with the same bytes, unless its outcome is known. It runs
    /// once, whether the copy before arrived or not.
    ///
    /// # Errors
    /// As the call itself; `Lost` if its session is gone.
    pub async fn resend(self) -> Result<IncomingReply, CallError> {
        let result = match (self.known(), &self.request) {
            (Some(state), _) => result_of(state).map_err(|outcome| self.error(outcome)),
            (None, Some(request)) => {
                let call = OutgoingCall {
                    method: request.method.clone(),
                    request: request.encoded.clone(),
                    metadata: request.metadata.clone(),
                    deadline: None,
                    wait_for_ready: Some(true),
                    reserved: Some(self.id),
                    max_staleness: None,
                };
                let channel = Channel::new(NodeCaller::new(Arc::clone(&self.open)));
                self.open.around.bearing(channel).call(call).await
            }
            (None, None) => {
                let why = NotExecuted::new(NotExecutedReason::NeverSent);
                Err(self.error(Outcome::NotExecuted(why)))
            }
        };
        if !matches!(&result, Err(error) if matches!(error.outcome(), Outcome::Pending(_))) {
            self.settle();
        }
        result
    }

    /// Asks what became of it, and makes sure that it never runs if it has not.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn fence(self) -> Result<CallState<IncomingReply>, CallError> {
        let state = match self.known() {
            Some(state) => state,
            None => ask(&self.open, self.id, None).await?,
        };
        if !matches!(state, CallState::Executing | CallState::NotArrived) {
            self.settle();
        }
        Ok(state)
    }

    /// What the journal knows of it by now.
    fn known(&self) -> Option<CallState<IncomingReply>> {
        let handle = self.open.journal.as_ref()?;
        let outcome = locked(&handle.book).calls.get(&self.id).map(|known| known.outcome.clone());
        match outcome {
            None => Some(CallState::AlreadySettled),
            Some(Some(outcome)) => Some(outcome),
            Some(None) if handle.sessions.contains(&self.id.session) => None,
            Some(None) => Some(CallState::Lost),
        }
    }

    fn error(&self, outcome: Outcome) -> CallError {
        let lost = matches!(outcome, Outcome::Lost);
        let error = CallError::new(self.method().to_owned(), outcome).with_id(Some(self.id));
        match lost {
            true => error
                .because("the session of the journal is gone: the server forgot it, or is another"),
            false => error,
        }
    }

    fn settle(&self) {
        if let Some(handle) = self.open.journal.as_ref().filter(|handle| !handle.by_hand) {
            handle.settle(self.id);
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Journal").field(&self.unfinished()).finish()
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unfinished({} {})", self.id, self.method())
    }
}

fn result_of(state: CallState<IncomingReply>) -> Result<IncomingReply, Outcome> {
    Err(match state {
        CallState::Replied(reply) => return Ok(reply),
        CallState::Executed(status) => Outcome::Executed(status),
        CallState::ReplyNotKept => {
            Outcome::Executed(Status::new(Code::DataLoss, "executed; its reply was not kept"))
        }
        CallState::NotExecuted(why) => Outcome::NotExecuted(why),
        CallState::Executing
        | CallState::NotArrived
        | CallState::AlreadySettled
        | CallState::Lost => Outcome::Lost,
    })
}

fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
