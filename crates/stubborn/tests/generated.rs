//! Generated stubs over real sockets.

mod common;

use common::{Site, soon};
use std::future::IntoFuture;
use std::sync::Mutex;
use stubborn::reflection::{FileDescriptorsRequest, ListServicesRequest, ReflectionClient};
use stubborn::{Call, ChannelBuilder, Code, Identity, ReplySender, Server, Status};

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

/// What the generator makes of `examples/bank/bank.proto`.
mod bank {
    include!("../../build/tests/golden/bank/mod.rs");
}

use bank::bank::v1::*;

#[derive(Default)]
struct Ledger {
    alice: Mutex<i64>,
}

impl Bank for Ledger {
    async fn transfer(&self, call: Call<TransferRequest>) -> Result<TransferReply, Status> {
        let mut cents = self.alice.lock().unwrap();
        if *cents < call.cents {
            return Err(Status::failed_precondition("not enough"));
        }
        *cents -= call.cents;
        Ok(TransferReply { from_cents: *cents })
    }

    async fn balance(&self, _: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
        Ok(BalanceReply { cents: *self.alice.lock().unwrap() })
    }

    async fn history(
        &self,
        call: Call<HistoryRequest>,
        mut replies: ReplySender<Entry>,
    ) -> Result<(), Status> {
        for n in 1..=3 {
            replies.send(&Entry { reference: n, cents: 10, balance_cents: 10 * n as i64 }).await?;
        }
        if call.account == "nobody" { Err(Status::not_found("no such account")) } else { Ok(()) }
    }

    async fn beat(&self, _: Call<Heartbeat>) -> Result<(), Status> {
        Ok(())
    }
}

#[tokio::test]
async fn a_generated_client_calls_a_generated_server() {
    let identity = Identity::self_signed(["localhost"]).unwrap();
    let server = Server::bind("127.0.0.1:0")
        .identity(identity.clone())
        .service(BankServer::new(Ledger { alice: Mutex::new(100) }))
        .start()
        .await
        .unwrap();
    let pin = identity.fingerprint().unwrap();
    let address = format!("stubborn://{}?pin={pin}", server.local_addr());
    let client = BankClient::connect(&address).await.unwrap();
    let transfer = |cents| TransferRequest { cents, ..Default::default() };
    let reply = soon(client.transfer(transfer(30)).into_future()).await.unwrap();
    assert_eq!(reply.from_cents, 70);
    let refused = soon(client.transfer(transfer(71)).into_future()).await.unwrap_err();
    assert!(refused.to_string().contains("bank.v1.Bank/Transfer at 127.0.0.1"), "{refused}");
    let balance = client.balance(BalanceRequest::default());
    assert_eq!(soon(balance.into_future()).await.unwrap().cents, 70);
    soon(client.beat(Heartbeat::default()).into_future()).await.unwrap();
    for account in ["alice", "nobody"] {
        let request = HistoryRequest { account: account.into() };
        let mut entries = client.history(request).await.unwrap();
        for n in 1..=3 {
            assert_eq!(soon(entries.message()).await.unwrap().unwrap().reference, n);
        }
        match soon(entries.message()).await {
            Ok(None) => assert_eq!(account, "alice"),
            Ok(Some(entry)) => panic!("{entry:?}"),
            Err(error) => assert_eq!(error.status().unwrap().code(), Code::NotFound),
        }
    }
}

#[tokio::test]
async fn a_server_tells_its_services_unless_that_is_turned_off() {
    let site = Site::new();
    let server = site.start().await;
    let client = ReflectionClient::new(site.channel(&server).await);
    let list = soon(client.list_services(ListServicesRequest {}).into_future()).await.unwrap();
    let expected = [
        "grpc.health.v1.Health",
        "lab.v1.Lab",
        "stubborn.metrics.v1.Metrics",
        "stubborn.trace.v1.Trace",
        "stubborn.v1.Reflection",
    ];
    assert_eq!(list.services, expected);
    let unknown = FileDescriptorsRequest { service: "no.Such".into() };
    let error = soon(client.file_descriptors(unknown).into_future()).await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), stubborn::Code::NotFound);

    let silent = Server::bind("127.0.0.1:0")
        .identity(site.identity.clone())
        .reflection(false)
        .start()
        .await
        .unwrap();
    let channel = ChannelBuilder::new(silent.local_addr().to_string()).trust(site.trust());
    let client = ReflectionClient::new(soon(channel.connect()).await.unwrap());
    let error = soon(client.list_services(ListServicesRequest {}).into_future()).await;
    assert!(error.unwrap_err().to_string().contains("does not have the method"));
}
