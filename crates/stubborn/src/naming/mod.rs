//! Naming: from the name of a service to the addresses of its servers, kept up to date while a channel
//! is open.
//!
//! An [`Address`] says which [`Resolver`] is used; [`ChannelBuilder::resolver`] takes one of your own.
//!
//! [`ChannelBuilder::resolver`]: crate::ChannelBuilder::resolver

mod address;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod follow;
mod system;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use address::Place;

pub use address::{Address, DEFAULT_PORT, ParseAddressError};
#[cfg(feature = "dns")]
pub use dns::Dns;
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use file::HostsFile;
pub(crate) use follow::follow;

/// Addresses of one service that are tried at most; those beyond are left aside.
pub const MAX_ADDRESSES: usize = 64;

/// The addresses of a service, as [`Resolver::next`] gives them.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the servers of a service, and says when they are others.
///
/// A channel asks for the [`next`](Self::next) list as long as it is open. Calls in flight at a server
/// that is no longer on the list are settled there; new ones go to those on it. An empty list changes
/// nothing: a service whose last server was struck off may only be told wrongly.
pub trait Resolver: Send + 'static {
    /// The addresses of the servers, best first: at the first time as soon as they are known, then
    /// whenever they may be others than before.
    ///
    /// # Cancel safety
    /// The future may be dropped at any time; nothing is lost, and the next one goes on.
    ///
    /// # Errors
    /// If they cannot be found. The channel asks again after a pause.
    fn next(&mut self) -> Resolving<'_>;

    /// None of the addresses answers: the next list is wanted now, also if it is the same.
    fn look_again(&mut self) {}
}

impl Address {
    /// What finds the servers of this address.
    ///
    /// # Errors
    /// If it takes a feature that this program was built without, or the system tells no name servers.
    pub fn resolver(&self) -> io::Result<Box<dyn Resolver>> {
        Ok(match self.place().clone() {
            Place::Hosts(targets) => Box::new(system::Hosts::new(targets)),
            #[cfg(feature = "dns")]
            Place::Dns { server, name, port } => Box::new(Dns::new(server, &name, port)?),
            #[cfg(not(feature = "dns"))]
            Place::Dns { .. } => return Err(built_without("dns")),
            Place::File(path) => Box::new(HostsFile::new(path)),
            #[cfg(feature = "etcd")]
            Place::Etcd { members, prefix } => {
                Box::new(Etcd::new(members.iter().map(ToString::to_string), &prefix)?)
            }
            #[cfg(not(feature = "etcd"))]
            Place::Etcd { .. } => return Err(built_without("etcd")),
        })
    }

    /// Whether its servers' addresses can change without the text changing.
    pub(crate) fn may_change(&self) -> bool {
        match self.place() {
            Place::Hosts(targets) => system::needs_dns(targets),
            Place::Dns { .. } | Place::File(_) | Place::Etcd { .. } => true,
        }
    }

    /// Its servers' addresses now; at least one.
    ///
    /// # Errors
    /// If there are none, or they cannot be found.
    #[cfg(feature = "replica")]
    pub(crate) async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        self.resolver()?.next().await.and_then(at_least_one)
    }
}

#[cfg(not(all(feature = "dns", feature = "etcd")))]
fn built_without(feature: &str) -> io::Error {
    let why = format!("built without the feature `{feature}` of the crate `stubborn`");
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// The addresses of the members of a group, each HOST:PORT; those whose names nobody knows are left out.
pub(crate) async fn look_up_members(members: Vec<String>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for member in members.iter().take(MAX_ADDRESSES) {
        let Ok(address) = member.parse::<Address>() else { continue };
        let Ok(mut resolver) = address.resolver() else { continue };
        found.extend(resolver.next().await.unwrap_or_default());
    }
    found
}

/// # Errors
/// If the list is empty.
pub(crate) fn at_least_one(found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "it has no server now");
    if found.is_empty() { Err(none()) } else { Ok(found) }
}
