//! Who opens a session, and who pays for it.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::session::SessionSecret;

/// What a server needs to know to open a session.
#[derive(Clone, Debug)]
pub struct OpenRequest<C = u64> {
    /// Chosen at random by the client: a copy of the opening has the same.
    pub nonce: [u8; 16],
    /// SHA-256 of the public key info of the certificate that the connection authenticated, if any.
    pub certificate: Option<[u8; 32]>,
    /// Where the connection comes from.
    pub address: IpAddr,
    /// How many calls the client would like to have in flight.
    pub slots_wanted: u32,
    /// Fresh random bytes, which become the secret if the session is anonymous and new.
    pub fresh_secret: SessionSecret,
    /// The connection that the session is opened on, as in [`Sessions::attach`](super::Sessions::attach).
    pub connection: C,
}

/// An opening's nonce, apart for each identity so that none can guess at another's.
pub(super) type NonceKey = (Option<[u8; 32]>, [u8; 16]);

/// Who pays for a session, so that nobody can fill the table alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Account {
    Certificate([u8; 32]),
    Address(IpAddr),
}

impl Account {
    pub(super) fn of<C>(request: &OpenRequest<C>) -> Self {
        match request.certificate {
            Some(identity) => Self::Certificate(identity),
            None => Self::Address(payer(request.address)),
        }
    }
}

/// Who pays for a session, as the key of a table: the certificate, or without one the address (its
/// /64 if it is an IPv6 address).
pub fn account_name(certificate: Option<&[u8; 32]>, address: IpAddr) -> Vec<u8> {
    match (certificate, payer(address)) {
        (Some(identity), _) => [b"c", &identity[..]].concat(),
        (None, IpAddr::V4(address)) => [b"4", &address.octets()[..]].concat(),
        (None, IpAddr::V6(address)) => [b"6", &address.octets()[..8]].concat(),
    }
}

/// The address that is charged. Whoever has one IPv6 address has its whole /64 (RFC 4291 §2.5.4).
fn payer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}
