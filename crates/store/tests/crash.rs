//! A crash, a full disk, a failed sync: at every single operation of the disk.

mod common;

use common::Trial;
use stubborn_store::simulated::{Fault, Loss};

const STEPS: usize = 40;

/// How many operations the steps of a seed take.
fn operations(seed: u64) -> (u64, u64) {
    let mut trial = Trial::new(seed);
    let first = trial.disk.operations();
    trial.run(STEPS).expect("nothing fails");
    (first, trial.disk.operations())
}

/// Lets the disk fail at each operation in turn; then what was promised has to be there.
fn fail_everywhere(seeds: std::ops::Range<u64>, fault: Fault, loss: Loss) {
    for seed in seeds {
        let (first, last) = operations(seed);
        assert!(last - first > 50, "the script writes");
        for operation in first + 1..=last {
            let mut trial = Trial::new(seed);
            trial.disk.fail_at(operation, fault);
            // A full disk takes what needs no room.
            let _ = trial.run(STEPS);
            trial.disk.restart(loss);
            trial.recover();
            // Goes on, and crashes once more somewhere.
            let again = trial.disk.operations() + 1 + operation * 7 % 40;
            trial.disk.fail_at(again, Fault::Crash);
            let _ = trial.run(STEPS);
            trial.disk.restart(Loss::Power);
            trial.recover();
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_at_every_operation() {
    fail_everywhere(0..3, Fault::Crash, Loss::Nothing);
}

#[test]
fn what_was_acknowledged_survives_loss_of_power_at_every_operation() {
    fail_everywhere(4..8, Fault::Crash, Loss::Power);
}

#[test]
fn a_disk_that_fills_up_at_any_operation_costs_nothing_that_was_acknowledged() {
    fail_everywhere(10..12, Fault::Full, Loss::Nothing);
    fail_everywhere(13..14, Fault::Full, Loss::Power);
}

#[test]
fn an_operation_that_fails_anywhere_costs_nothing_that_was_acknowledged() {
    fail_everywhere(15..17, Fault::Fails, Loss::Nothing);
    fail_everywhere(18..19, Fault::Fails, Loss::Power);
}

#[test]
fn a_crash_at_every_operation_of_recovery_costs_nothing_either() {
    for seed in 20..60 {
        let (first, last) = operations(seed);
        let mut trial = Trial::new(seed);
        trial.disk.fail_at(first + 1 + seed * 31 % (last - first), Fault::Crash);
        let _ = trial.run(STEPS);
        trial.disk.restart(Loss::Power);
        // Each attempt comes one operation further than the last one.
        for further in 1.. {
            trial.disk.fail_at(trial.disk.operations() + further, Fault::Crash);
            let recovered = trial.try_to_recover();
            trial.disk.restart(Loss::Power);
            if recovered.is_ok() {
                break;
            }
            assert!(further < 1_000, "seed {seed}: {recovered:?}");
        }
        trial.recover();
        trial.run(5).expect("it goes on");
    }
}

#[test]
fn a_crash_at_every_operation_of_making_a_folder_leaves_none_or_a_whole_one() {
    use std::sync::Arc;
    use stubborn_store::simulated::SimulatedDisk;
    use stubborn_store::{Error, Store};
    for seed in 0..30 {
        for operation in 1.. {
            let disk = SimulatedDisk::new(common::random(seed));
            disk.fail_at(operation, Fault::Crash);
            let create = || {
                let medium = Arc::new(disk.clone());
                Store::create(medium, common::identity(), &common::new_group(), common::OPTIONS)
            };
            let made = create().is_ok();
            disk.restart(Loss::Power);
            match Store::open(Arc::new(disk.clone()), common::OPTIONS) {
                Ok((store, recovered)) => {
                    let durable = store.durable(recovered).expect("a snapshot");
                    assert!(common::same(&durable, &common::new_group()));
                }
                Err(Error::NoNode) => {
                    assert!(!made, "seed {seed}, operation {operation}");
                    drop(create().expect("made at the second attempt"));
                }
                Err(error) => panic!("seed {seed}, operation {operation}: {error}"),
            }
            if made {
                break;
            }
        }
    }
}

#[test]
fn what_stands_behind_a_torn_write_never_comes_back() {
    use bytes::Bytes;
    use std::sync::Arc;
    use stubborn_group::replication::{Ballot, Entry, EntryKind, Position, Write};
    use stubborn_store::Store;
    use stubborn_store::simulated::SimulatedDisk;

    let entry = |index, size| {
        let at = Position { index, term: 1 };
        let entry = Entry { at, kind: EntryKind::Command, data: Bytes::from(vec![9; size]) };
        Write { entries: vec![entry], ..Write::default() }
    };
    let disk = SimulatedDisk::new(common::random(1));
    let medium = Arc::new(disk.clone());
    let (identity, new_group) = (common::identity(), common::new_group());
    let mut store =
        Store::create(medium.clone(), identity, &new_group, common::OPTIONS).expect("made");
    // Two writes of 104 bytes each and a ballot, of which none is synced.
    let late = Ballot { term: 9, vote: None, committed: 0 };
    for write in [entry(1, 43), entry(2, 43), Write { ballot: Some(late), ..Write::default() }] {
        store.append(&[write]).expect("written");
    }
    drop(store);
    let (name, mut log) =
        disk.files().into_iter().find(|(name, _)| name == "log-0000000001").expect("it");
    let first = log.windows(43).position(|bytes| bytes == [9; 43]).expect("the first entry");
    log[first] = 0;
    disk.put(&name, &log);
    let (mut store, recovered) = Store::open(medium.clone(), common::OPTIONS).expect("opened");
    assert!(recovered.torn && recovered.entries.is_empty());
    // The batch that tells of the opening, of 48 bytes, and this one end where the ballot stands.
    store.append(&[entry(1, 99)]).expect("written");
    drop(store);
    let (_, recovered) = Store::open(medium, common::OPTIONS).expect("opened");
    assert_eq!((recovered.entries.len(), recovered.ballot.term), (1, 0));
}

#[test]
fn what_was_written_is_durable_though_the_snapshot_that_follows_came_too_late() {
    use std::sync::Arc;
    use stubborn_group::replication::{Ballot, Position, Snapshot, Write};
    use stubborn_store::Store;
    use stubborn_store::simulated::SimulatedDisk;

    for seed in 0..10 {
        let disk = SimulatedDisk::new(common::random(seed));
        let medium = Arc::new(disk.clone());
        let (identity, new_group) = (common::identity(), common::new_group());
        let mut store =
            Store::create(medium.clone(), identity, &new_group, common::OPTIONS).expect("made");
        let own = Position { index: 2, term: 1 };
        let own = store.begin_snapshot(own, new_group.snapshot.members.clone()).expect("begun");
        let own = own.write_all(&vec![7; 99].into()).expect("written");
        // The leader's takes the place of the whole log meanwhile.
        let snapshot = Snapshot {
            at: Position { index: 4, term: 1 },
            members: new_group.snapshot.members,
            data: vec![8; 99].into(),
        };
        let ballot = Ballot { term: 1, vote: None, committed: 4 };
        let install = Write { snapshot: Some(snapshot), ballot: Some(ballot), ..Write::default() };
        store.write(&[install]).expect("installed");
        let later = Ballot { term: 2, vote: Some(common::node(3)), committed: 4 };
        store.append(&[Write { ballot: Some(later), ..Write::default() }]).expect("written");
        store.compact(own).expect("nothing remains of it");
        drop(store);
        disk.restart(Loss::Power);
        let (_, recovered) = Store::open(medium, common::OPTIONS).expect("it is whole");
        assert_eq!(recovered.ballot, later, "seed {seed}");
    }
}
