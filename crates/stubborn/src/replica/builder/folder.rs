//! The folder of a replica that is being started.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use stubborn_group::replication::{Durable, FolderId, Members, NodeId};
use stubborn_store::{Error, Folder, Identity, Options, Store};

use super::ReplicaBuilder;
use crate::replica::error::ReplicaError;
use crate::server::ServeError;

impl ReplicaBuilder {
    /// Makes the folder of a node in a new group, and nothing else.
    ///
    /// # Errors
    /// If the folder holds a node already, or cannot be written.
    pub fn make_folder(self) -> Result<(), ReplicaError> {
        let (group, node) = self.who()?;
        let medium = self.medium(true)?;
        let made = self.made(medium, group, node, &self.named())?;
        made.close().map_err(|error| self.of_folder(&error))
    }

    pub(super) fn holds_node(&self) -> bool {
        let medium = Folder::at(&self.folder).map(Arc::new);
        medium.is_ok_and(|medium| Store::exists(&*medium))
    }

    fn medium(&self, make: bool) -> Result<Arc<Folder>, ReplicaError> {
        let folder = if make { Folder::make(&self.folder) } else { Folder::at(&self.folder) };
        folder.map(Arc::new).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReplicaError::NoNode(self.folder.clone()),
            _ => ReplicaError::Folder(self.folder.clone(), error.to_string()),
        })
    }

    /// What the folder holds; it is made first where that was asked for.
    pub(super) fn store(
        &self,
        group: u64,
        node: NodeId,
        founders: &[u64],
    ) -> Result<(Store, Durable), ReplicaError> {
        let create = self.create || self.join;
        let medium = self.medium(create)?;
        let opened = Store::open_as(medium.clone(), Options::default(), group, node.get());
        let (store, recovered) = match opened {
            Err(Error::NoNode) if create => {
                self.made(medium.clone(), group, node, founders)?
                    .close()
                    .map_err(|error| self.of_folder(&error))?;
                Store::open_as(medium, Options::default(), group, node.get())
            }
            opened => opened,
        }
        .map_err(|error| self.of_folder(&error))?;
        let durable = store.durable(recovered).map_err(|error| self.of_folder(&error))?;
        Ok((store, durable))
    }

    fn made(
        &self,
        medium: Arc<Folder>,
        group: u64,
        node: NodeId,
        founders: &[u64],
    ) -> Result<Store, ReplicaError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut folder = [0; 8];
        getrandom::fill(&mut folder)
            .map_err(|error| ServeError::Entropy(io::Error::other(error)))?;
        let folder = FolderId::new(u64::from_be_bytes(folder));
        let identity = Identity { group, node, created: now, folder };
        let members = founders.iter().filter_map(|number| NodeId::new(*number));
        let new = Durable::new_group(Members::of(members));
        Store::create(medium, identity, &new, Options::default())
            .map_err(|error| self.of_folder(&error))
    }

    fn of_folder(&self, error: &Error) -> ReplicaError {
        match error {
            Error::NoNode => ReplicaError::NoNode(self.folder.clone()),
            other => ReplicaError::Folder(self.folder.clone(), other.to_string()),
        }
    }
}
