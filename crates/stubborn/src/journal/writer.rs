//! The thread that writes a journal: one sync for all that waits, then the node hears of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use stubborn_core::node::{CallKey, ChannelEvent, ChannelKey, JournalEntry};
use stubborn_core::session::{CallId, SessionId};
use tokio::sync::oneshot;

use super::book::Book;
use super::file::JournalFile;
use super::record::Record;
use crate::driver::Shared;

/// Entries that are made durable together, at most.
const TOGETHER: usize = 4_096;

/// What the application knows is written with the next call, or after so long without one.
const IDLE: Duration = Duration::from_millis(100);

/// What the thread is to do.
pub(crate) enum Job {
    /// The node waits for this.
    Entry(JournalEntry),
    /// The caller was told the outcome.
    Told(CallKey),
    /// The caller has left without it.
    Dropped(CallKey),
    /// The application knows the outcome.
    Settled(CallId),
    /// Write what was handed over, and say so.
    Flush(oneshot::Sender<()>),
    /// The same, and close the file.
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    pub(super) file: JournalFile,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) shared: Weak<Shared>,
    pub(super) channels: Channels,
    /// This process.
    pub(super) holder: u64,
    pub(super) keys: BTreeMap<CallKey, CallId>,
}

/// The channels that write to a journal.
pub(super) struct Channels {
    /// The one that calls are made on. It has the last session, and opens others.
    pub(super) last: ChannelKey,
    /// Those for the calls of earlier sessions.
    pub(super) others: Vec<(SessionId, ChannelKey)>,
}

/// What a batch leads to once it is durable.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    /// Somebody waits for it.
    due: bool,
    journalled: Vec<CallId>,
    let_go: Vec<CallId>,
    flushed: Vec<oneshot::Sender<()>>,
    last: bool,
}

impl Writer {
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        match self.work(jobs) {
            Err(error) => self.fail(&error),
            Ok(closed) => {
                // First the file is let go.
                drop(self);
                tell(closed);
            }
        }
    }

    /// Returns who waits for the file to be closed.
    fn work(&mut self, jobs: &Receiver<Job>) -> io::Result<Vec<oneshot::Sender<()>>> {
        let mut batch = Batch::default();
        loop {
            match jobs.recv_timeout(IDLE) {
                Ok(job) => self.take(job, &mut batch),
                Err(RecvTimeoutError::Timeout) if batch.records.is_empty() => match jobs.recv() {
                    Ok(job) => self.take(job, &mut batch),
                    Err(_) => return Ok(Vec::new()),
                },
                Err(RecvTimeoutError::Timeout) => batch.due = true,
                Err(RecvTimeoutError::Disconnected) => {
                    (batch.due, batch.last) = (true, true);
                }
            }
            for job in jobs.try_iter().take(TOGETHER) {
                self.take(job, &mut batch);
            }
            if batch.due {
                let batch = std::mem::take(&mut batch);
                let last = batch.last;
                let flushed = self.write(batch)?;
                if last {
                    return Ok(flushed);
                }
                tell(flushed);
            }
        }
    }

    fn take(&mut self, job: Job, batch: &mut Batch) {
        match job {
            Job::Entry(JournalEntry::Session(ticket)) => {
                batch.records.push(Record::Session(ticket, vec![self.holder]));
            }
            Job::Entry(JournalEntry::Held(session)) => {
                batch.records.push(Record::Held(session, self.holder));
            }
            Job::Entry(JournalEntry::Members(addresses)) => {
                batch.records.push(Record::Members(addresses));
                batch.due = true;
            }
            Job::Entry(JournalEntry::Call(call)) => {
                batch.records.push(Record::Call(call.id, call.request));
                batch.journalled.push(call.id);
                // A call that goes on under another number: what became of it is this one's outcome.
                let before = call.key.and_then(|key| self.keys.insert(key, call.id));
                batch.records.extend(before.map(Record::Settled));
                batch.due = true;
            }
            Job::Entry(JournalEntry::Outcome(id, state)) => {
                batch.records.push(Record::Outcome(id, state));
                batch.let_go.push(id);
                batch.due = true;
            }
            Job::Told(key) => {
                let id = self.keys.remove(&key);
                batch.records.extend(id.map(Record::Settled));
            }
            Job::Dropped(key) => drop(self.keys.remove(&key)),
            Job::Settled(id) => batch.records.push(Record::Settled(id)),
            Job::Flush(done) => {
                batch.flushed.push(done);
                batch.due = true;
            }
            Job::Close(done) => {
                batch.flushed.push(done);
                (batch.due, batch.last) = (true, true);
            }
        }
    }

    /// Returns who waits for it.
    fn write(&mut self, batch: Batch) -> io::Result<Vec<oneshot::Sender<()>>> {
        if !batch.records.is_empty() {
            self.file.append(&batch.records)?;
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            batch.records.into_iter().for_each(|record| book.apply(record));
            self.file.compact(&book)?;
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.change(|state, now| {
                for id in batch.journalled {
                    state.node.journalled(now, self.channels.of(id.session), id);
                }
                for id in batch.let_go {
                    state.node.let_go(now, self.channels.of(id.session), id);
                }
            });
        }
        Ok(batch.flushed)
    }

    /// Nothing is written after an error, and so nothing sent: the channel ends.
    fn fail(&self, error: &io::Error) {
        let Some(shared) = self.shared.upgrade() else { return };
        let why = format!("its journal cannot be written any more: {error}");
        shared.change(|state, now| {
            for key in self.channels.all() {
                if let Some(channel) = state.channels.get_mut(&key) {
                    channel.on_event(ChannelEvent::Refused(why.clone().into()));
                    channel.on_event(ChannelEvent::Unreachable(why.clone().into()));
                }
                state.node.close_channel(now, key);
            }
        });
    }
}

impl Channels {
    pub(super) fn of(&self, session: SessionId) -> ChannelKey {
        let other = self.others.iter().find(|(other, _)| *other == session);
        other.map_or(self.last, |(_, channel)| *channel)
    }

    fn all(&self) -> impl Iterator<Item = ChannelKey> {
        self.others.iter().map(|(_, channel)| *channel).chain([self.last])
    }
}

fn tell(waiting: Vec<oneshot::Sender<()>>) {
    for done in waiting {
        let _ = done.send(());
    }
}
