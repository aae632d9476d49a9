//! `stubborn health ADDR [SERVICE]`

use std::time::Duration;

use serde_json::json;
use stubborn::health::{
    HealthCheckRequest, HealthCheckResponse, HealthClient, HealthListRequest, ServingStatus,
};
use stubborn::{CallError, Code, NotExecutedReason, Outcome};

use crate::error::{Error, Exit};
use crate::output::{Output, Style};
use crate::remote::{Remote, duration};
use crate::task::block_on;

/// How often a server is asked that cannot tell changes by itself.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Ask how a server or one of its services is, by gRPC's health checking protocol.
///
/// The exit code is 0 if it serves, 1 if it does not or is not known, 5 if no server was reached.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,

    /// The full name of a service, for example `bank.v1.Bank`; without it the server as a whole.
    service: Option<String>,

    /// Every service that the server tells of.
    #[arg(long, conflicts_with_all = ["service", "watch"])]
    all: bool,

    /// Go on, and print a line at each change, until the server ends.
    #[arg(long)]
    watch: bool,

    /// How long to wait for the answer.
    #[arg(short = 'W', long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    wait: Duration,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        let link = args.remote.connect().await?;
        let client = HealthClient::new(link.channel());
        let told = if args.all {
            list(&client, args.wait, out).await
        } else {
            let asked = Asked { service: args.service.clone().unwrap_or_default(), out };
            match args.watch {
                true => asked.watch(&client, args.wait).await,
                false => asked.check(&client, args.wait).await.and_then(|said| asked.tell(said)),
            }
        };
        link.close().await;
        told
    })
}

/// Which service is asked about; the empty name stands for the whole server.
struct Asked<'a> {
    service: String,
    out: &'a Output,
}

impl Asked<'_> {
    async fn check(&self, client: &HealthClient, wait: Duration) -> Result<ServingStatus, Error> {
        let request = HealthCheckRequest { service: self.service.clone() };
        match client.check(request).deadline(wait).await {
            Ok(reply) => Ok(reply.status()),
            Err(error) => status_of(&error).ok_or_else(|| advised(error)),
        }
    }

    /// Prints every change. Ends with what was said last.
    async fn watch(&self, client: &HealthClient, wait: Duration) -> Result<(), Error> {
        let request = HealthCheckRequest { service: self.service.clone() };
        let mut last = None;
        let ended = async {
            let mut replies = client.watch(request).await?;
            while let Some(HealthCheckResponse { status }) = replies.message().await? {
                last = Some(ServingStatus::try_from(status).unwrap_or_default());
                self.line(last.unwrap_or_default());
            }
            Ok::<_, CallError>(())
        };
        match (ended.await, last) {
            (_, Some(ServingStatus::NotServing)) => self.fail(ServingStatus::NotServing),
            (Ok(()), Some(status)) => self.fail(status),
            (Err(error), None) if is_refused(&error) => self.watch_by_asking(client, wait).await,
            (Err(error), _) => Err(advised(error)),
            (Ok(()), None) => Err(Error::new(Exit::Failed, "the server said nothing")),
        }
    }

    /// As [`watch`](Self::watch), at a replica.
    async fn watch_by_asking(&self, client: &HealthClient, wait: Duration) -> Result<(), Error> {
        let mut last = None;
        loop {
            let status = self.check(client, wait).await?;
            if last.replace(status) != Some(status) {
                self.line(status);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    fn line(&self, status: ServingStatus) {
        self.out.line(shown(self.out, status));
        self.out.json(&json!({ "service": self.service, "status": status.as_str_name() }));
    }

    fn tell(&self, status: ServingStatus) -> Result<(), Error> {
        if status == ServingStatus::Serving {
            self.line(status);
            return Ok(());
        }
        self.fail(status).map_err(|error| error.with("status", status.as_str_name()))
    }

    fn fail(&self, status: ServingStatus) -> Result<(), Error> {
        let what = match self.service.as_str() {
            "" => "the server".to_owned(),
            service => format!("the service {service}"),
        };
        Err(match status {
            ServingStatus::Serving => return Ok(()),
            ServingStatus::NotServing => Error::new(Exit::Failed, format!("{what} is not serving")),
            _ => Error::new(Exit::Failed, format!("{what} is not known to the server"))
                .with_hint("stubborn ls ADDR lists the services"),
        })
    }
}

async fn list(client: &HealthClient, wait: Duration, out: &Output) -> Result<(), Error> {
    let reply = client.list(HealthListRequest {}).deadline(wait).await.map_err(advised)?;
    let mut statuses: Vec<_> = reply.statuses.iter().map(|(name, s)| (name, s.status())).collect();
    statuses.sort();
    for (name, status) in &statuses {
        let name = if name.is_empty() { "(the server)" } else { name };
        out.line(format_args!("{:<13} {}", words(*status), name.escape_debug()));
    }
    let all: serde_json::Map<_, _> =
        statuses.iter().map(|(name, s)| ((*name).clone(), s.as_str_name().into())).collect();
    out.json(&json!({ "statuses": all }));
    let serving = |(_, status): &(_, ServingStatus)| *status == ServingStatus::Serving;
    match statuses.iter().all(serving) {
        true => Ok(()),
        false => Err(Error::new(Exit::Failed, "not everything serves").printed_if(out.is_json())),
    }
}

/// What an error says of the service, if it does.
fn status_of(error: &CallError) -> Option<ServingStatus> {
    match error.outcome() {
        Outcome::Executed(status) if status.code() == Code::NotFound => {
            Some(ServingStatus::ServiceUnknown)
        }
        Outcome::NotExecuted(why) if why.reason == NotExecutedReason::Draining => {
            Some(ServingStatus::NotServing)
        }
        _ => None,
    }
}

/// Whether it is a server that tells no changes.
fn is_refused(error: &CallError) -> bool {
    let status = error.status().map(stubborn::Status::code);
    status == Some(Code::Unimplemented) || matches!(error.outcome(), Outcome::NotExecuted(_))
}

fn advised(error: CallError) -> Error {
    Error::from(error).with_hint("the server may have its health checking turned off")
}

fn words(status: ServingStatus) -> &'static str {
    match status {
        ServingStatus::Serving => "serving",
        ServingStatus::NotServing => "not serving",
        ServingStatus::ServiceUnknown | ServingStatus::Unknown => "not known",
    }
}

fn shown(out: &Output, status: ServingStatus) -> String {
    match status {
        ServingStatus::Serving => words(status).to_owned(),
        _ => out.paint(Style::Strong, words(status)).to_string(),
    }
}
