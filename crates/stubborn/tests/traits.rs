//! Services that are written as Rust traits, over real sockets.
#![deny(missing_docs)] // What is generated is documented.

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use stubborn::codec::Postcard;
use stubborn::{
    Applied, CallContext, CallError, CallState, ChannelBuilder, Code, Identity, Image, Machine,
    MethodId, Next, NotExecutedReason, Outcome, Piece, ReplySender, Requests, RestoreError,
    Semantics, Server, ServerHandle, Service, Shape, Status, StreamCall, UnaryCall,
};

/// The end of a call, which comes soon unless something is broken.
async fn soon<F: IntoFuture>(call: F) -> F::Output {
    common::soon(call.into_future()).await
}

/// The name of an account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account(String);

fn account(name: &str) -> Account {
    Account(name.into())
}

/// What a transfer leaves behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What the payer has left.
    pub left: u64,
    /// Who asked for it.
    pub by: Option<CallIdText>,
}

/// A call's id, as text.
pub type CallIdText = String;

/// Accounts with money in them.
#[stubborn::service(package = "bank.v1")]
pub trait Bank {
    /// Moves money from one account to another.
    #[exactly_once]
    async fn transfer(
        &self,
        from: Account,
        to: Account,
        cents: u64,
        context: CallContext,
    ) -> Result<Receipt, Status>;

    /// The balance of an account.
    #[no_side_effects]
    async fn balance(&self, of: Account) -> Result<u64, Status>;

    /// Tells all accounts, one after the other.
    #[no_side_effects]
    async fn accounts(
        &self,
        from: Option<Account>,
        mut replies: ReplySender<(Account, u64)>,
    ) -> Result<(), Status>;

    /// Pays into accounts and tells how much it was.
    async fn pay_in(&self, requests: Requests<(Account, u64)>) -> Result<u64, Status>;

    /// Tells the balance of each account that is asked for.
    async fn ask(
        &self,
        context: CallContext,
        mut requests: Requests<Account>,
        replies: ReplySender<Result<u64, String>>,
    ) -> Result<(), Status>;

    #[maybe]
    #[name = "Beat"]
    async fn heartbeat(&self) -> Result<(), Status>;
}

struct Ledger(Mutex<BTreeMap<Account, u64>>);

impl Ledger {
    fn with(name: &str, cents: u64) -> Self {
        Self(Mutex::new(BTreeMap::from([(account(name), cents)])))
    }

    fn of(&self, account: &Account) -> Result<u64, Status> {
        let ledger = self.0.lock().unwrap();
        ledger.get(account).copied().ok_or_else(|| Status::not_found("no such account"))
    }
}

impl Bank for Ledger {
    async fn transfer(
        &self,
        from: Account,
        to: Account,
        cents: u64,
        context: CallContext,
    ) -> Result<Receipt, Status> {
        let left = self.of(&from)?.checked_sub(cents);
        let left = left.ok_or_else(|| Status::failed_precondition("not enough"))?;
        let mut ledger = self.0.lock().unwrap();
        ledger.insert(from, left);
        *ledger.entry(to).or_default() += cents;
        Ok(Receipt { left, by: context.id.map(|id| id.to_string()) })
    }

    async fn balance(&self, of: Account) -> Result<u64, Status> {
        self.of(&of)
    }

    async fn accounts(
        &self,
        from: Option<Account>,
        mut replies: ReplySender<(Account, u64)>,
    ) -> Result<(), Status> {
        let all: Vec<_> = self.0.lock().unwrap().clone().into_iter().collect();
        for entry in all.into_iter().filter(|(account, _)| Some(account) >= from.as_ref()) {
            replies.send(&entry).await?;
        }
        Ok(())
    }

    async fn pay_in(&self, mut requests: Requests<(Account, u64)>) -> Result<u64, Status> {
        let mut sum = 0;
        while let Some((account, cents)) = requests.message().await? {
            *self.0.lock().unwrap().entry(account).or_default() += cents;
            sum += cents;
        }
        Ok(sum)
    }

    async fn ask(
        &self,
        context: CallContext,
        mut requests: Requests<Account>,
        mut replies: ReplySender<Result<u64, String>>,
    ) -> Result<(), Status> {
        assert!(context.id.is_some(), "a stream has a number");
        while let Some(account) = requests.message().await? {
            replies.send(&self.of(&account).map_err(|status| status.message().into())).await?;
        }
        Ok(())
    }

    async fn heartbeat(&self) -> Result<(), Status> {
        Ok(())
    }
}

/// A service of nobody else's: it is private, and its messages are JSON.
#[stubborn::service(name = "Notes", codec = stubborn::codec::Json)]
trait NoteBook {
    async fn add(&self, note: Note) -> Result<usize, Status>;
    async fn by_number(&self) -> Result<BTreeMap<(u8, u8), Note>, Status>;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// As [`Note`] was before it had tags.
#[derive(Serialize, Deserialize)]
struct OldNote {
    text: String,
}

/// As the service was then.
mod before {
    use super::OldNote;
    use stubborn::Status;

    #[stubborn::service(name = "Notes", codec = stubborn::codec::Json)]
    pub(crate) trait NoteBook {
        async fn add(&self, note: OldNote) -> Result<usize, Status>;
    }
}

struct Book;

impl NoteBook for Book {
    async fn add(&self, note: Note) -> Result<usize, Status> {
        Ok(note.text.len() + note.tags.len())
    }

    async fn by_number(&self) -> Result<BTreeMap<(u8, u8), Note>, Status> {
        Ok(BTreeMap::from([((1, 2), Note { text: "a".into(), tags: Vec::new() })]))
    }
}

async fn start(service: impl Service) -> (ServerHandle, String) {
    let identity = Identity::self_signed(["localhost"]).unwrap();
    let pin = identity.fingerprint().unwrap();
    let server = Server::bind("127.0.0.1:0").identity(identity).service(service);
    let server = server.start().await.unwrap();
    let address = format!("stubborn://{}?pin={pin}", server.local_addr());
    (server, address)
}

async fn bank() -> (ServerHandle, BankClient) {
    let (server, address) = start(BankServer::new(Ledger::with("ann", 100))).await;
    (server, BankClient::connect(&address).await.unwrap())
}

#[tokio::test]
async fn a_trait_is_called_with_its_arguments_and_knows_the_call() {
    let (_server, bank) = bank().await;
    let mut call = bank.transfer(account("ann"), account("bob"), 30);
    let id = soon(call.id()).await.unwrap();
    let receipt = soon(call).await.unwrap();
    assert_eq!(receipt, Receipt { left: 70, by: Some(id.to_string()) });
    assert_eq!(soon(bank.balance(account("bob"))).await.unwrap(), 30);
    soon(bank.heartbeat()).await.unwrap();

    let error = soon(bank.transfer(account("ann"), account("bob"), 71)).await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::FailedPrecondition);
    assert!(matches!(error.outcome(), Outcome::Executed(_)));
}

#[tokio::test]
async fn a_traits_calls_have_outcomes() {
    let (_server, address) = start(BankServer::new(Ledger::with("ann", 100))).await;
    let connection = soon(ChannelBuilder::new(&address).open()).await.unwrap();
    let bank = BankClient::new(connection.channel());
    let mut call = bank.transfer(account("ann"), account("bob"), 1);
    let id = soon(call.id()).await.unwrap();
    let receipt = soon(call).await.unwrap();

    let elsewhere = soon(ChannelBuilder::new(&address).open()).await.unwrap();
    let asked = soon(elsewhere.outcome_of(id, connection.ticket())).await.unwrap();
    let CallState::Replied(reply) = asked else { panic!("{asked:?}") };
    let method = BANK_DESCRIPTOR.methods[0].id();
    assert_eq!(reply.reply.decode_with(Postcard, method), Ok(receipt));
}

#[tokio::test]
async fn a_trait_streams_in_both_directions() {
    let (_server, bank) = bank().await;
    let mut paying = bank.pay_in().await.unwrap();
    for n in 1..=3 {
        soon(paying.send(&(account("bob"), n))).await.unwrap();
    }
    let finished = soon(paying.finish()).await.unwrap();
    assert_eq!((finished.reply, finished.taken), (6, 3));

    let mut accounts = bank.accounts(Some(account("b"))).await.unwrap();
    assert_eq!(soon(accounts.message()).await.unwrap(), Some((account("bob"), 6)));
    assert_eq!(soon(accounts.message()).await.unwrap(), None);

    let mut asking = bank.ask().await.unwrap();
    for (name, balance) in [("ann", Ok(100)), ("cid", Err("no such account".to_owned()))] {
        soon(asking.send(&account(name))).await.unwrap();
        assert_eq!(soon(asking.message()).await.unwrap(), Some(balance));
    }
    asking.end();
    assert_eq!(soon(asking.message()).await.unwrap(), None);
}

#[tokio::test]
async fn a_message_that_the_codec_cannot_write_is_an_error_on_the_side_that_would_write_it() {
    let (_server, address) = start(NoteBookServer::new(Book)).await;
    let notes = NoteBookClient::connect(&address).await.unwrap();
    // Keys of JSON are text.
    let error = soon(notes.by_number()).await.unwrap_err();
    let status = error.status().unwrap();
    assert!(status.code() == Code::Internal && status.message().contains("encoded"), "{status}");
}

#[tokio::test]
async fn a_struct_gets_a_field_while_old_clients_go_on() {
    let (_server, address) = start(NoteBookServer::new(Book)).await;
    let old = before::NoteBookClient::connect(&address).await.unwrap();
    assert_eq!(soon(old.add(OldNote { text: "four".into() })).await.unwrap(), 4);
    let new = NoteBookClient::connect(&address).await.unwrap();
    let note = Note { text: "four".into(), tags: vec!["five".into()] };
    assert_eq!(soon(new.add(note)).await.unwrap(), 5);
}

/// The bank's teller, who works with any bank that can be called.
async fn all_of(bank: &impl BankCalls, of: &str) -> Result<u64, CallError> {
    let mut sum = bank.balance(account(of)).await?;
    let mut accounts = bank.accounts(None).await?;
    while let Some((_, cents)) = accounts.message().await? {
        sum += cents;
    }
    Ok(sum)
}

struct MockBank;

impl BankCalls for MockBank {
    fn transfer(&self, _: Account, _: Account, _: u64) -> UnaryCall<Receipt> {
        unimplemented!("the teller transfers nothing")
    }

    fn balance(&self, of: Account) -> UnaryCall<u64> {
        let missing = CallError::new("Balance", Outcome::Executed(Status::not_found("nobody")));
        UnaryCall::resolved(if of == account("ann") { Ok(1) } else { Err(missing) })
    }

    fn accounts(&self, _: Option<Account>) -> StreamCall<stubborn::Replies<(Account, u64)>> {
        StreamCall::resolved([(account("a"), 2), (account("b"), 3)], Ok(()))
    }

    fn pay_in(&self) -> StreamCall<stubborn::ClientStream<(Account, u64), u64>> {
        unimplemented!()
    }

    fn ask(&self) -> StreamCall<stubborn::BidiStream<Account, Result<u64, String>>> {
        unimplemented!()
    }

    fn heartbeat(&self) -> UnaryCall<()> {
        UnaryCall::resolved(Ok(()))
    }
}

#[tokio::test]
async fn a_mock_takes_the_place_of_a_traits_client() {
    assert_eq!(all_of(&MockBank, "ann").await.unwrap(), 6);
    assert_eq!(all_of(&MockBank, "bob").await.unwrap_err().status().unwrap().message(), "nobody");
    let (_server, bank) = bank().await;
    assert_eq!(all_of(&bank, "ann").await.unwrap(), 200);
}

#[test]
fn names_ids_semantics_and_shapes_are_those_of_a_proto_file_that_says_the_same() {
    let methods: Vec<_> = BANK_DESCRIPTOR
        .methods
        .iter()
        .map(|m| (m.name().rsplit('/').next().unwrap(), m.semantics(), m.shape()))
        .collect();
    let expected = [
        ("Transfer", Semantics::ExactlyOnce, Shape::Unary),
        ("Balance", Semantics::Read, Shape::Unary),
        ("Accounts", Semantics::Read, Shape::ServerStreaming),
        ("PayIn", Semantics::AtMostOnce, Shape::ClientStreaming),
        ("Ask", Semantics::AtMostOnce, Shape::BidiStreaming),
        ("Beat", Semantics::Maybe, Shape::Unary),
    ];
    assert_eq!(methods, expected);
    assert_eq!(BANK_DESCRIPTOR.name, "bank.v1.Bank");
    assert_eq!(BANK_DESCRIPTOR.methods[0].id(), MethodId::of("bank.v1.Bank/Transfer"));
    assert_eq!(NOTE_BOOK_DESCRIPTOR.methods[0].name(), "Notes/Add");
}

/// The bank as a state machine.
#[derive(Default)]
struct Machinery(u64);

impl BankMachine for Machinery {
    fn transfer(
        &mut self,
        at: &Applied,
        _: Account,
        _: Account,
        cents: u64,
    ) -> Result<Receipt, Status> {
        self.0 += cents;
        Ok(Receipt { left: self.0, by: Some(at.index.to_string()) })
    }

    fn balance(&self, _: Account) -> Result<u64, Status> {
        Ok(self.0)
    }

    fn accounts(
        &self,
        from: Option<Account>,
        position: u64,
    ) -> Result<Next<(Account, u64)>, Status> {
        match (from, position) {
            (Some(from), 0) => Ok(Next::Message((from, self.0), 1)),
            _ => Ok(Next::End),
        }
    }

    fn snapshot(&self) -> Image {
        self.0.to_be_bytes().to_vec().into()
    }

    fn restore(&mut self, _: Piece<'_>) -> Result<(), RestoreError> {
        Ok(())
    }
}

#[test]
fn a_trait_is_a_state_machine_of_replicas_too() {
    use stubborn::{Answer, Encoded};

    let mut machine = BankReplica::new(Machinery::default());
    let id = |method: usize| BANK_DESCRIPTOR.methods[method].id();
    let request = (account("ann"), account("bob"), 5_u64);
    let request = Encoded::with(Postcard, id(0), &request).unwrap();
    let at = Applied::default();
    let Answer::Reply(reply, _) = machine.apply(&at, 0, &request) else { panic!("it replies") };
    let receipt: Receipt = reply.decode_with(Postcard, id(0)).unwrap();
    assert_eq!(receipt.left, 5);

    let request = Encoded::with(Postcard, id(2), &(Some(account("ann")),)).unwrap();
    let Next::Message(first, 1) = machine.next(2, &request, 0).unwrap() else { panic!("one") };
    let first: (Account, u64) = first.decode_with(Postcard, id(2)).unwrap();
    assert_eq!(first, (account("ann"), 5));

    let garbage = Encoded::from_body(id(0), vec![0xff; 9].into());
    let Answer::NotExecuted(why) = machine.apply(&at, 0, &garbage) else { panic!("it runs not") };
    assert_eq!(why.reason, NotExecutedReason::Malformed);
}
