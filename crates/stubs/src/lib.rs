//! What stubs look like, whichever door a service comes through: the generator reads `.proto` files
//! (`stubborn-build`), the attribute `service` reads a trait (`stubborn-macros`). Both describe a service
//! as a [`Stub`], and [`emit`] writes its items.
//!
//! For those two crates only: no program needs it.

mod emit;
mod names;
mod service;

pub use emit::{Argument, Given, Options, Stub, StubMethod, emit};
pub use names::ServiceNames;
pub use service::{Files, Method, Semantics, Service, Shape};
