//! A node asks the group that it is to join how the group began.

use std::time::Duration;

use super::driver::SHARED_NAME;
use super::error::ReplicaError;
use crate::group::{GroupClient, MembersReply, MembersRequest, StatusRequest};
use crate::security::{Identity, Trust};
use crate::{ChannelBuilder, ClientEndpoint};

/// How long the group is asked, and until when it is to be told of the node.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// The numbers of those with whom the group began.
pub(super) async fn ask(
    members: &[&str],
    identity: Identity,
    authority: Trust,
    node: u64,
    key: &[u8; 32],
) -> Result<Vec<u64>, ReplicaError> {
    let refused = |why: String| ReplicaError::Join(why);
    if members.is_empty() {
        return Err(refused("no other member is named".into()));
    }
    let endpoint = ClientEndpoint::new().map_err(|error| refused(error.to_string()))?;
    let connection = ChannelBuilder::new(members.join(","))
        .server_name(SHARED_NAME)
        .trust(authority)
        .identity(identity)
        .endpoint(&endpoint)
        .reads_only()
        .wait_for_ready(true)
        .open_now()
        .await
        .map_err(|error| refused(error.to_string()))?;
    let client = GroupClient::new(connection.channel());
    let until = tokio::time::Instant::now() + PATIENCE;
    let founders = loop {
        let waits = match client.members(MembersRequest {}).deadline(PAUSE * 4).await {
            Ok(reply) => match verdict(&reply, node, key) {
                Some(verdict) => break verdict.map_err(refused)?,
                None => {
                    format!("the group was not told of it: stubborn members --add {node}=HOST:PORT")
                }
            },
            Err(error) => error.to_string(),
        };
        if tokio::time::Instant::now() >= until {
            return Err(refused(waits));
        }
        tokio::time::sleep(PAUSE).await;
    };
    let status = client.status(StatusRequest {}).deadline(PATIENCE).await;
    if status.is_ok_and(|status| status.voters.contains(&node)) {
        return Err(refused(format!(
            "node {node} is a member with a vote already: a node that has lost its disk has lost \
             what it promised, and joins with a new number and a new key"
        )));
    }
    Ok(founders)
}

/// Whether the group takes the node in; none if it has not heard of it.
fn verdict(reply: &MembersReply, node: u64, key: &[u8; 32]) -> Option<Result<Vec<u64>, String>> {
    if reply.left.contains(&node) {
        return Some(Err(format!(
            "node {node} has left the group: a node that comes back needs a new number and a new \
             key"
        )));
    }
    let seat = reply.members.iter().find(|member| member.node == node)?;
    if seat.key != key {
        return Some(Err(format!("the group knows another key of node {node}")));
    }
    if seat.folder != 0 {
        return Some(Err(format!(
            "node {node} has begun already, with another folder: start it from that one. A node that \
             has lost its disk has lost what it promised: it joins with a new number and a new key, \
             and the group is told by: stubborn members --add NUMBER=HOST:PORT --remove {node}"
        )));
    }
    Some(Ok(reply.founders.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Member;

    #[test]
    fn a_group_takes_in_whom_it_was_told_of_and_nobody_who_has_left() {
        let member = |node, folder| Member {
            node,
            address: "d:1".into(),
            key: vec![node as u8; 32],
            folder,
        };
        let reply = MembersReply {
            members: vec![member(4, 0), member(6, 77)],
            left: vec![1],
            founders: vec![1, 2, 3],
            version: 9,
        };
        assert_eq!(verdict(&reply, 4, &[4; 32]), Some(Ok(vec![1, 2, 3])));
        assert!(verdict(&reply, 4, &[5; 32]).unwrap().unwrap_err().contains("another key"));
        assert!(verdict(&reply, 1, &[1; 32]).unwrap().unwrap_err().contains("has left"));
        assert!(verdict(&reply, 6, &[6; 32]).unwrap().unwrap_err().contains("a new number"));
        assert_eq!(verdict(&reply, 5, &[5; 32]), None);
    }
}
