//! What generated machine stubs implement and replicas drive: a service as a deterministic state
//! machine, whose commands come from a log.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use super::encoded::Encoded;
use super::image::{Image, Piece};
use super::method::{MethodId, Semantics, ServiceDescriptor, Shape};
use super::outcome::NotExecuted;
use super::registry::RegisterError;
use super::server::Answer;
use super::watch::Next;
use crate::session::NotExecutedReason;
use crate::time::Instant;

/// Which entry of the log a command is, and when: the same on every replica. What a machine does may
/// depend on its state, its request and this, and on nothing else: no clock, no entropy, no order of
/// a hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The entry's place in the log. Larger for each later entry; one entry may hold several
    /// commands.
    pub index: u64,
    /// The log's time: that of its leaders' clocks while they led. It never goes back, and has
    /// nothing to do with the time of day.
    pub time: Instant,
    /// The version of the machine's commands that is active at this entry.
    pub version: u32,
}

impl Default for Applied {
    fn default() -> Self {
        Self { index: 0, time: Instant::ZERO, version: FIRST_VERSION }
    }
}

/// The version of commands with which every machine begins that says nothing of versions.
pub const FIRST_VERSION: u32 = 1;

/// A machine that cannot go on in a version which its group has activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The machine's service.
    pub service: &'static str,
    /// The version.
    pub version: u32,
    /// Those that it supports.
    pub supported: RangeInclusive<u32>,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, version, supported } = self;
        let (least, most) = (supported.start(), supported.end());
        write!(
            f,
            "the group has activated version {version} of {service}'s commands, and this program \
             supports {least} to {most}"
        )
    }
}

impl core::error::Error for Unsupported {}

/// A service as a replica drives it: generated code implements it over the user's machine.
pub trait Machine: Send + 'static {
    /// The service's name, methods and files.
    fn descriptor(&self) -> &'static ServiceDescriptor;

    /// The versions of its commands that it supports. A command is run as the active version has it,
    /// which the log tells: the newest that all members of the group support.
    fn versions(&self) -> RangeInclusive<u32> {
        FIRST_VERSION..=FIRST_VERSION
    }

    /// From now on this version is active: its commands, and the form of its snapshots. Called in the
    /// same place of the log on every replica. Of a snapshot that is restored, the version is activated
    /// before its last piece: those before it tell by themselves what they are, if that matters.
    fn activate(&mut self, version: u32) {
        let _ = version;
    }

    /// Runs a command: a request of the method at this index of the descriptor.
    fn apply(&mut self, at: &Applied, method: usize, request: &Encoded) -> Answer;

    /// Answers a request without changing anything.
    fn query(&self, method: usize, request: &Encoded) -> Answer;

    /// What a stream of reads has next for a caller who has everything up to `position`: 0 for one who
    /// has nothing yet. `request` is that of the stream, the same each time.
    ///
    /// # Errors
    /// What the stream ends with, if not well.
    fn next(&self, method: usize, request: &Encoded, position: u64) -> Result<Next, Answer> {
        let _ = (method, request, position);
        Err(refuse("the machine answers no streams"))
    }

    /// The state as it is now, as bytes that [`restore`](Self::restore) reads.
    fn snapshot(&self) -> Image;

    /// Takes the next piece of a snapshot: they come in order, as [`snapshot`](Self::snapshot) cut
    /// them. The machine goes on with its own state, apart from them, until the last one is there.
    ///
    /// # Errors
    /// If it is none of a snapshot of such a machine; with the last piece what the state is then does
    /// not matter.
    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError>;
}

impl<M: Machine + ?Sized> Machine for Box<M> {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        (**self).descriptor()
    }

    fn versions(&self) -> RangeInclusive<u32> {
        (**self).versions()
    }

    fn activate(&mut self, version: u32) {
        (**self).activate(version);
    }

    fn apply(&mut self, at: &Applied, method: usize, request: &Encoded) -> Answer {
        (**self).apply(at, method, request)
    }

    fn query(&self, method: usize, request: &Encoded) -> Answer {
        (**self).query(method, request)
    }

    fn next(&self, method: usize, request: &Encoded, position: u64) -> Result<Next, Answer> {
        (**self).next(method, request, position)
    }

    fn snapshot(&self) -> Image {
        (**self).snapshot()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        (**self).restore(piece)
    }
}

/// Why a snapshot is none of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreError(Cow<'static, str>);

impl RestoreError {
    /// For this reason.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the snapshot cannot be restored: {}", self.0)
    }
}

impl core::error::Error for RestoreError {}

impl From<prost::DecodeError> for RestoreError {
    fn from(error: prost::DecodeError) -> Self {
        Self(format!("{error}").into())
    }
}

/// The machines of a group, found by the method that a request names.
#[derive(Default)]
pub struct Machines {
    machines: Vec<Box<dyn Machine>>,
    /// The active version of each.
    active: Vec<u32>,
}

impl Machines {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a machine. Every replica of a group adds the same ones in the same order.
    ///
    /// # Errors
    /// If it is there already or a method's id is taken; nothing is added then.
    pub fn add(&mut self, machine: Box<dyn Machine>) -> Result<(), RegisterError> {
        let descriptor = machine.descriptor();
        if self.descriptors().any(|other| other.name == descriptor.name) {
            return Err(RegisterError::Doubled(descriptor.name));
        }
        for (index, method) in descriptor.methods.iter().enumerate() {
            let others = self.descriptors().flat_map(|other| other.methods);
            let mut taken = others.chain(&descriptor.methods[..index]);
            if let Some(other) = taken.find(|other| other.id() == method.id()) {
                let (one, other) = (other.name().into(), method.name().into());
                return Err(RegisterError::Collision(one, other));
            }
        }
        self.machines.push(machine);
        self.active.push(FIRST_VERSION);
        Ok(())
    }

    /// Their services, in the order in which they were added.
    pub fn descriptors(&self) -> impl Iterator<Item = &'static ServiceDescriptor> + '_ {
        self.machines.iter().map(|machine| machine.descriptor())
    }

    /// The versions of commands that each supports, in the order in which they were added.
    pub fn versions(&self) -> impl Iterator<Item = RangeInclusive<u32>> + '_ {
        self.machines.iter().map(|machine| machine.versions())
    }

    /// The version of each that is active.
    pub fn active(&self) -> &[u32] {
        &self.active
    }

    /// Activates these versions, one for each machine; none goes back. Versions of further machines
    /// are not looked at.
    ///
    /// # Errors
    /// If a machine does not support its version. It has to be stopped then.
    pub fn activate(&mut self, versions: &[u32]) -> Result<(), Unsupported> {
        for ((machine, active), version) in
            self.machines.iter_mut().zip(&mut self.active).zip(versions)
        {
            let version = (*version).max(*active);
            let supported = machine.versions();
            if !supported.contains(&version) {
                let service = machine.descriptor().name;
                return Err(Unsupported { service, version, supported });
            }
            *active = version;
            machine.activate(version);
        }
        Ok(())
    }

    /// What is promised about calls of a method; `None` if no machine has it.
    pub fn semantics(&self, method: MethodId) -> Option<Semantics> {
        let (machine, index) = self.find(method)?;
        Some(self.machines[machine].descriptor().methods[index].semantics())
    }

    /// Runs a command. A read is run as the query that it is, wherever in the log it stands.
    pub fn apply(&mut self, at: &Applied, method: MethodId, request: &Encoded) -> Answer {
        let Some((machine, index)) = self.find(method) else { return unknown() };
        let at = &Applied { version: self.active[machine], ..*at };
        let machine = &mut self.machines[machine];
        let called = &machine.descriptor().methods[index];
        match (called.shape(), called.semantics()) {
            (Shape::Unary, Semantics::Read) => machine.query(index, request),
            (Shape::Unary, _) => machine.apply(at, index, request),
            _ => refuse(format!("{called} streams: {NO_STREAMS}")),
        }
    }

    /// Answers a read.
    pub fn query(&self, method: MethodId, request: &Encoded) -> Answer {
        let Some((machine, index)) = self.find(method) else { return unknown() };
        let machine = &self.machines[machine];
        let called = &machine.descriptor().methods[index];
        match (called.shape(), called.semantics()) {
            (Shape::Unary, Semantics::Read) => machine.query(index, request),
            (Shape::Unary, _) => refuse(format!(
                "{called} was called as a read, but at this group it has side effects: compile the \
                 caller with the group's .proto file"
            )),
            _ => refuse(format!("{called} streams, and was called as if it did not")),
        }
    }

    /// What a stream of reads has next: see [`Machine::next`].
    ///
    /// # Errors
    /// What the stream ends with, if not well.
    pub fn next(&self, method: MethodId, request: &Encoded, position: u64) -> Result<Next, Answer> {
        let Some((machine, index)) = self.find(method) else { return Err(unknown()) };
        let machine = &self.machines[machine];
        let called = &machine.descriptor().methods[index];
        match (called.shape(), called.semantics()) {
            (Shape::ServerStreaming, Semantics::Read) => machine.next(index, request, position),
            (Shape::Unary, _) => Err(refuse(format!("{called} does not stream at this group"))),
            _ => Err(refuse(format!("{called} streams: {NO_STREAMS}"))),
        }
    }

    /// The state of each, in the order in which they were added.
    pub fn snapshot(&self) -> Vec<Image> {
        self.machines.iter().map(|machine| machine.snapshot()).collect()
    }

    /// Gives the machine of this place the next piece of a snapshot.
    ///
    /// # Errors
    /// If there is no such machine, or it cannot read the piece.
    pub fn restore(&mut self, machine: usize, piece: Piece<'_>) -> Result<(), RestoreError> {
        let machine = self.machines.get_mut(machine);
        machine.ok_or_else(|| RestoreError::new("it has more services"))?.restore(piece)
    }

    fn find(&self, method: MethodId) -> Option<(usize, usize)> {
        self.machines.iter().enumerate().find_map(|(at, machine)| {
            let methods = machine.descriptor().methods;
            Some((at, methods.iter().position(|known| known.id() == method)?))
        })
    }
}

impl fmt::Debug for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.descriptors().map(|d| d.name)).finish()
    }
}

/// What a group says of streams that it does not run.
const NO_STREAMS: &str =
    "a group of replicas runs only streams of the server that have no side effects";

fn unknown() -> Answer {
    refuse("the group does not have the method")
}

fn refuse(why: impl Into<Cow<'static, str>>) -> Answer {
    Answer::NotExecuted(NotExecuted::because(NotExecutedReason::UnknownMethod, why))
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use bytes::Bytes;

    use super::super::metadata::Metadata;
    use super::super::method::Method;
    use super::*;

    /// Appends what it is told.
    struct Notes(&'static ServiceDescriptor, Vec<u8>);

    impl Machine for Notes {
        fn descriptor(&self) -> &'static ServiceDescriptor {
            self.0
        }

        fn apply(&mut self, _: &Applied, _: usize, request: &Encoded) -> Answer {
            self.1.extend_from_slice(&request.body.clone().into_bytes());
            Answer::Reply(request.clone(), Metadata::new())
        }

        fn query(&self, method: usize, _: &Encoded) -> Answer {
            let id = self.0.methods[method].id();
            Answer::Reply(Encoded::from_body(id, self.1.clone().into()), Metadata::new())
        }

        fn snapshot(&self) -> Image {
            self.1.clone().into()
        }

        fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
            self.1 = piece.to_vec();
            Ok(())
        }
    }

    const NOTES: &[Method] = &[
        Method::new("a.Notes/Add", Semantics::ExactlyOnce, Shape::Unary),
        Method::new("a.Notes/Read", Semantics::Read, Shape::Unary),
        Method::new("a.Notes/Watch", Semantics::Read, Shape::ServerStreaming),
    ];
    static ONE: ServiceDescriptor =
        ServiceDescriptor { name: "a.Notes", methods: NOTES, file_descriptor_set: &[] };
    static TWIN: ServiceDescriptor =
        ServiceDescriptor { name: "a.Twin", methods: NOTES, file_descriptor_set: &[] };
    static OTHER: ServiceDescriptor = ServiceDescriptor {
        name: "a.Other",
        methods: &[Method::new("a.Other/Add", Semantics::AtMostOnce, Shape::Unary)],
        file_descriptor_set: &[],
    };

    fn machines() -> Machines {
        let mut machines = Machines::new();
        machines.add(Box::new(Notes(&ONE, Vec::new()))).unwrap();
        machines.add(Box::new(Notes(&OTHER, Vec::new()))).unwrap();
        machines
    }

    fn add(machines: &mut Machines, method: &str, text: &'static [u8]) {
        let id = MethodId::of(method);
        let request = Encoded::from_body(id, Bytes::from_static(text));
        let answer = machines.apply(&Applied::default(), id, &request);
        assert!(matches!(answer, Answer::Reply(..)), "{answer:?}");
    }

    fn read(machines: &Machines) -> Bytes {
        match machines.query(MethodId::of("a.Notes/Read"), &Encoded::default()) {
            Answer::Reply(reply, _) => reply.body.into_bytes(),
            answer => panic!("{answer:?}"),
        }
    }

    #[test]
    fn a_snapshot_brings_every_machine_to_where_it_was() {
        let mut machines_before = machines();
        add(&mut machines_before, "a.Notes/Add", b"one");
        add(&mut machines_before, "a.Other/Add", b"two");
        let snapshot = machines_before.snapshot();
        let mut restored = machines();
        for (machine, image) in snapshot.iter().enumerate() {
            let bytes = image.to_bytes().unwrap();
            restored.restore(machine, Piece::only(&bytes)).unwrap();
        }
        assert_eq!(restored.snapshot(), snapshot);
        assert_eq!(read(&restored), "one");
        assert!(restored.restore(2, Piece::only(b"three")).is_err());
    }

    #[test]
    fn what_has_side_effects_is_not_run_as_a_read_and_what_is_unknown_not_at_all() {
        let mut machines = machines();
        for method in ["a.Notes/Add", "a.Notes/Watch", "a.Notes/Nothing"] {
            let answer = machines.query(MethodId::of(method), &Encoded::default());
            assert!(matches!(answer, Answer::NotExecuted(_)), "{method}: {answer:?}");
        }
        let unknown = MethodId::of("a.Notes/Nothing");
        let answer = machines.apply(&Applied::default(), unknown, &Encoded::default());
        assert!(matches!(answer, Answer::NotExecuted(_)), "{answer:?}");
        assert_eq!(read(&machines), "");
    }

    /// Supports two versions, and remembers which one each command ran under.
    struct Evolving(Vec<u32>);

    impl Machine for Evolving {
        fn descriptor(&self) -> &'static ServiceDescriptor {
            &ONE
        }

        fn versions(&self) -> RangeInclusive<u32> {
            1..=2
        }

        fn apply(&mut self, at: &Applied, _: usize, _: &Encoded) -> Answer {
            self.0.push(at.version);
            unknown()
        }

        fn query(&self, _: usize, _: &Encoded) -> Answer {
            unknown()
        }

        fn snapshot(&self) -> Image {
            self.0.iter().map(|version| *version as u8).collect::<Vec<_>>().into()
        }

        fn restore(&mut self, _: Piece<'_>) -> Result<(), RestoreError> {
            Ok(())
        }
    }

    #[test]
    fn commands_run_as_the_active_version_has_them_and_none_goes_back() {
        let mut machines = Machines::new();
        machines.add(Box::new(Evolving(Vec::new()))).unwrap();
        machines.add(Box::new(Notes(&OTHER, Vec::new()))).unwrap();
        let run = |machines: &mut Machines| {
            let id = MethodId::of("a.Notes/Add");
            machines.apply(&Applied::default(), id, &Encoded::default());
        };
        run(&mut machines);
        machines.activate(&[2, 1]).unwrap();
        run(&mut machines);
        machines.activate(&[1]).unwrap();
        run(&mut machines);
        assert_eq!(machines.active(), [2, 1]);
        assert_eq!(machines.snapshot()[0].to_bytes().unwrap(), [1, 2, 2][..]);
        let error = machines.activate(&[2, 2]).unwrap_err().to_string();
        assert!(error.contains("version 2 of a.Other's commands"), "{error}");
    }

    #[test]
    fn doubled_services_and_methods_are_refused() {
        let mut machines = machines();
        let again = machines.add(Box::new(Notes(&ONE, Vec::new())));
        assert_eq!(again, Err(RegisterError::Doubled("a.Notes")));
        let twin = machines.add(Box::new(Notes(&TWIN, Vec::new())));
        assert!(matches!(twin, Err(RegisterError::Collision(..))));
    }
}
