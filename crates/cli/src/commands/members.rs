//! `stubborn members`

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stubborn::Fingerprint;
use stubborn::group::{
    ChangeMembersRequest, GroupClient, Member, MembersReply, MembersRequest, StatusRequest,
};

use crate::cluster::{DEFAULT_FOLDER, Folder};
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::remote::{Access, Cluster, Link, duration};
use crate::task::block_on;

/// Show who belongs to a cluster, or change it while it serves.
///
/// The cluster agrees on the change and carries it out by itself: a new node learns the log before it
/// has a vote, a node leaves when those that take its place are there, and clients are told the new
/// addresses. With the folder of the cluster a folder for each new node is made, with a certificate
/// of its authority. A number that has left is never given again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes of the cluster: HOST:PORT[,HOST:PORT]. Without it, those that its folder names.
    #[arg(value_name = "ADDR")]
    addr: Option<String>,

    #[command(flatten)]
    access: Access,

    /// Add a node, or tell the new address of one: its number, where the others reach it, and the
    /// fingerprint of its key, unless the folder of the cluster has its certificate or can make one.
    #[arg(long, value_name = "ID=HOST:PORT[,KEY]", value_parser = newcomer)]
    add: Vec<Newcomer>,

    /// Let a node leave.
    #[arg(long, value_name = "ID")]
    remove: Vec<u64>,

    /// Wait until the change is carried out, this long at most.
    #[arg(short = 'W', long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

/// A node to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Newcomer {
    number: u64,
    address: String,
    key: Option<Fingerprint>,
}

fn newcomer(text: &str) -> Result<Newcomer, String> {
    let expected = || format!("{text:?}: expected ID=HOST:PORT or ID=HOST:PORT,KEY");
    let (number, rest) = text.split_once('=').ok_or_else(expected)?;
    let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(expected)?;
    let (address, key) = match rest.split_once(',') {
        Some((address, key)) => (address, Some(key.parse().map_err(|_| expected())?)),
        None => (rest, None),
    };
    let sound = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let address = address.to_owned();
    if sound { Ok(Newcomer { number, address, key }) } else { Err(expected()) }
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let Args { addr, access, add, remove, wait } = args;
    let folder = access.folder().unwrap_or_else(|| Folder::at(DEFAULT_FOLDER.as_ref()));
    block_on(async {
        let cluster = Cluster { addr, access };
        let link = cluster.connect().await?;
        let client = GroupClient::new(link.channel());
        let done = match (add.as_slice(), remove.as_slice()) {
            ([], []) => show(&client, out).await,
            _ => change(&client, &folder, &add, &remove, wait, out).await,
        };
        close(link, &done).await;
        done
    })
}

/// A change that is pending keeps its session.
async fn close(link: Link, done: &Result<(), Error>) {
    if done.as_ref().err().is_none_or(|error| error.exit() != Exit::Unknown) {
        link.close().await;
    }
}

async fn show(client: &GroupClient, out: &Output) -> Result<(), Error> {
    let reply = client.members(MembersRequest {}).await?;
    print(client, &reply, out).await
}

async fn change(
    client: &GroupClient,
    folder: &Folder,
    add: &[Newcomer],
    remove: &[u64],
    wait: Option<Duration>,
    out: &Output,
) -> Result<(), Error> {
    let known = client.members(MembersRequest {}).await?;
    let mut request = ChangeMembersRequest { add: Vec::new(), remove: remove.to_vec() };
    let mut starts = Vec::new();
    for Newcomer { number, address, key } in add {
        let member = known.members.iter().any(|member| member.node == *number);
        let key = match key {
            Some(key) => key.0.to_vec(),
            None if member => Vec::new(),
            None => folder.make_further_node(*number, address, &known)?.0.to_vec(),
        };
        let config = folder.config(*number);
        if !member && config.exists() {
            starts.push(config);
        }
        request.add.push(Member { node: *number, address: address.clone(), key, folder: 0 });
    }
    let reply = client.change_members(request).await?;
    let addresses: Vec<String> = reply.members.iter().map(|m| m.address.clone()).collect();
    folder.note_members(&addresses)?;
    for config in starts {
        out.line(format_args!(
            "start the new node with: stubborn node --config {} --join",
            config.display()
        ));
    }
    if let Some(wait) = wait {
        carried_out(client, &reply, wait).await?;
    }
    print(client, &reply, out).await
}

/// Waits until those who have a vote are those who belong to the group.
async fn carried_out(
    client: &GroupClient,
    reply: &MembersReply,
    wait: Duration,
) -> Result<(), Error> {
    let wanted: BTreeSet<u64> = reply.members.iter().map(|member| member.node).collect();
    let until = Instant::now() + wait;
    loop {
        let voters: BTreeSet<u64> = match client.status(StatusRequest {}).await {
            Ok(status) => status.voters.into_iter().collect(),
            Err(_) => BTreeSet::new(),
        };
        if voters == wanted {
            return Ok(());
        }
        if Instant::now() >= until {
            let missing: Vec<_> = wanted.difference(&voters).map(u64::to_string).collect();
            let message = format!("the change is agreed on, and not carried out after {wait:?}");
            return Err(Error::new(Exit::Failed, message).with_hint(match missing.is_empty() {
                true => {
                    "a member leaves when most of those who stay are there: `stubborn members` \
                         shows how far it is, `stubborn status` who is there"
                        .to_owned()
                }
                false => {
                    format!("are the new nodes running? {} has no vote yet", missing.join(", "))
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn print(client: &GroupClient, reply: &MembersReply, out: &Output) -> Result<(), Error> {
    let status = client.status(StatusRequest {}).await?;
    let role = |node: &u64| match node {
        node if status.voters.contains(node) => "voter",
        node if status.learners.contains(node) => "learns the log",
        _ => "is to join",
    };
    for Member { node, address, .. } in &reply.members {
        out.line(format_args!("node {node}  {address}  {}", role(node)));
    }
    let told: BTreeSet<u64> = reply.members.iter().map(|member| member.node).collect();
    let all = status.voters.iter().chain(&status.learners);
    let leaving: Vec<u64> = all.copied().filter(|node| !told.contains(node)).collect();
    for node in &leaving {
        out.line(format_args!("node {node}  is to leave"));
    }
    let members = reply.members.iter().map(|member| {
        let key =
            <[u8; 32]>::try_from(member.key.as_slice()).map(|key| Fingerprint(key).to_string());
        json!({
            "node": member.node,
            "address": member.address,
            "key": key.ok(),
            "role": role(&member.node),
        })
    });
    out.json(&json!({
        "members": members.collect::<Vec<Value>>(),
        "leaving": leaving,
        "left": reply.left,
        "version": reply.version,
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_has_a_number_and_an_address() {
        let plain = newcomer("4=d.example:7400").unwrap();
        assert_eq!((plain.number, plain.address.as_str(), plain.key), (4, "d.example:7400", None));
        let key = "ab".repeat(32);
        let with = newcomer(&format!("4=[::1]:7400,{key}")).unwrap();
        assert_eq!(with.key.map(|key| key.to_string()), Some(key));
        for wrong in ["4", "0=a:1", "x=a:1", "4=a", "4=:1", "4=a:0", "4=a:1,zz"] {
            assert!(newcomer(wrong).is_err(), "{wrong}");
        }
    }
}
