//! The tasks of a world: an executor that polls them one at a time, in the order in which they were
//! woken.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use super::HostId;

pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The task that runs the scenario.
pub(crate) const ROOT: usize = usize::MAX;

/// Where a task runs: it dies with that life of the host, and rests while the host is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) host: HostId,
    pub(crate) life: u32,
}

pub(crate) struct Task {
    pub(crate) future: TaskFuture,
    pub(crate) home: Option<Home>,
    pub(crate) waker: Waker,
}

/// Tasks that were woken.
pub(crate) struct Ready {
    woken: Mutex<Woken>,
}

#[derive(Default)]
struct Woken {
    tasks: VecDeque<Arc<Wakeful>>,
    /// Who sleeps until a task is woken from outside.
    sleeper: Option<Waker>,
}

struct Wakeful {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Wakeful {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::Relaxed) {
            return;
        }
        let ready = Arc::clone(&self.ready);
        let sleeper = {
            let mut woken = ready.lock();
            woken.tasks.push_back(self);
            woken.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl Ready {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { woken: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Woken> {
        self.woken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A waker for a task.
    pub(crate) fn waker(self: &Arc<Self>, task: usize) -> Waker {
        let ready = Arc::clone(self);
        Waker::from(Arc::new(Wakeful { task, queued: AtomicBool::new(false), ready }))
    }

    /// The task to poll next.
    pub(crate) fn pop(&self) -> Option<usize> {
        let wakeful = self.lock().tasks.pop_front()?;
        // From now on a wake queues the task again.
        wakeful.queued.store(false, Ordering::Relaxed);
        Some(wakeful.task)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().tasks.is_empty()
    }

    /// Wakes `sleeper` when a task is woken.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn set_sleeper(&self, sleeper: Waker) {
        self.lock().sleeper = Some(sleeper);
    }
}

/// All tasks but the root. Task numbers are never reused, so that an old waker wakes nobody else.
#[derive(Default)]
pub(crate) struct Tasks {
    tasks: std::collections::BTreeMap<usize, Task>,
    next: usize,
    /// Woken while their host was paused.
    resting: Vec<(HostId, usize)>,
}

impl Tasks {
    pub(crate) fn add(
        &mut self,
        ready: &Arc<Ready>,
        home: Option<Home>,
        future: TaskFuture,
    ) -> usize {
        let id = self.reserve();
        let waker = ready.waker(id);
        self.tasks.insert(id, Task { future, home, waker });
        id
    }

    pub(crate) fn reserve(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    pub(crate) fn home(&self, id: usize) -> Option<Option<Home>> {
        self.tasks.get(&id).map(|task| task.home)
    }

    /// Takes a task out, to be polled or dropped without a lock being held.
    pub(crate) fn take(&mut self, id: usize) -> Option<Task> {
        self.tasks.remove(&id)
    }

    pub(crate) fn put_back(&mut self, id: usize, task: Task) {
        self.tasks.insert(id, task);
    }

    pub(crate) fn rest(&mut self, host: HostId, id: usize) {
        self.resting.push((host, id));
    }

    /// The host goes on: its tasks that were woken meanwhile are woken again.
    pub(crate) fn resume(&mut self, host: HostId) {
        for (_, id) in self.resting.extract_if(.., |(resting, _)| *resting == host) {
            if let Some(task) = self.tasks.get(&id) {
                task.waker.wake_by_ref();
            }
        }
    }

    /// Takes the tasks of a host out.
    #[must_use = "tasks are to be dropped without a lock being held"]
    pub(crate) fn kill(&mut self, host: HostId) -> Vec<Task> {
        self.resting.retain(|(resting, _)| *resting != host);
        let dead = |_: &usize, task: &mut Task| task.home.is_some_and(|home| home.host == host);
        self.tasks.extract_if(.., dead).map(|(_, task)| task).collect()
    }

    /// Takes every task out.
    #[must_use = "tasks are to be dropped without a lock being held"]
    pub(crate) fn clear(&mut self) -> Vec<Task> {
        self.resting.clear();
        std::mem::take(&mut self.tasks).into_values().collect()
    }
}
