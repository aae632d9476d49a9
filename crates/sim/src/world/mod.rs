//! A world: hosts with nodes, a network between them, and virtual time.

mod channel;
mod clock;
mod faults;
mod host;
mod journal;
mod kept;
mod queue;
mod run;
mod socket;
mod state;
mod stream;
mod tasks;
mod trace;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_core::node::ChannelConfig;
use stubborn_core::random::Random;
use stubborn_core::service::{Channel, Clock, Registry, Service};
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::EndpointConfig;

pub(crate) use channel::Memories;
pub use channel::SimCaller;
pub use faults::{After, Brief};
pub(crate) use host::HostId;
pub(crate) use journal::{Journalled, SimJournal};
use kept::{Kept, Offer};
pub use run::{Failure, Report, Settings, run};
pub use socket::SimSocket;
use state::Happening;
pub(crate) use state::State;
use tasks::{Home, Ready, Tasks};
pub(crate) use trace::Stamp;

use crate::network::Network;

/// A handle to a world. Cheap to clone; clones share the world.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    tasks: Mutex<Tasks>,
    ready: Arc<Ready>,
    seed: u64,
}

/// A number of seconds, for scenarios that read as sentences.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A number of milliseconds.
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl World {
    fn new(seed: u64, state: State) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            tasks: Mutex::default(),
            ready: Ready::new(),
            seed,
        }))
    }

    /// The world's state. Nobody's code may run while the guard lives.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seed that everything in the world follows from.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Randomness for the scenario itself, from the world's seed.
    pub fn random(&self) -> Random {
        self.state().random.fork()
    }

    /// The world's time: since its beginning.
    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// What nodes of hosts that are added from now on are made with.
    pub fn configure(&self, change: impl FnOnce(&mut EndpointConfig)) {
        change(&mut self.state().endpoint);
    }

    /// Lets the timers of all hosts fire only at multiples of `tick`, as those of operating systems
    /// and runtimes do; zero, as at first, for timers that are exact.
    pub fn tick(&self, tick: Duration) {
        self.state().tick = tick;
    }

    // --- hosts -----------------------------------------------------------------------------------

    /// Adds a host that offers one service and starts it. `factory` makes the service anew at each
    /// start: what it holds is lost when the host is killed.
    ///
    /// # Panics
    /// If a host of that name offers services already.
    pub fn host<S: Service>(&self, name: &str, factory: impl Fn() -> S + Send + Sync + 'static) {
        self.host_with(name, move || {
            let mut services = Registry::new();
            services.add(Arc::new(factory())).expect("one service collides with no other");
            services
        });
    }

    /// Adds a host that offers several services.
    ///
    /// # Panics
    /// If a host of that name offers services already.
    pub fn host_with(&self, name: &str, factory: impl Fn() -> Registry + Send + Sync + 'static) {
        self.add_server(name, move || Offer { services: factory(), keeper: None });
    }

    fn add_server(&self, name: &str, factory: impl Fn() -> Offer + Send + Sync + 'static) {
        let known = self.state().names.get(name).copied();
        let id = known.unwrap_or_else(|| self.state().add_host(name));
        {
            let mut state = self.state();
            let host = state.host_mut(id);
            assert!(host.factory.is_none(), "the host {name} offers services already");
            host.factory = Some(Arc::new(factory));
        }
        if known.is_some() {
            self.kill(name);
        }
        self.restart(name);
    }

    /// Adds a host that offers nothing: a client.
    pub fn client(&self, name: &str) {
        if self.state().names.contains_key(name) {
            return;
        }
        let id = self.state().add_host(name);
        self.start(id);
    }

    /// The host of a name.
    ///
    /// # Panics
    /// If there is none: the scenario is wrong.
    pub(crate) fn id(&self, name: &str) -> HostId {
        let id = self.state().names.get(name).copied();
        id.unwrap_or_else(|| panic!("the world has no host {name:?}"))
    }

    fn start(&self, id: HostId) {
        let factory = self.state().host(id).factory.clone();
        let Offer { services, keeper } = factory.map_or_else(Offer::default, |factory| factory());
        let world = Arc::downgrade(&self.0);
        let clock = Clock::new(move || match world.upgrade() {
            Some(shared) => World(shared).state().local_now(id),
            None => Instant::ZERO,
        });
        let mut state = self.state();
        let State { hosts, random, .. } = &mut *state;
        let host = &mut hosts[id.0 as usize];
        let home = Home { host: id, life: host.life + 1 };
        let kept = keeper.map(|keeper| {
            keeper.set_limits(&host.endpoint.limits);
            (keeper.group(), Kept::new(self, home, keeper))
        });
        let keep = kept.as_ref().map(|(_, kept)| kept.keep());
        host.start(services, clock, random, kept);
        state.note_life(id, "started");
        state.touch(id);
        drop(state);
        if let Some(keep) = keep {
            self.spawn_at(Some(home), keep);
        }
    }

    // --- clients ---------------------------------------------------------------------------------

    /// A channel from a client, which is added if there is none of that name, to a server. Each
    /// start of the client opens it anew, with a session of its own.
    ///
    /// # Panics
    /// If there is no such server.
    pub fn channel(&self, client: &str, server: &str) -> Channel {
        self.channel_with(client, &[server], |_| {})
    }

    /// The same with settings of its own, to servers that are tried in turn.
    ///
    /// # Panics
    /// If there is no such server, or none at all.
    pub fn channel_with(
        &self,
        client: &str,
        servers: &[&str],
        change: impl FnOnce(&mut ChannelConfig),
    ) -> Channel {
        Channel::new(self.caller(client, servers, change))
    }

    /// The network, for changing it.
    pub fn network(&self) -> Network {
        Network::new(self.clone())
    }

    // --- time and tasks --------------------------------------------------------------------------

    /// Waits for some of the world's time.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        let world = self.clone();
        let until = self.now() + duration;
        let mut set = false;
        std::future::poll_fn(move |cx| {
            let mut state = world.state();
            if state.now >= until {
                return std::task::Poll::Ready(());
            }
            if !std::mem::replace(&mut set, true) {
                state.queue.push(until, Happening::Wake(cx.waker().clone()));
            }
            std::task::Poll::Pending
        })
    }

    /// Runs a future on the side. What it does is part of the run; its end is not waited for.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_at(None, Box::pin(future));
    }

    /// Runs a future as a process on a host: it rests while the host is paused, and is dropped when
    /// the host is killed.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn spawn_on(&self, host: &str, future: impl Future<Output = ()> + Send + 'static) {
        let id = self.id(host);
        let life = self.state().host(id).life;
        self.spawn_at(Some(Home { host: id, life }), Box::pin(future));
    }

    fn spawn_at(&self, home: Option<Home>, future: tasks::TaskFuture) -> usize {
        let mut tasks = self.tasks();
        let id = tasks.add(&self.0.ready, home, future);
        let task = tasks.take(id).expect("the task was just added");
        let waker = task.waker.clone();
        tasks.put_back(id, task);
        drop(tasks);
        waker.wake();
        id
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({})", self.0.seed)
    }
}
