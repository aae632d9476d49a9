//! One run of a group of whole nodes: everything that can go wrong, then a world in which nothing is
//! wrong any more, where every call has to end and all replicas agree.

use std::time::Duration;

use stubborn_core::limits::{Concurrency, Limits};
use stubborn_core::random::Random;
use stubborn_group::replica::Settings;
use stubborn_group::replication::{self, Members, NodeId};

use super::NodeCounts;
use super::client::{Client, Manners};
use super::cluster::{Cluster, Habits};
use super::invariants::permitted;
use super::operator::{Operator, Wishes};
use super::watcher::Watcher;
use crate::network::Guard;
use crate::nodes::{Nodes, Trouble, host, rule};
use crate::world::{World, millis, secs};

/// After the faults are lifted every call ends within this time, and the replicas agree.
const BOUND: Duration = secs(15);

/// Runs the scenario of the world's seed.
pub(super) async fn scenario(world: World) -> NodeCounts {
    let mut random = world.random();
    let habits = habits(&mut random);
    let voters = if random.chance(0.6) { 3 } else { 5 };
    let spare = if random.chance(0.4) { 1 + random.below(2) } else { 0 };
    let operated = has_operator(world.seed());
    let spare = if operated { 0 } else { spare };
    let nodes: Vec<NodeId> = (1..=voters + spare).filter_map(NodeId::new).collect();
    let first = Members::of(nodes[..voters as usize].iter().copied());
    let cluster = Cluster::new(world.clone(), habits, random.fork());
    let reserve = cluster.habits.damage.then(|| NodeId::new(voters + spare + 1)).flatten();
    if operated {
        cluster.operate(&nodes);
    }
    cluster.start(&nodes, reserve.filter(|_| !operated), &first);
    if operated {
        world.spawn(operator(&cluster, voters + 1, &mut random).run());
    }
    let clients = 1 + random.below(4);
    let copies = random.chance(0.5);
    for id in 1..=clients {
        let crashes = random.chance(0.3);
        let hands = if random.chance(0.5) { 1 } else { 2 + random.below(3) };
        let manners = Manners {
            reads: random.unit() * 0.6,
            registers: random.unit(),
            pause: hands + hands * random.below(40_000),
            impatient: random.unit() * 0.5,
            // Ids are known no longer than sessions, and not before the last member is upgraded.
            twice: match cluster.habits.expires || cluster.habits.upgrades {
                true => 0.0,
                false => random.unit() - 0.3,
            },
            hands,
        };
        let client = Client::new(cluster.clone(), id, manners);
        if copies {
            world.spawn(deafen(client.clone(), random.fork()));
        }
        if cluster.habits.expires && random.chance(0.7) {
            world.spawn(outlast(client.clone(), random.fork()));
        }
        if crashes {
            world.spawn(client.run_and_crash(random.fork()));
        } else {
            world.spawn(client.run());
        }
    }
    let weather: Vec<Guard> =
        (0..random.below(3)).map(|_| world.network().add(rule(&mut random, true))).collect();
    let length = Duration::from_millis(2_000 + random.below(8_000));
    for _ in 0..1 + random.below(10) {
        let begins = Duration::from_millis(random.below(length.as_millis() as u64));
        let trouble = Trouble { nodes: cluster.clone(), random: random.fork(), corrupts: true };
        world.spawn(trouble.run(begins, else_));
    }
    if cluster.habits.damage {
        let (cluster, node) = (cluster.clone(), nodes[random.below(voters) as usize]);
        world.after(length.mul_f64(random.unit())).run(move |_| {
            cluster.lock().to_damage = Some(node);
        });
    }
    let watchers = random.below(3);
    for id in clients + 1..=clients + watchers {
        let takes = if random.chance(0.3) { millis(random.below(100)) } else { Duration::ZERO };
        let watcher = Watcher::new(cluster.clone(), id, takes, random.unit() * 0.02);
        world.spawn(watcher.run());
    }
    world.sleep(length).await;
    drop(weather);
    heal(&cluster);
    settle(&cluster, clients + watchers + u64::from(operated)).await;
    let moved = world.state().moves_mid_call;
    let counts = cluster.lock().counts;
    NodeCounts { moved, ..counts }
}

/// The seeds, modulo 8, of groups whose members are changed by an operator, with calls, and not by
/// hand. Seeds are chosen by number so that the others remain what they were.
const OPERATED: [u64; 3] = [4, 6, 7];

fn has_operator(seed: u64) -> bool {
    OPERATED.contains(&(seed % 8))
}

/// The seed at this place among those from `first` on that have an operator.
pub(super) fn operated_seed(first: u64, place: u64) -> u64 {
    let place = OPERATED.len() as u64 * (first / 8) + place;
    place / 3 * 8 + OPERATED[(place % 3) as usize]
}

fn operator(cluster: &Cluster, next: u64, random: &mut Random) -> Operator {
    let wipes = !cluster.habits.damage && random.chance(0.3);
    let manners = Wishes {
        pause: 100 + random.below(3_000),
        wipes,
        least: if wipes || cluster.habits.damage { 3 } else { 1 },
        replaces_all: random.chance(0.5),
    };
    Operator::new(cluster.clone(), next, manners, random.fork())
}

/// Lets a client again and again hear nothing of the replica that its session is with, which goes on
/// hearing it: what it sends there it then sends to another one too.
async fn deafen(client: Client, mut random: Random) {
    let world = client.cluster.world.clone();
    while !client.cluster.is_healed() {
        world.sleep(millis(100 + random.below(1_500))).await;
        let Some(home) = client.caller.home() else { continue };
        let deaf = world.network().one_way(&home, &Client::host(client.id)).cut();
        world.sleep(millis(200 + random.below(1_000))).await;
        drop(deaf);
    }
}

/// Cuts a client off again and again until its session may have expired, with whatever it has under way.
async fn outlast(client: Client, mut random: Random) {
    let (world, name) = (client.cluster.world.clone(), Client::host(client.id));
    let retention = client.cluster.habits.settings.limits.retention;
    while !client.cluster.is_healed() {
        world.sleep(millis(500 + random.below(2_500))).await;
        let silence = world.network().host(&name).cut();
        world.sleep(retention + millis(random.below(2_000))).await;
        drop(silence);
    }
}

fn habits(random: &mut Random) -> Habits {
    let consensus =
        replication::Settings { keep: random.below(20), ..replication::Settings::default() };
    let few = random.chance(0.2);
    let steady = random.chance(0.5);
    let expires = random.chance(0.25);
    let retention =
        if expires { millis(500 + random.below(3_000)) } else { Limits::default().retention };
    let settings = Settings {
        consensus,
        limits: Limits { sessions: 64, slots: 16, retention, ..Limits::default() },
        snapshot_entries: 5 + random.below(200),
        pending: if few { 1 + random.below(3) as usize } else { 1_024 },
        lease: steady && random.chance(0.5),
        // Small enough that snapshots, and some entries, travel in many pieces.
        piece_bytes: 200 << random.below(8),
        ..Settings::default()
    };
    Habits {
        steady,
        upgrades: random.chance(0.5),
        permissions: random.chance(0.4),
        expires,
        sync: Duration::from_micros(100 + random.below(8_000)),
        slow_syncs: if random.chance(0.2) { random.unit() * 0.05 } else { 0.0 },
        faults: if random.chance(0.5) { random.unit() } else { 0.0 },
        damage: random.chance(0.25),
        places: Concurrency::ADAPTIVE,
        settings,
    }
}

pub(super) fn heal(cluster: &Cluster) {
    {
        let mut shared = cluster.lock();
        shared.healed = true;
        shared.order = None;
        shared.to_damage = None;
    }
    cluster.world.network().heal();
    cluster.heal_disks();
    for id in cluster.nodes() {
        cluster.world.skew(&host(id), 0);
        cluster.world.resume(&host(id));
        cluster.restart(id);
    }
}

/// Waits until every call has ended and all replicas agree.
pub(super) async fn settle(cluster: &Cluster, clients: u64) {
    // What an operator does has bounds of its own.
    while cluster.is_operated() {
        cluster.world.sleep(millis(20)).await;
    }
    let begun = cluster.world.now();
    while cluster.world.now().since(begun) < BOUND {
        let done = waiting(cluster, clients) == 0;
        if let Some((index, ledger)) = done.then(|| cluster.agreed()).flatten() {
            let replay = |log| cluster.replay(log);
            let verdict = cluster.lock().judge.at_rest(&ledger, index, replay);
            let permitted =
                if cluster.habits.permissions { permitted::at_rest(&ledger) } else { Ok(()) };
            return cluster.judge(verdict.and(permitted).and(cluster.one_of_copies()));
        }
        cluster.world.sleep(millis(20)).await;
    }
    let open = waiting(cluster, clients);
    let standings = cluster.standings();
    let what = format!(
        "{open} clients wait, or the replicas do not agree, {BOUND:?} after healing:{standings}"
    );
    cluster.judge(Err(("liveness", what)));
}

/// How many clients have something to do yet.
fn waiting(cluster: &Cluster, clients: u64) -> u64 {
    let shared = cluster.lock();
    clients + shared.copies.len() as u64 - shared.clients_done.len() as u64
}

/// Cuts a node, and the clients that are on its side, off from all others.
fn side(trouble: &mut Trouble<Cluster>) -> Guard {
    let mut names = vec![host(trouble.node())];
    for client in (1..=4).map(|client| format!("client-{client}")) {
        if trouble.random.chance(0.5) && trouble.nodes.world.knows(&client) {
            names.push(client);
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    trouble.nodes.lock().counts.partitions += 1;
    trouble.nodes.world.network().across(&names).cut()
}

/// What goes wrong here and not where consensus runs alone: clocks, and clients that are cut off.
fn else_(trouble: &mut Trouble<Cluster>, lasts: Duration) -> Option<Guard> {
    let world = trouble.nodes.world.clone();
    if trouble.random.chance(0.5) {
        let name = format!("client-{}", 1 + trouble.random.below(4));
        return world.knows(&name).then(|| world.network().host(&name).cut());
    }
    if trouble.nodes.habits.steady {
        return Some(side(trouble));
    }
    // A clock that goes at half to three times its speed, or jumps.
    let name = host(trouble.node());
    match trouble.random.below(3) {
        0 => world.jump(&name, lasts),
        1 => world.jump_back(&name, lasts),
        _ => world.skew(&name, trouble.random.below(2_500_000) as i32 - 500_000),
    }
    None
}
