//! The same on a folder of the operating system.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use stubborn_group::replication::{
    Durable, Entry, EntryKind, FolderId, Members, NodeId, Position, Snapshot, Write,
};
use stubborn_store::{Error, Folder, Identity, Options, Store, survey, verify};

const OPTIONS: Options = Options { segment: 40_000, step: 8_192 };

fn identity() -> Identity {
    Identity {
        group: 7,
        node: NodeId::new(1).expect("a number"),
        created: 0,
        folder: FolderId::new(77),
    }
}

fn members() -> Members {
    Members::of([identity().node])
}

fn entry(index: u64) -> Write {
    let data = Bytes::from(vec![index as u8; 1_000]);
    let at = Position { index, term: 1 };
    let entries = vec![Entry { at, kind: EntryKind::Command, data }];
    Write { entries, must_sync: index.is_multiple_of(50), ..Write::default() }
}

#[test]
fn a_folder_keeps_what_was_written_and_frees_what_a_snapshot_covers() {
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("a").join("b");
    let folder = Arc::new(Folder::make(&path).expect("made"));
    let new = Durable::new_group(members());
    let mut store = Store::create(folder.clone(), identity(), &new, OPTIONS).expect("made");
    for index in 1..=1_000 {
        store.write(&[entry(index)]).expect("written");
        if index.is_multiple_of(100) {
            let at = Position { index: index - 10, term: 1 };
            let data = vec![1; 700_000].into();
            let snapshot = Snapshot { at, members: members(), data };
            store.compact_with(&snapshot).expect("compacted");
        }
    }
    let size = |path: &std::path::Path| -> u64 {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    assert!(size(&path) < 1_000_000, "a megabyte was written, and is not kept: {}", size(&path));
    let second = Store::open(folder.clone(), OPTIONS);
    assert!(matches!(second, Err(Error::InUse)));
    assert!(survey(&*folder).expect("it can be looked at").in_use);
    drop(store);
    let mut seen = Vec::new();
    let checked = verify(&*folder, |progress| seen.push(progress)).expect("sound");
    assert_eq!((checked.snapshot.at.index, checked.entries), (990, 10));
    assert!(!checked.in_use && seen.last().is_some_and(|last| last.done == last.total));
    let (store, recovered) = Store::open(folder, OPTIONS).expect("opened");
    let durable = store.durable(recovered).expect("read");
    assert_eq!(durable.entries.first().map(|entry| entry.at.index), Some(991));
    assert_eq!(durable.entries.len(), 10);
    assert_eq!(durable.snapshot.data.to_bytes().expect("read").len(), 700_000);
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_what_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("node");
    let folder = Arc::new(Folder::make(&path).expect("made"));
    let new = Durable::new_group(members());
    Store::create(folder, identity(), &new, OPTIONS).expect("made");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for file in fs::read_dir(&path).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
