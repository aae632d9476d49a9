//! Fields of records: numbers are eight bytes, big-endian; lists have their count before them.

use std::collections::BTreeSet;

use stubborn_core::wire::{Malformed, Reader};
use stubborn_group::replication::{Members, NodeId, Position};

pub(crate) fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

pub(crate) fn put_position(out: &mut Vec<u8>, position: Position) {
    put(out, position.index);
    put(out, position.term);
}

pub(crate) fn put_members(out: &mut Vec<u8>, members: &Members) {
    let Members { voters, learners, outgoing, learners_next, leaves_by_itself } = members;
    for set in [voters, learners, outgoing, learners_next] {
        put(out, set.len() as u64);
        set.iter().for_each(|node| put(out, node.get()));
    }
    out.push(u8::from(*leaves_by_itself));
}

pub(crate) fn number(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    reader.array().map(u64::from_be_bytes)
}

pub(crate) fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

/// A node's number; none for 0.
pub(crate) fn node_id(reader: &mut Reader<'_>) -> Result<Option<NodeId>, Malformed> {
    number(reader).map(NodeId::new)
}

pub(crate) fn position(reader: &mut Reader<'_>) -> Result<Position, Malformed> {
    Ok(Position { index: count(reader)?, term: count(reader)? })
}

/// A number that counts something: what is added to it never overflows.
pub(crate) fn count(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    number(reader).and_then(|number| if number < 1 << 62 { Ok(number) } else { Err(Malformed) })
}

pub(crate) fn members(reader: &mut Reader<'_>) -> Result<Members, Malformed> {
    Ok(Members {
        voters: nodes(reader)?,
        learners: nodes(reader)?,
        outgoing: nodes(reader)?,
        learners_next: nodes(reader)?,
        leaves_by_itself: flag(reader)?,
    })
}

fn nodes(reader: &mut Reader<'_>) -> Result<BTreeSet<NodeId>, Malformed> {
    let count = number(reader)?;
    let mut nodes = BTreeSet::new();
    for _ in 0..count {
        // Ends with the bytes, whatever the count says. Twice the same node is no set.
        if !nodes.insert(node_id(reader)?.ok_or(Malformed)?) {
            return Err(Malformed);
        }
    }
    Ok(nodes)
}
