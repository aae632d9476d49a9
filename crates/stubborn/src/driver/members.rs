//! The addresses of a group whose members have changed.

use std::net::SocketAddr;
use std::sync::Arc;

use stubborn_core::node::ChannelKey;
use stubborn_core::time::Instant;

use super::shared::{Shared, State};
use crate::naming::look_up_members;

/// Makes the members the targets of a channel. Names are looked up first, aside; members whose names
/// nobody knows are left out.
pub(super) fn follow(
    state: &mut State,
    now: Instant,
    shared: &Arc<Shared>,
    channel: ChannelKey,
    members: Vec<String>,
) {
    let known: Result<Vec<SocketAddr>, _> = members.iter().map(|member| member.parse()).collect();
    if let Ok(targets) = known {
        return state.node.set_targets(now, channel, targets);
    }
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        let targets = look_up_members(members).await;
        if let Some(shared) = shared.upgrade()
            && !targets.is_empty()
        {
            shared.change(|state, now| state.node.set_targets(now, channel, targets));
        }
    });
}
