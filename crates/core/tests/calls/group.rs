//! Servers that are replicas of one group: a log that is always right stands in for consensus.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::node::{SessionCommand, SessionTable};
use stubborn_core::service::{Answer, Encoded, Metadata, Status};
use stubborn_core::time::{Duration, Instant};

use crate::world::{FAIL, SERVER, SPARE, THIRD, World};

pub(crate) const REPLICAS: [usize; 3] = [SERVER, SPARE, THIRD];

/// What all replicas share.
pub(crate) struct Group {
    pub(crate) table: SessionTable,
    /// Commands that will be committed, each with when and by whom.
    log: BTreeMap<(Instant, u64), (usize, SessionCommand)>,
    taken: u64,
    /// How long it takes to commit.
    pub(crate) commit: Duration,
    /// How likely a command comes a second time, up to a second later.
    pub(crate) copies: f64,
    /// A replica that is cut off from the others: what it takes is never committed.
    pub(crate) cut_off: Option<usize>,
    /// Commands are pushed back until then.
    pub(crate) busy_until: Instant,
    pub(crate) pushed_back: usize,
    /// Entries that are applied.
    pub(crate) applied: u64,
    /// Replicas whose state is too old for any read.
    pub(crate) too_stale: Vec<usize>,
}

impl Group {
    pub(crate) fn new(id: u64, limits: &Limits) -> Self {
        Self {
            table: SessionTable::new(id, limits),
            log: BTreeMap::new(),
            taken: 0,
            commit: Duration::from_millis(2),
            copies: 0.0,
            cut_off: None,
            busy_until: Instant::ZERO,
            pushed_back: 0,
            applied: 0,
            too_stale: Vec::new(),
        }
    }

    pub(crate) fn next_moment(&self) -> Option<Instant> {
        self.log.first_key_value().map(|((at, _), _)| *at)
    }

    fn take(&mut self, at: Instant, host: usize, command: SessionCommand) {
        self.taken += 1;
        self.log.insert((at, self.taken), (host, command));
    }
}

impl World {
    pub(crate) fn the_group(&mut self) -> &mut Group {
        self.group.as_mut().expect("the servers are replicas")
    }

    /// A replica got a command from its client.
    pub(crate) fn command(&mut self, host: usize, mut command: SessionCommand) {
        let now = self.now;
        let (copy, late) = (self.random.unit(), self.random.unit());
        let group = self.the_group();
        if group.cut_off == Some(host) {
            return;
        }
        if now < group.busy_until {
            group.pushed_back += 1;
            if let Some(message) = command.push_back(Duration::from_millis(20)) {
                self.node(host).tell(now, command.client(), message);
            }
            return;
        }
        command.taken_at(now);
        let at = now + group.commit;
        if copy < group.copies {
            group.take(at + Duration::from_secs_f64(late), host, command.clone());
        }
        group.take(at, host, command);
    }

    /// Applies what is committed by now, on all replicas at once.
    pub(crate) fn apply_log(&mut self) {
        let now = self.now;
        let mut told = Vec::new();
        let Some(group) = &mut self.group else { return };
        while let Some(entry) = group.log.first_entry().filter(|entry| entry.key().0 <= now) {
            let (host, command) = entry.remove();
            group.applied += 1;
            let (ran, ran_at) = (&mut self.ran, &mut self.ran_at);
            let run = |method, call: stubborn_core::service::Call<Encoded>| {
                let body = call.message().verified(method).expect("an unaltered request");
                let name = if method == FAIL.id() { "fail" } else { "echo" };
                ran.push((name.to_string(), Bytes::copy_from_slice(&body)));
                ran_at.push(host);
                if method == FAIL.id() {
                    return Answer::Status(Status::not_found("no such thing"));
                }
                Answer::Reply(Encoded::from_body(method, body), Metadata::new())
            };
            group.table.apply(now, host as u64, &command, run, &mut told);
        }
        let applied = group.applied;
        self.nodes.iter_mut().flatten().for_each(|node| node.applied(applied));
        for told in told {
            if let Some(node) = &mut self.nodes[told.replica as usize] {
                node.tell(now, told.client, told.message);
            }
        }
    }
}
