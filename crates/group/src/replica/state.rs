//! What every replica of a group has alike: sessions, machines, and the log's time. It changes by
//! entries of the log alone, so that what a call changed and the record that it ran are one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::node::{
    CallLog, CallName, CallStep, SessionCommand, SessionTable, StepKind, Told, Unrun,
};
use stubborn_core::service::{
    Answer, Applied, Call, Encoded, Image, Machines, MethodId, Unsupported,
};
use stubborn_core::time::{Duration, Instant};
use stubborn_core::wire::{Reader, varint};

use super::entry::{Item, Origin, Record, What, decode_sessions};
use super::folders;
use super::image::image;
use super::restore::{Complete, Restoring};
use super::roster::{self, Roster};
use super::settings::{Fault, Settings};
use super::versions::Active;
use crate::served::Ending;

#[derive(Debug)]
pub(super) struct State {
    table: SessionTable,
    machines: Machines,
    roster: Roster,
    /// The log has said with which table the group begins.
    founded: bool,
    /// The log has said which versions of commands are active.
    versioned: bool,
    /// The active version of the group itself.
    version: u32,
    /// The newest one that this program supports.
    newest: u32,
    /// Calls that ended since the last look, and how.
    ended: Vec<(Origin, MethodId, Ending)>,
    planted: Planted,
    /// What happened to calls lately; no part of the state.
    log: CallLog,
}

/// What a bug that is planted for the simulator to find needs; nothing, unless one is.
#[derive(Debug, Default)]
struct Planted {
    /// The table as it was before the last entry.
    before: Option<SessionTable>,
}

impl State {
    /// That of a new group.
    pub(super) fn new(group: u64, settings: &Settings, machines: Machines) -> Self {
        let (limits, newest) = (&settings.limits, settings.version);
        let table = SessionTable::new(group, limits);
        let (roster, planted) = (Roster::default(), Planted::default());
        let ended = Vec::new();
        let log = CallLog::new(limits.call_steps);
        let (founded, versioned, version) = (false, false, 1);
        Self { table, machines, roster, founded, versioned, version, newest, ended, planted, log }
    }

    /// What the first entry of the log is to say, if it has not been said: limits are part of the
    /// table, so all replicas begin with that of the first leader.
    pub(super) fn founding(&self) -> Option<What> {
        (!self.founded).then(|| {
            let mut table = Vec::new();
            self.table.encode(&mut table);
            What::Founding(table.into())
        })
    }

    /// Does what an entry says, and returns what clients are to be told. What panics is caught, so
    /// that the replica can stop in order; the state is not used any more then.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        index: u64,
        record: &Record,
    ) -> Result<Vec<Told>, Fault> {
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply_record(now, index, record)));
        applied.map_err(|panic| Fault::Panicked { index, what: panic_text(&*panic) })?
    }

    /// What happened to calls lately.
    pub(super) fn log(&mut self) -> &mut CallLog {
        &mut self.log
    }

    pub(super) fn call_steps(&self, name: CallName) -> Vec<CallStep> {
        self.log.steps(name)
    }

    fn apply_record(
        &mut self,
        now: Instant,
        index: u64,
        record: &Record,
    ) -> Result<Vec<Told>, Fault> {
        if cfg!(feature = "planted-late-records") {
            self.planted.before = Some(self.table.clone());
        }
        // A leader's clock does not go back, and the table's time not either.
        self.table.advance(record.time);
        let mut told = Vec::new();
        for Item { origin, what } in &record.items {
            match what {
                What::Command(bytes) => {
                    let Ok(command) = SessionCommand::decode(bytes.clone()) else { continue };
                    let time = self.table.time();
                    let (machines, roster) = (&mut self.machines, &mut self.roster);
                    let ended = &mut self.ended;
                    let at = Applied { index, time, ..Applied::default() };
                    let run = |method, call: Call<Encoded>| {
                        if method == roster::CHANGE.id() {
                            return roster.command(index, call.context(), call.message());
                        }
                        let answer = machines.apply(&at, method, call.message());
                        ended.push((*origin, method, Ending::of(&answer)));
                        answer
                    };
                    let unrun = self.table.apply(time, origin.life, &command, run, &mut told);
                    if let Some(Unrun { method, reason }) = unrun {
                        self.ended.push((*origin, method, Ending::NotExecuted(reason)));
                    }
                    if let Some((call, fence)) = command.call() {
                        self.log.push(now, call, StepKind::Applied { entry: index, fence });
                    }
                }
                What::Renewal(sessions) => {
                    let time = self.table.time();
                    self.table.renew(time, &decode_sessions(sessions));
                }
                What::Founding(table) => self.found(table),
                What::Refounding(group) => self.found_anew(group),
                What::Roster(roster) => self.begin_roster(roster),
                What::Folder(bytes) => {
                    if let Some((id, folder)) = folders::decode(bytes) {
                        self.roster.begun(id, folder);
                    }
                }
                What::Activate(bytes) => {
                    self.versioned = true;
                    let mut versions = Active::decode(bytes);
                    if cfg!(feature = "planted-own-version") {
                        versions.machines = self.machines.versions().map(|of| *of.end()).collect();
                    }
                    self.machines.activate(&versions.machines).map_err(Fault::Version)?;
                    self.activate(versions.group)?;
                }
            }
        }
        Ok(told)
    }

    /// The calls that ended since the last look: copies of those that had ended before are none.
    pub(super) fn take_ended(&mut self) -> std::vec::Drain<'_, (Origin, MethodId, Ending)> {
        self.ended.drain(..)
    }

    /// Whether the log has said which versions of commands are active.
    pub(super) fn has_versions(&self) -> bool {
        self.versioned
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Which versions are active.
    pub(super) fn active(&self) -> Active {
        Active { group: self.version, machines: self.machines.active().to_vec() }
    }

    fn activate(&mut self, version: u32) -> Result<(), Fault> {
        let version = version.max(self.version);
        if version > self.newest {
            let supported = 1..=self.newest;
            return Err(Fault::Version(Unsupported { service: "the group", version, supported }));
        }
        self.version = version;
        self.table.activate(version);
        Ok(())
    }

    fn found(&mut self, table: &Bytes) {
        if std::mem::replace(&mut self.founded, true) {
            return;
        }
        // In a log that was restored it is the other group's, until the log says where the new one
        // begins.
        if let Ok(table) = SessionTable::decode(table) {
            let time = self.table.time();
            self.table = table;
            self.table.activate(self.version);
            self.table.advance(time);
        }
    }

    /// What was applied so far is a backup's; its sessions are none of this group's.
    fn found_anew(&mut self, group: &Bytes) {
        if let Some(group) = group.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) {
            self.table = self.table.of_new_group(group);
            self.roster = Roster::default();
            self.founded = true;
        }
    }

    fn begin_roster(&mut self, bytes: &Bytes) {
        if let Some(roster) = Roster::decode(&mut Reader::new(bytes))
            && self.roster.is_empty()
        {
            self.roster = roster;
        }
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Answers a read.
    pub(super) fn query(&self, method: MethodId, request: &Encoded) -> Answer {
        if method == roster::MEMBERS.id() {
            return self.roster.tell(method);
        }
        self.machines.query(method, request)
    }

    /// A bug that is planted for the simulator to find: sessions age by a replica's own clock.
    pub(super) fn tick_if_planted(&mut self, tick: Duration) {
        if cfg!(feature = "planted-local-time") {
            self.table.advance(self.table.time() + tick);
        }
    }

    pub(super) fn table(&self) -> &SessionTable {
        &self.table
    }

    pub(super) fn machines(&self) -> &Machines {
        &self.machines
    }

    pub(super) fn time(&self) -> Instant {
        self.table.time()
    }

    /// All of it as it is now, the same on every replica that has applied the same entries. It goes
    /// on: what it changes from now on is copied.
    pub(super) fn freeze(&mut self) -> Image {
        let (table, ids) = match &mut self.planted.before {
            Some(before) => (before.freeze(), before.freeze_ids()),
            None if cfg!(feature = "planted-forgotten-records") => {
                let mut empty = SessionTable::new(self.table.group(), &Limits::default());
                (empty.freeze(), self.table.freeze_ids())
            }
            None if cfg!(feature = "planted-forgotten-ids") => (self.table.freeze(), None),
            None => (self.table.freeze(), self.table.freeze_ids()),
        };
        let mut head = vec![u8::from(self.founded)];
        self.roster.encode(&mut head);
        head.push(u8::from(self.versioned));
        let active = self.active().encode();
        varint::encode(active.len() as u64, &mut head);
        head.extend_from_slice(&active);
        self.roster.encode_folders(&mut head);
        let names = self.machines.descriptors().map(|of| of.name);
        image(head, table, ids, names.zip(self.machines.snapshot()).collect())
    }

    /// Takes the next bytes of a state that is being restored.
    pub(super) fn restore(&mut self, restoring: &mut Restoring, bytes: &[u8]) {
        restoring.take(bytes, &mut self.machines);
    }

    /// Takes a state that was restored in the place of its own.
    pub(super) fn adopt(&mut self, restored: Complete) -> Result<(), Fault> {
        let (head, table) = restored.finish(&mut self.machines)?;
        (self.table, self.founded, self.roster) = (table, head.founded, head.roster);
        self.versioned = head.versioned;
        self.activate(head.active.group)
    }

    /// Takes the state of a snapshot, all at once.
    pub(super) fn restore_all(&mut self, image: &Image) -> Result<(), Fault> {
        let mut restoring = Restoring::default();
        for piece in image.pieces() {
            self.restore(&mut restoring, &piece?);
        }
        self.adopt(restoring.complete()?)
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
