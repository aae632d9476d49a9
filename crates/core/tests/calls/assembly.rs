//! Room for large messages: who holds it does not keep it from others for long.

use bytes::Bytes;
use stubborn_core::limits::Limits;

use super::world::{ECHO, READ, World};

const MIB: usize = 1 << 20;

fn body(size: usize) -> Bytes {
    (0..size).map(|n| (n % 251) as u8).collect()
}

/// A world in which another client has sent on large messages for so long, and then stalls.
fn with_staller(seed: u8, assembly: u64, messages: &[usize], millis: u64) -> World {
    let limits = Limits { assembly, receive_window: 512 << 10, ..Limits::default() };
    let mut world = World::with_limits(seed, limits);
    world.add_client();
    for size in messages {
        world.call_from_other(&ECHO, body(*size));
    }
    world.run(millis);
    let held = world.server().footprint().assembling;
    assert!(held >= assembly / 3, "{held}");
    world.rules.stalls = true;
    world.run(100);
    world
}

fn honest_call_within(world: &mut World, size: usize, millis: u64) {
    let sent = body(size);
    let call = world.call_with(&ECHO, sent.clone(), None, None);
    assert!(world.result_within(call, millis).unwrap() == sent, "altered");
}

#[test]
fn a_client_that_stalls_large_messages_does_not_slow_an_honest_one() {
    let mut alone =
        World::with_limits(40, Limits { receive_window: 512 << 10, ..Limits::default() });
    honest_call_within(&mut alone, MIB, 1_000);

    // Its room is not even given back: the honest client has a share of its own.
    let mut world = with_staller(40, 9 << 20, &[60 * MIB; 4], 1_500);
    for _ in 0..5 {
        honest_call_within(&mut world, MIB, 1_000);
    }
}

#[test]
fn a_staller_that_holds_all_the_room_loses_it_to_who_waits_for_it() {
    let mut world = with_staller(41, 1 << 20, &[12 * MIB; 4], 100);
    honest_call_within(&mut world, 4 * MIB, 6_000);
    honest_call_within(&mut world, 4 * MIB, 6_000);
}

#[test]
fn who_stalls_loses_no_call_and_nothing_runs_twice() {
    let mut world = with_staller(42, 1 << 20, &[4 * MIB; 4], 100);
    honest_call_within(&mut world, 4 * MIB, 6_000);
    world.rules.stalls = false;
    assert!(world.run_until(60_000, |w| w.other_results.len() == 4));
    for result in world.other_results.values() {
        assert!(
            result.as_ref().unwrap().reply.body.clone().into_bytes() == body(4 * MIB),
            "altered"
        );
    }
    assert_eq!(world.ran.len(), 5);
}

#[test]
fn a_sender_that_pauses_while_nobody_waits_keeps_its_connection() {
    let mut world = with_staller(43, 4 << 20, &[4 * MIB], 200);
    let before = world.server().footprint().assembling;
    world.run(10_000);
    assert!(world.server().footprint().assembling >= before);
    world.rules.stalls = false;
    assert!(world.run_until(60_000, |w| w.other_results.len() == 1));
}

#[test]
fn small_calls_pass_beside_a_staller() {
    let mut world = with_staller(44, 1 << 20, &[12 * MIB; 4], 100);
    let call = world.call(&READ, b"small", None);
    assert_eq!(world.result_within(call, 100).unwrap(), &b"small"[..]);
}
