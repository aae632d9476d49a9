//! The bank service, in a process of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stubborn::{Call, Identity, ReplySender, Server, Status};

use super::ledger::{self, Ledger, Transfer};
use crate::child;
use crate::error::Error;
use crate::stubs::bank::v1::{
    BalanceReply, BalanceRequest, Bank, BankServer, Entry, Heartbeat, HistoryRequest,
    TransferReply, TransferRequest,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long)]
    certificate: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

/// Serves until the parent process is gone or closes standard input.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let failed = |e: io::Error| Error::io("use", &args.ledger, &e);
    let bank = Teller::open(&args.ledger).map_err(failed)?;
    let identity = Identity::from_pem_files(&args.certificate, &args.key)
        .map_err(|e| Error::internal(e.to_string()))?;
    let server = Server::bind(args.listen)
        .identity(identity)
        .key_log(crate::key_log::from_env()?)
        .qlog(crate::qlog::from_env()?)
        .service(BankServer::new(bank))
        .start()
        .await
        .map_err(|e| Error::internal(e.to_string()))?;
    child::ready(server.local_addr());
    tokio::select! {
        () = child::parent_gone() => server.stop().await,
        () = server.failed() => return Err(Error::internal("the bank has ended by itself")),
    }
    Ok(())
}

/// The bank: balances in memory, made from the ledger file at the start.
struct Teller(Mutex<Books>);

struct Books {
    balances: BTreeMap<String, i64>,
    ledger: Ledger,
    path: PathBuf,
}

impl Teller {
    fn open(path: &std::path::Path) -> io::Result<Self> {
        let mut balances = ledger::opening_balances();
        for transfer in ledger::read(path)? {
            ledger::apply(&mut balances, &transfer);
        }
        Ok(Self(Mutex::new(Books { balances, ledger: Ledger::open(path)?, path: path.to_owned() })))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bank for Teller {
    async fn transfer(&self, call: Call<TransferRequest>) -> Result<TransferReply, Status> {
        let TransferRequest { from, to, cents, reference } = call.into_message();
        let transfer = Transfer { reference, from, to, cents };
        let mut books = self.books();
        let Books { balances, ledger, .. } = &mut *books;
        ledger::check(balances, &transfer)?;
        ledger.append(&transfer).map_err(|e| Status::internal(format!("the ledger: {e}")))?;
        ledger::apply(balances, &transfer);
        Ok(TransferReply { from_cents: balances[&transfer.from] })
    }

    async fn balance(&self, call: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
        let balance = self.books().balances.get(&call.into_message().account).copied();
        let cents = balance.ok_or_else(|| Status::not_found("no such account"))?;
        Ok(BalanceReply { cents })
    }

    async fn history(
        &self,
        call: Call<HistoryRequest>,
        mut replies: ReplySender<Entry>,
    ) -> Result<(), Status> {
        let account = call.into_message().account;
        let mut balances = ledger::opening_balances();
        if !balances.contains_key(&account) {
            return Err(Status::not_found("no such account"));
        }
        let path = self.books().path.clone();
        let transfers =
            ledger::read(&path).map_err(|e| Status::internal(format!("the ledger: {e}")))?;
        for transfer in transfers {
            ledger::apply(&mut balances, &transfer);
            let cents = match &account {
                of if *of == transfer.to => transfer.cents,
                of if *of == transfer.from => -transfer.cents,
                _ => continue,
            };
            let (reference, balance_cents) = (transfer.reference, balances[&account]);
            replies.send(&Entry { reference, cents, balance_cents }).await?;
        }
        Ok(())
    }

    async fn beat(&self, _: Call<Heartbeat>) -> Result<(), Status> {
        Ok(())
    }
}
