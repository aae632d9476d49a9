//! A group whose programs are upgraded one after another.

mod common;

use std::ops::RangeInclusive;

use common::node;
use common::replicas::Replicas;
use stubborn_core::service::{
    Answer, Applied, Encoded, Image, Machine, Machines, Method, Piece, RestoreError, Semantics,
    ServiceDescriptor, Shape, Status,
};
use stubborn_group::replica::{Fault, Settings};

static DESCRIPTOR: ServiceDescriptor = ServiceDescriptor {
    name: "a.Notes",
    methods: &[Method::new("a.Notes/Add", Semantics::ExactlyOnce, Shape::Unary)],
    file_descriptor_set: &[],
};

/// What it does does not matter here, but which versions of it a program supports.
struct Notes {
    supports: RangeInclusive<u32>,
    active: u32,
}

impl Machine for Notes {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn versions(&self) -> RangeInclusive<u32> {
        self.supports.clone()
    }

    fn activate(&mut self, version: u32) {
        self.active = version;
    }

    fn apply(&mut self, _: &Applied, _: usize, _: &Encoded) -> Answer {
        Answer::Status(Status::internal("nobody calls"))
    }

    fn query(&self, _: usize, _: &Encoded) -> Answer {
        Answer::Status(Status::internal("nobody asks"))
    }

    fn snapshot(&self) -> Image {
        self.active.to_be_bytes().to_vec().into()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        match *piece == self.active.to_be_bytes() {
            true => Ok(()),
            false => Err(RestoreError::new("it is of another version")),
        }
    }
}

fn program(supports: RangeInclusive<u32>) -> Machines {
    let mut machines = Machines::new();
    machines.add(Box::new(Notes { supports, active: 1 })).expect("one machine");
    machines
}

fn group(supports: RangeInclusive<u32>) -> Replicas {
    // Snapshots are taken soon, so that versions go through them, too.
    let settings = Settings { snapshot_entries: 3, ..Settings::default() };
    let mut group = Replicas::new(3, settings, || program(supports.clone()));
    group.elect();
    group.run(2_000);
    group
}

/// The active version, the same at all of these nodes, with the same states.
fn active(group: &mut Replicas, nodes: &[u64]) -> u32 {
    let states: Vec<_> = nodes
        .iter()
        .map(|number| {
            let replica = &mut group.get(node(*number)).replica;
            assert_eq!(replica.fault(), None);
            (replica.standing().versions, replica.freeze().to_bytes().expect("in memory"))
        })
        .collect();
    assert!(states.iter().all(|state| *state == states[0]), "the states differ");
    states[0].0[0]
}

#[test]
fn a_newer_version_is_activated_when_the_last_member_supports_it() {
    let mut group = group(1..=1);
    for number in 1..=3 {
        assert_eq!(active(&mut group, &[1, 2, 3]), 1, "before {number} is upgraded");
        group.restart(node(number), program(1..=2));
        group.run(2_000);
    }
    assert_eq!(active(&mut group, &[1, 2, 3]), 2);
    // All of them start again from what their disks hold.
    for number in 1..=3 {
        group.restart(node(number), program(1..=2));
        group.run(2_000);
        assert_eq!(active(&mut group, &[1, 2, 3]), 2);
    }
}

#[test]
fn a_program_that_does_not_support_what_is_active_stops_and_says_so() {
    let mut group = group(1..=2);
    assert_eq!(active(&mut group, &[1, 2, 3]), 2);
    group.restart(node(2), program(1..=1));
    group.run(2_000);
    let fault = group.get(node(2)).replica.fault().cloned();
    assert!(matches!(&fault, Some(Fault::Version(_))), "{fault:?}");
    let said = fault.unwrap().to_string();
    assert!(said.contains("version 2 of a.Notes's commands"), "{said}");
    assert_eq!(active(&mut group, &[1, 3]), 2, "the others go on");
    group.restart(node(2), program(1..=3));
    group.run(2_000);
    assert_eq!(active(&mut group, &[1, 2, 3]), 2);
}

#[test]
fn a_member_that_is_away_keeps_the_version_as_it_is() {
    let mut group = group(1..=1);
    group.cut.push(node(3));
    for number in 1..=2 {
        group.restart(node(number), program(1..=2));
        group.run(2_000);
    }
    group.run(10_000);
    assert_eq!(active(&mut group, &[1, 2]), 1);
    group.cut.clear();
    group.restart(node(3), program(1..=2));
    group.run(3_000);
    assert_eq!(active(&mut group, &[1, 2, 3]), 2);
}

#[test]
fn a_new_group_begins_with_the_oldest_version_that_its_program_supports() {
    let mut group = group(3..=3);
    assert_eq!(active(&mut group, &[1, 2, 3]), 3);
}

/// The version of the group's own commands, the same at all of these nodes, with the same states.
fn own(group: &mut Replicas) -> u32 {
    active(group, &[1, 2, 3]);
    group.get(node(1)).replica.standing().version
}

#[test]
fn ids_of_calls_are_kept_when_the_last_member_knows_them() {
    let older = Settings { snapshot_entries: 3, version: 2, ..Settings::default() };
    let mut group = Replicas::new(3, older, || program(1..=1));
    group.elect();
    group.run(2_000);
    group.settings.version = Settings::VERSION;
    for number in 1..=3 {
        assert_eq!(own(&mut group), 2, "before {number} is upgraded");
        group.restart(node(number), program(1..=1));
        group.run(2_000);
    }
    assert_eq!(own(&mut group), Settings::VERSION);
}

#[test]
fn a_program_that_knows_no_ids_stops_in_a_group_that_keeps_them() {
    let mut group = Replicas::new(3, Settings::default(), || program(1..=1));
    group.elect();
    group.run(2_000);
    assert_eq!(own(&mut group), Settings::VERSION, "a new group begins with the newest");
    group.settings.version = 2;
    group.restart(node(2), program(1..=1));
    group.run(2_000);
    let fault = group.get(node(2)).replica.fault().cloned();
    assert!(matches!(&fault, Some(Fault::Version(_))), "{fault:?}");
}
