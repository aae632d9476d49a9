//! The stub generator of Stubborn: Rust from `.proto` files, without `protoc`.
//!
//! In `build.rs`:
//!
//! ```no_run
//! fn main() -> stubborn_build::Result {
//!     stubborn_build::compile(["bank.proto"])
//! }
//! ```
//!
//! and in the crate, once, `stubborn::include_protos!();`, which brings in a module tree that
//! follows the packages: `package bank.v1;` becomes `bank::v1`. Each package is also a file of its
//! own in `OUT_DIR`: `bank.v1.rs`.
//!
//! # What is generated
//! For each message and enum what `prost` generates. For each service, say `Bank`:
//!
//! | item | what it is |
//! |---|---|
//! | `trait Bank` | what a server implements: one async method per rpc |
//! | `BankServer<T>` | serves a `Bank` |
//! | `trait BankMachine` | what a replicated state machine implements: one method per rpc, none async |
//! | `BankReplica<T>` | lets a group of replicas run a `BankMachine` |
//! | `BankClient` | calls one: each method returns a `UnaryCall`, to be configured and awaited |
//! | `trait BankCalls` | the same methods as a trait, so that callers can be tested with a mock |
//! | `BANK_DESCRIPTOR` | names, semantics and shapes of the methods, and the compiled files |
//!
//! Comments become documentation; items without one are described briefly. `deprecated = true`
//! becomes `#[deprecated]` on methods, services, fields and enum values; a deprecated message is
//! only marked in its documentation, because code that `prost` derives would warn.
//!
//! # Semantics
//! `import "stubborn/options.proto";` works without an include path.
//!
//! | in the `.proto` file | calls run |
//! |---|---|
//! | nothing, or `option (stubborn.semantics) = AT_MOST_ONCE;` | at most once |
//! | `option (stubborn.semantics) = EXACTLY_ONCE;` | exactly once |
//! | `option (stubborn.semantics) = MAYBE;` | once or not at all; returns `google.protobuf.Empty` |
//! | `option idempotency_level = IDEMPOTENT;` | at least once |
//! | `option idempotency_level = NO_SIDE_EFFECTS;` | any number of times: a read |
//!
//! # Streams
//! A handler takes the client's messages from a `Requests<M>` and sends its own into a
//! `ReplySender<M>`; the client's methods return a `StreamCall` of `Replies`, `ClientStream` or
//! `BidiStream`. A stream runs at most once, or is a read.
//!
//! # Replicated services
//! A `BankMachine` is driven by a log that is the same on every replica. Its methods are synchronous:
//! commands take `&mut self` and which entry of the log they are, methods with
//! `NO_SIDE_EFFECTS` take `&self`. `MAYBE` methods are left out: a call that may be lost has no place
//! in a log.
//!
//! # Names
//! Names become Rust's: `rpc GetAll` is `get_all`, a keyword is written raw (`r#move`) or, where
//! Rust allows no raw form, with an underscore at its end (`self_`). An rpc with the name of one of
//! the client's own functions (`new`, `connect`, `outcome`) gets an underscore too. Where two names
//! become the same, generation fails and says where both stand; [`Config::rename`] settles it.
//!
//! `google.protobuf.Empty` is `()`; the other well-known types are those of `prost-types`.
//!
//! # Other messages
//! With the feature `buffa`, [`Config::backend`] takes `Backend::Buffa`: the same stubs, whose messages
//! are those of the crate `buffa`. Services without a `.proto` file are written as Rust traits, with the
//! attribute `stubborn::service`.
//!
//! # Which syntax is read
//! proto2 and proto3. Editions are refused with an explanation, as the compiler underneath
//! (`protox`) does not read them yet. Extensions of proto2 messages are accepted but have no Rust
//! form; groups become nested messages.

mod backend;
mod comments;
mod compiled;
mod config;
mod diagnostic;
mod error;
mod names;
mod pipeline;
mod polish;
mod qualify;
mod semantics;
mod services;
mod sources;
mod stubs;
mod tree;

pub use backend::Backend;
pub use config::{Config, Generated};
pub use error::Error;

/// What generation returns. Return it from `main` of `build.rs`: an [`Error`] prints like a
/// compiler's.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// The text of `stubborn/options.proto`, for tools that need it as a file.
pub const OPTIONS_PROTO: &str = include_str!("../proto/stubborn/options.proto");

/// The text of `stubborn/reflection.proto`: the service through which a server describes the
/// others.
pub const REFLECTION_PROTO: &str = include_str!("../proto/stubborn/reflection.proto");

/// Generates Rust for these files, and for all that they import, into `OUT_DIR`.
///
/// Imports are looked for in the directories of the files; [`Config::include`] names others.
///
/// # Errors
/// If a file cannot be read or compiled, a method's options contradict each other, or two names
/// become one in Rust. The error names file, line and column.
pub fn compile<P: AsRef<std::path::Path>>(files: impl IntoIterator<Item = P>) -> Result {
    Config::new().compile(files)
}
