//! From the name of a service to addresses: `stubborn://host:port`, lists of hosts, and DNS.

mod resolve;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::security::Fingerprint;

pub(crate) use resolve::resolve;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 7400;

/// Hosts that one URI may name at most.
const MAX_TARGETS: usize = 64;

/// Where a service is: one or more hosts, tried in turn.
///
/// Written `stubborn://HOST[:PORT][,HOST[:PORT]]...[?name=NAME][&pin=FINGERPRINT]`; the scheme may
/// be left out. A host is a DNS name, an IPv4 address, or an IPv6 address in brackets. Every server
/// of the list must show a certificate for `name`, by default the first host, or own the key with
/// the pinned fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    targets: Vec<Target>,
    name: Option<String>,
    pin: Option<Fingerprint>,
}

/// One host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Why a text is not an address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError {
    text: String,
    why: String,
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no address of a service: {} (expected stubborn://HOST:PORT)",
            self.text, self.why
        )
    }
}

impl std::error::Error for ParseAddressError {}

impl Address {
    /// The name that servers must prove to have, unless a key is pinned.
    pub fn server_name(&self) -> String {
        match (&self.name, &self.targets[0].host) {
            (Some(name), _) => name.clone(),
            (None, Host::Name(name)) => name.clone(),
            (None, Host::Ip(ip)) => ip.to_string(),
        }
    }

    /// The key that the server must own, if the address pins one.
    pub fn pin(&self) -> Option<Fingerprint> {
        self.pin
    }

    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether addresses can change without the text changing.
    pub(crate) fn needs_dns(&self) -> bool {
        self.targets.iter().any(|target| matches!(target.host, Host::Name(_)))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let target = Target { host: Host::Ip(address.ip()), port: address.port() };
        Self { targets: vec![target], name: None, pin: None }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse(text).map_err(|why| ParseAddressError { text: text.to_owned(), why })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stubborn://")?;
        for (index, target) in self.targets.iter().enumerate() {
            write!(f, "{}{target}", if index == 0 { "" } else { "," })?;
        }
        let name = self.name.as_ref().map(|name| format!("name={name}"));
        let pin = self.pin.map(|pin| format!("pin={pin}"));
        let query: Vec<String> = [name, pin].into_iter().flatten().collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

fn parse(text: &str) -> Result<Address, String> {
    let rest = match text.split_once("://") {
        Some(("stubborn", rest)) => rest,
        Some((scheme, _)) => return Err(format!("unknown scheme {scheme}")),
        None => text,
    };
    let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
    let targets = hosts.split(',').map(parse_target).collect::<Result<Vec<_>, _>>()?;
    if targets.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} hosts"));
    }
    let mut address = Address { targets, name: None, pin: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("name", name)) if !name.is_empty() => address.name = Some(name.to_owned()),
            Some(("pin", pin)) => {
                address.pin = Some(pin.parse().map_err(|e| format!("{e}"))?);
            }
            _ => return Err(format!("unknown parameter {pair:?}; there are name and pin")),
        }
    }
    Ok(address)
}

fn parse_target(text: &str) -> Result<Target, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| format!("{ip:?} is no IPv6 address"))?;
        let port = match port.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(format!("{port:?} after the bracket")),
        };
        return Ok(Target { host: Host::Ip(ip.into()), port });
    }
    let (host, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            return Err("an IPv6 address stands in brackets: [::1]:7400".into());
        }
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, DEFAULT_PORT),
    };
    if host.is_empty() {
        return Err("a host is missing".into());
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Target { host: Host::Ip(ip), port });
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.len() > 253 || !host.chars().all(fits) {
        return Err(format!("{host:?} is no host name"));
    }
    Ok(Target { host: Host::Name(host.to_owned()), port })
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{text:?} is no port: expected 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_ports_and_defaults_are_read() {
        assert_eq!(address("bank").to_string(), "stubborn://bank:7400");
        assert_eq!(address("stubborn://10.0.0.7:1").to_string(), "stubborn://10.0.0.7:1");
        assert_eq!(address("[::1]").to_string(), "stubborn://[::1]:7400");
        assert_eq!(address("a:1,b,[::2]:3").targets().len(), 3);
    }

    #[test]
    fn the_first_host_is_the_name_unless_another_is_given() {
        assert_eq!(address("a,b").server_name(), "a");
        assert_eq!(address("[::1]:5").server_name(), "::1");
        assert_eq!(address("10.0.0.1?name=bank").server_name(), "bank");
    }

    #[test]
    fn a_pin_is_read_and_printed() {
        let text = format!("stubborn://a:1?pin={}", "ab".repeat(32));
        assert_eq!(address(&text).pin(), Some(Fingerprint([0xab; 32])));
        assert_eq!(address(&text).to_string(), text);
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "host is missing"),
            ("a,", "host is missing"),
            ("http://a", "unknown scheme http"),
            ("a:0", "no port"),
            ("a:70000", "no port"),
            ("::1", "brackets"),
            ("[::1", "not closed"),
            ("[x]:1", "no IPv6 address"),
            ("[::1]x", "after the bracket"),
            ("a b", "no host name"),
            ("a?pin=12", "64 hex digits"),
            ("a?retries=3", "unknown parameter"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
