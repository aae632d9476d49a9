//! How the address of a service is written, and what is read from it.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::str::FromStr;

use super::MAX_ADDRESSES;
use crate::security::Fingerprint;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 7400;

/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// Where etcd listens for clients.
const ETCD_PORT: u16 = 2379;

/// Where a service is, and how its servers prove to be it.
///
/// | written | servers |
/// |---|---|
/// | `stubborn://HOST[:PORT][,HOST[:PORT]]...` | these hosts; the scheme may be left out |
/// | `dns:///NAME[:PORT]`, `dns://SERVER[:PORT]/NAME[:PORT]` | as DNS says (feature `dns`), looked up again as its records expire |
/// | `file:///PATH` | as this file lists them, read again [when it changes](super::HostsFile) |
/// | `etcd:///PREFIX`, `etcd://MEMBER[:PORT][,MEMBER[:PORT]].../PREFIX` | as etcd has them under this prefix of its keys, kept up to date by a watch (feature `etcd`) |
///
/// A host is a DNS name, an IPv4 address, or an IPv6 address in brackets, of a link with the number of the
/// interface (`[fe80::1%3]`). After all of it may stand `?name=NAME`, the name that every server's
/// certificate must bear, and `?pin=FINGERPRINT`, the key that every server must own; joined by `&`. The
/// name is by default the first host, or the name that DNS is asked for: what DNS answers is not believed.
/// For a file and for etcd one of the two must be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    place: Place,
    name: Option<String>,
    pin: Option<Fingerprint>,
}

/// Where the addresses of the servers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Hosts(Vec<Target>),
    Dns {
        /// The name server to ask; otherwise those of the system.
        server: Option<SocketAddr>,
        name: String,
        port: Option<u16>,
    },
    File(PathBuf),
    Etcd {
        members: Vec<Target>,
        prefix: String,
    },
}

/// One host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Ip(SocketAddr),
    Name(String, u16),
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
        if let Some(name) = &self.name {
            return name.clone();
        }
        match &self.place {
            Place::Hosts(targets) => match &targets[0] {
                Target::Name(name, _) => name.clone(),
                Target::Ip(address) => address.ip().to_string(),
            },
            Place::Dns { name, .. } => domain(name).to_owned(),
            // Only where a key is pinned, which then proves who it is.
            Place::File(_) | Place::Etcd { .. } => "localhost".to_owned(),
        }
    }

    /// The key that the server must own, if the address pins one.
    pub fn pin(&self) -> Option<Fingerprint> {
        self.pin
    }

    /// `NAME:PORT`, with the port of the first host.
    #[cfg(feature = "grpc")]
    pub(crate) fn authority(&self, name: &str) -> String {
        let port = match &self.place {
            Place::Hosts(targets) => targets[0].port(),
            _ => DEFAULT_PORT,
        };
        match name.parse() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{name}:{port}"),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { place: Place::Hosts(vec![Target::Ip(address)]), name: None, pin: None }
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
        self.place.fmt(f)?;
        let name = self.name.as_ref().map(|name| format!("name={name}"));
        let pin = self.pin.map(|pin| format!("pin={pin}"));
        let query: Vec<String> = [name, pin].into_iter().flatten().collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(targets) => {
                f.write_str("stubborn://")?;
                write_hosts(f, targets)
            }
            Self::Dns { server, name, port } => {
                f.write_str("dns://")?;
                server.iter().try_for_each(|server| write!(f, "{server}"))?;
                write!(f, "/{name}")?;
                port.iter().try_for_each(|port| write!(f, ":{port}"))
            }
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Etcd { members, prefix } => {
                f.write_str("etcd://")?;
                write_hosts(f, members)?;
                write!(f, "/{prefix}")
            }
        }
    }
}

fn write_hosts(f: &mut fmt::Formatter<'_>, hosts: &[Target]) -> fmt::Result {
    for (index, host) in hosts.iter().enumerate() {
        write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
    }
    Ok(())
}

impl Target {
    #[cfg(feature = "grpc")]
    fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

fn parse(text: &str) -> Result<Address, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("stubborn", text));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = match scheme {
        "stubborn" => Place::Hosts(parse_hosts(place.strip_suffix('/').unwrap_or(place))?),
        "dns" => parse_dns(place)?,
        "file" if place.starts_with('/') => Place::File(place.into()),
        "file" => return Err("the path of a file is whole: file:///PATH".into()),
        "etcd" => parse_etcd(place)?,
        _ => {
            return Err(format!("unknown scheme {scheme}; there are stubborn, dns, file and etcd"));
        }
    };
    let mut address = Address { place, name: None, pin: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("name", name)) if !name.is_empty() => address.name = Some(name.to_owned()),
            Some(("pin", pin)) => {
                address.pin = Some(pin.parse().map_err(|e| format!("{e}"))?);
            }
            _ => return Err(format!("unknown parameter {pair:?}; there are name and pin")),
        }
    }
    let told = address.name.is_some() || address.pin.is_some();
    if matches!(address.place, Place::File(_) | Place::Etcd { .. }) && !told {
        return Err("who the servers must prove to be is not said: add ?name= or ?pin=".into());
    }
    Ok(address)
}

fn parse_hosts(text: &str) -> Result<Vec<Target>, String> {
    parse_hosts_at(text, DEFAULT_PORT)
}

fn parse_hosts_at(text: &str, port: u16) -> Result<Vec<Target>, String> {
    let parse = |text| parse_target_at(text, port);
    let targets = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
    if targets.len() > MAX_ADDRESSES {
        return Err(format!("more than {MAX_ADDRESSES} hosts"));
    }
    Ok(targets)
}

fn parse_etcd(text: &str) -> Result<Place, String> {
    let (members, prefix) = text.split_once('/').ok_or("expected etcd:///PREFIX")?;
    let members = if members.is_empty() { "127.0.0.1" } else { members };
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Err("the prefix of the service's keys is missing: etcd:///PREFIX".into());
    }
    Ok(Place::Etcd { members: parse_hosts_at(members, ETCD_PORT)?, prefix: prefix.to_owned() })
}

fn parse_dns(text: &str) -> Result<Place, String> {
    let (server, name) = text.split_once('/').ok_or("expected dns:///NAME")?;
    let server = match server {
        "" => None,
        server => Some(parse_name_server(server)?),
    };
    let (name, port) = match name.split_once(':') {
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (name, None),
    };
    if !is_host_name(name) {
        return Err(format!("{name:?} is no name that DNS can be asked for"));
    }
    if name.starts_with('_') && port.is_some() {
        return Err(format!("the records of {name} say the port: leave it out"));
    }
    Ok(Place::Dns { server, name: name.to_owned(), port })
}

fn parse_name_server(text: &str) -> Result<SocketAddr, String> {
    match parse_target_at(text, DNS_PORT)? {
        Target::Ip(address) => Ok(address),
        Target::Name(name, _) => {
            Err(format!("the name server {name:?} is not written as an IP address"))
        }
    }
}

/// The domain of a service's records: `_bank._udp.example.com` is that of `example.com`. Who gives a
/// service a name in DNS is to prove that domain, not the hosts that its records name (RFC 6125 section
/// 6.2.1: a source domain, not a derived one).
fn domain(name: &str) -> &str {
    let mut rest = name;
    while rest.starts_with('_') {
        rest = rest.split_once('.').map_or("", |(_, rest)| rest);
    }
    rest.strip_suffix('.').unwrap_or(rest)
}

/// Reads one `HOST[:PORT]`.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    parse_target_at(text, DEFAULT_PORT)
}

/// With the port that it has if it names none.
fn parse_target_at(text: &str, default: u16) -> Result<Target, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
        // An address alone is read without its scope (`%`).
        let mut address: SocketAddrV6 =
            format!("[{ip}]:0").parse().map_err(|_| format!("{ip:?} is no IPv6 address"))?;
        address.set_port(match port.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if port.is_empty() => default,
            None => return Err(format!("{port:?} after the bracket")),
        });
        return Ok(Target::Ip(address.into()));
    }
    let (host, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            return Err("an IPv6 address stands in brackets: [::1]:7400".into());
        }
        Some((host, port)) => (host, parse_port(port)?),
        None => (text, default),
    };
    if host.is_empty() {
        return Err("a host is missing".into());
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Target::Ip(SocketAddr::new(ip, port)));
    }
    if !is_host_name(host) {
        return Err(format!("{host:?} is no host name"));
    }
    Ok(Target::Name(host.to_owned(), port))
}

fn is_host_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !domain(text).is_empty() && text.len() <= 253 && text.chars().all(fits)
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
        assert_eq!(address("a:1,b,[::2]:3").to_string(), "stubborn://a:1,b:7400,[::2]:3");
        assert_eq!(address("[fe80::7%3]").to_string(), "stubborn://[fe80::7%3]:7400");
    }

    #[test]
    fn the_first_host_is_the_name_unless_another_is_given() {
        assert_eq!(address("a,b").server_name(), "a");
        assert_eq!(address("[::1]:5").server_name(), "::1");
        assert_eq!(address("[fe80::7%3]").server_name(), "fe80::7");
        assert_eq!(address("10.0.0.1?name=bank").server_name(), "bank");
    }

    #[test]
    fn names_of_dns_and_files_are_read_and_printed_as_they_were_written() {
        for text in [
            "dns:///bank.example",
            "dns:///bank.example:1",
            "dns:///_bank._udp.example.com",
            "dns://127.0.0.1:5300/bank?name=teller",
            "dns://[::1]:53/bank",
            "file:///etc/bank/hosts?name=bank",
            "etcd://10.0.0.1:2379,b:1/services/bank?name=bank",
        ] {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("dns://10.0.0.1/a").to_string(), "dns://10.0.0.1:53/a");
        assert_eq!(address("etcd:///a/?name=b").to_string(), "etcd://127.0.0.1:2379/a?name=b");
    }

    #[test]
    fn what_is_asked_for_is_to_be_proved_not_what_dns_answers() {
        assert_eq!(address("dns:///bank.example:1").server_name(), "bank.example");
        assert_eq!(address("dns:///_bank._udp.example.com").server_name(), "example.com");
        assert_eq!(address("dns:///a?name=b").server_name(), "b");
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
            ("dns://", "dns:///NAME"),
            ("dns:///", "no name"),
            ("dns:///a b", "no name"),
            ("dns:///_bank._udp", "no name"),
            ("dns:///_a.b:7", "say the port"),
            ("dns://ns.example/a", "not written as an IP address"),
            ("file://etc/hosts?name=a", "whole"),
            ("file:///etc/hosts", "add ?name= or ?pin="),
            ("etcd:///bank", "add ?name= or ?pin="),
            ("etcd:///?name=a", "prefix"),
            ("etcd://a", "etcd:///PREFIX"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
