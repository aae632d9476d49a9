//! A handler that makes calls itself, is killed after one of them, and runs again: its child calls are
//! not made twice.

mod common;

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::replicas::{self, Replicas};
use common::{LIMIT, Note, note, soon};
use stubborn::steps::{CallRequest, Kind, Step, TraceClient};
use stubborn::{
    Answer, Authority, Call, CallError, Channel, ChannelBuilder, Encoded, Handling, Metadata,
    Method, NotExecutedReason, Outcome, Semantics, Server, ServerHandle, Service,
    ServiceDescriptor, Shape, Status,
};
use stubborn_completion::{Completions, Memory, MemoryCompletions};
use tokio::sync::{Semaphore, watch};

const PAY: Method = Method::new("shop.v1.Shop/Pay", Semantics::ExactlyOnce, Shape::Unary);
const CHARGE: Method = Method::new("bank.v1.Bank/Charge", Semantics::AtMostOnce, Shape::Unary);
static SHOP: ServiceDescriptor =
    ServiceDescriptor { name: "shop.v1.Shop", methods: &[PAY], file_descriptor_set: &[] };
static BANK: ServiceDescriptor =
    ServiceDescriptor { name: "bank.v1.Bank", methods: &[CHARGE], file_descriptor_set: &[] };

/// The child: every charge that runs counts.
#[derive(Clone, Default)]
struct Bank(Arc<AtomicI64>);

impl Service for Bank {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &BANK
    }

    fn call(&self, _: usize, _: Call<Encoded>) -> Handling {
        let charged = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        let reply = Encoded::new(CHARGE.id(), &note(charged));
        Box::pin(async move { Answer::Reply(reply, Metadata::new()) })
    }
}

/// The parent: charges at the bank, waits, and writes down what the bank said.
#[derive(Clone)]
struct Shop {
    db: MemoryCompletions<i64>,
    bank: Channel,
    /// Replies of the bank that handlers have got.
    charged: Arc<watch::Sender<u64>>,
    gate: Arc<Semaphore>,
}

impl Shop {
    async fn pay(self, call: Call<Note>) -> Result<Note, Status> {
        let child = self.bank.unary::<_, Note>(&CHARGE, &note(call.amount));
        let charge = child.derived_from(call.context(), 0).await;
        let charge = charge.map_err(|error| Status::internal(error.to_string()))?;
        self.charged.send_modify(|charged| *charged += 1);
        self.gate.acquire().await.expect("it is never closed").forget();
        let mut guard = self.db.begin(&call).await?;
        *guard.transaction() += charge.amount;
        guard.commit(charge).await
    }
}

impl Service for Shop {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &SHOP
    }

    fn call(&self, _: usize, request: Call<Encoded>) -> Handling {
        let shop = self.clone();
        Box::pin(async move {
            let (encoded, context) = request.into_parts();
            let call = match encoded.decode::<Note>(PAY.id()) {
                Ok(note) => Call::new(note, context),
                Err(error) => return Answer::unreadable(error),
            };
            match shop.pay(call).await {
                Ok(note) => Answer::Reply(Encoded::new(PAY.id(), &note), Metadata::new()),
                Err(status) => Answer::Status(status),
            }
        })
    }
}

const ID: &str = "spiffe://shop.example/shop";

struct Site {
    authority: Authority,
    bank: Bank,
    child: ServerHandle,
}

impl Site {
    async fn new() -> Self {
        let authority = Authority::generate().unwrap();
        let bank = Bank::default();
        let child = Server::bind("127.0.0.1:0")
            .identity(authority.issue_node(["localhost"]).unwrap())
            .client_roots(authority.trust())
            .service(bank.clone());
        let child = child.start().await.unwrap();
        Self { authority, bank, child }
    }

    /// A channel to the bank, with a certificate of its own.
    async fn to_bank(&self, name: &str) -> Channel {
        let address = format!("{}?name=localhost", self.child.local_addr());
        let identity = self.authority.issue_client(name).unwrap();
        let builder = ChannelBuilder::new(address).trust(self.authority.trust());
        soon(builder.identity(identity).connect()).await.unwrap()
    }

    async fn shop(&self, db: &MemoryCompletions<i64>) -> (Shop, ServerHandle) {
        self.shop_at(db, self.to_bank(ID).await).await
    }

    /// A shop whose bank is at the end of this channel.
    async fn shop_at(&self, db: &MemoryCompletions<i64>, bank: Channel) -> (Shop, ServerHandle) {
        let shop = Shop {
            db: db.clone(),
            bank,
            charged: Arc::new(watch::Sender::new(0)),
            gate: Arc::new(Semaphore::new(0)),
        };
        let server = Server::bind("127.0.0.1:0")
            .identity(self.authority.issue_node(["localhost"]).unwrap())
            .service(shop.clone())
            .completions(db.clone());
        (shop, server.start().await.unwrap())
    }
}

#[tokio::test]
async fn a_handler_that_is_killed_after_a_child_call_and_run_again_does_not_double_it() {
    let site = Site::new().await;
    let db = Completions::<Memory<i64>>::in_memory(0).await.unwrap();
    let (first, dying) = site.shop(&db).await;
    let (second, other) = site.shop(&db).await;
    let address = format!("{},{}?name=localhost", dying.local_addr(), other.local_addr());
    let client = ChannelBuilder::new(address).trust(site.authority.trust());
    let client = soon(client.connect()).await.unwrap();
    let paying = tokio::spawn(client.unary::<_, Note>(&PAY, &note(7)).into_future());
    let mut charged = first.charged.subscribe();
    soon(charged.wait_for(|charged| *charged == 1)).await.unwrap();
    dying.kill().await;
    // The other process runs the handler again, which gets the bank's first reply.
    second.gate.add_permits(1);
    let paid = soon(paying).await.unwrap().unwrap();
    assert_eq!((paid.amount, *second.charged.borrow()), (1, 1));
    assert_eq!((site.bank.0.load(Ordering::SeqCst), db.state()), (1, 1));
    // Another call of the same client is another parent.
    second.gate.add_permits(1);
    let again = soon(client.unary::<_, Note>(&PAY, &note(7)).into_future()).await.unwrap();
    assert_eq!(again.amount, 2);
    assert!(LIMIT.as_secs() > 0);
}

#[tokio::test]
async fn what_happened_to_a_call_at_a_database_is_told_step_by_step() {
    let site = Site::new().await;
    let db = Completions::<Memory<i64>>::in_memory(0).await.unwrap();
    let (shop, server) = site.shop(&db).await;
    let address = format!("{}?name=localhost", server.local_addr());
    let client = ChannelBuilder::new(address).trust(site.authority.trust());
    let client = soon(client.connect()).await.unwrap();
    let mut call = client.unary::<_, Note>(&PAY, &note(7));
    let id = soon(call.id()).await.unwrap().to_string();
    let paying = tokio::spawn(call.into_future());
    let mut charged = shop.charged.subscribe();
    soon(charged.wait_for(|charged| *charged == 1)).await.unwrap();
    let asker = TraceClient::new(client.clone());
    let kinds = async || {
        let asked = soon(asker.call(CallRequest { call: id.clone() }).into_future());
        asked.await.unwrap().steps.iter().map(Step::kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds().await, [Kind::Came, Kind::Executing]);
    shop.gate.add_permits(1);
    soon(paying).await.unwrap().unwrap();
    // The client has its reply a moment before the server is done with the call.
    while kinds().await.last() != Some(&Kind::Answered) {}
    assert_eq!(kinds().await, [Kind::Came, Kind::Executing, Kind::Answered]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_call_at_a_group_is_not_doubled_when_its_parent_is_killed_and_another_replica_leads()
 {
    let site = Site::new().await;
    let authority = &site.authority;
    let mut group = Replicas::start(authority).await;
    let addresses = group.addresses();
    // Each process has a key of its own, and the same SPIFFE id.
    let to_group = async || {
        let builder = ChannelBuilder::new(&addresses).trust(authority.trust()).wait_for_ready(true);
        soon(builder.identity(authority.issue_client(ID).unwrap()).connect()).await.unwrap()
    };
    let charge = |channel: &Channel, amount| {
        let call = channel.unary::<_, Note>(&replicas::CHARGE, &note(amount));
        soon(call.metadata("stubborn-call-id", "order-1").into_future())
    };
    assert_eq!(charge(&to_group().await, 1).await.unwrap().amount, 1);

    let db = Completions::<Memory<i64>>::in_memory(0).await.unwrap();
    let (first, dying) = site.shop_at(&db, to_group().await).await;
    let (second, other) = site.shop_at(&db, to_group().await).await;
    let address = format!("{},{}?name=localhost", dying.local_addr(), other.local_addr());
    let client = ChannelBuilder::new(address).trust(site.authority.trust());
    let client = soon(client.connect()).await.unwrap();
    let paying = tokio::spawn(client.unary::<_, Note>(&PAY, &note(7)).into_future());
    let mut charged = first.charged.subscribe();
    soon(charged.wait_for(|charged| *charged == 1)).await.unwrap();
    dying.kill().await;
    group.stop_leader().await;
    // The handler runs again in the other process; another replica leads and has the first reply.
    second.gate.add_permits(1);
    let paid = soon(paying).await.unwrap().unwrap();
    assert_eq!((paid.amount, *second.charged.borrow(), db.state()), (2, 1, 2));
    let again = to_group().await;
    assert_eq!(charge(&again, 1).await.unwrap().amount, 1, "the first reply");
    assert_eq!(why(charge(&again, 2).await), NotExecutedReason::FalseRetry);
    let another = again.unary::<_, Note>(&replicas::CHARGE, &note(1));
    assert_eq!(soon(another.into_future()).await.unwrap().amount, 3, "nothing ran twice");
}

fn why(result: Result<Note, CallError>) -> NotExecutedReason {
    match result.unwrap_err().outcome() {
        Outcome::NotExecuted(why) => why.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_request_under_the_id_of_a_child_call_does_not_run_and_other_callers_have_their_own()
 {
    let site = Site::new().await;
    let (shop, cron) = (site.to_bank(ID).await, site.to_bank("spiffe://shop.example/cron").await);
    let call = |channel: &Channel, amount| {
        let call = channel.unary::<_, Note>(&CHARGE, &note(amount));
        soon(call.metadata("stubborn-call-id", "1.1-0-1/0").into_future())
    };
    assert_eq!(call(&shop, 1).await.unwrap().amount, 1);
    assert_eq!(call(&shop, 1).await.unwrap().amount, 1);
    assert_eq!(why(call(&shop, 2).await), NotExecutedReason::FalseRetry);
    assert_eq!(call(&cron, 1).await.unwrap().amount, 2);
    let renewed = site.to_bank(ID).await;
    assert_eq!(call(&renewed, 1).await.unwrap().amount, 1, "another key of the same id");
    assert_eq!(site.bank.0.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_child_call_for_whose_id_there_is_no_place_does_not_run() {
    let site = Site::new().await;
    let shop = site.to_bank(ID).await;
    let db = Completions::<Memory<i64>>::in_memory(0).await.unwrap();
    let (_, parent) = site.shop(&db).await;
    // A server that keeps its calls in a database keeps no ids beside them.
    let address = format!("{}?name=localhost", parent.local_addr());
    let client = ChannelBuilder::new(address).trust(site.authority.trust());
    let client = soon(client.connect()).await.unwrap();
    let call = client.unary::<_, Note>(&PAY, &note(1)).metadata("stubborn-call-id", "a");
    assert_eq!(why(soon(call.into_future()).await), NotExecutedReason::UnknownMethod);
    let long = shop.unary::<_, Note>(&CHARGE, &note(1));
    let long = long.metadata("stubborn-call-id", "x".repeat(257));
    assert_eq!(why(soon(long.into_future()).await), NotExecutedReason::Malformed);
    let read = stubborn::CallContext::default();
    let child = shop.unary::<_, Note>(&CHARGE, &note(1)).derived_from(&read, 0);
    assert_eq!(why(soon(child.into_future()).await), NotExecutedReason::NeverSent);
    assert_eq!(site.bank.0.load(Ordering::SeqCst), 0);
}
