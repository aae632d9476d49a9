//! A replica of the bank, in a process of its own.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::ledger;
use super::machine::Bank;
use crate::child;
use crate::cluster::load;
use crate::commands::node;
use crate::error::Error;
use crate::stubs::bank::v1::BankReplica;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    config: PathBuf,
    /// Where every transfer is written down at the end.
    #[arg(long)]
    ledger: PathBuf,
}

/// Serves until the parent process is gone or closes standard input; then writes the ledger.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let config = load(&args.config)?;
    let bank = Bank::new();
    let machine = BankReplica::new(bank.clone());
    let replica = node::builder(&config)?.machine(machine).start().await?;
    child::ready(replica.local_addr());
    replica.until(child::parent_gone()).await?;
    write(&args.ledger, &bank).map_err(|e| Error::io("write", &args.ledger, &e))
}

fn write(path: &Path, bank: &Bank) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    for transfer in bank.transfers() {
        file.write_all(ledger::to_record(&transfer)?.as_bytes())?;
    }
    file.sync_all()
}
