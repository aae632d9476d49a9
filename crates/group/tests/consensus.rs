//! Consensus behind its seam: what a group does, and what it refuses.

mod common;

use std::collections::BTreeSet;

use bytes::Bytes;
use common::{Cluster, node};
use stubborn_core::random::Random;
use stubborn_group::replication::{
    Ballot, Consensus, Durable, Entry, EntryKind, Frame, MemberChange, Members, Position, Refusal,
    Refused, Settings, Snapshot,
};

fn texts(cluster: &mut Cluster, number: u64) -> Vec<String> {
    let applied = &cluster.get(node(number)).applied;
    applied.iter().map(|data| String::from_utf8_lossy(data).into_owned()).collect()
}

#[test]
fn three_nodes_elect_one_leader_and_apply_the_same_commands() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    cluster.propose("one");
    cluster.propose("two");
    (0..5).for_each(|_| cluster.tick());
    for number in 1..=3 {
        assert_eq!(texts(&mut cluster, number), ["one", "two"]);
    }
}

#[test]
fn a_follower_refuses_commands_and_names_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = (1..=3).map(node).find(|id| *id != leader).expect("another node");
    let refused = cluster.get(follower).consensus.propose(Bytes::from_static(b"x"));
    assert_eq!(refused, Err(Refused::NotLeader(Some(leader))));
}

#[test]
fn what_was_committed_survives_the_loss_of_the_leader_and_a_restart_of_all() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.propose("kept");
    cluster.cut.push(old);
    (0..60).for_each(|_| cluster.tick());
    let new = cluster.leader().expect("the others elect one");
    assert_ne!(new, old);
    cluster.propose("later");
    cluster.cut.clear();
    (1..=3).for_each(|number| cluster.restart(node(number)));
    cluster.elect();
    (0..10).for_each(|_| cluster.tick());
    for number in 1..=3 {
        assert_eq!(texts(&mut cluster, number), ["kept", "later"]);
    }
}

#[test]
fn a_leader_applies_what_the_others_have_before_its_own_disk_does_and_once_only() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose("on all disks");
    cluster.stuck.push(leader);
    cluster.propose("on two");
    cluster.propose("on two as well");
    let expected = ["on all disks", "on two", "on two as well"];
    assert_eq!(texts(&mut cluster, leader.get()), expected);
    // What is applied goes into a snapshot; what the library still hands out stays in its log.
    let snapshot_at = cluster.get(leader).consensus.applied();
    cluster.compact(leader);
    cluster.unstick(leader);
    cluster.propose("on all again");
    (0..5).for_each(|_| cluster.tick());
    assert!(cluster.get(leader).consensus.applied() > snapshot_at);
    for number in 1..=3 {
        assert_eq!(texts(&mut cluster, number), [&expected[..], &["on all again"]].concat());
    }
}

#[test]
fn a_leader_that_loses_what_the_others_have_gets_it_back() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.stuck.push(leader);
    cluster.propose("kept");
    assert_eq!(texts(&mut cluster, leader.get()), ["kept"]);
    cluster.restart(leader);
    cluster.stuck.clear();
    assert_eq!(texts(&mut cluster, leader.get()), [""; 0]);
    cluster.elect();
    (0..60).for_each(|_| cluster.tick());
    for number in 1..=3 {
        assert_eq!(texts(&mut cluster, number), ["kept"]);
    }
}

#[test]
fn a_leader_whose_disk_is_needed_is_not_told_that_it_may_wait() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let replica = cluster.get(leader);
    replica.consensus.propose(Bytes::from_static(b"both are needed")).expect("it leads");
    let work = replica.consensus.work().expect("something to write");
    assert!(work.write.must_sync && !work.write.may_wait);
}

#[test]
fn a_laggard_gets_a_snapshot_where_the_log_is_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let laggard = (1..=3).map(node).find(|id| *id != leader).expect("another node");
    cluster.cut.push(laggard);
    for number in 0..10 {
        cluster.propose(&format!("command {number}"));
    }
    cluster.compact(leader);
    cluster.cut.clear();
    (0..60).for_each(|_| cluster.tick());
    let expected: Vec<String> = (0..10).map(|number| format!("command {number}")).collect();
    assert_eq!(texts(&mut cluster, laggard.get()), expected);
    cluster.restart(laggard);
    (0..10).for_each(|_| cluster.tick());
    assert_eq!(texts(&mut cluster, laggard.get()), expected);
}

#[test]
fn all_members_are_replaced_at_once_through_joint_consensus() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    cluster.propose("before");
    (4..=6).for_each(|number| cluster.add(node(number)));
    let change = MemberChange {
        voters: (4..=6).map(node).collect(),
        remove: (1..=3).map(node).collect(),
        ..MemberChange::default()
    };
    cluster.change_members(&change);
    (0..200).for_each(|_| cluster.tick());
    (1..=3).for_each(|number| cluster.cut.push(node(number)));
    cluster.elect();
    cluster.propose("after");
    (0..10).for_each(|_| cluster.tick());
    for number in 4..=6 {
        assert_eq!(texts(&mut cluster, number), ["before", "after"]);
        let members = cluster.get(node(number)).consensus.members().clone();
        assert_eq!(members, Members::of((4..=6).map(node)));
    }
}

#[test]
fn who_is_left_alone_knows_so_after_a_restart() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let other = (1..=2).map(node).find(|id| *id != leader).expect("another node");
    cluster.change_members(&MemberChange { remove: [other].into(), ..MemberChange::default() });
    cluster.cut.push(other);
    cluster.restart(leader);
    assert_eq!(cluster.elect(), leader);
}

#[test]
fn members_that_are_removed_may_go_when_the_disk_knows_of_it() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let other = (1..=2).map(node).find(|id| *id != leader).expect("another node");
    let change = MemberChange { remove: [other].into(), ..MemberChange::default() };
    cluster.get(leader).consensus.change_members(&change).expect("it leads");
    let mut is_removed = false;
    while !is_removed {
        while let Some(work) = cluster.get(leader).consensus.work() {
            is_removed = work.committed.iter().any(|entry| entry.kind == EntryKind::Members);
            let consensus = &mut cluster.get(leader).consensus;
            assert_eq!(consensus.has_settled_members(), !is_removed);
            consensus.written(work.number);
            assert!(consensus.has_settled_members());
            let sent = work.send.into_iter().chain(work.send_when_written);
            cluster.wire.extend(sent.map(|out| (leader, out.to, out.frame)));
        }
        cluster.settle_some(1);
    }
    assert!(!cluster.get(leader).consensus.members().contains(other));
}

#[test]
fn a_node_that_joins_after_the_last_snapshot_gets_one_in_which_it_is_a_member() {
    let mut cluster = Cluster::keeping(3, 0);
    let leader = cluster.elect();
    cluster.propose("before");
    cluster.compact(leader);
    cluster.add(node(4));
    let change = MemberChange { voters: [node(4)].into(), ..MemberChange::default() };
    cluster.change_members(&change);
    (0..60).for_each(|_| cluster.tick());
    assert!(cluster.get(leader).consensus.wants_snapshot());
    cluster.compact(leader);
    (0..60).for_each(|_| cluster.tick());
    assert_eq!(texts(&mut cluster, 4), ["before"]);
}

#[test]
fn a_read_is_not_answered_by_a_leader_that_is_cut_off() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose("x");
    cluster.get(leader).consensus.read(1).expect("it leads");
    cluster.settle();
    assert_eq!(cluster.get(leader).reads, [1]);
    cluster.cut.push(leader);
    cluster.get(leader).consensus.read(2).expect("it believes that it leads");
    (0..60).for_each(|_| cluster.tick());
    assert_eq!(cluster.get(leader).reads, [1]);
}

#[test]
fn leadership_is_handed_over_on_demand() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.propose("x");
    let heir = (1..=3).map(node).find(|id| *id != old).expect("another node");
    cluster.get(old).consensus.transfer(heir).expect("it leads");
    cluster.settle();
    assert_eq!(cluster.leader(), Some(heir));
}

#[test]
fn a_leader_that_counts_on_lost_entries_is_refused_instead_of_stopping_the_node() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose("x");
    let follower = (1..=3).map(node).find(|id| *id != leader).expect("another node");
    let term = cluster.get(leader).consensus.status().term;
    let lie = Frame::Heartbeat { term, committed: 1_000, read: None };
    let refused = cluster.get(follower).consensus.receive(leader, lie);
    assert_eq!(refused, Err(Refusal::CountsOnLostEntries));
}

#[test]
fn a_committed_entry_cannot_be_changed_by_a_later_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.propose("x");
    cluster.tick();
    let follower = (1..=3).map(node).find(|id| *id != leader).expect("another node");
    let status = cluster.get(follower).consensus.status();
    let index = status.committed;
    let other = Entry {
        at: Position { index, term: status.term + 1 },
        kind: EntryKind::Command,
        data: Bytes::from_static(b"y"),
    };
    let previous = Position { index: index - 1, term: 1 };
    let term = status.term + 1;
    let lie = Frame::Append { term, previous, committed: 0, entries: vec![other] };
    let refused = cluster.get(follower).consensus.receive(leader, lie);
    assert_eq!(refused, Err(Refusal::ContradictsCommitted));
}

#[test]
fn a_follower_cannot_have_what_was_never_written() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = (1..=3).map(node).find(|id| *id != leader).expect("another node");
    let term = cluster.get(leader).consensus.status().term;
    let lie =
        Frame::Appended { term, index: 1_000, committed: 0, refused: None, wants_snapshot: 0 };
    let refused = cluster.get(leader).consensus.receive(follower, lie);
    assert_eq!(refused, Err(Refusal::NeverWritten));
}

#[test]
fn a_group_without_voters_is_refused() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = (1..=3).map(node).find(|id| *id != leader).expect("another node");
    let term = cluster.get(leader).consensus.status().term + 1;
    let snapshot = Snapshot {
        at: Position { index: 1_000, term },
        members: Members { learners: BTreeSet::from([follower]), ..Members::default() },
        data: Bytes::new().into(),
    };
    let lie = Frame::Install { term, snapshot };
    let refused = cluster.get(follower).consensus.receive(leader, lie);
    assert_eq!(refused, Err(Refusal::UnsoundMembers));
}

#[test]
fn a_disk_that_contradicts_itself_does_not_start() {
    let random = || Random::from_seed([1; 32]);
    let mut durable = Durable::new_group(Members::of([node(1)]));
    durable.ballot = Ballot { term: 1, vote: None, committed: 3 };
    let fault = Consensus::new(node(1), Settings::default(), durable.clone(), random());
    assert!(fault.is_err_and(|fault| fault.to_string().contains("entry 3 is committed")));
    durable.ballot.committed = 0;
    durable.entries.push(Entry {
        at: Position { index: 2, term: 1 },
        kind: EntryKind::Command,
        data: Bytes::new(),
    });
    assert!(Consensus::new(node(1), Settings::default(), durable, random()).is_err());
}
