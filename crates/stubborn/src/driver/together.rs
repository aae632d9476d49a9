//! Datagrams of several connections in one send.
//!
//! Connections that share a socket and have the same peer, as the channels of one client have, may
//! each have one small datagram to send. One by one, each costs the sender a system call, and both
//! kernels a walk through all of their network stack; worse, many small datagrams soon fill a socket's
//! buffer, whose owner then loses some. The kernel takes equal datagrams to one address as one (GSO),
//! whatever connections they belong to.

use stubborn_core::limits::MIN_DATAGRAM;
use stubborn_core::transport::endpoint::Transmit;
use stubborn_core::wire::packet::steering_byte;

/// The kernel takes at most so many bytes in one segmented send (with IP and UDP headers 64 KiB).
const MOST_BYTES: usize = 65_000;

/// Lets `next` leave with `last`, whose bytes it follows, if the kernel takes both as one send of at
/// most `most_segments` datagrams. False, and nothing is changed, if it does not.
///
/// Datagrams that not every path carries are left alone: a probe that is too large for its path must
/// not have the others refused.
///
/// So are those for different workers of a server: over loopback, and where the receiving kernel puts
/// them together again, all go to the worker that the first one names, who has to forward them.
pub(super) fn join(
    last: &mut Transmit,
    last_bytes: &[u8],
    next: &Transmit,
    next_bytes: &[u8],
    most_segments: usize,
) -> bool {
    let segment = last.segment.unwrap_or(last.size);
    let next_segment = next.segment.unwrap_or(next.size);
    let size = last.size + next.size;
    // All are equal but the last one, which may be shorter.
    let continues = next_segment == segment || (next_segment < segment && next.segment.is_none());
    let joins = segment > 0
        && last.size.is_multiple_of(segment)
        && continues
        && segment <= MIN_DATAGRAM
        && size <= MOST_BYTES
        && size.div_ceil(segment) <= most_segments
        && (last.to, last.from, last.ecn) == (next.to, next.from, next.ecn)
        && steering_byte(last_bytes) == steering_byte(next_bytes);
    if joins {
        last.size = size;
        last.segment = Some(segment);
    }
    joins
}

#[cfg(test)]
mod tests {
    use super::*;
    use stubborn_core::transport::endpoint::Ecn;

    /// A send of so many bytes to a port, in datagrams of `segment`.
    fn transmit(port: u16, size: usize, segment: Option<usize>) -> Transmit {
        let to = ([127, 0, 0, 1], port).into();
        Transmit { to, from: None, ecn: Ecn::Ect0, size, segment }
    }

    fn alone(size: usize) -> Transmit {
        transmit(9, size, None)
    }

    /// What becomes of `last` when `next` would join it; both name the same worker.
    fn joined(mut last: Transmit, next: Transmit) -> Option<(usize, Option<usize>)> {
        let before = last;
        let bytes = [0x40; 64];
        let joins = join(&mut last, &bytes, &next, &bytes, 64);
        assert!(joins || last == before);
        joins.then_some((last.size, last.segment))
    }

    #[test]
    fn equal_datagrams_leave_together_and_a_shorter_one_is_the_last() {
        assert_eq!(joined(alone(100), alone(100)), Some((200, Some(100))));
        assert_eq!(joined(transmit(9, 200, Some(100)), alone(100)), Some((300, Some(100))));
        assert_eq!(joined(transmit(9, 200, Some(100)), alone(99)), Some((299, Some(100))));
        assert_eq!(joined(transmit(9, 299, Some(100)), alone(99)), None);
        assert_eq!(joined(alone(99), alone(100)), None);
    }

    #[test]
    fn a_batch_joins_datagrams_of_its_size() {
        let batch = transmit(9, 250, Some(100));
        assert_eq!(joined(alone(100), batch), Some((350, Some(100))));
        assert_eq!(joined(alone(101), batch), None, "its first ones are not the last");
    }

    #[test]
    fn other_addresses_and_other_marks_stay_apart() {
        assert_eq!(joined(alone(100), transmit(10, 100, None)), None);
        assert_eq!(joined(alone(100), Transmit { ecn: Ecn::NotEct, ..alone(100) }), None);
        let from = Some([127, 0, 0, 2].into());
        assert_eq!(joined(alone(100), Transmit { from, ..alone(100) }), None);
    }

    #[test]
    fn datagrams_for_different_workers_stay_apart() {
        let next = alone(100);
        let (first, second) = ([0x40, 0, 7, 7], [0x41, 1, 7, 7]);
        assert!(!join(&mut alone(100), &first, &next, &second, 64));
        assert!(join(&mut alone(100), &second, &next, &second, 64));
    }

    #[test]
    fn what_not_every_path_carries_stays_alone() {
        assert!(joined(alone(MIN_DATAGRAM), alone(MIN_DATAGRAM)).is_some());
        assert_eq!(joined(alone(MIN_DATAGRAM + 1), alone(MIN_DATAGRAM + 1)), None);
    }

    #[test]
    fn no_send_is_larger_than_the_kernel_takes() {
        assert!(joined(transmit(9, 6_300, Some(100)), alone(100)).is_some());
        assert_eq!(joined(transmit(9, 6_400, Some(100)), alone(100)), None);
        let most = MOST_BYTES / 1_200 * 1_200;
        assert_eq!(joined(transmit(9, most, Some(1_200)), alone(1_200)), None);
        let bytes = [0x40; 64];
        assert!(!join(&mut alone(100), &bytes, &alone(100), &bytes, 1), "a system without GSO");
    }
}
