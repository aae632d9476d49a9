//! A service that is written as a Rust trait, without a `.proto` file, and calls of every shape:
//! `cargo run -p stubborn --features traits --example trait_service`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use stubborn::{CallContext, Identity, ReplySender, Requests, Server, Status};

/// What a transfer leaves behind.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    left: u64,
    call: Option<String>,
}

/// Accounts with money in them.
#[stubborn::service(package = "bank.v1")]
trait Bank {
    /// Moves money from one account to another.
    #[exactly_once]
    async fn transfer(
        &self,
        from: String,
        to: String,
        cents: u64,
        context: CallContext,
    ) -> Result<Receipt, Status>;

    /// Tells all accounts, one after the other.
    #[no_side_effects]
    async fn accounts(&self, replies: ReplySender<(String, u64)>) -> Result<(), Status>;

    /// Pays into accounts, and tells how much it was.
    async fn pay_in(&self, requests: Requests<(String, u64)>) -> Result<u64, Status>;

    /// Tells the balance of each account that is asked for.
    async fn ask(
        &self,
        requests: Requests<String>,
        replies: ReplySender<Option<u64>>,
    ) -> Result<(), Status>;
}

#[derive(Default)]
struct Ledger(Mutex<BTreeMap<String, u64>>);

impl Bank for Ledger {
    async fn transfer(
        &self,
        from: String,
        to: String,
        cents: u64,
        context: CallContext,
    ) -> Result<Receipt, Status> {
        let mut ledger = self.0.lock().unwrap();
        let left = ledger.get(&from).copied().unwrap_or(0).checked_sub(cents);
        let left = left.ok_or_else(|| Status::failed_precondition("not enough"))?;
        ledger.insert(from, left);
        *ledger.entry(to).or_default() += cents;
        Ok(Receipt { left, call: context.id.map(|id| id.to_string()) })
    }

    async fn accounts(&self, mut replies: ReplySender<(String, u64)>) -> Result<(), Status> {
        let ledger = self.0.lock().unwrap().clone();
        for account in ledger {
            replies.send(&account).await?;
        }
        Ok(())
    }

    async fn pay_in(&self, mut requests: Requests<(String, u64)>) -> Result<u64, Status> {
        let mut sum = 0;
        while let Some((account, cents)) = requests.message().await? {
            *self.0.lock().unwrap().entry(account).or_default() += cents;
            sum += cents;
        }
        Ok(sum)
    }

    async fn ask(
        &self,
        mut requests: Requests<String>,
        mut replies: ReplySender<Option<u64>>,
    ) -> Result<(), Status> {
        while let Some(account) = requests.message().await? {
            let balance = self.0.lock().unwrap().get(&account).copied();
            replies.send(&balance).await?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::self_signed(["localhost"])?;
    let pin = identity.fingerprint()?;
    let server = Server::bind("127.0.0.1:0").identity(identity);
    let server = server.service(BankServer::new(Ledger::default())).start().await?;
    let address = format!("stubborn://{}?pin={pin}", server.local_addr());

    let bank = BankClient::connect(&address).await?;
    let mut paying = bank.pay_in().await?;
    paying.send(&("ann".into(), 100)).await?;
    println!("paid in: {}", paying.finish().await?.reply);
    println!("{:?}", bank.transfer("ann".into(), "bob".into(), 30).await?);
    if let Err(error) = bank.transfer("ann".into(), "bob".into(), 100).await {
        println!("{error}");
    }
    let mut accounts = bank.accounts().await?;
    while let Some((account, cents)) = accounts.message().await? {
        println!("{account} has {cents}");
    }
    let mut asking = bank.ask().await?;
    asking.send(&"cid".into()).await?;
    println!("cid has {:?}", asking.message().await?);
    Ok(())
}
