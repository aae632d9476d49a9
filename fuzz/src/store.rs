//! A node's folder with arbitrary bytes in it. Recovery finds what is wrong, or goes on; what it goes
//! on with is there again when the folder is opened the next time.

use std::sync::Arc;

use stubborn_core::random::Random;
use stubborn_store::replication::{Durable, Members, NodeId, Write};
use stubborn_store::simulated::{Loss, SimulatedDisk};
use stubborn_store::{Identity, Options, Store, backup, survey, verify};

const OPTIONS: Options = Options { segment: 8_192, step: 1_024 };

fn identity() -> Identity {
    Identity { group: 0x5700, node: NodeId::new(1).expect("a number"), created: 0, folder: None }
}

/// The files that a new node has.
fn new_folder() -> SimulatedDisk {
    let disk = SimulatedDisk::new(Random::from_seed([7; 32]));
    let new = Durable::new_group(Members::of([identity().node]));
    let store = Store::create(Arc::new(disk.clone()), identity(), &new, OPTIONS);
    store.and_then(Store::close).expect("a disk that works");
    disk
}

/// The first byte says which file the others stand in: in the log they are records of a batch whose
/// checksums are right, or bytes behind its head; elsewhere they are the whole file.
pub fn fuzz_store(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let disk = new_folder();
    match which % 6 {
        0 => disk.put("log-0000000001", &stubborn_store::simulated::forge_log(&identity(), data)),
        1 => {
            let files = disk.files();
            let log = files.iter().find(|(name, _)| name == "log-0000000001").expect("a log");
            let mut log = log.1.clone();
            log.truncate(4_096);
            log.extend_from_slice(data);
            disk.put("log-0000000001", &log);
        }
        2 => disk.put("log-0000000001", data),
        3 => disk.put("snapshot-00000000000000000000", data),
        4 => disk.put("identity", data),
        _ => return fuzz_backup(data),
    }
    let _ = survey(&disk);
    let _ = verify(&disk, |_| {});
    let Ok((mut store, first)) = Store::open(Arc::new(disk.clone()), OPTIONS) else { return };
    let Ok(first) = store.durable(first) else { return };
    store
        .write(&[Write { ballot: Some(first.ballot), must_sync: true, ..Write::default() }])
        .expect("written");
    drop(store);
    disk.restart(Loss::Power);
    let (store, again) = Store::open(Arc::new(disk), OPTIONS).expect("what was read is read again");
    let again = store.durable(again).expect("the snapshot that was read");
    assert_eq!(again.entries, first.entries);
    assert_eq!((again.ballot, again.snapshot), (first.ballot, first.snapshot));
}

fn fuzz_backup(data: &[u8]) {
    let disk = SimulatedDisk::new(Random::from_seed([7; 32]));
    let members = Members::of([identity().node]);
    let medium = Arc::new(disk.clone());
    if backup::restore(data, medium.clone(), identity(), members, OPTIONS).is_ok() {
        Store::open(medium, OPTIONS).expect("what was restored can be opened");
    }
}

/// Inputs to begin with: records, and each file of a folder as it should be.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let number = |number: u64| number.to_be_bytes();
    let place = |index| [number(index), number(1)].concat();
    let (mut records, mut sound) = (vec![0], Vec::new());
    for (kind, fields) in [
        (2, [place(1), b"a command".to_vec()].concat()),
        (2, [place(2), b"another one".to_vec()].concat()),
        (0, Vec::new()),
        (3, [place(2), b"members".to_vec()].concat()),
        (0, Vec::new()),
        (6, Vec::new()),
        (4, [number(3), number(1), number(1)].concat()),
        (5, [place(1), number(9).to_vec(), number(9).to_vec(), vec![1]].concat()),
        (7, number(2).to_vec()),
    ] {
        if kind == 5 && fields.len() > 24 {
            // What follows names files that are not there.
            sound.clone_from(&records);
        }
        records.extend([kind, fields.len() as u8]);
        records.extend(fields);
    }
    let disk = new_folder();
    let mut seeds = vec![("records".to_owned(), records), ("sound-records".to_owned(), sound)];
    for (name, content) in disk.files() {
        let which = match name.as_str() {
            "log-0000000001" => 2,
            "identity" => 4,
            "lock" => continue,
            _ => 3,
        };
        seeds.push((name, [&[which], &content[..content.len().min(5_000)]].concat()));
    }
    let mut file = vec![5];
    backup::back_up(&disk, &mut file, 1, |_| {}).expect("a folder that is sound");
    seeds.push(("backup".to_owned(), file));
    seeds
}
