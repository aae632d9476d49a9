//! The unreliable layer: plain UDP datagrams, which any other UDP program can send and receive.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stubborn::datagram::{DatagramsExt, UdpEndpoint};
//!
//! let endpoint = UdpEndpoint::bind("127.0.0.1:0".parse()?)?;
//! endpoint.send_to(b"hello", "127.0.0.1:9000".parse()?).await?;
//! let reply = endpoint.recv_from().await?; // waits for ever if it was lost
//! # Ok(()) }
//! ```

mod buffers;
mod endpoint;
mod group;
mod io;
mod socket;
#[cfg(target_os = "linux")]
mod steering;

pub(crate) use buffers::ReceiveBuffers;
pub use endpoint::UdpEndpoint;
pub(crate) use group::{SocketGroup, bind_group};
pub(crate) use socket::{Chunk, Socket};
pub use stubborn_core::datagram::{Datagram, DatagramError, Datagrams, DatagramsExt};
