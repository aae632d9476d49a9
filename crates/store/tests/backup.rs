//! Backups are read again as a new group, or refused.

mod common;

use std::sync::Arc;

use common::{OPTIONS, Trial, node, random};
use stubborn_group::replication::{Durable, EntryKind, Members};
use stubborn_store::backup::{BackupInfo, Restored, back_up, restore};
use stubborn_store::simulated::SimulatedDisk;
use stubborn_store::{Error, Identity, Store, verify};

fn new_identity() -> Identity {
    Identity { group: 0xbeef, node: node(1), created: 5, folder: None }
}

fn stopped(seed: u64) -> (SimulatedDisk, Durable) {
    let mut trial = Trial::new(seed);
    trial.run(50).expect("nothing fails");
    let durable = trial.close();
    (trial.disk, durable)
}

fn backed_up(disk: &SimulatedDisk) -> (Vec<u8>, BackupInfo) {
    let mut file = Vec::new();
    let (info, _) = back_up(disk, &mut file, 77, |_| {}).expect("backed up");
    (file, info)
}

fn restored(file: &[u8]) -> (SimulatedDisk, Result<Restored, Error>) {
    let disk = SimulatedDisk::new(random(9));
    let members = Members::of([node(1)]);
    let result = restore(file, Arc::new(disk.clone()), new_identity(), members, OPTIONS);
    (disk, result)
}

#[test]
fn what_is_restored_is_a_new_group_with_the_same_state_and_entries() {
    for seed in 0..10 {
        let (disk, old) = stopped(seed);
        let (file, info) = backed_up(&disk);
        let (disk, result) = restored(&file);
        let result = result.expect("restored");
        assert_eq!(result.from, info);
        assert_eq!((info.group, info.made), (0xfeed, 77));
        verify(&disk, |_| {}).expect("a sound folder");
        let (store, recovered) = Store::open(Arc::new(disk), OPTIONS).expect("opened");
        let new = store.durable(recovered).expect("read");
        assert_eq!(*store.identity(), new_identity());
        assert_eq!(new.snapshot.data, old.snapshot.data);
        assert_eq!(new.snapshot.at, old.snapshot.at);
        assert_eq!(new.snapshot.members, Members::of([node(1)]));
        assert_eq!(new.entries.len(), old.entries.len() + 1);
        for (new, old) in new.entries.iter().zip(&old.entries) {
            assert_eq!((new.at, new.kind), (old.at, EntryKind::Command));
            match old.kind {
                EntryKind::Command => assert_eq!(new.data, old.data),
                // Members of the old group are none of the new one.
                EntryKind::Members => assert!(new.data.is_empty()),
            }
        }
        let begins = new.entries.last().expect("an entry that begins the new group");
        assert_eq!(begins.data, stubborn_group::replica::refounding(0xbeef));
        assert_eq!((new.ballot.term, new.ballot.vote), (result.last.term, None));
        assert_eq!(new.ballot.committed, result.last.index);
    }
}

#[test]
fn a_backup_that_is_damaged_or_cut_short_leaves_no_node() {
    let (disk, _) = stopped(2);
    let (file, _) = backed_up(&disk);
    for offset in (0..file.len()).step_by(29) {
        let mut damaged = file.clone();
        damaged[offset] ^= 0x10;
        for bytes in [&damaged[..], &file[..offset]] {
            let (disk, result) = restored(bytes);
            let error = result.expect_err("refused");
            assert!(matches!(error, Error::Corrupt(_)), "{error}");
            assert!(matches!(Store::open(Arc::new(disk.clone()), OPTIONS), Err(Error::NoNode)));
            // The folder is free for another attempt.
            let members = Members::of([node(1)]);
            restore(&file[..], Arc::new(disk), new_identity(), members, OPTIONS).expect("restored");
        }
    }
}

#[test]
fn nothing_is_restored_over_a_node_and_nothing_is_backed_up_under_one_that_runs() {
    let (disk, _) = stopped(2);
    let (file, _) = backed_up(&disk);
    let members = Members::of([node(1)]);
    let over = restore(&file[..], Arc::new(disk.clone()), new_identity(), members, OPTIONS);
    assert!(matches!(over, Err(Error::Occupied)));
    let _running = Store::open(Arc::new(disk.clone()), OPTIONS).expect("opened");
    assert!(matches!(back_up(&disk, Vec::new(), 0, |_| {}), Err(Error::InUse)));
}
