//! Hosts whose sessions are kept elsewhere than in their memory, by the keeper that ships.

use std::sync::Arc;
use std::time::Duration;

use stubborn_core::node::{
    ClientMessage, Front, IncomingQuery, RequestKind, SessionCommand, SessionKeeper,
};
use stubborn_core::service::{Answer, BoxFuture, Call, Encoded, MethodId, Registry};
use stubborn_core::session::SessionId;
use stubborn_core::time::Instant;

use super::host::Alive;
use super::tasks::Home;
use super::{State, World};

/// After this time a message that a draining host does not take is to come again.
const PUSH_BACK: Duration = Duration::from_millis(50);

/// What a host offers in one of its lives.
#[derive(Default)]
pub(crate) struct Offer {
    pub(crate) services: Registry,
    /// Set if sessions are not in the node.
    pub(crate) keeper: Option<Arc<dyn SessionKeeper>>,
}

/// Who keeps the sessions of a host in one of its lives, and as what it sees the host.
#[derive(Clone)]
pub(crate) struct Kept {
    keeper: Arc<dyn SessionKeeper>,
    front: Arc<dyn Front>,
}

/// What clients have said, on its way to the keeper.
pub(crate) enum ForKeeper {
    Command(SessionCommand),
    Query(IncomingQuery),
}

/// A host as its keeper sees it.
struct SimFront {
    world: World,
    home: Home,
}

impl Kept {
    pub(super) fn new(world: &World, home: Home, keeper: Arc<dyn SessionKeeper>) -> Self {
        Self { keeper, front: Arc::new(SimFront { world: world.clone(), home }) }
    }

    /// What the keeper does as long as the host lives.
    pub(super) fn keep(&self) -> BoxFuture<()> {
        self.keeper.keep(Arc::clone(&self.front))
    }
}

impl World {
    /// Adds a host with services whose sessions a keeper has, and starts it. What `factory` makes is lost
    /// when the host is killed; what the keeper's database has is not.
    ///
    /// # Panics
    /// If there is a host of that name.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))]
    pub(crate) fn kept_host(
        &self,
        name: &str,
        factory: impl Fn() -> (Registry, Arc<dyn SessionKeeper>) + Send + Sync + 'static,
    ) {
        self.add_server(name, move || {
            let (services, keeper) = factory();
            Offer { services, keeper: Some(keeper) }
        });
    }

    /// Gives the keeper of a host what a client has said.
    pub(super) fn ask_keeper(&self, home: Home, said: ForKeeper) {
        let mut state = self.state();
        let local = state.local_now(home.host);
        let Some(alive) = state.living(home) else { return };
        let Some(Kept { keeper, front }) = alive.kept.clone() else {
            unreachable!("a host without a keeper has its sessions itself")
        };
        match said {
            ForKeeper::Command(command) if alive.draining => {
                if let Some(message) = command.push_back(PUSH_BACK) {
                    alive.node.tell(local, command.client(), message);
                    state.touch(home.host);
                }
            }
            ForKeeper::Command(command) => {
                drop(state);
                self.spawn_at(Some(home), keeper.command(front, command));
            }
            ForKeeper::Query(query) => {
                drop(state);
                let (world, key) = (self.clone(), query.key);
                let asked = keeper.query(query);
                let answered = async move {
                    let finding = asked.await;
                    world.of_life(home, |alive, now| alive.node.answer_query(now, key, finding));
                };
                self.spawn_at(Some(home), Box::pin(answered));
            }
        }
    }

    /// Does something with a host, if it still has this life.
    fn of_life<T>(&self, home: Home, act: impl FnOnce(&mut Alive, Instant) -> T) -> Option<T> {
        let mut state = self.state();
        let local = state.local_now(home.host);
        let done = state.living(home).map(|alive| act(alive, local));
        state.touch(home.host);
        done
    }
}

impl State {
    /// A host, if it still has this life.
    fn living(&mut self, home: Home) -> Option<&mut Alive> {
        let host = self.host_mut(home.host);
        let same = host.life == home.life;
        host.alive.as_mut().filter(|_| same)
    }
}

impl Front for SimFront {
    fn now(&self) -> Instant {
        self.world.state().local_now(self.home.host)
    }

    fn tell(&self, client: u64, message: ClientMessage) {
        self.world.of_life(self.home, |alive, now| alive.node.tell(now, client, message));
    }

    fn run(&self, method: MethodId, mut call: Call<Encoded>) -> BoxFuture<Answer> {
        let host = self.home.host;
        let known = {
            let mut state = self.world.state();
            state.note_run(host, method, call.context().id);
            state.living(self.home).map(|alive| (alive.services.clone(), alive.clock.clone()))
        };
        let Some((services, clock)) = known else { return Box::pin(std::future::pending()) };
        call.set_clock(clock);
        let started = services.dispatch(method, RequestKind::Numbered, call);
        Box::pin(async move {
            match started {
                Ok(handling) => handling.await,
                Err(answer) => answer,
            }
        })
    }

    fn attached(&self) -> Vec<SessionId> {
        let attached = |alive: &mut Alive, _| alive.node.attached_sessions();
        self.world.of_life(self.home, attached).unwrap_or_default()
    }
}
