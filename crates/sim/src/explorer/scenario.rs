//! One run of the explorer: servers, clients, everything that can go wrong, then a world in which
//! nothing is wrong any more and every call has to resolve.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::service::Registry;

use super::client::{Habits, Worker};
use super::faults::{Dice, Episode, Fault};
use super::hostile::{Hostile, lie};
use super::probe::Probe;
use super::rolling::Rolling;
use super::streaming::{Mirror, streamers};
use super::unwell::{Ailments, Unwell};
use crate::oracle::BOUND;
use crate::world::{SimCaller, World, millis, secs};

/// What a run is made of.
struct Plan {
    servers: Vec<String>,
    clients: Vec<ClientPlan>,
    length: Duration,
    episodes: Vec<Episode>,
    /// Whether to wait for copies that are minutes late.
    wait_for_stragglers: bool,
    kept_reply: usize,
    /// Whether a client is among them that keeps to no rule.
    hostile: bool,
    unwell: Unwell,
}

#[derive(Clone)]
struct ClientPlan {
    name: String,
    certified: bool,
    slots: u32,
    workers: u64,
    habits: Habits,
    /// Which server it uses first.
    first: usize,
}

/// Runs the scenario of the world's seed.
pub(super) async fn scenario(world: World) {
    let mut random = world.random();
    let mut plan = Plan::draw(world.seed(), &mut random);
    plan.configure(&world, &mut random);
    let ailments = Ailments::default();
    for server in &plan.servers {
        let (probe, name) = (world.clone(), server.clone());
        let ailments = ailments.clone();
        world.host_with(server, move || {
            let mut services = Registry::new();
            let service = Probe::new(probe.clone(), &name, ailments.clone());
            services.add(Arc::new(service)).expect("another name");
            let service = Mirror::new(probe.clone(), &name, ailments.clone());
            services.add(Arc::new(service)).expect("another name");
            services
        });
    }
    let (stop, callers) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let crew = Crew { world: world.clone(), stop, ailments, callers };
    let _weather: Vec<_> = plan.weather(&world, &mut random);
    for client in &plan.clients {
        world.client(&client.name);
        crew.man(client, &plan.servers, &mut random);
    }
    if plan.hostile {
        let server = &plan.servers[random.below(plan.servers.len() as u64) as usize];
        world.client("hostile");
        let hostile = Hostile::new(&world, "hostile", server, random.fork());
        world.spawn(hostile.run());
    }
    for episode in plan.episodes.clone() {
        let (run, client) = (crew.clone(), plan.clients.clone());
        let (servers, random) = (plan.servers.clone(), random.fork());
        world.spawn(async move { run.play(episode, &client, &servers, random).await });
    }
    world.sleep(plan.length).await;
    crew.stop.store(true, Ordering::Relaxed);
    plan.heal(&world);
    settle(&world).await;
    if plan.wait_for_stragglers {
        world.sleep(secs(620)).await;
    }
}

/// Waits until every call has resolved, as long as that may take.
async fn settle(world: &World) {
    let begun = world.now();
    while world.now().since(begun) < BOUND && world.state().calls.liveness.open() > 0 {
        world.sleep(millis(20)).await;
    }
    let mut state = world.state();
    let now = state.now;
    state.calls.check_liveness(now);
}

impl Plan {
    fn draw(seed: u64, random: &mut Random) -> Self {
        let (mut rolling, mut unwell) = (Rolling::draw(seed), Unwell::draw(seed));
        let several = random.below(2);
        let more = u64::from(rolling.third) + unwell.more_servers;
        let count = 1 + several + several * more;
        let servers: Vec<String> = (0..count).map(|number| format!("server-{number}")).collect();
        let kept_reply = if random.chance(0.3) { 4_096 } else { 64 << 10 };
        let clients: Vec<ClientPlan> = (0..1 + random.below(4))
            .map(|number| ClientPlan::draw(number, servers.len(), kept_reply, random))
            .collect();
        let length = Duration::from_millis(2_000 + random.below(28_000));
        let names: Vec<String> = clients.iter().map(|client| client.name.clone()).collect();
        let mut dice = Dice { random, servers: &servers, clients: &names };
        let mut episodes: Vec<Episode> =
            (0..1 + dice.random.below(8)).map(|_| dice.episode(length)).collect();
        episodes.extend(rolling.episodes(&servers, length));
        episodes.extend(unwell.episodes(&servers, &names, length));
        let wait_for_stragglers = random.chance(0.3);
        let hostile = random.chance(0.5);
        Self {
            servers,
            clients,
            length,
            episodes,
            wait_for_stragglers,
            kept_reply,
            hostile,
            unwell,
        }
    }

    fn configure(&mut self, world: &World, random: &mut Random) {
        let seed = world.seed();
        world.configure(|endpoint| {
            super::overload::draw(seed, &mut endpoint.limits);
            self.unwell.limit(&mut endpoint.limits);
            endpoint.limits.kept_reply = self.kept_reply;
            endpoint.always_retry = random.chance(0.2);
            endpoint.ecn = random.chance(0.8);
            if random.chance(0.3) {
                endpoint.idle_timeout = Duration::from_secs(5 + random.below(1_200));
            }
            if random.chance(0.3) {
                endpoint.key_update_after = 20 + random.below(500);
            }
            if random.chance(0.3) {
                endpoint.limits.slots = 1 + random.below(16) as u32;
            }
            if random.chance(0.2) {
                endpoint.limits.receive_window = 40_000 + random.below(200_000);
                endpoint.limits.send_window = 40_000 + random.below(200_000);
            }
            if random.chance(0.2) {
                // Parts of messages on connections that are dead but not timed out count too.
                endpoint.limits.assembly = endpoint.limits.assembly.min(8_000_000);
                endpoint.limits.connections = 40;
                endpoint.limits.handshakes_before_retry = 4;
            }
            if random.chance(0.2) {
                endpoint.max_segments = 1;
            }
        });
    }

    /// Rules that hold until everything heals.
    fn weather(&self, world: &World, random: &mut Random) -> Vec<crate::network::Guard> {
        let names: Vec<String> = self.clients.iter().map(|client| client.name.clone()).collect();
        let count = random.below(4);
        let mut dice = Dice { random, servers: &self.servers, clients: &names };
        (0..count).map(|_| world.network().add(dice.rule())).collect()
    }

    fn heal(&self, world: &World) {
        world.network().heal();
        let clients = self.clients.iter().map(|client| &client.name);
        for name in self.servers.iter().chain(clients) {
            world.restart(name);
            world.resume(name);
            world.slow(name, Duration::ZERO);
            world.skew(name, 0);
        }
        for server in &self.servers {
            if world.drains(server) {
                world.kill(server);
                world.restart(server);
            }
            world.limit_slots(server, u32::MAX);
        }
        let mut state = world.state();
        let now = state.now;
        state.calls.liveness.healed(now);
    }
}

impl ClientPlan {
    fn draw(number: u64, servers: usize, kept_reply: usize, random: &mut Random) -> Self {
        let largest = match random.below(10) {
            0 => 300_000,
            1 | 2 => 50_000,
            _ => 6_000,
        };
        Self {
            name: format!("client-{number}"),
            certified: random.chance(0.3),
            slots: 1 + random.below(32) as u32,
            workers: 1 + random.below(6),
            habits: Habits {
                pause: Duration::from_micros(1_000 + random.below(300_000)),
                large: random.unit() * 0.1,
                largest,
                deadlines: random.unit() * 0.6,
                drops: random.unit() * 0.2,
                kept_reply,
            },
            first: random.below(servers as u64) as usize,
        }
    }
}

/// The channels of clients in their present lives, by the client's name, and which servers they were made
/// for.
type Callers = BTreeMap<String, (SimCaller, Vec<String>)>;

/// Who works, and until when.
#[derive(Clone)]
struct Crew {
    world: World,
    stop: Arc<AtomicBool>,
    ailments: Ailments,
    callers: Arc<Mutex<Callers>>,
}

impl Crew {
    /// Starts a client's workers.
    fn man(&self, plan: &ClientPlan, servers: &[String], random: &mut Random) {
        let caller = self.caller(plan, servers);
        let known = (caller.clone(), servers.to_vec());
        self.callers.lock().expect("nobody panicked").insert(plan.name.clone(), known);
        for _ in 0..plan.workers {
            let worker = Worker {
                world: self.world.clone(),
                caller: caller.clone(),
                habits: plan.habits.clone(),
                random: random.fork(),
                stop: Arc::clone(&self.stop),
            };
            self.world.spawn_on(&plan.name, worker.run());
        }
        for streamer in streamers(&self.world, &plan.name, &caller, &plan.habits, &self.stop) {
            self.world.spawn_on(&plan.name, streamer.run());
        }
    }

    fn caller(&self, plan: &ClientPlan, servers: &[String]) -> SimCaller {
        let mut order: Vec<&str> = servers.iter().map(String::as_str).collect();
        order.rotate_left(plan.first);
        let certified = plan.certified.then(|| self.world.certified(&plan.name));
        self.world.caller(&plan.name, &order, |config| {
            config.slots = plan.slots;
            config.service = super::spreading::draw(self.world.seed(), &plan.name);
            if let Some(tls) = certified {
                config.tls = tls;
            }
        })
    }

    /// Lets something go wrong for a while.
    async fn play(
        self,
        episode: Episode,
        clients: &[ClientPlan],
        servers: &[String],
        mut random: Random,
    ) {
        let world = &self.world;
        world.sleep(episode.begins).await;
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        match episode.fault {
            Fault::Rule(part, rule) => {
                let _guard = part.add(world, rule);
                world.sleep(episode.lasts).await;
            }
            Fault::Attack(kinds, every) => {
                let _guard = world.network().attack(every, &kinds);
                world.sleep(episode.lasts).await;
            }
            Fault::Kill(name) => {
                world.kill(&name);
                world.sleep(episode.lasts).await;
                self.revive(&name, clients, servers, &mut random);
            }
            Fault::Pause(name) => {
                world.pause(&name);
                world.sleep(episode.lasts).await;
                world.resume(&name);
            }
            Fault::Slow(name, by) => {
                world.slow(&name, by);
                world.sleep(episode.lasts).await;
                world.slow(&name, Duration::ZERO);
            }
            Fault::Skew(name, per_million) => {
                world.skew(&name, per_million);
                world.sleep(episode.lasts).await;
                world.skew(&name, 0);
            }
            Fault::Jump(name, ahead) => world.jump(&name, ahead),
            Fault::JumpBack(name, by) => world.jump_back(&name, by),
            Fault::Rebind(name) => world.network().rebind(&name),
            Fault::Drain(name) => {
                world.drain(&name);
                world.sleep(episode.lasts).await;
                world.kill(&name);
                world.sleep(millis(100)).await;
                world.restart(&name);
            }
            Fault::Ail(server, ailment) => {
                let until = world.now() + episode.lasts;
                self.ailments.begin(&server, ailment, until);
            }
            Fault::Lie(server) => {
                let end = world.now() + episode.lasts;
                lie(world.clone(), server.clone(), random, end).await;
                world.restart(&server);
            }
            Fault::Retarget(client) => self.retarget(&client, episode.lasts, random).await,
            Fault::FewSlots(name, limit) => {
                world.limit_slots(&name, limit);
                world.sleep(episode.lasts).await;
                world.limit_slots(&name, u32::MAX);
            }
        }
    }

    /// Leads a client's channel to other servers several times, and to all of them in the end.
    async fn retarget(&self, client: &str, lasts: Duration, mut random: Random) {
        let times = 1 + random.below(4) as u32;
        for _ in 0..times {
            self.lead(client, |all| {
                let count = all.len() as u64;
                all.rotate_left(random.below(count) as usize);
                all.truncate(1 + random.below(count) as usize);
            });
            self.world.sleep(lasts / times).await;
        }
        self.lead(client, |_| {});
    }

    fn lead(&self, client: &str, change: impl FnOnce(&mut Vec<&str>)) {
        let found = self.callers.lock().expect("nobody panicked").get(client).cloned();
        let Some((caller, servers)) = found.filter(|_| self.world.is_alive(client)) else { return };
        let mut targets: Vec<&str> = servers.iter().map(String::as_str).collect();
        change(&mut targets);
        caller.retarget(&targets);
    }

    fn revive(&self, name: &str, clients: &[ClientPlan], servers: &[String], random: &mut Random) {
        if self.world.is_alive(name) {
            return;
        }
        self.world.restart(name);
        let client = clients.iter().find(|client| client.name == name);
        if let Some(client) = client.filter(|_| !self.stop.load(Ordering::Relaxed)) {
            self.man(client, servers, random);
        }
    }
}
