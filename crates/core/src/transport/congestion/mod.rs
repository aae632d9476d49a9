//! Congestion control: how much may be in flight on a path (RFC 8085 §3.1, RFC 9002 §7).

use alloc::boxed::Box;
use core::fmt;

use super::loss::{Delivered, Missing};
use super::rtt::RttEstimator;
use crate::time::{Duration, Instant};

mod cubic;
mod delay;
mod loss_rate;
#[cfg(test)]
mod model;

pub use cubic::Cubic;

/// What the peers of a connection may have in flight, in bytes.
///
/// One controller serves one path; a new path starts with [`Controller::fresh`] (RFC 9000 §9.4).
/// The connection keeps the sum of bytes in flight itself and compares it with
/// [`window`](Self::window).
pub trait Controller: fmt::Debug + Send + Sync {
    /// The congestion window. It never falls below [`minimum_window`].
    fn window(&self) -> u64;

    /// Packets were acknowledged. `app_limited` is true if the window was not what held back the
    /// sender, so that this says nothing about the path; the window does not grow by it (RFC 9002
    /// §7.8).
    fn on_acked(&mut self, now: Instant, acked: Delivered, app_limited: bool, rtt: &RttEstimator);

    /// Packets were declared lost.
    fn on_lost(&mut self, now: Instant, lost: Missing, rtt: &RttEstimator);

    /// The peer reported packets marked CE; the newest packet of that ACK was sent at
    /// `newest_sent` (RFC 9002 §7.1).
    fn on_marked(&mut self, now: Instant, newest_sent: Instant, rtt: &RttEstimator);

    /// A packet sent at `sent` that had been reported as lost has arrived after all.
    fn on_spurious(&mut self, now: Instant, sent: Instant);

    /// The connection wants to send after having had nothing in flight for `idle`; to be called
    /// before the window is looked at.
    fn on_idle(&mut self, now: Instant, idle: Duration, rtt: &RttEstimator);

    /// Datagrams may now be up to `datagram` bytes.
    fn on_datagram_size(&mut self, datagram: usize);

    /// A controller of the same kind, for another path, that has learnt nothing yet.
    fn fresh(&self, datagram: usize) -> Box<dyn Controller>;

    /// For statistics and traces: true before the first sign of congestion.
    fn in_slow_start(&self) -> bool;

    /// For statistics and traces: how often the window was cut.
    fn cuts(&self) -> u64;
}

/// `min(10 datagrams, max(14,720 bytes, 2 datagrams))` (RFC 9002 §7.2).
pub const fn initial_window(datagram: usize) -> u64 {
    let datagram = datagram as u64;
    let floor = if 2 * datagram > 14_720 { 2 * datagram } else { 14_720 };
    if 10 * datagram < floor { 10 * datagram } else { floor }
}

/// Two datagrams (RFC 9002 §7.2).
pub const fn minimum_window(datagram: usize) -> u64 {
    2 * datagram as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_window_is_ten_packets_but_bounded_in_bytes_for_large_ones() {
        assert_eq!(initial_window(1_200), 12_000);
        assert_eq!(initial_window(1_472), 14_720);
        assert_eq!(initial_window(9_000), 18_000);
        assert_eq!(initial_window(65_507), 131_014);
        assert_eq!(minimum_window(1_200), 2_400);
    }
}
