//! Reaching a server: the arguments of every command that does, and the way there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stubborn::{
    Channel, ChannelBuilder, ClientEndpoint, Connection, Fingerprint, Identity, Limits, Trust,
};

use crate::cluster::{self, Credentials, DEFAULT_FOLDER, Folder};
use crate::error::Error;
use crate::{key_log, pins};

/// Over these options in help.
const REACHING: &str = "Reaching the server";

/// How to reach a server and whether to believe it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// The server: HOST:PORT, `stubborn://HOST:PORT[,HOST:PORT]`, `dns:///NAME`, `file:///PATH` of a
    /// list of hosts, or `etcd:///PREFIX`; `?name=NAME` and `&pin=FINGERPRINT` say who it must prove to be.
    /// `grpcs://HOST:PORT`, and `grpc://HOST:PORT` without TLS, is any server of gRPC, for `call`, `ls`,
    /// `describe` and `health`.
    pub(crate) addr: String,

    #[command(flatten)]
    pub(crate) access: Access,
}

/// Whether to believe a server, and who to be to it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Access {
    /// Trust certificates that this PEM file holds or has signed; without it $STUBBORN_CA, else the
    /// system's authorities.
    #[arg(long, value_name = "FILE", conflicts_with = "data", help_heading = REACHING)]
    ca: Option<PathBuf>,

    /// Trust the server that owns the key with this fingerprint; without it $STUBBORN_PIN.
    #[arg(long, value_name = "FINGERPRINT", conflicts_with_all = ["ca", "data"])]
    #[arg(help_heading = REACHING)]
    pin: Option<Fingerprint>,

    /// Trust anybody. What is sent can be read and changed by whoever is in between.
    #[arg(long, conflicts_with_all = ["ca", "pin", "data"], help_heading = REACHING)]
    insecure: bool,

    /// The name that the server's certificate must bear; without it the host.
    #[arg(long, value_name = "NAME", help_heading = REACHING)]
    name: Option<String>,

    /// The certificate chain to show to the server, as PEM.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "data")]
    #[arg(help_heading = REACHING)]
    cert: Option<PathBuf>,

    /// The private key of --cert, as PEM.
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = REACHING)]
    key: Option<PathBuf>,

    /// The folder of the cluster, as `stubborn up` has made it: with the client's certificate, and
    /// the authority to trust. Without it $STUBBORN_DATA; not needed for a cluster that this user
    /// runs on this machine.
    #[arg(long, value_name = "DIR", global = true, help_heading = REACHING)]
    pub(crate) data: Option<PathBuf>,

    /// How long an attempt to connect to one address may take.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    #[arg(help_heading = REACHING)]
    connect_timeout: Duration,
}

/// A service on a cluster: like [`Remote`], but the folder of the cluster may say where it is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Cluster {
    /// The nodes: HOST:PORT[,HOST:PORT]. Without it, those that the folder of the cluster names.
    #[arg(long, value_name = "ADDR", global = true, help_heading = REACHING)]
    pub(crate) addr: Option<String>,

    #[command(flatten)]
    pub(crate) access: Access,
}

/// A way to a server.
pub(crate) enum Link {
    /// A connection on an endpoint of its own.
    Datagrams { endpoint: ClientEndpoint, connection: Connection },
    /// gRPC over TCP.
    Grpc(Channel),
}

impl Remote {
    /// Connects, with further settings.
    pub(crate) async fn connect_with(
        &self,
        settings: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
    ) -> Result<Link, Error> {
        self.access.connect_with(&self.addr, settings).await
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Link, Error> {
        self.connect_with(|builder| builder).await
    }
}

impl Cluster {
    /// Where the cluster is.
    ///
    /// # Errors
    /// If neither an address nor a folder says so.
    pub(crate) fn address(&self) -> Result<String, Error> {
        if let Some(addr) = &self.addr {
            return Ok(addr.clone());
        }
        let named = self.access.folder();
        let folder = named.unwrap_or_else(|| Folder::at(Path::new(DEFAULT_FOLDER)));
        let addresses = folder.addresses()?;
        if addresses.is_empty() {
            let message = format!("{} is no folder of a cluster", folder.path().display());
            return Err(Error::usage(message).with_hint(
                "start one with `stubborn up`, or name its folder with --data DIR, or its nodes \
                 with --addr HOST:PORT,HOST:PORT",
            ));
        }
        Ok(addresses.join(","))
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Link, Error> {
        let mut access = self.access.clone();
        if self.addr.is_none() && access.folder().is_none() {
            access.data = Some(DEFAULT_FOLDER.into());
        }
        access.connect_with(&self.address()?, |builder| builder).await
    }
}

impl Access {
    /// As the folder of a cluster says.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        Self {
            ca: None,
            pin: None,
            insecure: false,
            name: None,
            cert: None,
            key: None,
            data: Some(folder.to_owned()),
            connect_timeout: Duration::from_secs(3),
        }
    }

    /// Connects to this address, with further settings.
    pub(crate) async fn connect_with(
        &self,
        addr: &str,
        settings: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
    ) -> Result<Link, Error> {
        if is_grpc(addr) {
            return Ok(Link::Grpc(settings(self.builder(addr)?).connect().await?));
        }
        let endpoint = ClientEndpoint::with_qlog(Limits::default(), crate::qlog::from_env()?)
            .map_err(|error| Error::internal(format!("no UDP socket: {error}")))?;
        let connection = settings(self.builder(addr)?.endpoint(&endpoint)).open().await?;
        Ok(Link::Datagrams { endpoint, connection })
    }

    /// A channel to this address.
    pub(crate) fn builder(&self, addr: &str) -> Result<ChannelBuilder, Error> {
        let mut builder = ChannelBuilder::new(addr)
            .attempt_timeout(self.connect_timeout)
            .key_log(key_log::from_env()?);
        if let Some(folder) = self.folder().or_else(|| self.left_folder(addr)) {
            let Credentials { identity, trust } = folder.credentials()?;
            builder = builder.trust(trust).identity(identity).server_name(cluster::NAME);
        } else if let Some(trust) = self.trust(addr)? {
            builder = builder.trust(trust);
        }
        if let Some(name) = &self.name {
            builder = builder.server_name(name.as_str());
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            builder = builder.identity(Identity::from_pem_files(cert, key)?);
        }
        Ok(builder)
    }

    /// The folder of the cluster that was named.
    pub(crate) fn folder(&self) -> Option<Folder> {
        if let Some(data) = &self.data {
            return Some(Folder::at(data));
        }
        let otherwise = self.says_otherwise();
        variable("STUBBORN_DATA").filter(|_| !otherwise).map(|data| Folder::at(Path::new(&data)))
    }

    /// The folder of the cluster that is at this address, as far as it is known.
    pub(crate) fn cluster_of(&self, addr: &str) -> Option<Folder> {
        self.folder().or_else(|| self.left_folder(addr))
    }

    /// The folder that a node of this user on this machine has left a note of. Whatever was chosen comes
    /// first, and a folder that is gone says nothing.
    fn left_folder(&self, addr: &str) -> Option<Folder> {
        let chosen =
            ["STUBBORN_PIN", "STUBBORN_CA"].into_iter().any(|name| variable(name).is_some());
        if chosen || self.says_otherwise() || addr.contains("pin=") {
            return None;
        }
        let first = addr.split([',', '?']).next()?;
        pins::find_folder(first).filter(|folder| folder.is_dir()).map(|folder| Folder::at(&folder))
    }

    /// Whether another way to trust or to be trusted was chosen.
    fn says_otherwise(&self) -> bool {
        self.insecure || self.pin.is_some() || self.ca.is_some() || self.cert.is_some()
    }

    fn trust(&self, addr: &str) -> Result<Option<Trust>, Error> {
        if addr.starts_with(PLAIN) {
            let error =
                Error::usage(format!("{addr} is an address without TLS: nobody is verified"));
            return match self.says_otherwise() && !self.insecure {
                true => Err(error.with_hint("write grpcs://HOST:PORT for gRPC over TLS")),
                false => Ok(None),
            };
        }
        if self.insecure {
            return Ok(Some(Trust::insecure()));
        }
        if let Some(pin) = self.pin {
            return Ok(Some(pin.into()));
        }
        if let Some(ca) = &self.ca {
            return Ok(Some(Trust::pem_file(ca)?));
        }
        if addr.contains("pin=") {
            return Ok(None);
        }
        if let Some(pin) = variable("STUBBORN_PIN") {
            let pin = pin.to_str().and_then(|pin| pin.parse::<Fingerprint>().ok());
            let wrong = || Error::usage("$STUBBORN_PIN is no fingerprint of 64 hex digits");
            return Ok(Some(pin.ok_or_else(wrong)?.into()));
        }
        match variable("STUBBORN_CA") {
            Some(file) => Ok(Some(Trust::pem_file(PathBuf::from(file))?)),
            None => Ok(pins::find(addr).map(Trust::key)),
        }
    }
}

impl Link {
    /// What stubs call through.
    pub(crate) fn channel(&self) -> Channel {
        match self {
            Self::Datagrams { connection, .. } => connection.channel(),
            Self::Grpc(channel) => channel.clone(),
        }
    }

    /// The connection, which a server of gRPC has not.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Datagrams { connection, .. } => Some(connection),
            Self::Grpc(_) => None,
        }
    }

    /// Whether the server speaks gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        matches!(self, Self::Grpc(_))
    }

    /// Takes leave of the server, which may then forget the session.
    pub(crate) async fn close(self) {
        if let Self::Datagrams { endpoint, connection } = self {
            drop(connection);
            endpoint.close().await;
        }
    }
}

/// The address of a server of gRPC without TLS.
const PLAIN: &str = "grpc://";

/// Whether a server at this address is spoken to in gRPC.
pub(crate) fn is_grpc(addr: &str) -> bool {
    addr.starts_with(PLAIN) || addr.starts_with("grpcs://")
}

/// Refuses a server of gRPC for what it cannot do.
pub(crate) fn not_grpc(addr: &str, what: &str) -> Result<(), Error> {
    match is_grpc(addr) {
        false => Ok(()),
        true => Err(Error::usage(format!("gRPC has no way to {what}"))
            .with_hint("a server of Stubborn has: name it by HOST:PORT, without grpc://")),
    }
}

fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Reads an address to listen on.
pub(crate) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an IP address and a port, such as 127.0.0.1:7400 or 0.0.0.0:7400";
    text.parse().map_err(|_| expected.to_owned())
}

/// Reads a time such as `250ms`, `2s`, `1.5m` or `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit {other:?}: use us, ms, s, m or h")),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = digits.parse::<f64>().ok().filter(|_| plain);
    let wrong = || "expected a number and a unit, for example 250ms or 2s".to_owned();
    Duration::try_from_secs_f64(number.ok_or_else(wrong)? * unit).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-1s", "1e9s", "2 s", "3days", "inf"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
