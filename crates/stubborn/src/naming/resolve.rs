//! DNS: from host names to addresses.

use std::io;
use std::net::SocketAddr;

use super::{Address, Host};

/// Addresses of one service that are tried at most; DNS answers beyond are left aside.
const MAX_ADDRESSES: usize = 64;

/// All socket addresses of a service: hosts in the order of the list, each one's addresses in the
/// order of the resolver, IPv6 and IPv4 in turn (as RFC 8305 §4 has it), none twice.
///
/// # Errors
/// If not one host has an address: the error of the first, with its name.
pub(crate) async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    let mut failure = None;
    for target in address.targets() {
        match &target.host {
            Host::Ip(ip) => found.push(SocketAddr::new(*ip, target.port)),
            Host::Name(name) => match tokio::net::lookup_host((name.as_str(), target.port)).await {
                Ok(addresses) => found.extend(interleave(addresses.collect())),
                Err(error) => {
                    let named = io::Error::new(error.kind(), format!("{name}: {error}"));
                    failure = failure.or(Some(named));
                }
            },
        }
    }
    let mut unique = Vec::new();
    for address in found {
        if !unique.contains(&address) && unique.len() < MAX_ADDRESSES {
            unique.push(address);
        }
    }
    match failure {
        _ if !unique.is_empty() => Ok(unique),
        Some(error) => Err(error),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
    }
}

fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    first.reverse();
    second.reverse();
    let mut merged = Vec::new();
    while !first.is_empty() || !second.is_empty() {
        merged.extend(first.pop());
        merged.extend(second.pop());
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let given = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(interleave(given), of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
    }

    #[tokio::test]
    async fn addresses_need_no_resolver_and_none_stands_twice() {
        let address = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:1".parse().unwrap();
        assert_eq!(resolve(&address).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named_in_the_error() {
        let address = "name.invalid:1".parse().unwrap();
        assert!(resolve(&address).await.unwrap_err().to_string().contains("name.invalid"));
    }
}
