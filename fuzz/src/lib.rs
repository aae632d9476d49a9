//! Fuzz targets: functions that take arbitrary bytes and must neither panic, hang nor allocate much.
//!
//! To add one: write `pub fn fuzz_xxx(data: &[u8])` in a module here, add its line to [`TARGETS`], and
//! commit a few inputs in `corpus/xxx/`. Both `replay` and `guided` then know it.

pub mod connection;
pub mod messages;
pub mod plain_tls;
pub mod store;
pub mod wire;

/// A target: its name, which is also its folder in `corpus/`, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("varint", wire::fuzz_varint),
    ("packet", wire::fuzz_packet),
    ("frame", wire::fuzz_frame),
    ("params", wire::fuzz_params),
    ("inbox", messages::fuzz_inbox),
    ("outbox", messages::fuzz_outbox),
    ("connection", connection::fuzz_connection),
    ("store", store::fuzz_store),
];
