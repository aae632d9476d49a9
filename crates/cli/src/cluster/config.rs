//! The configuration file of a node: lines of `name = value`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use stubborn::Fingerprint;

use crate::error::Error;

/// What `stubborn node --print-config` prints.
pub(crate) const EXAMPLE: &str = "\
# A node of a replicated cluster: stubborn node --config FILE
#
# Lines are `name = value`; what follows a # is a comment. Paths are relative to this file.
# `stubborn up --prepare a.example:7400,b.example:7400,c.example:7400 --data DIR` writes such a file
# for each node, with certificates that fit; copy each DIR/node-N to its machine.

# What tells this group from every other: 14 hex digits that are drawn at random when the group is
# made (for example with: openssl rand -hex 7), then 00. The same at all of its nodes.
group = 0123456789abcd00

# Which member this node is. A node that has lost its disk never comes back under its number.
node = 1

# The UDP address to listen on.
listen = 0.0.0.0:7400

# The folder with the log and the snapshots.
data = data

# The node's certificate and key, and the authority that has signed those of all nodes and clients.
# The certificate of node 1 bears the name node-1.stubborn, and also node.stubborn, by which clients
# know all nodes.
certificate = node.crt
key = node.key
authority = authority.crt

# Who may call: `certificate` (whoever has one of that authority) or `anybody`.
clients = certificate

# Who may call what: a file with lines `WHAT = WHO, WHO`; `stubborn node --print-access` prints one with an
# explanation. The node looks at it every ten seconds. Without such a line whoever may connect may call
# everything. Nodes may differ in it; a call is judged by the one that its client is connected to.
# access = access.conf

# Whether this node, while it leads, answers reads without a question to the others for as long as they
# cannot have elected another leader: `no`, or `yes` where the clocks of all members go at about one
# speed and virtual machines are not suspended.
lease = no

# Where Prometheus is told what this node counts and measures: a TCP address for plain HTTP, path
# /metrics. Whoever reaches it is told; without such a line nobody is.
# prometheus = 127.0.0.1:9400

# The members with which the group begins: number, address, and the fingerprint of the node's key
# (`stubborn ping` shows it). The same lines, in any order, at every node.
member = 1 a.example:7400 0000000000000000000000000000000000000000000000000000000000000001
member = 2 b.example:7400 0000000000000000000000000000000000000000000000000000000000000002
member = 3 c.example:7400 0000000000000000000000000000000000000000000000000000000000000003
";

/// What `stubborn node --print-access` prints.
pub(crate) const ACCESS_EXAMPLE: &str = "\
# Who may call what at a node: a line `access = FILE` in its configuration.
#
# Lines are `WHAT = WHO, WHO, ...`; what follows a # is a comment. What no line names is refused: such a
# call never runs, at whichever node it is made again. The node looks at this file every ten seconds; what
# cannot be used is told on standard error, and what was before holds.
#
# WHAT is a service, one of its methods (SERVICE/METHOD, which stands before the line of its service), or
# `health`, `reflection`, `metrics`. WHO is
#   spiffe://DOMAIN/PATH   the SPIFFE id of the caller's certificate; spiffe://DOMAIN/* for all that begin so
#   dns:NAME               a name in it; `stubborn up` gives clients the name `client`
#   key:FINGERPRINT        its key
#   subject:NAME           whose bearer token the call has, by a line `token NAME = SHA-256 of the token`
#   certificate            whoever has one of the authority
#   anybody                also who has none

stubborn.kv.v1.Kv = dns:client, spiffe://bank.example/teller
stubborn.kv.v1.Kv/Get = certificate

# `stubborn up`, `status`, `members` and `backup`; nodes that join ask for the members.
stubborn.group.v1.Group = dns:client
stubborn.group.v1.Group/Members = certificate

health = anybody
reflection = certificate
metrics = dns:client

# Drawn at random, and noted here only as: printf %s TOKEN | sha256sum
# token auditor = 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
";

/// Members that a group may begin with.
const MEMBERS: std::ops::RangeInclusive<usize> = 1..=7;

/// What a node is started with. Paths are as they stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeConfig {
    pub(crate) group: u64,
    pub(crate) node: u64,
    pub(crate) listen: String,
    pub(crate) data: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: PathBuf,
    pub(crate) clients: Admission,
    pub(crate) access: Option<PathBuf>,
    pub(crate) lease: bool,
    pub(crate) prometheus: Option<String>,
    /// Sorted by number.
    pub(crate) members: Vec<Member>,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Whoever has a certificate of the authority.
    Certificate,
    Anybody,
}

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) number: u64,
    /// HOST:PORT
    pub(crate) address: String,
    pub(crate) key: Fingerprint,
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
    clients: Option<Admission>,
    access: Option<PathBuf>,
    lease: Option<bool>,
    prometheus: Option<String>,
    members: Vec<Member>,
}

impl NodeConfig {
    /// Reads a file; its paths are made those that this process can open.
    ///
    /// # Errors
    /// If it cannot be read; the error names the line.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| {
            Error::usage(format!("cannot read {}: {error}", path.display()))
                .with_hint("`stubborn node --print-config` prints a file to begin with")
        })?;
        let mut config = Self::parse(&text)
            .map_err(|(line, why)| match line {
                Some(line) => format!("{}:{line}: {why}", path.display()),
                None => format!("{}: {why}", path.display()),
            })
            .map_err(|why| {
                Error::usage(why).with_hint("`stubborn node --print-config` explains every line")
            })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths =
            [&mut config.data, &mut config.certificate, &mut config.key, &mut config.authority];
        for path in paths.into_iter().chain(&mut config.access) {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    /// # Errors
    /// What is wrong, and in which line if it is one.
    fn parse(text: &str) -> Result<Self, (Option<usize>, String)> {
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
    pub(crate) fn to_text(&self) -> String {
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
            Admission::Certificate => "certificate",
            Admission::Anybody => "anybody",
        };
        let _ = writeln!(out, "clients = {clients}");
        if let Some(access) = &self.access {
            let _ = writeln!(out, "access = {}", access.display());
        }
        let _ = writeln!(out, "lease = {}", if self.lease { "yes" } else { "no" });
        if let Some(prometheus) = &self.prometheus {
            let _ = writeln!(out, "prometheus = {prometheus}");
        }
        for Member { number, address, key } in &self.members {
            let _ = writeln!(out, "member = {number} {address} {key}");
        }
        out
    }

    /// This node among the members.
    #[cfg(test)]
    pub(crate) fn own(&self) -> &Member {
        let own = self.members.iter().find(|member| member.number == self.node);
        own.expect("checked when it was read")
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
            clients: self.clients.unwrap_or(Admission::Certificate),
            access: self.access,
            lease: self.lease.unwrap_or(false),
            prometheus: self.prometheus,
            members: self.members,
        })
    }
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
pub(crate) fn parse_group(text: &str) -> Result<u64, String> {
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

fn admission(text: &str) -> Result<Admission, String> {
    match text {
        "certificate" => Ok(Admission::Certificate),
        "anybody" => Ok(Admission::Anybody),
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

fn member(text: &str) -> Result<Member, String> {
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
    Ok(Member { number: number(node)?, address: address.to_owned(), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration_and_survives_being_written() {
        let config = NodeConfig::parse(EXAMPLE).unwrap();
        assert_eq!((config.node, config.members.len()), (1, 3));
        assert_eq!(config.own().address, "a.example:7400");
        assert_eq!(NodeConfig::parse(&config.to_text()), Ok(config));
        let both = EXAMPLE.replace("# prometheus", "prometheus").replace("# access =", "access =");
        let told = NodeConfig::parse(&both).unwrap();
        assert_eq!(told.access.as_deref(), Some(Path::new("access.conf")));
        assert_eq!(told.prometheus.as_deref(), Some("127.0.0.1:9400"));
        assert_eq!(NodeConfig::parse(&told.to_text()), Ok(told));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let with = |from: &str, to: &str| {
            let text = EXAMPLE.replace(from, to);
            assert_ne!(text, EXAMPLE, "{from}");
            NodeConfig::parse(&text).unwrap_err()
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
        assert_eq!(with("node = 1", "nod = 1").0, Some(12));
    }

    #[test]
    fn the_example_of_access_can_be_used() {
        let access = ACCESS_EXAMPLE.replace("# token", "token").parse::<stubborn::Access>();
        assert!(access.is_ok(), "{access:?}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.conf");
        fs::write(&path, EXAMPLE.replace("# access =", "access =")).unwrap();
        let config = NodeConfig::load(&path).unwrap();
        assert_eq!(config.key, folder.path().join("node.key"));
        assert_eq!(config.access, Some(folder.path().join("access.conf")));
        fs::write(&path, "x = 1").unwrap();
        let error = NodeConfig::load(&path).unwrap_err();
        assert!(error.message().contains("node.conf:1: there is no setting"), "{error}");
        assert!(error.hint().is_some());
    }
}
