//! What a client's next process does with the journal of the one before: it learns what became of the
//! calls in it, or makes them again under their numbers. What is not in it was never sent.

use stubborn_core::service::{Caller, Metadata, OutgoingCall};

use super::client::{Sent, Worker};
use super::ledger::Told;
use super::store::Shared;
use super::till::Errand;
use crate::world::{Journalled, SimJournal, World};

/// What this client had begun, in whatever process, and the journal does not have was never sent.
pub(super) fn end_unwritten(world: &World, shared: &Shared, client: &str, journal: &SimJournal) {
    let written: Vec<_> = journal.calls().iter().filter_map(errand_of).collect();
    let now = world.now();
    let database = &mut shared.lock().database;
    for token in database.ledger.untold(client) {
        if !written.iter().any(|errand| errand.token == token) {
            database.told((token, None), Told::NotExecuted, now);
        }
    }
}

impl Worker {
    /// Settles what the journal has, and goes on.
    pub(super) async fn resume(mut self, journal: SimJournal) {
        for call in journal.calls() {
            let Some(errand) = errand_of(&call) else { continue };
            if !self.shared.lock().database.ledger.is_told(errand.token) {
                self.take_up(call, errand, &journal).await;
            }
        }
        self.run().await;
    }

    async fn take_up(&mut self, call: Journalled, errand: Errand, journal: &SimJournal) {
        let Journalled { id, request, outcome } = call;
        let sent = Sent::again(&self.world, &self.shared, errand);
        if let Some(state) = outcome {
            return sent.state(id, state);
        }
        // The session before the last is gone, and nobody can tell.
        let Some(request) = request else { return };
        if journal.ticket().is_none_or(|ticket| ticket.session != id.session) {
            return;
        }
        self.shared.lock().database.ledger.counts.taken_up += 1;
        if self.random.chance(0.5) {
            return self.settle(sent, id).await;
        }
        let again = OutgoingCall {
            method: request.method,
            request: request.encoded,
            metadata: Metadata::new(),
            deadline: None,
            wait_for_ready: Some(true),
            reserved: Some(id),
            max_staleness: None,
        };
        let ended = self.caller.call(again).await;
        self.judge(sent, ended).await;
    }
}

fn errand_of(call: &Journalled) -> Option<Errand> {
    let request = call.request.as_ref()?;
    Errand::decode(request.encoded.body.clone().into_bytes())
}
