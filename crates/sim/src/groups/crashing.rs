//! Clients that crash: killed between any two steps, they start again with their journal and learn
//! what became of every call that it has. What it does not have was never sent.
//!
//! Sometimes another process is started on a copy of the journal: one of the two goes on, and the other
//! is refused.

use stubborn_core::random::Random;
use stubborn_core::service::{CallState, OutgoingCall};
use stubborn_core::session::NotExecutedReason;

use super::client::{Client, Ended, outgoing};
use super::ledger::{ADD, Command, PUT, Put};
use crate::nodes::Nodes;
use crate::world::{Journalled, millis};

/// What the id of a client is raised by for the one that goes on from a copy of its journal.
const COPY: u64 = 100;

impl Client {
    /// Keeps a journal, and is killed again and again until nothing goes wrong any more.
    pub(super) async fn run_and_crash(mut self, mut random: Random) {
        let (world, name) = (self.cluster.world.clone(), Self::host(self.id));
        self.journal = Some(self.caller.keep_journal());
        world.spawn_on(&name, self.clone().run());
        let mut copies = random.chance(0.4);
        loop {
            world.sleep(millis(50 + random.below(3_000))).await;
            if self.cluster.lock().healed {
                return;
            }
            if copies && random.chance(0.5) && self.start_copy() {
                copies = false;
                // The first one lives on beside it, or is started again, too.
                if random.chance(0.5) {
                    continue;
                }
            }
            self.cluster.lock().counts.client_crashes += 1;
            world.kill(&name);
            world.sleep(millis(1 + random.below(1_500))).await;
            world.restart(&name);
            world.spawn_on(&name, self.clone().resume());
        }
    }

    /// Starts another process on a copy of the journal, if that has a session.
    fn start_copy(&self) -> bool {
        let journal = self.journal.as_ref().expect("only clients with a journal crash").copied();
        if journal.ticket().is_none() {
            return false;
        }
        let mut copy = Self::new(self.cluster.clone(), self.id + COPY, self.manners);
        copy.caller.use_journal(&journal);
        copy.journal = Some(journal);
        {
            let mut shared = self.cluster.lock();
            shared.copies.push((self.id, copy.id));
            shared.counts.copied += 1;
        }
        self.cluster.world.spawn_on(&Self::host(copy.id), copy.resume());
        true
    }

    /// Begins anew with what an earlier process has left.
    async fn resume(mut self) {
        let calls = self.journal.as_ref().expect("only clients with a journal crash").calls();
        for call in &calls {
            let ended = self.settle(call).await;
            match (command_of(call), put_of(call)) {
                (Some(command), _) => self.end_add(command, ended),
                (_, Some(put)) => self.end_put(put.value, ended),
                (None, None) => {}
            }
        }
        self.end_unwritten(&calls);
        self.run().await;
    }

    /// What this client had begun and the journal does not have was never sent.
    fn end_unwritten(&mut self, calls: &[Journalled]) {
        let (commands, values): (Vec<Command>, Vec<u64>) = {
            let shared = self.cluster.lock();
            let puts = shared.open_puts.iter().filter(|(_, put)| put.client == self.id);
            let values = puts.map(|(value, _)| *value).collect();
            let own = |command: &Command| command.client == self.id;
            (shared.open.keys().copied().filter(own).collect(), values)
        };
        for command in commands {
            if !calls.iter().any(|call| command_of(call) == Some(command)) {
                self.end_add(command, Some(Ended::NotExecuted(NotExecutedReason::NeverSent)));
            }
        }
        for value in values {
            if !calls.iter().any(|call| put_of(call).is_some_and(|put| put.value == value)) {
                self.end_put(value, Some(Ended::NotExecuted(NotExecutedReason::NeverSent)));
            }
        }
    }

    /// Learns what became of a call of the journal, unless that is known.
    async fn settle(&mut self, call: &Journalled) -> Option<Ended> {
        let Journalled { id, request, outcome } = call;
        let open = {
            let shared = self.cluster.lock();
            command_of(call).is_some_and(|command| shared.open.contains_key(&command))
                || put_of(call).is_some_and(|put| shared.open_puts.contains_key(&put.value))
        };
        if self.refused || !open {
            return None;
        }
        if let Some(state) = outcome {
            return self.known(*id, state.clone());
        }
        let ticket = self.journal.as_ref().and_then(|journal| journal.ticket());
        if ticket.is_none_or(|ticket| ticket.session != id.session) {
            return self.known(*id, CallState::Lost);
        }
        self.cluster.lock().counts.taken_up += 1;
        if self.cluster.chance(0.5) {
            return self.ask(*id).await;
        }
        let request = request.as_ref().expect("it changes something");
        let call = outgoing(&request.method, request.encoded.clone(), None);
        self.call(OutgoingCall { reserved: Some(*id), ..call }).await
    }
}

fn command_of(call: &Journalled) -> Option<Command> {
    let request = call.request.as_ref().filter(|request| request.method == ADD)?;
    Command::decode(&request.encoded.body.to_vec())
}

fn put_of(call: &Journalled) -> Option<Put> {
    let request = call.request.as_ref().filter(|request| request.method == PUT)?;
    Put::decode(&request.encoded.body.to_vec())
}
