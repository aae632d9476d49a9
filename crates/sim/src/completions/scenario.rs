//! One run: servers that share a database, clients, everything that can go wrong with servers, the
//! network and the database, then a world in which nothing is wrong any more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_completion::Completions;
use stubborn_core::node::SessionKeeper;
use stubborn_core::random::Random;
use stubborn_core::service::Registry;

use super::CompletionCounts;
use super::client::{Habits, LONGEST_REST, Worker};
use super::database::Database;
use super::resume::end_unwritten;
use super::store::{Shared, SimStore};
use super::till::Till;
use super::trouble::Trouble;
use crate::explorer::faults::{Dice, Part};
use crate::network::Rule;
use crate::oracle::{BOUND, Violation};
use crate::world::{SimCaller, SimJournal, World, millis, secs};

/// Runs the scenario of the world's seed.
pub(super) async fn scenario(world: World) -> CompletionCounts {
    let mut random = world.random();
    let plan = Plan::draw(&mut random);
    plan.configure(&world);
    let run = Run::new(&world, plan, &mut random);
    for server in &run.plan.servers {
        run.serve(server).await;
    }
    let _weather: Vec<_> = (0..random.below(3)).map(|_| run.weather(&mut random)).collect();
    for client in &run.plan.clients {
        world.client(client);
        run.man(client, &mut random);
    }
    for episode in run.plan.episodes.clone() {
        let (run, random) = (run.clone(), random.fork());
        world.spawn(async move { run.play(episode, random).await });
    }
    let watched = run.clone();
    world.spawn(async move { watched.watch().await });
    world.sleep(run.plan.length).await;
    run.stop.store(true, Ordering::Relaxed);
    run.heal(&mut random).await;
    run.settle().await;
    run.judge()
}

/// What a run is made of.
struct Plan {
    servers: Vec<String>,
    clients: Vec<String>,
    length: Duration,
    episodes: Vec<Episode>,
    habits: Habits,
    workers: u64,
    /// After what time the database ends a transaction in which nothing happens.
    idle: Duration,
    kept_replies: Option<u64>,
    retention: Option<Duration>,
    slots: u32,
}

/// Something that is wrong for a while.
#[derive(Clone)]
struct Episode {
    begins: Duration,
    lasts: Duration,
    fault: Fault,
}

#[derive(Clone)]
enum Fault {
    /// A server dies and is started again.
    Kill(String),
    /// A server is stopped and goes on.
    Pause(String),
    /// A client dies; its next life knows what is in its journal, or nothing.
    KillClient(String),
    PauseClient(String),
    Network(Part, Rule),
    /// A server cannot reach the database, or none can.
    Away(Option<String>),
    Skew(String, i32),
    Jump(String, Duration),
    Drain(String),
}

impl Plan {
    fn draw(random: &mut Random) -> Self {
        let servers: Vec<String> =
            (0..2 + random.below(2)).map(|number| format!("server-{number}")).collect();
        let clients: Vec<String> =
            (0..1 + random.below(3)).map(|number| format!("client-{number}")).collect();
        let length = Duration::from_millis(3_000 + random.below(22_000));
        let kept_reply = 4_096;
        let habits = Habits {
            pause: Duration::from_micros(1_000 + random.below(200_000)),
            deadlines: random.unit() * 0.6,
            drops: random.unit() * 0.3,
            long: random.unit() * 0.3,
            kept_reply,
        };
        let mut dice = Dice { random, servers: &servers, clients: &clients };
        let count = 2 + dice.random.below(9);
        let episodes = (0..count).map(|_| Episode::draw(&mut dice, length)).collect();
        Self {
            length,
            episodes,
            habits,
            workers: 1 + random.below(4),
            // Longer than any handler rests in its transaction: that one would never end.
            idle: LONGEST_REST + Duration::from_millis(200 + random.below(6_000)),
            kept_replies: random.chance(0.3).then(|| 1_000 + random.below(20_000)),
            retention: random.chance(0.5).then(|| secs(1 + random.below(8))),
            slots: 1 + random.below(8) as u32,
            servers,
            clients,
        }
    }

    fn configure(&self, world: &World) {
        world.configure(|endpoint| {
            let limits = &mut endpoint.limits;
            limits.kept_reply = self.habits.kept_reply;
            limits.slots = self.slots;
            if let Some(kept) = self.kept_replies {
                limits.kept_replies = kept;
            }
            if let Some(retention) = self.retention {
                limits.retention = retention;
            }
        });
    }
}

impl Episode {
    fn draw(dice: &mut Dice<'_>, length: Duration) -> Self {
        let begins = length.mul_f64(dice.random.unit() * 0.8);
        let most = if dice.random.chance(0.5) { millis(1_500) } else { length - begins };
        let lasts = most.mul_f64(dice.random.unit());
        Self { begins, lasts, fault: Self::fault(dice) }
    }

    fn fault(dice: &mut Dice<'_>) -> Fault {
        match dice.random.below(20) {
            0..4 => Fault::Kill(dice.server()),
            4..8 => Fault::Pause(dice.server()),
            8 | 9 => Fault::KillClient(dice.client()),
            10 => Fault::PauseClient(dice.client()),
            11..13 => Fault::Network(dice.part(), Rule::Cut),
            13 | 14 => {
                let rule = dice.rule();
                Fault::Network(dice.part(), rule)
            }
            15 => Fault::Away(None),
            16 | 17 => Fault::Away(Some(dice.server())),
            18 => match dice.random.below(2) {
                0 => Fault::Skew(dice.server(), dice.random.below(400_000) as i32 - 200_000),
                _ => Fault::Jump(dice.server(), secs(dice.random.below(20))),
            },
            _ => Fault::Drain(dice.server()),
        }
    }
}

/// The channel of a client, and its journal if it keeps one.
type Way = (SimCaller, Option<SimJournal>);

/// A run under way. Clones are the same one.
#[derive(Clone)]
struct Run {
    world: World,
    shared: Shared,
    plan: Arc<Plan>,
    stop: Arc<AtomicBool>,
    /// What servers that are about to start have got from the database, by name.
    prepared: Arc<Mutex<BTreeMap<String, Completions<SimStore>>>>,
    /// The ways of clients to the servers, by name.
    channels: Arc<Mutex<BTreeMap<String, Way>>>,
}

impl Run {
    fn new(world: &World, plan: Plan, random: &mut Random) -> Self {
        // The lowest byte is none of a worker's.
        let group = (random.u64() | 0x100) & !0xff;
        let trouble = Trouble::draw(random, plan.idle);
        let shared = Shared::new(Database::new(group, plan.idle), trouble, random.fork());
        let stop = Arc::new(AtomicBool::new(false));
        let (plan, prepared, channels) = (Arc::new(plan), Arc::default(), Arc::default());
        Self { world: world.clone(), shared, plan, stop, prepared, channels }
    }

    /// Adds a server.
    async fn serve(&self, name: &str) {
        self.prepare(name).await;
        let (run, server) = (self.clone(), name.to_owned());
        self.world.kept_host(name, move || {
            let prepared = run.prepared().remove(&server);
            let completions = prepared.expect("a server is prepared before it starts");
            let (world, shared) = (run.world.clone(), run.shared.clone());
            let till = Till { world, shared, completions: completions.clone() };
            let mut services = Registry::new();
            services.add(Arc::new(till)).expect("the only service");
            (services, Arc::new(completions) as Arc<dyn SessionKeeper>)
        });
    }

    fn prepared(&self) -> MutexGuard<'_, BTreeMap<String, Completions<SimStore>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a server does before it listens; it tries again as long as the database is away.
    async fn prepare(&self, server: &str) {
        let completions = loop {
            let store = SimStore::new(&self.world, &self.shared, server);
            match Completions::new(store).await {
                Ok(completions) => break completions.slots(self.plan.slots),
                Err(_) => self.world.sleep(millis(50)).await,
            }
        };
        self.prepared().insert(server.to_owned(), completions);
    }

    /// Starts a server again that is down.
    async fn revive(&self, server: &str) {
        if !self.world.is_alive(server) {
            self.prepare(server).await;
            self.world.restart(server);
        }
    }

    fn weather(&self, random: &mut Random) -> crate::network::Guard {
        let Plan { servers, clients, .. } = &*self.plan;
        let rule = Dice { random, servers, clients }.rule();
        self.world.network().add(rule)
    }

    /// The channel of a client; one with a journal is the same in all its lives.
    fn channel(&self, client: &str, random: &mut Random) -> Way {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((caller, Some(journal))) = channels.get(client) {
            return (caller.clone(), Some(journal.clone()));
        }
        let order = self.order(random);
        let slots = self.plan.slots;
        let caller = self.world.caller(client, &order, |config| config.slots = slots);
        let keeps = !channels.contains_key(client) && random.chance(0.5);
        let journal = keeps.then(|| caller.keep_journal());
        channels.insert(client.to_owned(), (caller.clone(), journal.clone()));
        (caller, journal)
    }

    /// The servers, from a random one on.
    fn order(&self, random: &mut Random) -> Vec<&str> {
        let mut order: Vec<&str> = self.plan.servers.iter().map(String::as_str).collect();
        let first = random.below(order.len() as u64) as usize;
        order.rotate_left(first);
        order
    }

    /// Starts a client's workers. With a journal one of them settles first what that has.
    fn man(&self, client: &str, random: &mut Random) {
        let (caller, mut journal) = self.channel(client, random);
        if let Some(journal) = &journal {
            end_unwritten(&self.world, &self.shared, client, journal);
        }
        let asker = self.world.caller("asker", &self.order(random), |_| {});
        for _ in 0..self.plan.workers {
            let worker = Worker {
                world: self.world.clone(),
                shared: self.shared.clone(),
                name: client.to_owned(),
                caller: caller.clone(),
                asker: asker.clone(),
                habits: self.plan.habits.clone(),
                random: random.fork(),
                stop: Arc::clone(&self.stop),
            };
            match journal.take() {
                Some(journal) => self.world.spawn_on(client, worker.resume(journal)),
                None => self.world.spawn_on(client, worker.run()),
            }
        }
    }

    /// Starts a client again that is down.
    fn revive_client(&self, client: &str, random: &mut Random) {
        if !self.world.is_alive(client) {
            self.world.restart(client);
            self.man(client, random);
        }
    }

    /// Lets something go wrong for a while.
    async fn play(self, Episode { begins, lasts, fault }: Episode, mut random: Random) {
        let world = &self.world;
        world.sleep(begins).await;
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        self.count(&fault);
        match fault {
            Fault::Kill(server) => {
                world.kill(&server);
                world.sleep(lasts).await;
                self.revive(&server).await;
            }
            Fault::Pause(name) | Fault::PauseClient(name) => {
                world.pause(&name);
                world.sleep(lasts).await;
                world.resume(&name);
            }
            Fault::KillClient(client) => {
                world.kill(&client);
                world.sleep(lasts).await;
                self.revive_client(&client, &mut random);
            }
            Fault::Network(part, rule) => {
                let _guard = part.add(world, rule);
                world.sleep(lasts).await;
            }
            Fault::Away(whom) => {
                let until = world.now() + lasts;
                self.shared.lock().trouble.cut(whom.as_deref(), until);
            }
            Fault::Skew(server, per_million) => {
                world.skew(&server, per_million);
                world.sleep(lasts).await;
                world.skew(&server, 0);
            }
            Fault::Jump(server, ahead) => world.jump(&server, ahead),
            Fault::Drain(server) => {
                world.drain(&server);
                world.sleep(lasts).await;
                if !self.stop.load(Ordering::Relaxed) {
                    world.kill(&server);
                    self.revive(&server).await;
                }
            }
        }
    }

    fn count(&self, fault: &Fault) {
        let inside = &mut *self.shared.lock();
        let open = inside.database.open() as u64;
        let counts = &mut inside.database.ledger.counts;
        match fault {
            Fault::Kill(_) => counts.killed_mid_call += u64::from(open > 0),
            Fault::Pause(_) => counts.paused_mid_call += u64::from(open > 0),
            _ => {}
        }
    }

    /// Stops the run as soon as a promise is broken; and replies are bounded at any time: each server
    /// counts what it writes, and what the others do now and then.
    async fn watch(self) {
        loop {
            let broken = self.look();
            self.world.state().accuse(broken.map_or(Ok(()), Err));
            self.world.sleep(millis(20)).await;
        }
    }

    fn look(&self) -> Option<Violation> {
        let now = self.world.now();
        let database = &mut self.shared.lock().database;
        database.settle(now);
        let most = self.plan.kept_replies.map(|most| most * self.plan.servers.len() as u64);
        let kept = database.committed.kept();
        if let Some(most) = most.filter(|most| kept > *most) {
            let what = format!("{kept} bytes of replies are kept, and {most} may be");
            database.ledger.accuse("memory", now, what);
        }
        database.ledger.violation()
    }

    async fn heal(&self, random: &mut Random) {
        let world = &self.world;
        world.network().heal();
        self.shared.lock().trouble.heal();
        for name in self.plan.servers.iter().chain(&self.plan.clients) {
            world.resume(name);
            world.skew(name, 0);
        }
        for client in &self.plan.clients {
            self.revive_client(client, random);
        }
        for server in &self.plan.servers {
            if world.drains(server) {
                world.kill(server);
            }
            self.revive(server).await;
        }
        // What was left to itself ends within this time.
        world.sleep(self.plan.idle).await;
        let mut state = world.state();
        let now = state.now;
        state.calls.liveness.healed(now);
    }

    /// Waits until every call has resolved, as long as that may take.
    async fn settle(&self) {
        let begun = self.world.now();
        let open = || self.world.state().calls.liveness.open() > 0;
        while self.world.now().since(begun) < BOUND && open() {
            self.world.sleep(millis(20)).await;
        }
        let now = self.world.now();
        self.world.state().calls.check_liveness(now);
        // And what nobody waits for, and copies that are late.
        self.world.sleep(BOUND).await;
    }

    fn judge(&self) -> CompletionCounts {
        let now = self.world.now();
        let moved = self.world.state().moves_mid_call;
        let counts = {
            let database = &mut self.shared.lock().database;
            database.settle(now);
            let open = database.open();
            if open > 0 {
                let what = format!("{open} transactions are open though nothing is wrong any more");
                database.ledger.accuse("liveness", now, what);
            }
            database.ledger.judge_all(now);
            let removed = database.committed.removed.len() as u64;
            CompletionCounts { moved, removed, ..database.ledger.counts }
        };
        let broken = self.look();
        self.world.state().accuse(broken.map_or(Ok(()), Err));
        counts
    }
}
