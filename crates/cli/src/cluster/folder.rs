//! The folder of a cluster: its authority, a client's certificate, and a folder for each node.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use stubborn::group::MembersReply;
use stubborn::replica::ConfiguredMember;
use stubborn::{Authority, Fingerprint, Identity, Trust};
use stubborn_store::replication::FolderId;

use super::{Clients, GrpcPort, NodeConfig, load};
use crate::error::Error;
use crate::private;

/// The name that the certificates of all nodes bear, whatever their addresses are.
pub(crate) const NAME: &str = "node.stubborn";

/// Where a cluster is kept unless another folder is named.
pub(crate) const DEFAULT_FOLDER: &str = "stubborn-data";

/// The file in which a folder keeps where the nodes are after a change.
const MEMBERS: &str = "members";

/// The folder of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

/// Where a node is: the address at which others reach it, and the one on which it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: String,
    pub(crate) listen: String,
}

impl Place {
    /// A node of this machine.
    pub(crate) fn here(address: String) -> Self {
        Self { listen: address.clone(), address }
    }

    /// A node at this address: of this machine if it is a loopback address.
    pub(crate) fn at(address: String) -> Self {
        match address.parse::<SocketAddr>() {
            Ok(own) if own.ip().is_loopback() => Self::here(address),
            _ => Self::elsewhere(address),
        }
    }

    /// Whether it is of this machine alone.
    pub(crate) fn is_here(&self) -> bool {
        self.listen == self.address
    }

    /// A node of another machine: it listens on all of that machine's addresses.
    fn elsewhere(address: String) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((&address, "7400"));
        let listen = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[::]:{port}"),
            _ => format!("0.0.0.0:{port}"),
        };
        Self { listen, address }
    }
}

/// What it takes to call a cluster.
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) trust: Trust,
}

impl Folder {
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether a cluster was made here.
    pub(crate) fn holds_cluster(&self) -> bool {
        self.config(1).exists()
    }

    /// The configuration file of a node.
    pub(crate) fn config(&self, node: u64) -> PathBuf {
        self.0.join(format!("node-{node}")).join("node.conf")
    }

    /// The configurations of the nodes that are here, by number.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeConfig>, Error> {
        let configs = (1..).map(|node| self.config(node)).take_while(|config| config.exists());
        configs.map(|config| load(&config)).collect()
    }

    /// Where the nodes are, as far as this folder knows: as the last change of members left them that
    /// was made with it, else as the configuration of the first node says.
    pub(crate) fn addresses(&self) -> Result<Vec<String>, Error> {
        Ok(self.members()?.into_iter().map(|(_, address)| address).collect())
    }

    /// The same, with the numbers that are known.
    pub(crate) fn members(&self) -> Result<Vec<(Option<u64>, String)>, Error> {
        if let Ok(noted) = std::fs::read_to_string(self.0.join(MEMBERS)) {
            return Ok(noted.lines().map(|address| (None, address.to_owned())).collect());
        }
        let configs = self.nodes()?;
        let members = configs.first().map(|config| config.members.clone()).unwrap_or_default();
        Ok(members.into_iter().map(|member| (Some(member.number), member.address)).collect())
    }

    /// Keeps where the nodes are after a change, if this is the folder of a cluster.
    pub(crate) fn note_members(&self, addresses: &[String]) -> Result<(), Error> {
        if !self.0.join("client.crt").exists() {
            return Ok(());
        }
        let path = self.0.join(MEMBERS);
        let text = addresses.join("\n") + "\n";
        std::fs::write(&path, text).map_err(|e| Error::io("write", &path, &e))
    }

    /// The key of a node that is to join a group with these members: of the folder that is here for
    /// it, or of one that is made with a certificate of the authority.
    pub(crate) fn make_further_node(
        &self,
        number: u64,
        address: &str,
        group: &MembersReply,
    ) -> Result<Fingerprint, Error> {
        let path = self.config(number);
        if path.exists() {
            let config = load(&path)?;
            let own = Identity::from_pem_files(&config.certificate, &config.key)?;
            return Ok(own.fingerprint()?);
        }
        let file = |name: &str| self.0.join(name);
        if !file("authority.key").exists() {
            let message = format!("the key of node {number} is not known");
            return Err(Error::usage(message).with_hint(
                "name its fingerprint, --add ID=HOST:PORT,KEY (`stubborn ping` shows it), or the \
                 folder that has the cluster's authority.key with --data DIR",
            ));
        }
        let authority = Authority::from_pem_files(file("authority.crt"), file("authority.key"))?;
        let here = self.nodes()?;
        let first = here.first().ok_or_else(|| {
            Error::usage(format!("{} holds no node whose group could be joined", self.0.display()))
        })?;
        let identity = authority.issue_node(names(number as usize, address))?;
        let key = identity.fingerprint()?;
        let mut members: Vec<ConfiguredMember> = Vec::new();
        for member in group.members.iter().filter(|member| member.node != number) {
            let key = member.key.as_slice().try_into().map_err(|_| {
                Error::internal(format!("the group does not tell the key of node {}", member.node))
            })?;
            let (number, address) = (member.node, member.address.clone());
            members.push(ConfiguredMember { number, address, key: Fingerprint(key) });
        }
        members.push(ConfiguredMember { number, address: address.to_owned(), key });
        members.sort_by_key(|member| member.number);
        let place = Place::at(address.to_owned());
        let config = NodeConfig {
            group: first.group,
            node: number,
            listen: place.listen,
            data: "data".into(),
            certificate: "node.crt".into(),
            key: "node.key".into(),
            authority: "authority.crt".into(),
            clients: first.clients,
            access: None,
            lease: first.lease,
            grpc: first.grpc,
            prometheus: None,
            members,
        };
        self.make_node(&config, &identity, &authority)?;
        Ok(key)
    }

    /// Makes authority, certificates and a folder for each node.
    ///
    /// # Errors
    /// If something is there already or cannot be written.
    pub(crate) fn make(&self, places: &[Place], clients: Clients) -> Result<(), Error> {
        private::make_directory(&self.0).map_err(|e| Error::io("make the folder", &self.0, &e))?;
        let authority = Authority::generate()?;
        let mut identities = Vec::new();
        for (index, place) in places.iter().enumerate() {
            identities.push(authority.issue_node(names(index + 1, &place.address))?);
        }
        let group = draw_group()?;
        let members: Result<Vec<ConfiguredMember>, Error> = (1..)
            .zip(places.iter().zip(&identities))
            .map(|(number, (place, identity))| {
                let key = identity.fingerprint()?;
                Ok(ConfiguredMember { number, address: place.address.clone(), key })
            })
            .collect();
        let members = members?;
        for ((member, identity), place) in members.iter().zip(&identities).zip(places) {
            let config = NodeConfig {
                group,
                node: member.number,
                listen: place.listen.clone(),
                data: "data".into(),
                certificate: "node.crt".into(),
                key: "node.key".into(),
                authority: "authority.crt".into(),
                clients,
                access: None,
                lease: false,
                grpc: GrpcPort::No,
                prometheus: None,
                members: members.clone(),
            };
            self.make_node(&config, identity, &authority)?;
        }
        let client = authority.issue_client("client")?;
        write(&self.0.join("client.crt"), client.certificate_pem())?;
        write(&self.0.join("client.key"), client.key_pem())?;
        write(&self.0.join("authority.crt"), authority.certificate_pem())?;
        write(&self.0.join("authority.key"), authority.key_pem())
    }

    /// Gives each node that is here a copy of this file of who may call what.
    pub(crate) fn give_access(&self, file: &Path) -> Result<(), Error> {
        for node in self.nodes()? {
            let copy = self.config(node.node).with_file_name("access.conf");
            std::fs::copy(file, &copy).map_err(|error| Error::io("write", &copy, &error))?;
            self.add_line(node.node, "access = access.conf")?;
        }
        Ok(())
    }

    /// Lets each node that is here answer gRPC, too.
    pub(crate) fn answer_grpc(&self) -> Result<(), Error> {
        self.nodes()?.iter().try_for_each(|node| self.add_line(node.node, "grpc = tls"))
    }

    /// Adds a line to the configuration of a node.
    fn add_line(&self, node: u64, line: &str) -> Result<(), Error> {
        let config = self.config(node);
        let text = std::fs::read_to_string(&config);
        let text = text.map_err(|error| Error::io("read", &config, &error))?;
        write(&config, &format!("{text}{line}\n"))
    }

    fn make_node(
        &self,
        config: &NodeConfig,
        identity: &Identity,
        authority: &Authority,
    ) -> Result<(), Error> {
        let path = self.config(config.node);
        let folder = path.parent().unwrap_or(&self.0);
        private::make_directory(folder).map_err(|e| Error::io("make the folder", folder, &e))?;
        write(&folder.join("node.crt"), identity.certificate_pem())?;
        write(&folder.join("node.key"), identity.key_pem())?;
        write(&folder.join("authority.crt"), authority.certificate_pem())?;
        write(&path, &config.to_text())
    }

    /// The client's certificate, and the authority of the nodes.
    ///
    /// # Errors
    /// If the folder is none of a cluster.
    pub(crate) fn credentials(&self) -> Result<Credentials, Error> {
        let file = |name: &str| self.0.join(name);
        if !file("client.crt").exists() {
            let message = format!("{} is no folder of a cluster", self.0.display());
            return Err(Error::usage(message).with_hint(
                "name the one that `stubborn up` has made, which has a client.crt, with --data DIR \
                 or $STUBBORN_DATA",
            ));
        }
        Ok(Credentials {
            identity: Identity::from_pem_files(file("client.crt"), file("client.key"))?,
            trust: Trust::pem_file(file("authority.crt"))?,
        })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    private::write(path, text).map_err(|e| Error::io("write", path, &e))
}

/// The names in the certificate of a node.
fn names(number: usize, address: &str) -> Vec<String> {
    let mut names = vec![format!("node-{number}.stubborn"), NAME.to_owned(), "localhost".into()];
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    for name in [host, "127.0.0.1", "::1"] {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The number of a new group.
pub(crate) fn draw_group() -> Result<u64, Error> {
    loop {
        // The last byte is left free: in incarnations it tells workers of a server from each other.
        let group = draw()? & !0xff;
        if group != 0 {
            return Ok(group);
        }
    }
}

/// What tells a new folder of a node from every other.
pub(crate) fn draw_folder() -> Result<FolderId, Error> {
    loop {
        if let Some(folder) = FolderId::new(draw()?) {
            return Ok(folder);
        }
    }
}

fn draw() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::internal(format!("the system gives no entropy: {e}")))?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn places(texts: &[&str]) -> Vec<Place> {
        texts.iter().map(|text| Place::here((*text).to_owned())).collect()
    }

    #[test]
    fn a_folder_has_a_configuration_for_each_node_and_a_certificate_for_clients() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::at(&home.path().join("cluster"));
        assert!(!folder.holds_cluster() && folder.credentials().is_err());
        let mut places = places(&["127.0.0.1:7400", "127.0.0.1:7401"]);
        places.push(Place::at("b.example:7402".into()));
        folder.make(&places, Clients::Certificate).unwrap();
        let nodes = folder.nodes().unwrap();
        assert!(folder.holds_cluster() && folder.credentials().is_ok());
        assert_eq!(nodes.len(), 3);
        assert!(nodes.iter().all(|node| node.group == nodes[0].group));
        assert_eq!(nodes[1].listen, "127.0.0.1:7401");
        assert_eq!(nodes[2].listen, "0.0.0.0:7402");
        for node in &nodes {
            let own = Identity::from_pem_files(&node.certificate, &node.key).unwrap();
            let member = node.members.iter().find(|member| member.number == node.node).unwrap();
            assert_eq!(own.fingerprint().unwrap(), member.key);
        }
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::at(&home.path().join("cluster"));
        folder.make(&places(&["[::1]:7400"]), Clients::Certificate).unwrap();
        for key in ["authority.key", "client.key", "node-1/node.key"] {
            let mode = fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{key}");
        }
    }

    #[test]
    fn a_node_of_another_machine_listens_on_all_of_its_addresses_one_of_this_machine_on_its_own() {
        let listens = |address: &str| Place::at(address.into()).listen;
        assert_eq!(listens("10.0.0.1:7400"), "0.0.0.0:7400");
        assert_eq!(listens("[2001:db8::1]:7400"), "[::]:7400");
        assert_eq!(listens("a.example:7401"), "0.0.0.0:7401");
        assert_eq!(listens("127.0.0.1:7401"), "127.0.0.1:7401");
    }
}
