//! Whose folder it is.

use stubborn_core::wire::Reader;
use stubborn_group::replication::{FolderId, NodeId};

use crate::error::{Doing, Error, corrupt};
use crate::fields::{node_id, number};
use crate::medium::{Medium, MediumFile, read_full};
use crate::sum::Salt;

pub(crate) const FILE: &str = "identity";
/// What the file is called until the folder is complete.
pub(crate) const UNFINISHED: &str = "identity.new";

const MAGIC: &[u8; 8] = b"STBNODE1";
const VERSION: u64 = 2;
const SIZE: usize = 8 + 5 * 8 + 8;

/// The version that has no number of the folder.
const FIRST: u64 = 1;
const FIRST_SIZE: usize = SIZE - 8;

/// Whose folder it is: it never changes. A node whose disk was lost comes back under another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The group, drawn at random when it was made; its servers' incarnation.
    pub group: u64,
    /// The node's number in the group.
    pub node: NodeId,
    /// When the folder was made, in seconds since 1970; 0 where no clock tells.
    pub created: u64,
    /// Drawn at random when the folder was made. One of before has the time when it was made in its place.
    pub folder: Option<FolderId>,
}

impl Identity {
    /// Writes the record under a name that does not count yet, and syncs it.
    pub(crate) fn begin(&self, medium: &dyn Medium) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(MAGIC);
        let folder = self.folder.map_or(0, FolderId::get);
        for field in [VERSION, self.group, self.node.get(), self.created, folder] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        let sum = Salt::none().sum(0, &bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        let mut file = medium.create(UNFINISHED).doing("make", UNFINISHED)?;
        file.write_at(0, &bytes).doing("write", UNFINISHED)?;
        file.sync().doing("sync", UNFINISHED)
    }

    /// Lets the record count: the folder is a node's from here on.
    pub(crate) fn finish(medium: &dyn Medium) -> Result<(), Error> {
        medium.rename(UNFINISHED, FILE).doing("rename", UNFINISHED)?;
        medium.sync_names().doing("sync", "the folder")
    }

    pub(crate) fn read(medium: &dyn Medium) -> Result<Self, Error> {
        let file = medium.open_to_read(FILE).doing("open", FILE)?;
        Self::read_from(&*file)
    }

    fn read_from(file: &dyn MediumFile) -> Result<Self, Error> {
        let damaged = |why| corrupt(FILE, 0, "the node's identity", why);
        let mut bytes = [0; SIZE + 1];
        let size = read_full(file, 0, &mut bytes).doing("read", FILE)?;
        if size != SIZE && size != FIRST_SIZE {
            return Err(damaged("its length is wrong"));
        }
        let (content, sum) = bytes[..size].split_at(size - 8);
        if Salt::none().sum(0, content).to_be_bytes() != *sum {
            return Err(damaged("its checksum is wrong"));
        }
        let content = content.strip_prefix(MAGIC).ok_or_else(|| damaged("it is none"))?;
        let mut reader = Reader::new(content);
        let fields =
            (number(&mut reader), number(&mut reader), node_id(&mut reader), number(&mut reader));
        match fields {
            (Ok(FIRST), Ok(group), Ok(Some(node)), Ok(created)) => {
                Ok(Self { group, node, created, folder: FolderId::new(created) })
            }
            (Ok(VERSION), Ok(group), Ok(Some(node)), Ok(created)) => {
                let folder = number(&mut reader).map_err(|_| damaged("it names no folder"))?;
                Ok(Self { group, node, created, folder: FolderId::new(folder) })
            }
            (Ok(found), ..) if found != VERSION && found != FIRST => {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                Err(Error::Version { file: FILE.into(), found })
            }
            _ => Err(damaged("it names no node")),
        }
    }
}
