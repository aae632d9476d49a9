//! Many connections between two nodes, whose datagrams come together: what later ones need is read ahead.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::node::{CallKey, ChannelKey};
use stubborn_core::time::Duration;

use crate::world::{ECHO, World, outgoing};

const CONNECTIONS: usize = 80;

/// A call over each channel, at once.
fn call_over_all(world: &mut World, channels: &[ChannelKey]) -> BTreeMap<CallKey, Bytes> {
    let now = world.now;
    let call = |(number, channel): (usize, &ChannelKey)| {
        let body = Bytes::from(format!("call {number}"));
        (world.client().call(now, *channel, outgoing(&ECHO, body.clone())), body)
    };
    channels.iter().enumerate().map(call).collect()
}

#[test]
fn datagrams_of_many_connections_that_come_together_each_reach_their_own() {
    let mut world = World::new(80);
    let mut channels = vec![world.channel];
    for _ in 1..CONNECTIONS {
        world.open_channel();
        channels.push(world.channel);
    }
    for lossy in [false, false, true] {
        if lossy {
            (world.rules.loss, world.rules.duplicate) = (0.1, 0.1);
            world.rules.jitter = Duration::from_millis(3);
        }
        for (call, body) in call_over_all(&mut world, &channels) {
            assert_eq!(world.result(call).unwrap(), body);
        }
    }
    assert_eq!(world.ran.len(), 3 * CONNECTIONS, "each ran once");
}

#[test]
fn connections_that_end_while_datagrams_for_them_come_do_no_harm_to_the_others() {
    let mut world = World::new(81);
    let mut channels = vec![world.channel];
    for _ in 1..CONNECTIONS {
        world.open_channel();
        channels.push(world.channel);
    }
    for (call, body) in call_over_all(&mut world, &channels) {
        assert_eq!(world.result(call).unwrap(), body);
    }
    let calls = call_over_all(&mut world, &channels);
    let now = world.now;
    for channel in channels.iter().step_by(2) {
        world.client().close_channel(now, *channel);
    }
    let kept: Vec<_> = channels.iter().skip(1).step_by(2).copied().collect();
    world.run(2_000);
    drop(calls);
    for (call, body) in call_over_all(&mut world, &kept) {
        assert_eq!(world.result(call).unwrap(), body);
    }
}
