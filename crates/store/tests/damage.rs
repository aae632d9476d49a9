//! Damage to a folder is found, named and refused, or it changes nothing.

mod common;

use std::sync::Arc;

use common::{OPTIONS, Trial, identity, new_group, random, same};
use stubborn_group::replication::{Ballot, Durable, Write};
use stubborn_store::simulated::SimulatedDisk;
use stubborn_store::{Damage, Error, Options, Store, survey, verify};

type Files = Vec<(String, Vec<u8>)>;

/// A folder that was closed, and what it holds.
fn closed(seed: u64) -> (Files, Durable) {
    let mut trial = Trial::new(seed);
    trial.run(60).expect("nothing fails");
    let durable = trial.close();
    (trial.disk.files(), durable)
}

fn disk_of(files: &Files) -> SimulatedDisk {
    let disk = SimulatedDisk::new(random(0));
    files.iter().for_each(|(name, content)| disk.put(name, content));
    disk
}

fn open(disk: &SimulatedDisk) -> Result<Durable, Error> {
    let (store, recovered) = Store::open(Arc::new(disk.clone()), OPTIONS)?;
    store.durable(recovered)
}

/// Opens what is there: it is all right, or refused for a reason, and then nothing has changed.
fn refused_or_right(files: &Files, durable: &Durable, what: &str) -> Option<Error> {
    let disk = disk_of(files);
    match open(&disk) {
        Ok(found) => {
            assert!(same(&found, durable), "{what}: something else is served");
            None
        }
        Err(error) => {
            let mut after = disk.files();
            after.retain(|(name, _)| name != "lock");
            let mut before = files.clone();
            before.retain(|(name, _)| name != "lock");
            assert!(matches!(error, Error::Corrupt(_) | Error::Version { .. } | Error::NoNode));
            if !is_about_a_snapshot(&error) {
                assert_eq!(before, after, "{what}: what is refused is left as it is");
            }
            Some(error)
        }
    }
}

/// The state machine is read after the log was opened.
fn is_about_a_snapshot(error: &Error) -> bool {
    matches!(error, Error::Corrupt(Damage { file, .. }) if file.starts_with("snapshot"))
}

fn is_segment(name: &str) -> bool {
    name.starts_with("log-0")
}

#[test]
fn a_byte_that_changes_anywhere_is_found_or_does_no_harm() {
    let mut found = 0;
    for seed in 0..6 {
        let (files, durable) = closed(seed);
        for place in 0..files.len() {
            let (name, size) = (files[place].0.clone(), files[place].1.len());
            for offset in (seed as usize..size).step_by(13) {
                let mut damaged = files.clone();
                damaged[place].1[offset] ^= 1 << (offset % 8);
                let what = format!("seed {seed}, {name}, byte {offset}");
                match refused_or_right(&damaged, &durable, &what) {
                    Some(Error::Corrupt(damage)) => {
                        assert_eq!(damage.file, name, "{what}: {damage}");
                        assert!(damage.offset <= offset as u64, "{what}: {damage}");
                        found += 1;
                    }
                    Some(_) => found += 1,
                    None => {}
                }
            }
        }
    }
    assert!(found > 1_000, "most bytes matter: {found}");
}

#[test]
fn a_file_that_is_lost_or_cut_short_is_found_or_does_no_harm() {
    for seed in 0..20 {
        let (files, durable) = closed(seed);
        for place in 0..files.len() {
            let name = &files[place].0;
            let mut lost = files.clone();
            lost.remove(place);
            let error = refused_or_right(&lost, &durable, &format!("seed {seed}, without {name}"));
            let needed = !["lock", "log-spare"].contains(&name.as_str());
            assert_eq!(error.is_some(), needed, "seed {seed}, without {name}: {error:?}");
            // Nothing tells that a log was longer once: a disk that forgets what it has synced, and
            // nothing else, is believed.
            if Some(name) == files.iter().map(|(name, _)| name).rfind(|name| is_segment(name)) {
                continue;
            }
            for keep in (0..files[place].1.len()).step_by(977) {
                let mut cut = files.clone();
                cut[place].1.truncate(keep);
                refused_or_right(&cut, &durable, &format!("seed {seed}, {name} cut at {keep}"));
            }
        }
    }
}

#[test]
fn bytes_in_the_midst_of_a_folder_that_make_no_sense_never_panic() {
    for seed in 0..300 {
        let mut random = random(seed);
        let (mut files, _) = closed(seed % 7);
        for _ in 0..1 + random.below(4) {
            let place = random.below(files.len() as u64) as usize;
            let content = &mut files[place].1;
            let at = random.below(content.len() as u64 + 1) as usize;
            let mut noise = vec![0; random.below(600) as usize];
            random.fill(&mut noise);
            match random.below(3) {
                0 => drop(content.splice(at..at, noise)),
                1 => content.truncate(at),
                _ => {
                    let end = (at + noise.len()).min(content.len());
                    content[at..end].copy_from_slice(&noise[..end - at]);
                }
            }
        }
        let disk = disk_of(&files);
        let _ = verify(&disk, |_| {});
        let _ = survey(&disk);
        let _ = open(&disk);
    }
}

#[test]
fn damage_names_the_file_the_place_and_the_entry() {
    use bytes::Bytes;
    use stubborn_group::replication::{Entry, EntryKind, Position};
    let disk = SimulatedDisk::new(random(1));
    let mut store =
        Store::create(Arc::new(disk.clone()), identity(), &new_group(), OPTIONS).expect("made");
    for index in 1..=9 {
        let at = Position { index, term: 1 };
        let data = Bytes::from(format!("this is command number {index}"));
        let entries = vec![Entry { at, kind: EntryKind::Command, data }];
        store.write(&[Write { entries, must_sync: true, ..Write::default() }]).expect("written");
    }
    drop(store);
    let content =
        disk.files().into_iter().find(|(name, _)| name == "log-0000000001").expect("it").1;
    let needle = b"this is command number 6";
    let offset = content.windows(needle.len()).position(|bytes| bytes == needle).expect("there");
    disk.damage("log-0000000001", offset + 3, 0x40);
    disk.restart(stubborn_store::simulated::Loss::Nothing);
    let error = open(&disk).expect_err("it is refused");
    // The record begins with its checksum, length, kind, and the entry's place.
    let expected = format!(
        "log-0000000001 is damaged at offset {}: what follows entry 5: its checksum is wrong",
        offset - 29
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_last_write_is_cut_off_if_it_is_damaged_and_nothing_says_that_it_was_synced() {
    let mut trial = Trial::new(3);
    trial.run(20).expect("nothing fails");
    let before = trial.close();
    let disk = trial.disk.clone();
    let (mut store, _) = Store::open(Arc::new(disk.clone()), OPTIONS).expect("opened");
    let mut ballot = before.ballot;
    // Like no number of a batch.
    ballot.term += 0x0007_0000_0000;
    let write = Write { ballot: Some(ballot), must_sync: true, ..Write::default() };
    store.write(std::slice::from_ref(&write)).expect("written");
    let noted = {
        let mut files = disk.files();
        files.retain(|(name, _)| is_segment(name));
        files.pop().expect("a segment")
    };
    let needle = ballot.term.to_be_bytes();
    let offset = noted.1.windows(8).rposition(|bytes| bytes == needle).expect("the ballot");
    drop(store);
    disk.damage(&noted.0, offset, 1);
    assert!(same(&open(&disk).expect("cut off"), &before));

    // With a note that it was synced it is damage.
    let (mut store, _) = Store::open(Arc::new(disk.clone()), OPTIONS).expect("opened");
    store.write(&[write]).expect("written");
    store.rest().expect("noted");
    drop(store);
    let content = disk.files().into_iter().find(|(name, _)| *name == noted.0).expect("it").1;
    let offset = content.windows(8).rposition(|bytes| bytes == needle).expect("the ballot");
    // Also where a whole sector or block is lost, in which the note begins.
    for size in [1, 512, 4_096] {
        let lost = offset / size * size..(offset / size + 1) * size;
        lost.clone().for_each(|at| disk.damage(&noted.0, at, 0xa5));
        let found = open(&disk);
        assert!(matches!(found, Err(Error::Corrupt(_))), "{size} bytes at {offset}: {found:?}");
        lost.for_each(|at| disk.damage(&noted.0, at, 0xa5));
    }
}

#[test]
fn a_log_that_has_rested_has_room_for_what_comes_next() {
    for disk in [SimulatedDisk::new(random(2)), SimulatedDisk::new(random(3)).with_synced_writes()]
    {
        let options = Options { segment: 1 << 20, step: 4_096 };
        let medium = Arc::new(disk.clone());
        let mut store = Store::create(medium, identity(), &new_group(), options).expect("made");
        let length = || {
            let files = disk.files();
            files.into_iter().find(|(name, _)| is_segment(name)).expect("a segment").1.len()
        };
        let ballot = |term| Ballot { term, ..Ballot::default() };
        for term in 1..300 {
            let write = Write { ballot: Some(ballot(term)), must_sync: true, ..Write::default() };
            let before = length();
            store.write(&[write]).expect("written");
            assert!(term == 1 || length() == before, "term {term}");
            store.rest().expect("rested");
        }
    }
}

#[test]
fn a_folder_is_opened_by_one_process_and_only_as_the_node_that_it_belongs_to() {
    let disk = SimulatedDisk::new(random(1));
    let medium = Arc::new(disk.clone());
    assert!(matches!(Store::open(medium.clone(), OPTIONS), Err(Error::NoNode)));
    assert!(matches!(Store::open_as(medium.clone(), OPTIONS, 1, 1), Err(Error::NoNode)));
    let store = Store::create(medium.clone(), identity(), &new_group(), OPTIONS).expect("made");
    assert!(matches!(Store::open(medium.clone(), OPTIONS), Err(Error::InUse)));
    assert!(matches!(verify(&disk, |_| {}), Err(Error::InUse)));
    assert!(survey(&disk).expect("it can be looked at").in_use);
    drop(store);
    let again = Store::create(medium.clone(), identity(), &new_group(), OPTIONS);
    assert!(matches!(again, Err(Error::Occupied)));
    let other = Store::open_as(medium.clone(), OPTIONS, identity().group, 3);
    let Err(error @ Error::OtherNode { .. }) = other else { panic!("another node's folder") };
    assert_eq!(
        error.to_string(),
        "the folder is that of node 2 of group 000000000000feed, not of node 3 of group \
         000000000000feed"
    );
    Store::open_as(medium.clone(), OPTIONS, identity().group, 2).expect("it is this one's");
    // The log alone is nobody's: neither opened nor made anew.
    disk.lose("identity");
    assert!(matches!(Store::open(medium.clone(), OPTIONS), Err(Error::NoNode)));
    let anew = Store::create(medium, identity(), &new_group(), OPTIONS);
    assert!(matches!(anew, Err(Error::Occupied)));
}
