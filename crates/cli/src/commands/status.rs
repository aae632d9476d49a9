//! `stubborn status`

use std::time::Duration;

use serde_json::{Value, json};
use stubborn::group::{GroupClient, Member, MembersRequest, Role, StatusReply, StatusRequest};

use crate::cluster::{DEFAULT_FOLDER, Folder};
use crate::error::{Error, Exit};
use crate::output::{Output, Style};
use crate::remote::{Access, duration};
use crate::table;
use crate::task::block_on;

/// Show how the nodes of a cluster stand: who leads, their logs, sessions, and how far each lags.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The nodes, each HOST:PORT: one is enough, it tells who the others are. Without any, those that
    /// the folder of the cluster names.
    #[arg(value_name = "ADDR", value_delimiter = ',')]
    nodes: Vec<String>,

    #[command(flatten)]
    access: Access,

    /// How long to wait for the answer of a node.
    #[arg(short = 'W', long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    wait: Duration,
}

/// A node, and what it said, or why it said nothing.
pub(crate) struct Asked {
    address: String,
    number: Option<u64>,
    said: Result<StatusReply, Error>,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        let found = match args.nodes.as_slice() {
            [] => {
                let folder = args.access.folder();
                let folder = folder.unwrap_or_else(|| Folder::at(DEFAULT_FOLDER.as_ref()));
                if !folder.holds_cluster() {
                    return Err(Error::usage("no node is named").with_hint(
                        "name the nodes, each HOST:PORT, or the folder of the cluster with --data \
                         DIR; `stubborn up` starts one",
                    ));
                }
                ask_folder(&folder, args.wait).await?
            }
            nodes => {
                let nodes: Vec<_> = nodes.iter().map(|node| (None, node.clone())).collect();
                let mut found = ask(nodes, &args.access, args.wait).await;
                let others = others(&found, &args.access, args.wait).await;
                found.extend(ask(others, &args.access, args.wait).await);
                found
            }
        };
        print(&found, out);
        match found.iter().find_map(|asked| asked.said.as_ref().err()) {
            Some(error) if found.iter().all(|asked| asked.said.is_err()) => {
                let told = Error::new(Exit::Connect, format!("no node answers: {error}"));
                let hint = error.hint().unwrap_or(
                    "start them with `stubborn up` or `stubborn node`, or wait longer: --wait 5s",
                );
                Err(told.with_hint(hint).printed_if(out.is_json()))
            }
            _ => Ok(()),
        }
    })
}

/// Asks every node that the folder of a cluster names.
pub(super) async fn ask_folder(folder: &Folder, wait: Duration) -> Result<Vec<Asked>, Error> {
    let access = Access::of_folder(folder.path());
    Ok(ask(folder.members()?, &access, wait).await)
}

/// Asks these nodes, all at once.
pub(super) async fn ask(
    nodes: Vec<(Option<u64>, String)>,
    access: &Access,
    wait: Duration,
) -> Vec<Asked> {
    let asked = nodes.into_iter().map(|(number, address)| {
        let access = access.clone();
        tokio::spawn(async move {
            let said = ask_one(&address, &access, wait).await;
            Asked { address, number, said }
        })
    });
    let mut found = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        found.extend(asked.await);
    }
    found
}

/// Members that were not asked, and where the group says they are. None if it cannot say in time.
async fn others(found: &[Asked], access: &Access, wait: Duration) -> Vec<(Option<u64>, String)> {
    let answered = |node: u64| {
        found.iter().any(|asked| asked.said.as_ref().is_ok_and(|reply| reply.node == node))
    };
    let knows = |asked: &&Asked| {
        let said = asked.said.as_ref();
        said.is_ok_and(|reply| !reply.voters.iter().all(|voter| answered(*voter)))
    };
    let Some(asked) = found.iter().find(knows) else { return Vec::new() };
    let members = tokio::time::timeout(wait, members(&asked.address, access, wait)).await;
    let members = members.ok().and_then(Result::ok).unwrap_or_default();
    let named = |member: &Member| found.iter().any(|asked| asked.address == member.address);
    members
        .into_iter()
        .filter(|member| !answered(member.node) && !named(member))
        .map(|member| (Some(member.node), member.address))
        .collect()
}

async fn members(address: &str, access: &Access, wait: Duration) -> Result<Vec<Member>, Error> {
    let link = access.connect_with(address, |builder| builder.reads_only()).await?;
    let reply = GroupClient::new(link.channel()).members(MembersRequest {}).deadline(wait).await;
    link.close().await;
    Ok(reply?.members)
}

async fn ask_one(address: &str, access: &Access, wait: Duration) -> Result<StatusReply, Error> {
    let silent = || Error::new(Exit::Connect, format!("no answer for {wait:?}"));
    let answer = async {
        let link = access
            .connect_with(address, |builder| builder.reads_only().attempt_timeout(wait))
            .await?;
        let client = GroupClient::new(link.channel());
        let reply = client.status(StatusRequest {}).deadline(wait).await;
        link.close().await;
        reply.map_err(Error::from)
    };
    // Without a grace the call could take a little longer than its deadline.
    tokio::time::timeout(wait, answer).await.unwrap_or_else(|_| Err(silent()))
}

/// The leader, if a majority of its voters say that it leads in the latest term.
pub(super) fn leader(found: &[Asked]) -> Option<u64> {
    let said: Vec<_> = found.iter().filter_map(|asked| asked.said.as_ref().ok()).collect();
    let latest = said.iter().max_by_key(|reply| reply.term)?;
    let leader = said
        .iter()
        .find(|reply| reply.term == latest.term && reply.role == i32::from(Role::Leader))?;
    let follows = |reply: &&&StatusReply| reply.term == latest.term && reply.leader == leader.node;
    let followers = said.iter().filter(follows).count();
    (2 * followers > leader.voters.len()).then_some(leader.node)
}

/// Whether every node answers and has applied all that any of them knows to be committed.
pub(super) fn are_level(found: &[Asked]) -> bool {
    found.iter().all(|asked| asked.said.as_ref().is_ok_and(|reply| lag(found, reply) == 0))
}

/// What is known where no leader is; nothing if no node has answered.
fn without_leader(found: &[Asked]) -> Option<String> {
    let said: Vec<_> = found.iter().filter_map(|asked| asked.said.as_ref().ok()).collect();
    let latest = said.iter().max_by_key(|reply| reply.term)?;
    Some(match latest.leader {
        leader if leader != 0 && 2 * said.len() <= latest.voters.len() => {
            let claim = match latest.node {
                node if node == leader => format!("node {node} says that it leads"),
                node => format!("node {node} follows node {leader}"),
            };
            format!("{claim}; too few nodes have answered to tell who leads")
        }
        _ => "no node leads: calls wait until a majority of the nodes is there".to_owned(),
    })
}

pub(super) fn role(reply: &StatusReply) -> &'static str {
    match reply.role() {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Unspecified => "unknown",
    }
}

/// How many committed entries a node has not applied, as far as any node knows.
fn lag(found: &[Asked], reply: &StatusReply) -> u64 {
    let said = found.iter().filter_map(|asked| asked.said.as_ref().ok());
    let committed = said.map(|reply| reply.committed).max().unwrap_or(0);
    committed.saturating_sub(reply.applied)
}

fn print(found: &[Asked], out: &Output) {
    let leader = leader(found);
    let head = ["node", "address", "role", "term", "log", "applied", "lag", "sessions", "up"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for asked in found {
        let number = asked.number.map(|number| number.to_string());
        let reply = match &asked.said {
            Ok(reply) => reply,
            Err(error) => {
                let number = number.unwrap_or_else(|| "?".into());
                let why = error.message().lines().next().unwrap_or_default();
                rows.push(vec![number, asked.address.clone(), format!("unreachable: {why}")]);
                continue;
            }
        };
        rows.push(vec![
            reply.node.to_string(),
            asked.address.clone(),
            role(reply).to_owned(),
            reply.term.to_string(),
            reply.last.to_string(),
            reply.applied.to_string(),
            lag(found, reply).to_string(),
            reply.sessions.to_string(),
            uptime(reply.uptime_ms),
        ]);
    }
    table(&rows, out);
    match leader {
        Some(leader) => out.line(format_args!("node {leader} leads")),
        None => {
            if let Some(why) = without_leader(found) {
                out.line(out.paint(Style::Warning, why));
            }
        }
    }
    let nodes: Vec<Value> = found.iter().map(|asked| to_json(found, asked)).collect();
    out.json(&json!({ "leader": leader, "nodes": nodes }));
}

fn table(rows: &[Vec<String>], out: &Output) {
    for (index, line) in table::lines(rows).into_iter().enumerate() {
        out.line(if index == 0 { out.paint(Style::Faint, line) } else { line });
    }
}

fn to_json(found: &[Asked], asked: &Asked) -> Value {
    match &asked.said {
        Ok(reply) => json!({
            "node": reply.node,
            "address": asked.address,
            "reachable": true,
            "group": format!("{:016x}", reply.group),
            "role": role(reply),
            "leader": Some(reply.leader).filter(|leader| *leader != 0),
            "term": reply.term,
            "last": reply.last,
            "committed": reply.committed,
            "applied": reply.applied,
            "lag": lag(found, reply),
            "snapshot": reply.snapshot,
            "sessions": reply.sessions,
            "pending": reply.pending,
            "log_time_ms": reply.log_time_ms,
            "uptime_ms": reply.uptime_ms,
            "voters": reply.voters,
            "learners": reply.learners,
            "version": reply.version,
            "services": reply.services,
            "syncs": reply.syncs,
            "writes": reply.writes,
        }),
        Err(error) => json!({
            "node": asked.number,
            "address": asked.address,
            "reachable": false,
            "error": error.message(),
        }),
    }
}

pub(super) fn uptime(millis: u64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(node: u64, role: Role, term: u64, leader: u64) -> Asked {
        let reply = StatusReply {
            node,
            role: role.into(),
            term,
            leader,
            voters: vec![1, 2, 3],
            ..StatusReply::default()
        };
        Asked { address: String::new(), number: Some(node), said: Ok(reply) }
    }

    fn silent(node: u64) -> Asked {
        let said = Err(Error::new(Exit::Connect, "no answer"));
        Asked { address: String::new(), number: Some(node), said }
    }

    #[test]
    fn a_leader_is_one_that_a_majority_follows() {
        let leads = said(1, Role::Leader, 2, 1);
        assert_eq!(leader(&[silent(1), silent(2), silent(3)]), None);
        assert_eq!(leader(&[leads, silent(2), said(3, Role::Follower, 1, 1)]), None);
        let leads = said(1, Role::Leader, 2, 1);
        assert_eq!(leader(&[leads, silent(2), said(3, Role::Follower, 2, 1)]), Some(1));
        let old = said(1, Role::Leader, 2, 1);
        let new = [old, said(2, Role::Leader, 3, 2), said(3, Role::Follower, 3, 2)];
        assert_eq!(leader(&new), Some(2));
    }
}
