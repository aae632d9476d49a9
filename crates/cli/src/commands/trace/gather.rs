//! Asks each server what it knows of a call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stubborn::steps::{CallReply, CallRequest, TraceClient};

use crate::error::{Error, Exit};
use crate::remote::Access;

/// How often a server is asked, to read its clock well.
const QUESTIONS: usize = 4;

/// A server, and what it said, or why it said nothing.
pub(super) struct Witness {
    pub(super) address: String,
    pub(super) said: Result<Said, Error>,
}

/// What a server said, and when by this machine's clock.
pub(super) struct Said {
    pub(super) reply: CallReply,
    /// The middle of the question's round trip, in nanoseconds since 1970: there its clock is taken to
    /// have stood at `now_ns`.
    pub(super) middle: u64,
    /// Half of that round trip: by so much it may be off.
    pub(super) uncertain: Duration,
}

/// Those to ask: the ones that are named, or all of a cluster that one of them belongs to.
pub(super) fn nodes(access: &Access, addresses: &str) -> Result<Vec<String>, Error> {
    let named = addresses.trim_start_matches("stubborn://");
    let (hosts, choices) = named.split_at(named.find('?').unwrap_or(named.len()));
    if let Some(folder) = access.cluster_of(addresses) {
        let members: Vec<String> =
            folder.members()?.into_iter().map(|(_, address)| address).collect();
        if hosts.split(',').any(|host| members.iter().any(|member| member == host)) {
            return Ok(members);
        }
    }
    Ok(hosts.split(',').map(|host| format!("{host}{choices}")).collect())
}

/// Asks all of them at once.
pub(super) async fn ask(
    nodes: Vec<String>,
    access: &Access,
    call: &str,
    wait: Duration,
) -> Vec<Witness> {
    let asking: Vec<_> = nodes
        .into_iter()
        .map(|address| {
            let (access, call) = (access.clone(), call.to_owned());
            tokio::spawn(async move {
                let said = ask_one(&address, &access, &call, wait).await;
                Witness { address, said }
            })
        })
        .collect();
    let mut witnesses = Vec::new();
    for asked in asking {
        witnesses.extend(asked.await);
    }
    witnesses
}

async fn ask_one(
    address: &str,
    access: &Access,
    call: &str,
    wait: Duration,
) -> Result<Said, Error> {
    let answer = async {
        let link = access
            .connect_with(address, |builder| builder.reads_only().attempt_timeout(wait))
            .await?;
        let client = TraceClient::new(link.channel());
        let ask = || client.call(CallRequest { call: call.to_owned() }).deadline(wait);
        // The first one waits for the connection; of the others the quickest tells the clock best.
        let mut best = ask().await.map(|_| None::<Said>);
        for _ in 0..QUESTIONS {
            let Ok(before) = &best else { break };
            let sent = now();
            let answer = ask().await;
            let half = now().saturating_sub(sent) / 2;
            let (middle, uncertain) = (sent + half, Duration::from_nanos(half));
            let quicker = before.as_ref().is_none_or(|said| uncertain < said.uncertain);
            match answer {
                Ok(reply) if quicker => best = Ok(Some(Said { reply, middle, uncertain })),
                Ok(_) => {}
                Err(error) => best = Err(error),
            }
        }
        link.close().await;
        let silent = || Error::new(Exit::Connect, "no answer");
        best.map_err(Error::from)?.ok_or_else(silent)
    };
    let silent = || Error::new(Exit::Connect, format!("no answer for {wait:?}"));
    tokio::time::timeout(wait, answer).await.unwrap_or_else(|_| Err(silent()))
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
