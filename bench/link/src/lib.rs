//! A bad network on one machine: two network namespaces, a TUN device in each, and a thread that
//! carries IP packets between the two.
//!
//! On the way packets are lost, delayed, reordered, duplicated, corrupted and held to a rate with a
//! finite queue, all decided from a seed. TCP and UDP cross the same path, through the system's own
//! sockets, so that systems made for either can be compared. Nothing is asked of the kernel but TUN
//! devices and namespaces: no netem.
//!
//! - [`Faults`]: what one direction of a path does to packets; [`Direction`] decides it, packet by
//!   packet, without any I/O.
//! - [`Path`]: the namespaces, the devices and the thread in between. All of it is gone when it is
//!   dropped; [`clean_up_on_signals`] sees to interrupts.

mod carrier;
mod damage;
mod direction;
mod faults;
mod held;
mod namespace;
mod path;
mod queue;
mod random;
mod signals;
mod stats;
mod tun;

pub use damage::Damage;
pub use direction::{Delivery, Direction, Verdict};
pub use faults::{Faults, ParseError};
pub use namespace::{Namespace, Unavailable};
pub use path::{CLIENT, Path, SERVER, Settings};
pub use signals::clean_up_on_signals;
pub use stats::{Counters, DirectionStats, PathStats};
