//! What happens to hosts: at once, or later and for a while.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use super::state::Happening;
use super::{HostId, World};

impl World {
    /// Kills a host, as power loss does: nothing is sent, its memory is lost. What is sent to it
    /// then is lost too. Calls that the killed host made never resolve, since nobody is left to be
    /// told; run what awaits them with [`World::spawn_on`].
    ///
    /// # Panics
    /// If there is no such host.
    pub fn kill(&self, name: &str) {
        self.kill_id(self.id(name));
    }

    fn kill_id(&self, id: HostId) {
        let mut state = self.state();
        let host = state.host_mut(id);
        if host.alive.is_none() {
            return;
        }
        let dead = host.alive.take();
        if let Some(dead) = &dead {
            state.races.servers += dead.node.races();
            state.races.restarts_mid_call += u64::from(!dead.handlers.is_empty());
        }
        state.crash_journals(id);
        let host = state.host_mut(id);
        host.forget_inbox();
        host.timers.clear();
        host.paused = false;
        state.oracles.amplification.forgot(id);
        state.note_life(id, "killed");
        for (_, waker) in state.drain_waiters.extract_if(.., |(waiting, _)| *waiting == id) {
            waker.wake();
        }
        drop(state);
        let tasks = self.tasks().kill(id);
        drop((tasks, dead)); // their destructors may call the world
    }

    /// Starts a killed host again, with an empty memory and a new incarnation. Its identity, the
    /// certificate and its key, is the same.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn restart(&self, name: &str) {
        let id = self.id(name);
        if self.state().host(id).alive.is_none() {
            self.start(id);
        }
    }

    /// Whether a host runs.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn is_alive(&self, name: &str) -> bool {
        let id = self.id(name);
        self.state().host(id).alive.is_some()
    }

    /// Stops a host without its noticing. What comes in meanwhile waits in its socket's buffer as
    /// far as there is room.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn pause(&self, name: &str) {
        let id = self.id(name);
        let mut state = self.state();
        if state.host(id).alive.is_some() {
            state.host_mut(id).paused = true;
            state.note_life(id, "paused");
        }
    }

    /// Lets a paused host go on.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn resume(&self, name: &str) {
        let id = self.id(name);
        let mut state = self.state();
        if !std::mem::take(&mut state.host_mut(id).paused) {
            return;
        }
        state.note_life(id, "resumed");
        // Timers that fired meanwhile were ignored.
        state.set_timer(id);
        state.touch(id);
        state.proceed(id);
        drop(state);
        self.tasks().resume(id);
    }

    /// Makes a host take this long for each datagram; what it cannot keep up with overflows its
    /// socket's buffer. Zero makes it fast again.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn slow(&self, name: &str, per_datagram: Duration) {
        let id = self.id(name);
        let mut state = self.state();
        state.host_mut(id).slowness = per_datagram;
        state.note_life(id, "slowed");
    }

    /// Makes a host's clock gain `per_million` (negative: lose).
    ///
    /// # Panics
    /// If there is no such host.
    pub fn skew(&self, name: &str, per_million: i32) {
        self.change_clock(name, "clock skewed", |clock, now| clock.set_skew(now, per_million));
    }

    /// Makes a host's clock jump ahead.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn jump(&self, name: &str, ahead: Duration) {
        self.change_clock(name, "clock jumped ahead", |clock, now| clock.jump(now, ahead));
    }

    /// Makes a host's clock jump back: it stands still for that long, since a clock that never goes
    /// back cannot show more of it.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn jump_back(&self, name: &str, by: Duration) {
        self.change_clock(name, "clock jumped back", |clock, now| clock.jump_back(now, by));
    }

    fn change_clock(
        &self,
        name: &str,
        what: &'static str,
        change: impl FnOnce(&mut super::clock::HostClock, stubborn_core::time::Instant),
    ) {
        let id = self.id(name);
        let mut state = self.state();
        let now = state.now;
        let host = state.host_mut(id);
        change(&mut host.clock, now);
        // Timers were set by the old clock.
        host.timers.clear();
        state.note_life(id, what);
        state.set_timer(id);
    }

    /// Tells a server to refuse new sessions and send clients elsewhere; wait for the end of it with
    /// [`World::drained`].
    ///
    /// # Panics
    /// If there is no such host.
    pub fn drain(&self, name: &str) {
        let id = self.id(name);
        let mut state = self.state();
        let local = state.local_now(id);
        if let Some(alive) = &mut state.host_mut(id).alive {
            alive.node.drain(local);
            alive.draining = true;
            state.note_life(id, "drains");
            state.touch(id);
        }
    }

    /// Whether a server drains, or has drained and waits to be restarted.
    pub(crate) fn drains(&self, name: &str) -> bool {
        let id = self.id(name);
        self.state().host(id).alive.as_ref().is_some_and(|alive| alive.draining)
    }

    /// Sets how many slots a server gives to a session; those above are asked back.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn limit_slots(&self, name: &str, limit: u32) {
        let id = self.id(name);
        let mut state = self.state();
        let local = state.local_now(id);
        if let Some(alive) = &mut state.host_mut(id).alive {
            alive.node.limit_slots(local, limit);
            state.note_life(id, "slots limited");
            state.touch(id);
        }
    }

    /// Waits until a draining server has answered every request and released every reply, or is
    /// killed.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn drained(&self, name: &str) -> impl Future<Output = ()> + Send + use<> {
        let (world, id) = (self.clone(), self.id(name));
        std::future::poll_fn(move |cx| {
            let mut state = world.state();
            if state.host(id).alive.as_ref().is_none_or(|alive| alive.drained) {
                return Poll::Ready(());
            }
            state.drain_waiters.push((id, cx.waker().clone()));
            Poll::Pending
        })
    }

    /// Lets something happen later.
    pub fn after(&self, delay: Duration) -> After {
        After { world: self.clone(), delay }
    }

    fn schedule(&self, delay: Duration, action: impl FnOnce(&World) + Send + 'static) {
        let mut state = self.state();
        let at = state.now + delay;
        state.queue.push(at, Happening::Action(Box::new(action)));
    }
}

/// What happens later. See [`World::after`].
#[must_use = "nothing happens later unless it is said what"]
pub struct After {
    world: World,
    delay: Duration,
}

impl After {
    /// Kills a host: for good, or [`for_`](Brief::for_) a while.
    pub fn kill(self, name: &str) -> Brief {
        self.brief(name, World::kill, World::restart)
    }

    /// Pauses a host: for good, or [`for_`](Brief::for_) a while.
    pub fn pause(self, name: &str) -> Brief {
        self.brief(name, World::pause, World::resume)
    }

    /// Drains a server.
    pub fn drain(self, name: &str) {
        let name = name.to_owned();
        self.run(move |world| world.drain(&name));
    }

    /// Does anything.
    pub fn run(self, action: impl FnOnce(&World) + Send + 'static) {
        self.world.schedule(self.delay, action);
    }

    fn brief(self, name: &str, begin: fn(&World, &str), end: fn(&World, &str)) -> Brief {
        // A name that the world does not have is noticed where it is written.
        self.world.id(name);
        let (later, begins) = (name.to_owned(), self.delay);
        self.world.schedule(begins, move |world| begin(world, &later));
        Brief { world: self.world, name: name.to_owned(), begins, end }
    }
}

/// Something that lasts for good unless it is said for how long.
pub struct Brief {
    world: World,
    name: String,
    begins: Duration,
    end: fn(&World, &str),
}

impl Brief {
    /// Ends it after this long.
    pub fn for_(self, duration: Duration) {
        let (name, end) = (self.name, self.end);
        self.world.schedule(self.begins + duration, move |world| end(world, &name));
    }
}
