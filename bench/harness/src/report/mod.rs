//! How results are shown.

mod table;

pub(crate) use table::row as table;
