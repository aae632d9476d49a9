//! What a journal's file is made of: a head, then batches, each written at once and synced before
//! the next. So a crash can tear the last one only.
//!
//! ```text
//! head    "STBJRNL1"
//! batch   "JBATCH01" | length 4 | checksum 8 | records | zeros up to a multiple of 8
//! ```
//!
//! The checksum is XXH3 with the batch's offset as seed, over length and records.

use stubborn_core::wire::Malformed;
use xxhash_rust::xxh3::Xxh3;

use super::record::Record;

pub(super) const HEAD: &[u8; 8] = b"STBJRNL1";
const MAGIC: &[u8; 8] = b"JBATCH01";
const HEADER: usize = 20;

/// Puts a batch together that will stand at `offset`.
pub(super) fn encode<'a>(offset: u64, records: impl IntoIterator<Item = &'a Record>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.resize(HEADER, 0);
    records.into_iter().for_each(|record| record.encode(&mut out));
    let length = (out.len() - HEADER) as u32;
    let sum = sum(offset, length, &out[HEADER..]);
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[12..20].copy_from_slice(&sum.to_be_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

pub(super) struct Damage {
    pub(super) offset: usize,
    pub(super) why: &'static str,
}

/// Takes the batches after the head apart. What a crash tore at the end is left out.
pub(super) fn decode_all(file: &[u8]) -> Result<Vec<Record>, Damage> {
    let mut records = Vec::new();
    let mut at = HEAD.len();
    while at < file.len() {
        let Some(batch) = batch_at(file, at) else {
            if (at + 8..file.len()).step_by(8).any(|later| batch_at(file, later).is_some()) {
                return Err(Damage { offset: at, why: "its checksum is wrong" });
            }
            break;
        };
        let decoded = Record::decode_all(batch)
            .map_err(|Malformed| Damage { offset: at, why: "its fields make no sense" })?;
        records.extend(decoded);
        at = (at + HEADER + batch.len()).next_multiple_of(8);
    }
    Ok(records)
}

/// The records of the batch at an offset, if a whole one is there.
fn batch_at(file: &[u8], at: usize) -> Option<&[u8]> {
    let header = file.get(at..at + HEADER)?;
    if &header[..8] != MAGIC {
        return None;
    }
    let length = u32::from_be_bytes(header[8..12].try_into().ok()?);
    let records = file.get(at + HEADER..at + HEADER + length as usize)?;
    (header[12..] == sum(at as u64, length, records).to_be_bytes()).then_some(records)
}

fn sum(offset: u64, length: u32, records: &[u8]) -> u64 {
    let mut sum = Xxh3::with_seed(offset);
    sum.update(&length.to_be_bytes());
    sum.update(records);
    sum.digest()
}
