use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SILENCE: Duration = Duration::from_millis(100);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Nodes that greet each other every 20 ms where their link is not cut.
struct World {
    now: Instant,
    nodes: BTreeMap<NodeId, Overlay>,
    /// Who does not reach whom.
    cut: BTreeSet<(u64, u64)>,
}

impl World {
    fn new(count: u64) -> Self {
        let new = |id: u64| {
            let others = (1..=count).filter(|other| *other != id).map(node);
            (node(id), Overlay::new(Instant::ZERO, SILENCE, others))
        };
        Self { now: Instant::ZERO, nodes: (1..=count).map(new).collect(), cut: BTreeSet::new() }
    }

    /// Only these pairs reach each other.
    fn leave(&mut self, links: &[(u64, u64)]) {
        let ids: Vec<u64> = self.nodes.keys().map(|id| id.get()).collect();
        let pairs = ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b)));
        self.cut = pairs
            .filter(|(a, b)| a != b && !links.contains(&(*a, *b)) && !links.contains(&(*b, *a)))
            .collect();
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 20 {
            self.now += Duration::from_millis(20);
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for (from, to) in ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))) {
                if from != to && !self.cut.contains(&(from.get(), to.get())) {
                    let hello = self.nodes[&from].hello(self.now, to);
                    self.nodes.get_mut(&to).unwrap().greeted(self.now, to, from, &hello);
                }
            }
        }
    }

    fn relay(&self, from: u64, to: u64) -> Option<u64> {
        self.nodes[&node(from)].relay(self.now, node(to)).map(NodeId::get)
    }

    /// The nodes on the way from one to another.
    fn way(&self, from: u64, to: u64) -> Option<Vec<u64>> {
        let (mut at, mut way) = (from, Vec::new());
        while !self.nodes[&node(at)].is_direct(self.now, node(to)) {
            at = self.relay(at, to)?;
            way.push(at);
            assert!(way.len() <= usize::from(MOST_RELAYS), "a loop: {way:?}");
        }
        Some(way)
    }
}

#[test]
fn where_all_hear_all_nobody_is_relayed() {
    let mut world = World::new(5);
    world.pass(200);
    assert!((1..=5).all(|a| (1..=5).all(|b| a == b || world.relay(a, b).is_none())));
    assert!(world.nodes[&node(1)].is_direct(world.now, node(2)));
}

#[test]
fn a_neighbour_of_both_stands_between_two_that_are_cut_from_each_other() {
    let mut world = World::new(3);
    world.leave(&[(1, 2), (2, 3)]);
    world.pass(200);
    assert_eq!((world.way(1, 3), world.way(3, 1)), (Some(vec![2]), Some(vec![2])));
    assert_eq!(world.way(1, 2), Some(vec![]));
    world.leave(&[(1, 2), (2, 3), (1, 3)]);
    world.pass(40);
    assert_eq!(world.way(1, 3), Some(vec![]), "the direct way is back");
}

#[test]
fn a_link_that_works_one_way_is_no_link() {
    let mut world = World::new(3);
    world.cut.insert((1, 3));
    world.pass(200);
    assert_eq!((world.way(1, 3), world.way(3, 1)), (Some(vec![2]), Some(vec![2])));
    assert!(world.nodes[&node(1)].hears(world.now, node(3)), "3 is heard, and does not hear");
}

#[test]
fn the_ends_of_a_chain_of_five_reach_each_other_through_all_others() {
    let mut world = World::new(5);
    world.leave(&[(1, 2), (2, 3), (3, 4), (4, 5)]);
    world.pass(300);
    assert_eq!(world.way(1, 5), Some(vec![2, 3, 4]));
    assert_eq!(world.way(4, 1), Some(vec![3, 2]));
}

#[test]
fn a_node_that_nobody_hears_is_soon_sought_no_more() {
    let mut world = World::new(5);
    world.leave(&[(1, 2), (2, 3), (1, 3), (3, 4)]);
    world.pass(300);
    assert_eq!((world.relay(1, 4), world.relay(1, 5)), (Some(3), None));
    world.leave(&[(1, 2), (2, 3), (1, 3)]);
    world.pass(260);
    assert_eq!(world.relay(1, 4), None, "distances do not count to infinity");
}

proptest! {
    #[test]
    fn in_any_network_ways_end_and_lead_to_whoever_is_near_enough(
        links in prop::collection::vec((1_u64..=6, 1_u64..=6), 0..14)
    ) {
        let mut world = World::new(6);
        world.leave(&links);
        world.pass(500);
        for (from, to) in (1..=6).flat_map(|a| (1..=6).map(move |b| (a, b))) {
            let distance = distance(&links, from, to);
            let near = (1..=usize::from(MOST_RELAYS) + 1).contains(&distance);
            let way = if from == to { None } else { world.way(from, to) };
            prop_assert_eq!(way.map(|way| way.len() + 1), near.then_some(distance));
        }
    }

    #[test]
    fn no_hello_makes_a_node_panic(hello in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut overlay = Overlay::new(Instant::ZERO, SILENCE, [node(2), node(3)].into_iter());
        overlay.greeted(Instant::ZERO, node(1), node(2), &hello);
        overlay.hello(Instant::ZERO, node(3));
        overlay.relay(Instant::ZERO, node(3));
    }
}

/// The length of the shortest way, 0 if there is none.
fn distance(links: &[(u64, u64)], from: u64, to: u64) -> usize {
    let mut reached = BTreeSet::from([from]);
    for length in 1..6 {
        let next = reached.clone();
        for (a, b) in links {
            if next.contains(a) || next.contains(b) {
                reached.extend([*a, *b]);
            }
        }
        if reached.contains(&to) && from != to {
            return length;
        }
    }
    0
}
