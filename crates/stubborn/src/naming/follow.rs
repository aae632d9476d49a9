//! Keeps a channel's servers as its resolver tells them.

use std::sync::Weak;
use std::time::Duration;

use stubborn_core::node::ChannelKey;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Resolver;
use crate::driver::{ChannelStatus, Shared};

/// The pause before a resolver is asked again: after an error, and while no server answers.
const PAUSE: Duration = Duration::from_secs(1);

/// Hands each new list to the channels, and asks for another one whenever none of the servers answers.
/// Ends with them.
pub(crate) async fn follow(
    mut resolver: Box<dyn Resolver>,
    shared: Weak<Shared>,
    channels: Vec<ChannelKey>,
    mut status: watch::Receiver<ChannelStatus>,
) {
    let failing = |status: &ChannelStatus| {
        matches!(status, ChannelStatus::Unreachable(_) | ChannelStatus::Refused(_))
    };
    let mut urged = Instant::now();
    loop {
        let unanswered = async {
            tokio::time::sleep_until(urged + PAUSE).await;
            status.wait_for(failing).await.is_ok()
        };
        tokio::select! {
            biased;
            found = resolver.next() => match found {
                Ok(targets) if !targets.is_empty() => {
                    let Some(shared) = shared.upgrade() else { return };
                    shared.change(|state, now| {
                        for channel in &channels {
                            state.node.set_targets(now, *channel, targets.clone());
                        }
                    });
                }
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            },
            alive = unanswered => {
                if !alive {
                    return;
                }
                resolver.look_again();
                urged = Instant::now();
            }
        }
    }
}
