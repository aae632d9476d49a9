//! Handlers that were not ready at once, polled by the driver's own task: on a runtime with one
//! thread, a task for each would cost more and gain nothing.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use stubborn_core::node::RequestKey;
use stubborn_core::service::Answer;

use super::handler::Handler;

/// Handlers polled in one round, so that the socket gets its turn.
const ROUND: usize = 256;

/// The handlers under way, each at the index of its request. A place and its waker serve one
/// request after another: a waker that an earlier one has left behind polls the later one once too
/// often, which does no harm.
pub(super) struct Tasks {
    places: Vec<Place>,
    running: usize,
    woken: Arc<Woken>,
    /// Woken and not polled yet.
    due: Vec<u32>,
}

/// Answers on their way to the node. They are large to move: each is written where it stays.
#[derive(Default)]
pub(super) struct Answers(Vec<(RequestKey, Option<Answer>)>);

struct Place {
    running: Option<(RequestKey, Handler)>,
    wakeful: Arc<Wakeful>,
    waker: Waker,
}

/// What the waker of a place wakes.
struct Wakeful {
    place: u32,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

/// Places that were woken, and the driver that is to look at them.
#[derive(Default)]
struct Woken(Mutex<List>);

#[derive(Default)]
struct List {
    places: Vec<u32>,
    driver: Option<Waker>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), running: 0, woken: Arc::default(), due: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running == 0
    }

    /// Polls a handler for the first time; if it is not ready it stays here.
    pub(super) fn start(&mut self, key: RequestKey, mut handler: Handler, answers: &mut Answers) {
        let index = key.index();
        while self.places.len() <= index {
            self.places.push(Place::new(self.places.len(), &self.woken));
        }
        let place = &mut self.places[index];
        debug_assert!(place.running.is_none(), "two requests have one index");
        let answered = answers.add(key, |answer| {
            handler.poll_into(&mut Context::from_waker(&place.waker), answer);
        });
        if !answered {
            place.running = Some((key, handler));
            self.running += 1;
        }
    }

    /// Polls what was woken. Returns whether more waits for the next round; if not, `driver` is
    /// woken for the next one.
    pub(super) fn poll(&mut self, driver: &Waker, answers: &mut Answers) -> bool {
        if self.running == 0 {
            return false;
        }
        if self.due.is_empty() {
            let mut list = self.woken.lock();
            mem::swap(&mut list.places, &mut self.due);
            match &mut list.driver {
                Some(known) => known.clone_from(driver),
                none => *none = Some(driver.clone()),
            }
        }
        for index in self.due.drain(..ROUND.min(self.due.len())) {
            let place = &mut self.places[index as usize];
            // From now on a wake counts again.
            place.wakeful.queued.store(false, Ordering::SeqCst);
            let Some((key, handler)) = &mut place.running else { continue };
            let mut cx = Context::from_waker(&place.waker);
            if answers.add(*key, |answer| handler.poll_into(&mut cx, answer)) {
                place.running = None;
                self.running -= 1;
            }
        }
        !self.due.is_empty()
    }

    /// Drops the handler of a request, if it is here.
    pub(super) fn cancel(&mut self, key: RequestKey) {
        let Some(place) = self.places.get_mut(key.index()) else { return };
        if let Some((_, handler)) = place.running.take_if(|(running, _)| *running == key) {
            self.running -= 1;
            // What it owns may panic when it is dropped; that is nobody else's concern.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(handler)));
        }
    }
}

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what `write` writes, if anything. Returns whether it did.
    pub(super) fn add(&mut self, key: RequestKey, write: impl FnOnce(&mut Option<Answer>)) -> bool {
        self.0.push((key, None));
        let Some((_, answer)) = self.0.last_mut() else { return false };
        write(answer);
        let written = answer.is_some();
        if !written {
            self.0.pop();
        }
        written
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = (RequestKey, Answer)> {
        self.0.drain(..).filter_map(|(key, answer)| Some((key, answer?)))
    }
}

impl Place {
    fn new(index: usize, woken: &Arc<Woken>) -> Self {
        let place = u32::try_from(index).expect("requests are bounded far below 2^32");
        let woken = Arc::clone(woken);
        let wakeful = Arc::new(Wakeful { place, queued: AtomicBool::new(false), woken });
        Self { running: None, waker: Waker::from(Arc::clone(&wakeful)), wakeful }
    }
}

impl Wake for Wakeful {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let driver = {
            let mut list = self.woken.lock();
            list.places.push(self.place);
            list.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
