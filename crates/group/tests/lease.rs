//! A leader that answers reads without a question never does so when another one may lead.

mod common;

use common::replicas::Replicas;
use stubborn_core::service::Machines;
use stubborn_group::replica::Settings;
use stubborn_group::replication::NodeId;

fn group(lease: bool) -> Replicas {
    let settings = Settings { lease, ..Settings::default() };
    Replicas::new(3, settings, Machines::new)
}

/// A group that has a leader with a lease, some time after its election.
fn settled(lease: bool, later: u64) -> (Replicas, NodeId) {
    let mut group = group(lease);
    let leader = group.elect();
    group.run(50 + later);
    read(&mut group, leader, 1);
    group.settle();
    assert_eq!(group.get(leader).answered, [1]);
    (group, leader)
}

fn read(group: &mut Replicas, id: NodeId, read: u64) {
    group.get(id).replica.read(read);
}

/// Whether a read is answered by this replica at once, with nobody to ask.
fn answers_alone(group: &mut Replicas, id: NodeId, number: u64) -> bool {
    group.cut.push(id);
    read(group, id, number);
    group.settle();
    group.cut.pop();
    group.get(id).answered.contains(&number)
}

#[test]
fn without_a_lease_no_read_is_answered_alone() {
    let (mut group, leader) = settled(false, 0);
    assert!(!answers_alone(&mut group, leader, 2));
}

#[test]
fn a_leader_that_was_just_heard_answers_alone_and_a_lone_one_soon_does_not() {
    let (mut group, leader) = settled(true, 0);
    assert!(answers_alone(&mut group, leader, 2));
    group.cut.push(leader);
    group.run(100);
    assert!(!answers_alone(&mut group, leader, 3));
}

#[test]
fn reads_that_keep_coming_keep_the_lease() {
    let (mut group, leader) = settled(true, 0);
    for number in 10..200 {
        group.run(3);
        assert!(answers_alone(&mut group, leader, number), "read {number}");
    }
}

#[test]
fn no_read_is_answered_by_an_old_leader_when_there_is_a_new_one() {
    let mut alone = 0;
    for later in 0..60 {
        // Followers whose clocks go faster than the leader's, by an eighth at most.
        for gains in [0, 60, 120] {
            let (mut group, old) = settled(true, later);
            group.all.iter_mut().filter(|(id, _)| **id != old).for_each(|(_, one)| {
                one.gains = gains;
            });
            group.run(later % 7);
            group.cut.push(old);
            for number in 0..500 {
                let answered = answers_alone(&mut group, old, 1_000 + number);
                alone += u64::from(answered);
                let new = group.leader();
                assert!(
                    !answered || new.is_none_or(|new| new == old),
                    "{later}, {gains}: {old} answered {number} ms after it was cut off, and \
                     {new:?} leads"
                );
                group.step();
            }
            assert!(group.leader().is_some_and(|new| new != old));
        }
    }
    assert!(alone > 1_000, "leases were used: {alone}");
}

#[test]
fn a_leader_that_has_asked_another_one_to_lead_answers_nothing_alone() {
    for later in 0..30 {
        let (mut group, old) = settled(true, later);
        let heir = *group.all.keys().find(|id| **id != old).unwrap();
        group.get(old).replica.transfer(heir).unwrap();
        group.settle();
        for number in 0..50 {
            assert!(!answers_alone(&mut group, old, 1_000 + number), "{later}, {number}");
            group.step();
        }
        assert_eq!(group.leader(), Some(heir));
    }
}

#[test]
fn a_follower_that_starts_again_does_not_vote_while_the_leader_counts_on_it() {
    for later in 0..30 {
        let (mut group, old) = settled(true, later);
        let others: Vec<NodeId> = group.all.keys().copied().filter(|id| *id != old).collect();
        // One follower is cut off and stands for election; the other one confirms the lease, then
        // forgets that it did.
        group.cut.push(others[0]);
        group.run(150 + later);
        read(&mut group, old, 2);
        group.step();
        group.cut = vec![old];
        group.restart(others[1], Machines::new());
        for number in 0..200 {
            let answered = answers_alone(&mut group, old, 1_000 + number);
            let new = group.leader();
            assert!(!answered || new.is_none(), "{later}: {new:?} leads after {number} ms");
            group.step();
        }
    }
}
