//! A bank that keeps its books in SQLite, and the ends of its calls beside them: a transfer runs once,
//! also if the server is killed with `kill -9` in the middle and started again.
//!
//! ```text
//! cargo run -p bank-sqlite -- bank.sqlite 127.0.0.1:7400
//! stubborn call 127.0.0.1:7400 books.v1.Books/Deposit '{"account":"alice","cents":"100"}' --ca bank.crt
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;

use stubborn::{Call, Identity, Server, Status};
use stubborn_completion::sqlx::{self, SqliteConnection};
use stubborn_completion::{CompletionError, SqliteCompletions};

use books::v1::*;

stubborn::include_protos!();

/// The service.
struct Ledger {
    db: SqliteCompletions,
}

impl Books for Ledger {
    async fn deposit(&self, call: Call<DepositRequest>) -> Result<AccountReply, Status> {
        let mut guard = self.db.begin(&call).await?;
        let done = change(guard.transaction(), &call.account, call.cents).await;
        guard.end(done).await
    }

    async fn transfer(&self, call: Call<TransferRequest>) -> Result<AccountReply, Status> {
        let mut guard = self.db.begin(&call).await?;
        let done = transfer(guard.transaction(), &call).await;
        // Commits the transfer and the record of the call together, or nothing.
        guard.end(done).await
    }

    async fn balance(&self, call: Call<BalanceRequest>) -> Result<AccountReply, Status> {
        let cents = sqlx::query_scalar("SELECT cents FROM account WHERE name = $1")
            .bind(call.account.clone())
            .fetch_optional(self.db.pool())
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let cents = cents.ok_or_else(|| Status::not_found("there is no such account"))?;
        Ok(AccountReply { cents })
    }
}

/// What is in the account that paid.
async fn transfer(
    books: &mut SqliteConnection,
    call: &TransferRequest,
) -> Result<AccountReply, CompletionError> {
    if call.cents <= 0 {
        return Err(Status::invalid_argument("a transfer moves more than nothing").into());
    }
    let paid = change(books, &call.from, -call.cents).await?;
    if paid.cents < 0 {
        return Err(Status::failed_precondition("there is not enough in the account").into());
    }
    change(books, &call.to, call.cents).await?;
    Ok(paid)
}

async fn change(
    books: &mut SqliteConnection,
    account: &str,
    cents: i64,
) -> Result<AccountReply, CompletionError> {
    const CHANGE: &str = "INSERT INTO account VALUES ($1, $2) \
        ON CONFLICT DO UPDATE SET cents = cents + $2 RETURNING cents";
    let change = sqlx::query_scalar(CHANGE).bind(account.to_owned()).bind(cents);
    Ok(AccountReply { cents: change.fetch_one(books).await? })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "bank.sqlite".into());
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".into());
    let db = SqliteCompletions::open(&file).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, cents BIGINT NOT NULL)",
    )
    .execute(db.pool())
    .await?;
    let server = Server::bind(&listen)
        .identity(identity(Path::new(&file))?)
        .service(BooksServer::new(Ledger { db: db.clone() }))
        .completions(db)
        .start()
        .await?;
    println!("the books in {file} are open on {}", server.local_addr());
    tokio::signal::ctrl_c().await?;
    server.drain().await;
    Ok(())
}

/// The certificate and key beside the database, made when it is first opened. In production an
/// authority signs them.
fn identity(file: &Path) -> Result<Identity, Box<dyn Error>> {
    let (certificate, key) = (file.with_extension("crt"), file.with_extension("key"));
    if !key.exists() {
        let identity = Identity::self_signed(["localhost", "127.0.0.1"])?;
        fs::write(&certificate, identity.certificate_pem())?;
        fs::write(&key, identity.key_pem())?;
    }
    Ok(Identity::from_pem_files(certificate, key)?)
}
