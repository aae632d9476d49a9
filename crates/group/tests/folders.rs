//! What a node has promised is in its folder: it is believed with no other one.

mod common;

use common::node;
use common::replicas::Replicas;
use stubborn_core::service::Machines;
use stubborn_group::replica::{Fault, Roster, Seat, Settings};
use stubborn_group::replication::{Durable, FolderId, Members, NodeId};

fn folder(number: u64) -> FolderId {
    FolderId::new(number).expect("it is not 0")
}

fn roster() -> Roster {
    let seat = |number: u64| Seat { address: format!("n{number}:1"), key: vec![number as u8; 32] };
    Roster::of((1..=3).map(|number| (node(number), seat(number))))
}

/// Three replicas, each with the folder of its number.
fn group(settings: Settings) -> Replicas {
    let mut group = Replicas::new(3, settings, Machines::new);
    for number in 1..=3 {
        let replica = &mut group.get(node(number)).replica;
        replica.begin_with(roster());
        replica.in_folder(folder(number));
    }
    group.elect();
    group.run(2_000);
    group
}

/// With which folder each node has begun, as this one knows.
fn begun(group: &mut Replicas, by: NodeId) -> Vec<Option<FolderId>> {
    let roster = group.get(by).replica.roster();
    (1..=3).map(|number| roster.folder(node(number))).collect()
}

#[test]
fn every_replica_learns_with_which_folder_each_has_begun() {
    let mut group = group(Settings::default());
    for number in 1..=3 {
        assert_eq!(begun(&mut group, node(number)), [1, 2, 3].map(|n| Some(folder(n))));
    }
}

#[test]
fn a_node_that_comes_back_with_an_empty_folder_stops_and_the_others_go_on() {
    let mut group = group(Settings::default());
    let lost = (1..=3).map(node).find(|id| Some(*id) != group.leader()).expect("a follower");
    let empty = Durable::new_group(Members::of([1, 2, 3].map(node)));
    group.start(lost, empty, Machines::new());
    group.get(lost).replica.in_folder(folder(9));
    group.run(1_000);
    assert_eq!(group.get(lost).replica.fault(), Some(&Fault::OtherFolder));
    let leader = group.leader().expect("two of three");
    assert_eq!(begun(&mut group, leader), [1, 2, 3].map(|n| Some(folder(n))));
}

#[test]
fn a_node_that_comes_back_with_its_folder_is_let_in() {
    let mut group = group(Settings::default());
    let leader = group.leader().expect("it was elected");
    group.restart(leader, Machines::new());
    group.get(leader).replica.in_folder(folder(leader.get()));
    group.run(2_000);
    assert_eq!(group.get(leader).replica.fault(), None);
    assert_eq!(group.get(leader).replica.leader(), group.leader());
}

#[test]
fn a_group_of_an_earlier_version_writes_nothing_of_folders() {
    let mut group = group(Settings { version: 3, ..Settings::default() });
    assert_eq!(begun(&mut group, node(1)), [None; 3]);
}
