//! The configuration file of a node: lines of `name = value`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::builder::{Replica, ReplicaBuilder};
use super::error::ReplicaError;
use crate::security::{Fingerprint, IdentityFiles, Trust};
use crate::server::{AccessFile, ServeError};

/// Members that a group may begin with.
const MEMBERS: std::ops::RangeInclusive<usize> = 1..=7;

/// What a node is started with, as a file has it: `stubborn up --prepare` writes one for each node of a
/// group, with certificates that fit, and `stubborn node --print-config` explains every line.
/// [`Replica::from_file`] starts from one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// [`ReplicaBuilder::group`].
    pub group: u64,
    /// [`ReplicaBuilder::node`].
    pub node: u64,
    /// [`ReplicaBuilder::listen`].
    pub listen: String,
    /// The folder with the log and the snapshots.
    pub data: PathBuf,
    /// The node's certificate, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// The certificate of [`ReplicaBuilder::authority`], as PEM.
    pub authority: PathBuf,
    /// Who may call.
    pub clients: Clients,
    /// [`ReplicaBuilder::access_file`].
    pub access: Option<PathBuf>,
    /// [`ReplicaBuilder::lease_reads`].
    pub lease: bool,
    /// `ReplicaBuilder::grpc`; needs that feature.
    pub grpc: GrpcPort,
    /// `ReplicaBuilder::prometheus`; needs that feature.
    pub prometheus: Option<String>,
    /// Those with whom the group begins, sorted by number: [`ReplicaBuilder::member`].
    pub members: Vec<ConfiguredMember>,
}

/// Who may call a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Whoever has a certificate of the authority.
    Certificate,
    /// Also who has none.
    Anybody,
}

/// Whether a node answers gRPC, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcPort {
    /// Not at all.
    No,
    /// Over TLS, with the node's certificate and for the same clients.
    Tls,
    /// Without TLS, for whoever reaches it.
    Plain,
}

/// A member of a group in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredMember {
    /// Its number.
    pub number: u64,
    /// Where the others reach it, HOST:PORT.
    pub address: String,
    /// Of its key.
    pub key: Fingerprint,
}

/// What the lines of a file have said so far.
#[derive(Default)]
struct Fields {
    group: Option<u64>,
    node: Option<u64>,
    listen: Option<String>,
    data: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authority: Option<PathBuf>,
    clients: Option<Clients>,
    access: Option<PathBuf>,
    lease: Option<bool>,
    grpc: Option<GrpcPort>,
    prometheus: Option<String>,
    members: Vec<ConfiguredMember>,
}

impl NodeConfig {
    /// Reads a file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ReplicaError::Settings`] if it cannot be read or used; the text names the line.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ReplicaError> {
        let (path, shown) = (path.as_ref(), path.as_ref().display());
        let text = fs::read_to_string(path)
            .map_err(|error| ReplicaError::Settings(format!("cannot read {shown}: {error}")))?;
        let mut config = Self::read(&text).map_err(|(line, why)| {
            ReplicaError::Settings(match line {
                Some(line) => format!("{shown}:{line}: {why}"),
                None => format!("{shown}: {why}"),
            })
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths =
            [&mut config.data, &mut config.certificate, &mut config.key, &mut config.authority];
        for path in paths.into_iter().chain(&mut config.access) {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    /// The same of a text, with paths as they stand there.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str) -> Result<Self, ReplicaError> {
        Self::read(text).map_err(|(line, why)| {
            ReplicaError::Settings(match line {
                Some(line) => format!("line {line}: {why}"),
                None => why,
            })
        })
    }

    /// A replica with these settings, which needs its machines yet.
    ///
    /// # Errors
    /// If the authority cannot be read, or this program cannot do what the file asks for.
    pub fn builder(&self) -> Result<ReplicaBuilder, ReplicaError> {
        let authority = Trust::pem_file(&self.authority).map_err(ServeError::from)?;
        let mut builder = Replica::open(&self.data)
            .group(self.group)
            .node(self.node)
            .listen(&self.listen)
            .identity_files(IdentityFiles::new(&self.certificate, &self.key))
            .authority(authority)
            .lease_reads(self.lease);
        for member in &self.members {
            builder = builder.member(member.number, member.address.as_str(), member.key);
        }
        if let Some(access) = &self.access {
            builder = builder.access_file(AccessFile::new(access));
        }
        builder = answering_grpc(builder, self.grpc)?;
        if let Some(address) = &self.prometheus {
            builder = told_to_prometheus(builder, address)?;
        }
        Ok(match self.clients {
            Clients::Certificate => builder,
            Clients::Anybody => builder.anybody_may_call(),
        })
    }

    /// # Errors
    /// What is wrong, and in which line if it is one.
    fn read(text: &str) -> Result<Self, (Option<usize>, String)> {
        let mut fields = Fields::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                fields.take(line).map_err(|why| (Some(index + 1), why))?;
            }
        }
        fields.finish().map_err(|why| (None, why))
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut out = String::from(
            "# A node of a replicated cluster: stubborn node --config FILE\n\
             # `stubborn node --print-config` explains every line.\n",
        );
        let Self { group, node, listen, clients, .. } = self;
        let _ = writeln!(out, "group = {group:016x}\nnode = {node}\nlisten = {listen}");
        let paths = [
            ("data", &self.data),
            ("certificate", &self.certificate),
            ("key", &self.key),
            ("authority", &self.authority),
        ];
        for (name, path) in paths {
            let _ = writeln!(out, "{name} = {}", path.display());
        }
        let clients = match clients {
            Clients::Certificate => "certificate",
            Clients::Anybody => "anybody",
        };
        let _ = writeln!(out, "clients = {clients}");
        if let Some(access) = &self.access {
            let _ = writeln!(out, "access = {}", access.display());
        }
        let _ = writeln!(out, "lease = {}", if self.lease { "yes" } else { "no" });
        match self.grpc {
            GrpcPort::No => {}
            GrpcPort::Tls => out.push_str("grpc = tls\n"),
            GrpcPort::Plain => out.push_str("grpc = plain\n"),
        }
        if let Some(prometheus) = &self.prometheus {
            let _ = writeln!(out, "prometheus = {prometheus}");
        }
        for ConfiguredMember { number, address, key } in &self.members {
            let _ = writeln!(out, "member = {number} {address} {key}");
        }
        out
    }
}

impl Fields {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.split_once('=').ok_or("expected `name = value`")?;
        let (name, value) = (name.trim(), value.trim());
        if value.is_empty() {
            return Err(format!("{name} has no value"));
        }
        let path = || PathBuf::from(value);
        match name {
            "group" => once(&mut self.group, name, parse_group(value)?),
            "node" => once(&mut self.node, name, number(value)?),
            "listen" => once(&mut self.listen, name, value.to_owned()),
            "data" => once(&mut self.data, name, path()),
            "certificate" => once(&mut self.certificate, name, path()),
            "key" => once(&mut self.key, name, path()),
            "authority" => once(&mut self.authority, name, path()),
            "clients" => once(&mut self.clients, name, admission(value)?),
            "access" => once(&mut self.access, name, path()),
            "lease" => once(&mut self.lease, name, yes_or_no(name, value)?),
            "grpc" => once(&mut self.grpc, name, grpc_port(value)?),
            "prometheus" => once(&mut self.prometheus, name, value.to_owned()),
            "member" => {
                self.members.push(member(value)?);
                Ok(())
            }
            _ => Err(format!("there is no setting {name:?}")),
        }
    }

    fn finish(mut self) -> Result<NodeConfig, String> {
        self.members.sort_by_key(|member| member.number);
        let numbers: BTreeSet<_> = self.members.iter().map(|member| member.number).collect();
        let keys: BTreeSet<_> = self.members.iter().map(|member| member.key.0).collect();
        if numbers.len() != self.members.len() || keys.len() != self.members.len() {
            return Err("two members have the same number or the same key".into());
        }
        if !MEMBERS.contains(&self.members.len()) {
            return Err(format!(
                "a group begins with {} to {} members, each in a line `member = ...`",
                MEMBERS.start(),
                MEMBERS.end()
            ));
        }
        let node = self.node.ok_or_else(|| missing("node"))?;
        if !numbers.contains(&node) {
            return Err(format!("no member has the number of this node, {node}"));
        }
        Ok(NodeConfig {
            group: self.group.ok_or_else(|| missing("group"))?,
            node,
            listen: self.listen.ok_or_else(|| missing("listen"))?,
            data: self.data.ok_or_else(|| missing("data"))?,
            certificate: self.certificate.ok_or_else(|| missing("certificate"))?,
            key: self.key.ok_or_else(|| missing("key"))?,
            authority: self.authority.ok_or_else(|| missing("authority"))?,
            clients: self.clients.unwrap_or(Clients::Certificate),
            access: self.access,
            lease: self.lease.unwrap_or(false),
            grpc: self.grpc.unwrap_or(GrpcPort::No),
            prometheus: self.prometheus,
            members: self.members,
        })
    }
}

#[cfg(feature = "grpc")]
fn answering_grpc(builder: ReplicaBuilder, how: GrpcPort) -> Result<ReplicaBuilder, ReplicaError> {
    use crate::grpc::Grpc;
    Ok(match how {
        GrpcPort::No => builder,
        GrpcPort::Tls => builder.grpc(Grpc::new()),
        GrpcPort::Plain => builder.grpc(Grpc::new().plain()),
    })
}

#[cfg(not(feature = "grpc"))]
fn answering_grpc(builder: ReplicaBuilder, how: GrpcPort) -> Result<ReplicaBuilder, ReplicaError> {
    if how == GrpcPort::No {
        return Ok(builder);
    }
    let why = "grpc: this program was built without the feature `grpc` of `stubborn`";
    Err(ReplicaError::Settings(why.into()))
}

#[cfg(feature = "prometheus")]
fn told_to_prometheus(builder: ReplicaBuilder, to: &str) -> Result<ReplicaBuilder, ReplicaError> {
    Ok(builder.prometheus(to))
}

#[cfg(not(feature = "prometheus"))]
fn told_to_prometheus(_: ReplicaBuilder, to: &str) -> Result<ReplicaBuilder, ReplicaError> {
    Err(ReplicaError::Settings(format!(
        "prometheus = {to}: this program was built without the feature `prometheus` of `stubborn`"
    )))
}

fn once<T>(field: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is set twice")),
    }
}

fn missing(name: &str) -> String {
    format!("{name} is not set")
}

/// The number of a group, as it is written in configuration files.
///
/// # Errors
/// If it is none, with what is expected.
pub fn parse_group(text: &str) -> Result<u64, String> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let sound = |group: &u64| digits && *group != 0 && group & 0xff == 0;
    let group = u64::from_str_radix(text, 16).ok().filter(sound);
    group.ok_or_else(|| {
        format!("{text:?} is no group: expected 16 hex digits, the last two 00, not all of them 0")
    })
}

fn number(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{text:?} is no number of a node: expected 1, 2, 3, ..."))
}

fn admission(text: &str) -> Result<Clients, String> {
    match text {
        "certificate" => Ok(Clients::Certificate),
        "anybody" => Ok(Clients::Anybody),
        _ => Err(format!("clients is `certificate` or `anybody`, not {text:?}")),
    }
}

fn yes_or_no(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{name} is `yes` or `no`, not {text:?}")),
    }
}

fn grpc_port(text: &str) -> Result<GrpcPort, String> {
    match text {
        "no" => Ok(GrpcPort::No),
        "tls" => Ok(GrpcPort::Tls),
        "plain" => Ok(GrpcPort::Plain),
        _ => Err(format!("grpc is `no`, `tls` or `plain`, not {text:?}")),
    }
}

fn member(text: &str) -> Result<ConfiguredMember, String> {
    let mut words = text.split_whitespace();
    let (Some(node), Some(address), Some(key), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("a member is `NUMBER HOST:PORT FINGERPRINT`".into());
    };
    if !address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    }) {
        return Err(format!("{address:?} is no address: expected HOST:PORT"));
    }
    let key = key.parse().map_err(|error| format!("{error}"))?;
    Ok(ConfiguredMember { number: number(node)?, address: address.to_owned(), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# A node.
group = 0123456789abcd00
node = 1
listen = 0.0.0.0:7400
data = data
certificate = node.crt
key = node.key
authority = authority.crt
clients = certificate   # or anybody
access = access.conf
lease = no
grpc = tls
prometheus = 127.0.0.1:9400
member = 1 a.example:7400 0000000000000000000000000000000000000000000000000000000000000001
member = 2 b.example:7400 0000000000000000000000000000000000000000000000000000000000000002
";

    #[test]
    fn a_configuration_survives_being_written() {
        let config = NodeConfig::parse(SAMPLE).unwrap();
        assert_eq!((config.node, config.members.len()), (1, 2));
        assert_eq!(config.members[1].address, "b.example:7400");
        assert_eq!(config.access.as_deref(), Some(Path::new("access.conf")));
        assert_eq!(config.prometheus.as_deref(), Some("127.0.0.1:9400"));
        assert_eq!(NodeConfig::parse(&config.to_text()).unwrap(), config);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let with = |from: &str, to: &str| {
            let text = SAMPLE.replace(from, to);
            assert_ne!(text, SAMPLE, "{from}");
            NodeConfig::read(&text).unwrap_err()
        };
        for (from, to, why) in [
            ("node = 1", "node = 0", "is no number of a node"),
            ("node = 1", "node = 4", "no member has the number of this node"),
            ("node = 1", "node = 1\nnode = 1", "node is set twice"),
            ("node = 1", "", "node is not set"),
            ("node = 1", "node", "expected `name = value`"),
            ("node = 1", "node =", "node has no value"),
            ("clients = certificate", "clients = all", "`certificate` or `anybody`"),
            ("lease = no", "lease = maybe", "lease is `yes` or `no`"),
            ("grpc = tls", "grpc = yes", "grpc is `no`, `tls` or `plain`"),
            ("group = 01", "group = ", "is no group"),
            ("cd00", "cdef", "the last two 00"),
            ("listen =", "lisen =", "no setting \"lisen\""),
            ("member = 2 ", "member = 1 ", "the same number or the same key"),
            ("member = 2 b.example:7400", "member = 2 b.example", "is no address"),
            ("member = 2 b.example:7400", "member = 2", "a member is `NUMBER"),
        ] {
            let (_, said) = with(from, to);
            assert!(said.contains(why), "{from} -> {to}: {said}");
        }
        assert_eq!(with("node = 1", "nod = 1").0, Some(3));
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.conf");
        fs::write(&path, SAMPLE).unwrap();
        let config = NodeConfig::load(&path).unwrap();
        assert_eq!(config.key, folder.path().join("node.key"));
        assert_eq!(config.access, Some(folder.path().join("access.conf")));
        fs::write(&path, "x = 1").unwrap();
        let error = NodeConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("node.conf:1: there is no setting"), "{error}");
    }
}
