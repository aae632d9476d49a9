//! Clients that crash: killed between any two steps, they start again with their journal and learn
//! what became of every command that it has. What it does not have was never sent.

use stubborn_core::random::Random;
use stubborn_core::service::{CallState, OutgoingCall};

use super::client::{Client, Ended, outgoing};
use super::ledger::{ADD, Command};
use crate::nodes::Nodes;
use crate::world::{Journalled, millis};

impl Client {
    /// Keeps a journal, and is killed again and again until nothing goes wrong any more.
    pub(super) async fn run_and_crash(mut self, mut random: Random) {
        let (world, name) = (self.cluster.world.clone(), Self::host(self.id));
        self.journal = Some(self.caller.keep_journal());
        world.spawn_on(&name, self.clone().run());
        loop {
            world.sleep(millis(50 + random.below(3_000))).await;
            if self.cluster.lock().healed {
                return;
            }
            self.cluster.lock().counts.client_crashes += 1;
            world.kill(&name);
            world.sleep(millis(1 + random.below(1_500))).await;
            world.restart(&name);
            world.spawn_on(&name, self.clone().resume());
        }
    }

    /// Begins anew with what an earlier process has left.
    async fn resume(mut self) {
        let open: Vec<Command> = {
            let shared = self.cluster.lock();
            shared.open.keys().copied().filter(|command| command.client == self.id).collect()
        };
        let journal = self.journal.clone().expect("only clients with a journal crash");
        let calls = journal.calls();
        for command in open {
            let call = calls.iter().find(|call| command_of(call) == Some(command));
            let ended = match call {
                Some(call) => self.settle(call).await,
                None => Some(Ended::NotExecuted),
            };
            self.end_add(command, ended);
        }
        self.run().await;
    }

    /// Learns what became of a call of the journal.
    async fn settle(&mut self, call: &Journalled) -> Option<Ended> {
        let Journalled { id, request, outcome } = call;
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
        let request = request.as_ref().expect("it names a command");
        let call = outgoing(&ADD, request.encoded.clone(), None);
        self.call(OutgoingCall { reserved: Some(*id), ..call }).await
    }
}

fn command_of(call: &Journalled) -> Option<Command> {
    let request = call.request.as_ref().filter(|request| request.method == ADD)?;
    Command::decode(&request.encoded.body.to_vec())
}
