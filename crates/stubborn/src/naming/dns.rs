//! DNS: addresses and service records, looked up again when they expire.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use stubborn_core::random::Random;
use tokio::time::Instant;

use super::address::DEFAULT_PORT;
use super::system::{in_turn, without_copies};
use super::{Resolver, Resolving};

/// However short records say that they hold, and however long.
const HOLD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Hosts of one service that are looked up at most.
const MAX_HOSTS: usize = 16;

/// The servers of a service as DNS has them.
///
/// A name that begins with `_` is that of service records (RFC 2782): `_bank._udp.example.com`. Any
/// other is first looked for as `_stubborn._udp.NAME`, unless a port is given; where there are no such
/// records its A and AAAA records count, with port 7400. Records are looked up again when the shortest
/// lived of them expires, after a second at least and an hour at most.
pub struct Dns {
    resolver: TokioResolver,
    name: String,
    port: Option<u16>,
    random: Random,
    /// When what was found has to be looked up again.
    due: Instant,
}

/// What was found, and until when it holds.
struct Found(Vec<SocketAddr>, Instant);

impl Dns {
    /// Asks this name server, or those of the system.
    ///
    /// # Errors
    /// If the system's configuration cannot be read, or it has no entropy.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(server: Option<SocketAddr>, name: &str, port: Option<u16>) -> io::Result<Self> {
        let mut builder = match server {
            None => TokioResolver::builder_tokio().map_err(io::Error::other)?,
            Some(server) => {
                let provider = TokioRuntimeProvider::default();
                TokioResolver::builder_with_config(only(server), provider)
            }
        };
        // For how long records hold is kept here.
        builder.options_mut().cache_size = 0;
        let resolver = builder.build().map_err(io::Error::other)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let random = Random::from_seed(seed);
        Ok(Self { resolver, name: name.to_owned(), port, random, due: Instant::now() })
    }

    async fn look_up(&mut self) -> Result<Found, NetError> {
        if self.name.starts_with('_') {
            return self.services(&self.name.clone()).await;
        }
        let Some(port) = self.port else {
            return match self.services(&format!("_stubborn._udp.{}", self.name)).await {
                Err(error) if error.is_no_records_found() => {
                    self.hosts(&self.name, DEFAULT_PORT).await
                }
                other => other,
            };
        };
        self.hosts(&self.name, port).await
    }

    /// The A and AAAA records of a host.
    async fn hosts(&self, name: &str, port: u16) -> Result<Found, NetError> {
        let found = self.resolver.lookup_ip(name).await?;
        let addresses = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Found(in_turn(addresses), found.valid_until().into()))
    }

    /// The hosts of a service's records. One without an address is left aside as long as another
    /// has one.
    async fn services(&mut self, name: &str) -> Result<Found, NetError> {
        let found = self.resolver.srv_lookup(name).await?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service.clone()),
            _ => None,
        });
        let records = in_order(records.collect(), &mut self.random);
        let mut all = Found(Vec::new(), found.valid_until().into());
        let mut failure = None;
        for service in records.iter().take(MAX_HOSTS) {
            match self.hosts(&service.target.to_utf8(), service.port).await {
                Ok(Found(addresses, until)) => {
                    all.0.extend(addresses);
                    all.1 = all.1.min(until);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if all.0.is_empty() => Err(error),
            _ => Ok(all),
        }
    }
}

impl Resolver for Dns {
    fn next(&mut self) -> Resolving<'_> {
        Box::pin(async {
            tokio::time::sleep_until(self.due).await;
            let found = self.look_up().await;
            let Found(addresses, until) = found.map_err(|error| explain(&self.name, &error))?;
            let now = Instant::now();
            self.due = until.clamp(now + HOLD.0, now + HOLD.1);
            Ok(without_copies(addresses))
        })
    }

    fn look_again(&mut self) {
        self.due = Instant::now();
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("name", &self.name).finish_non_exhaustive()
    }
}

fn explain(name: &str, error: &NetError) -> io::Error {
    if error.is_no_records_found() {
        return io::Error::new(io::ErrorKind::NotFound, format!("DNS has no address of {name}"));
    }
    io::Error::other(format!("{name}: {error}"))
}

/// One name server and no other.
fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_parts(None, Vec::new(), vec![server])
}

/// The order in which services are tried: by priority, within it drawn by weight (RFC 2782, "The format
/// of the SRV RR").
fn in_order(mut records: Vec<SRV>, random: &mut Random) -> Vec<SRV> {
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::new();
    while let Some(first) = records.first() {
        let same = records.iter().take_while(|record| record.priority == first.priority);
        let total: u64 = same.map(|record| u64::from(record.weight)).sum();
        let mut drawn = random.below(total + 1);
        let chosen = records.iter().position(|record| {
            let weight = u64::from(record.weight);
            let hit = drawn <= weight;
            drawn = drawn.saturating_sub(weight);
            hit
        });
        ordered.push(records.remove(chosen.expect("the weights add up to the total")));
    }
    ordered
}

#[cfg(test)]
mod tests;
