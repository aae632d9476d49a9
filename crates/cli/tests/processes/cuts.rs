//! The cuts of the OmniPaxos paper (Ng et al., EuroSys 2023, section 2), as
//! `crates/sim/src/groups/cuts.rs` makes them in the simulator: links between nodes are lost so that
//! most of them cannot speak to most others. The group goes on serving, since its nodes relay for one
//! another. How long the first change took is printed, and judged by nobody: the machine may be busy
//! with other things.

use std::time::{Duration, Instant};

use crate::world::World;

/// What a node has for an election timeout by default, at least.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(100);

/// First commits should come within so many of them.
const TIMEOUTS: u32 = 5;

/// A test that waits for longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Cuts a group that has got on, and sees it get on with the cut and without it.
fn serves_on(name: &str, size: usize, cut: impl FnOnce(&mut World, &[usize])) {
    let mut world = World::new(size);
    world.progress();
    let leader = world.cluster.leader();
    // The leader first, then the others by their numbers.
    let line: Vec<usize> = (0..size).map(|step| (leader + step) % size).collect();
    cut(&mut world, &line);
    let at = Instant::now();
    let first = world.first_change_after(at);
    let timeouts = first.as_secs_f64() / ELECTION_TIMEOUT.as_secs_f64();
    println!("{name}, {size} nodes: first commit after {first:?}, {timeouts:.2} election timeouts");
    if first > ELECTION_TIMEOUT * TIMEOUTS {
        // How it stands now may say why.
        println!("{}", world.cluster.evidence());
    }
    world.progress();
    // Nodes go on trying.
    while !world.cluster.network.cuts_are_felt() {
        assert!(at.elapsed() < HANGS, "a cut is passed by:\n{}", world.cluster.evidence());
        std::thread::yield_now();
    }
    world.cluster.network.heal();
    world.cluster.revive();
    world.progress();
    world.judge(0);
}

/// Cuts all links but those of one node.
fn leave_star(world: &World, line: &[usize], hub: usize) {
    for (at, a) in line.iter().enumerate() {
        for b in line[at + 1..].iter().filter(|b| **b != hub && *a != hub) {
            world.cluster.network.cut_between(*a, *b);
        }
    }
}

#[test]
fn a_cluster_serves_on_where_only_a_node_that_does_not_lead_reaches_a_majority() {
    for size in [3, 5] {
        serves_on("quorum loss", size, |world, line| leave_star(world, line, line[1]));
    }
}

#[test]
fn a_cluster_serves_on_where_the_leader_is_dead_and_the_only_node_that_reaches_a_majority_lags() {
    for size in [3, 5] {
        serves_on("constrained", size, |world, line| {
            let (leader, hub) = (line[0], line[1]);
            // The hub misses some changes, which the others have when the leader dies.
            world.cluster.network.cut_off(hub);
            world.progress();
            world.cluster.kill(leader);
            world.cluster.network.heal();
            leave_star(world, line, hub);
        });
    }
}

#[test]
fn a_cluster_serves_on_as_a_chain_with_its_leader_at_one_end() {
    for size in [3, 5] {
        serves_on("chained", size, |world, line| {
            for (at, a) in line.iter().enumerate() {
                for b in line.iter().skip(at + 2) {
                    world.cluster.network.cut_between(*a, *b);
                }
            }
        });
    }
}
