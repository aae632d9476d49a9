//! Exactly once with real processes: nodes are killed, paused, cut off and started again under load,
//! some at a time and all at once; each call has run once, each caller knows it, and a read never
//! goes back.
//!
//! What happens is drawn from `STUBBORN_SEED`. It goes on for twelve misfortunes, or for
//! `STUBBORN_SECONDS`:
//! `STUBBORN_SECONDS=180 cargo test --release -p stubborn-cli --test processes torment`. Where the
//! cluster stands still, what its nodes and its network say of themselves is printed.

use std::time::{Duration, Instant};

use crate::world::World;

/// Misfortunes of a run for which no time was given.
const MISFORTUNES: usize = 12;

/// Does something to these nodes, undoes it when the callers have got on without them, and waits until
/// they have again.
fn suffer(world: &mut World, misfortune: Misfortune, nodes: &[usize]) {
    let cluster = &mut world.cluster;
    match misfortune {
        Misfortune::Kill => nodes.iter().for_each(|node| cluster.kill(*node)),
        Misfortune::Pause => nodes.iter().for_each(|node| cluster.signal(*node, "-STOP")),
        Misfortune::CutOff => nodes.iter().for_each(|node| cluster.network.cut_off(*node)),
    }
    let without = world.progress();
    let cluster = &mut world.cluster;
    match misfortune {
        Misfortune::Kill => nodes.iter().for_each(|node| cluster.restart(*node)),
        Misfortune::Pause => nodes.iter().for_each(|node| cluster.signal(*node, "-CONT")),
        Misfortune::CutOff => cluster.network.heal(),
    }
    let with = world.progress();
    // Shown if the test fails.
    eprintln!("  the callers got on in {without:?} without them, and in {with:?} with them");
}

#[derive(Clone, Copy, Debug)]
enum Misfortune {
    Kill,
    Pause,
    CutOff,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Random misfortunes to less than half of the nodes, the leader among them half of the time, and
/// now and then the death of all at once.
fn torment(nodes: usize, seed: u64) {
    let mut world = World::new(nodes);
    let mut dice = Dice(setting("STUBBORN_SEED").unwrap_or(seed));
    let until = setting("STUBBORN_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    world.progress();
    for round in 0.. {
        if until.map_or(round >= MISFORTUNES, |until| Instant::now() >= until) {
            break;
        }
        let kinds = [Misfortune::Kill, Misfortune::Pause, Misfortune::CutOff];
        let (kind, count) = (kinds[dice.below(3)], 1 + dice.below(nodes.div_ceil(2) - 1));
        let first = if dice.below(2) == 0 { world.cluster.leader() } else { dice.below(nodes) };
        let all: Vec<usize> = (0..count).map(|next| (first + next) % world.cluster.len()).collect();
        eprintln!("round {round}: {kind:?} of {all:?}, after {} changes", world.changes());
        suffer(&mut world, kind, &all);
        if round % 5 == 4 {
            world.cluster.kill_all();
            world.progress();
        }
    }
    world.judge(0);
}

#[test]
fn each_call_runs_once_though_nodes_are_killed_and_paused_one_by_one_and_all_at_once() {
    let mut world = World::new(3);
    world.progress();
    for victim in 0..5 {
        // Each node in turn, and the leader twice.
        let node = if victim < 3 { victim } else { world.cluster.leader() };
        suffer(&mut world, Misfortune::Kill, &[node]);
    }
    for misfortune in [Misfortune::Pause, Misfortune::CutOff] {
        let leader = world.cluster.leader();
        suffer(&mut world, misfortune, &[leader]);
    }
    world.cluster.kill_all();
    world.progress();
    world.judge(0);
}

#[test]
fn each_call_runs_once_though_three_nodes_are_tormented_at_random() {
    torment(3, 1);
}

#[test]
fn each_call_runs_once_though_five_nodes_are_tormented_at_random_two_at_a_time() {
    torment(5, 2);
}
