//! Host names as the system resolves them.

use std::future::pending;
use std::io;
use std::net::SocketAddr;

use super::address::Target;
use super::{MAX_ADDRESSES, Resolver, Resolving};

/// A list of hosts. Names are looked up once, and again when no address answers: the system does not
/// tell for how long its answers hold.
pub(super) struct Hosts {
    targets: Vec<Target>,
    due: bool,
}

impl Hosts {
    pub(super) fn new(targets: Vec<Target>) -> Self {
        Self { targets, due: true }
    }
}

impl Resolver for Hosts {
    fn next(&mut self) -> Resolving<'_> {
        Box::pin(async {
            if !self.due {
                return pending().await;
            }
            let found = look_up(&self.targets).await?;
            self.due = false;
            Ok(found)
        })
    }

    fn look_again(&mut self) {
        self.due |= needs_dns(&self.targets);
    }
}

/// Whether these hosts' addresses can change.
pub(super) fn needs_dns(targets: &[Target]) -> bool {
    targets.iter().any(|target| matches!(target, Target::Name(..)))
}

/// All socket addresses of these hosts, in the order of the list, each one's addresses in the order of
/// the system, IPv6 and IPv4 in turn (as RFC 8305 section 4 has it), none twice.
///
/// # Errors
/// If not one host has an address: the error of the first, with its name.
pub(super) async fn look_up(targets: &[Target]) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    let mut failure = None;
    for target in targets {
        match target {
            Target::Ip(address) => found.push(*address),
            Target::Name(name, port) => match tokio::net::lookup_host((name.as_str(), *port)).await
            {
                Ok(addresses) => found.extend(in_turn(addresses.collect())),
                Err(error) => {
                    let named = io::Error::new(error.kind(), format!("{name}: {error}"));
                    failure = failure.or(Some(named));
                }
            },
        }
    }
    let unique = without_copies(found);
    match failure {
        _ if !unique.is_empty() => Ok(unique),
        Some(error) => Err(error),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
    }
}

/// Each address once, in the order of its first place, and as many as a channel tries at most.
pub(super) fn without_copies(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut unique = Vec::new();
    for address in found {
        if !unique.contains(&address) && unique.len() < MAX_ADDRESSES {
            unique.push(address);
        }
    }
    unique
}

/// The two families in turn, beginning with that of the first address.
pub(super) fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
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
    use super::super::address::parse_target;
    use super::*;

    #[test]
    fn the_two_families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        let given = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(in_turn(given), of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
    }

    fn targets(hosts: &[&str]) -> Vec<Target> {
        hosts.iter().map(|host| parse_target(host).unwrap()).collect()
    }

    #[tokio::test]
    async fn addresses_need_no_resolver_and_none_stands_twice() {
        let found = look_up(&targets(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1"])).await;
        assert_eq!(found.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named_in_the_error() {
        let error = look_up(&targets(&["name.invalid:1"])).await.unwrap_err();
        assert!(error.to_string().contains("name.invalid"));
    }

    #[tokio::test]
    async fn names_are_looked_up_again_when_asked_and_addresses_never() {
        use std::task::Poll;
        let again = async |hosts: &[&str]| {
            let mut hosts = Hosts::new(targets(hosts));
            hosts.next().await.unwrap();
            hosts.look_again();
            hosts.due
        };
        assert!(again(&["localhost:1"]).await);
        assert!(!again(&["127.0.0.1:1"]).await);
        let mut done = Hosts { targets: targets(&["127.0.0.1:1"]), due: false };
        let mut next = done.next();
        let polled = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending()));
        assert!(polled.await, "there is nothing new to tell");
    }
}
