//! `stubborn ls ADDR`

use serde_json::json;

use crate::error::Error;
use crate::output::Output;
use crate::remote::Remote;
use crate::schema;
use crate::task::block_on;

/// List the services of a server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,

    /// Also the service that describes the others.
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        let link = args.remote.connect().await?;
        let listed = schema::list(&link).await;
        link.close().await;
        let mut services = listed?;
        services.retain(|service| args.all || !schema::is_of_every_server(service));
        for service in &services {
            out.line(service.escape_debug());
        }
        out.json(&json!({ "services": services }));
        Ok(())
    })
}
