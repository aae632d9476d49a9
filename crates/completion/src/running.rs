//! Calls whose handlers this process has started.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use stubborn_core::node::{ClientMessage, Front};
use stubborn_core::service::MethodId;
use stubborn_core::session::{Answer, CallId};

/// The calls under way, as many as servers give to their keeper at once; and what is known of slots.
#[derive(Default)]
pub(crate) struct Calls {
    running: Mutex<HashMap<CallId, Arc<Running>>>,
    /// The last number of a slot, where this process has recorded its end, and the epoch of the
    /// connection that it came by.
    last: Mutex<HashMap<(u64, u32), (u64, u64)>>,
}

/// Slots whose last numbers are known at most: then they are found out again.
const MOST_KNOWN: usize = 65_536;

/// A call whose handler runs here.
pub(crate) struct Running {
    pub(crate) id: CallId,
    pub(crate) method: MethodId,
    pub(crate) digest: u64,
    /// That of its connection.
    pub(crate) epoch: u64,
    /// Whether the session was seen to have that epoch.
    may_speak: AtomicBool,
    /// Whom to tell: the connection on which the last copy came.
    teller: Mutex<Teller>,
    /// What its record says, once that is committed.
    ended: Mutex<Option<Answer<Bytes>>>,
    /// A guard of it is there.
    guarded: AtomicBool,
    handler: Mutex<Handler>,
}

/// How far the handler of a call is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handler {
    NotStarted,
    Started,
    /// It is not to be started: its caller has given up.
    Unwanted,
}

/// A client on a connection.
#[derive(Clone)]
pub(crate) struct Teller {
    pub(crate) front: Arc<dyn Front>,
    pub(crate) client: u64,
}

/// What became of the wish to start a handler.
pub(crate) enum Start {
    /// Go on. The call is under way until this is dropped.
    New(Under),
    /// It is under way; the client of this copy is told of its end.
    Copy,
    /// Another request has the number.
    FalseRetry,
}

/// A call is under way as long as this is there.
pub(crate) struct Under {
    pub(crate) call: Arc<Running>,
    calls: Arc<Calls>,
}

impl Teller {
    pub(crate) fn tell(&self, message: ClientMessage) {
        self.front.tell(self.client, message);
    }
}

impl Calls {
    pub(crate) fn start(
        self: &Arc<Self>,
        (id, epoch): (CallId, u64),
        method: MethodId,
        digest: u64,
        teller: Teller,
    ) -> Start {
        let mut calls = lock(&self.running);
        if let Some(running) = calls.get(&id) {
            if running.digest != digest {
                return Start::FalseRetry;
            }
            *lock(&running.teller) = teller;
            return Start::Copy;
        }
        let call = Arc::new(Running {
            id,
            method,
            digest,
            epoch,
            may_speak: AtomicBool::new(false),
            teller: Mutex::new(teller),
            ended: Mutex::new(None),
            guarded: AtomicBool::new(false),
            handler: Mutex::new(Handler::NotStarted),
        });
        calls.insert(id, Arc::clone(&call));
        Start::New(Under { call, calls: Arc::clone(self) })
    }

    /// Has this client, which wants the call fenced, told of its end; its handler is not started any
    /// more if it has not been. `None` if the call is not under way; else whether the handler runs.
    pub(crate) fn give_up(&self, id: CallId, teller: &Teller) -> Option<bool> {
        // Under the lock: the call may end now, and tells whoever it has been told of by then.
        let calls = lock(&self.running);
        let running = calls.get(&id)?;
        *lock(&running.teller) = teller.clone();
        let mut handler = lock(&running.handler);
        if *handler == Handler::NotStarted {
            *handler = Handler::Unwanted;
        }
        Some(*handler == Handler::Started)
    }

    /// Whether this process has recorded the end of the number before this one, of a connection with
    /// this epoch. Then the slot has a row, and nobody can have told a copy of this call its end but
    /// who took the session over.
    pub(crate) fn follows(&self, id: CallId, epoch: u64) -> bool {
        let key = (id.session.number, id.slot);
        let last = lock(&self.last).get(&key).copied();
        last.is_some_and(|(sequence, of)| sequence + 1 == id.sequence && of == epoch)
    }

    /// The end of a call is recorded.
    pub(crate) fn recorded(&self, call: &Running) {
        let mut last = lock(&self.last);
        if last.len() >= MOST_KNOWN {
            last.clear();
        }
        last.insert((call.id.session.number, call.id.slot), (call.id.sequence, call.epoch));
    }

    pub(crate) fn get(&self, id: CallId) -> Option<Arc<Running>> {
        lock(&self.running).get(&id).cloned()
    }
}

impl Running {
    /// Whom to tell now.
    pub(crate) fn teller(&self) -> Teller {
        lock(&self.teller).clone()
    }

    pub(crate) fn tell(&self, message: ClientMessage) {
        self.teller().tell(message);
    }

    pub(crate) fn tell_working(&self) {
        self.tell(ClientMessage::known(self.id, Answer::Working));
    }

    /// The handler is to be started now. False if nobody wants that any more.
    pub(crate) fn start_handler(&self) -> bool {
        let mut handler = lock(&self.handler);
        if *handler == Handler::NotStarted {
            *handler = Handler::Started;
        }
        *handler == Handler::Started
    }

    /// Whether its connection may speak for the session, which has this epoch. Once it may, a
    /// connection that comes after it does not stop the call.
    pub(crate) fn may_speak(&self, epoch: u64) -> bool {
        let now = self.epoch == epoch;
        self.may_speak.fetch_or(now, Ordering::SeqCst) || now
    }

    /// Its record is committed, and says this.
    pub(crate) fn set_ended(&self, answer: Answer<Bytes>) {
        *lock(&self.ended) = Some(answer);
    }

    pub(crate) fn ended(&self) -> Option<Answer<Bytes>> {
        lock(&self.ended).clone()
    }

    /// False if a guard is there already.
    pub(crate) fn guard(&self) -> bool {
        !self.guarded.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn unguard(&self) {
        self.guarded.store(false, Ordering::SeqCst);
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        lock(&self.calls.running).remove(&self.call.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
