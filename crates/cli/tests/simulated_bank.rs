//! A bank, written with generated stubs as its users write them, in a world that loses a fifth of
//! all datagrams and kills the server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stubborn::{Call, CallState, Outcome, ReplySender, Status};
use stubborn_sim::{World, explore, secs};

#[allow(dead_code, unreachable_pub)]
mod stubs {
    stubborn::include_protos!();
}

use stubs::bank::v1::{
    BalanceReply, BalanceRequest, Bank, BankClient, BankServer, Entry, Heartbeat, HistoryRequest,
    TransferReply, TransferRequest,
};

/// What really happened, whatever the bank's process forgets: transfers by their reference.
type Effects = Arc<Mutex<BTreeMap<u64, u32>>>;

/// The bank keeps its balances in memory: a restart forgets them.
struct Ledger {
    balances: Mutex<BTreeMap<String, i64>>,
    effects: Effects,
}

impl Ledger {
    fn new(effects: Effects) -> Self {
        let balances = ["alice", "bob"].map(|name| (name.to_owned(), 1_000_000)).into();
        Self { balances: Mutex::new(balances), effects }
    }
}

impl Bank for Ledger {
    async fn transfer(&self, call: Call<TransferRequest>) -> Result<TransferReply, Status> {
        // Some transfers take time: tokio's clock is the world's.
        if call.reference.is_multiple_of(7) {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let TransferRequest { from, to, cents, reference } = call.into_message();
        let mut balances = self.balances.lock().unwrap();
        if !balances.contains_key(&to) {
            return Err(Status::not_found("no such account"));
        }
        let paying = balances.get_mut(&from).ok_or_else(|| Status::not_found("no such account"))?;
        *paying -= cents;
        let from_cents = *paying;
        *balances.get_mut(&to).expect("it is there") += cents;
        *self.effects.lock().unwrap().entry(reference).or_default() += 1;
        Ok(TransferReply { from_cents })
    }

    async fn balance(&self, call: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
        let balances = self.balances.lock().unwrap();
        let cents = *balances.get(&call.account).ok_or_else(|| Status::not_found("no account"))?;
        Ok(BalanceReply { cents })
    }

    async fn history(&self, _: Call<HistoryRequest>, _: ReplySender<Entry>) -> Result<(), Status> {
        Err(Status::unimplemented("it remembers balances only"))
    }

    async fn beat(&self, _: Call<Heartbeat>) -> Result<(), Status> {
        Ok(())
    }
}

/// What a teller knows of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    NotDone,
    Lost,
}

async fn transfer(world: &World, bank: &BankClient, reference: u64) -> Told {
    let request = TransferRequest { from: "alice".into(), to: "bob".into(), cents: 1, reference };
    let error = match bank.transfer(request).deadline(secs(2)).wait_for_ready(true).await {
        Ok(_) => return Told::Done,
        Err(error) => error,
    };
    match error.into_outcome() {
        Outcome::NotExecuted(_) => Told::NotDone,
        Outcome::Lost => Told::Lost,
        Outcome::Pending(id) => loop {
            match bank.transfer_outcome(id).await {
                Ok(CallState::Replied(_)) => return Told::Done,
                Ok(CallState::NotExecuted(_)) => return Told::NotDone,
                Ok(CallState::Lost) => return Told::Lost,
                _ => world.sleep(secs(1)).await,
            }
        },
        other => panic!("transfer {reference}: {other:?}"),
    }
}

#[test]
fn no_transfer_is_lost_or_doubled() {
    explore(20, |world| async move {
        let effects = Effects::default();
        let books = effects.clone();
        world.host("bank", move || BankServer::new(Ledger::new(books.clone())));
        let bank = BankClient::new(world.channel("teller", "bank"));
        let _loss = world.network().lose(0.2);
        world.after(secs(3)).kill("bank").for_(secs(1));
        let mut lost = 0;
        for reference in 1..=200 {
            let told = transfer(&world, &bank, reference).await;
            let happened = effects.lock().unwrap().get(&reference).copied().unwrap_or(0);
            match told {
                Told::Done => assert_eq!(happened, 1, "transfer {reference}"),
                Told::NotDone => assert_eq!(happened, 0, "transfer {reference}"),
                Told::Lost => {
                    lost += 1;
                    assert!(happened <= 1, "transfer {reference}");
                }
            }
        }
        assert!(lost <= 1, "one call is in flight when the bank is killed, and {lost} were lost");
    });
}

/// A bank without a `.proto` file: what it was told to add, each under its reference.
#[stubborn::service(package = "vault.v1")]
trait Vault {
    async fn add(&self, reference: u64, cents: u64) -> Result<u64, Status>;
}

impl Vault for Effects {
    async fn add(&self, reference: u64, cents: u64) -> Result<u64, Status> {
        *self.lock().unwrap().entry(reference).or_default() += 1;
        Ok(cents + 1)
    }
}

#[test]
fn calls_of_a_service_that_is_a_trait_end_as_their_outcomes_say() {
    explore(5, |world| async move {
        let effects = Effects::default();
        let vault = effects.clone();
        world.host("vault", move || VaultServer::new(vault.clone()));
        let client = VaultClient::new(world.channel("teller", "vault"));
        let _loss = world.network().lose(0.2);
        world.after(secs(1)).kill("vault").for_(secs(1));
        for reference in 1..=100 {
            let call = client.add(reference, reference).deadline(secs(2)).wait_for_ready(true);
            let outcome = call.await.map_err(|error| error.into_outcome());
            let happened = effects.lock().unwrap().get(&reference).copied().unwrap_or(0);
            match outcome {
                Ok(reply) => assert_eq!((reply, happened), (reference + 1, 1)),
                Err(Outcome::NotExecuted(_)) => assert_eq!(happened, 0, "call {reference}"),
                Err(_) => assert!(happened <= 1, "call {reference}"),
            }
        }
    });
}
