//! The committed output compiles without a warning, with all of it documented, and works.
#![deny(warnings, missing_docs)]

mod behaviour;

/// What generated code needs, as the crate `stubborn` has it.
pub mod runtime {
    pub use prost;
    pub use prost_types;
    pub use stubborn_core::service::*;
    pub use stubborn_core::session::CallId;

    /// The error of [`connect`].
    #[derive(Debug)]
    pub struct ConnectError;

    /// Never succeeds: there is no network here.
    ///
    /// # Errors
    /// Always.
    pub async fn connect(_: impl AsRef<str>) -> Result<Channel, ConnectError> {
        Err(ConnectError)
    }
}

macro_rules! goldens {
    ($($case:ident)*) => { $(
        /// A case of `common::CASES`.
        pub mod $case {
            include!(concat!("../golden/", stringify!($case), "/mod.rs"));
        }
    )* };
}

/// The bank with messages of `buffa`, which documents less than we do.
#[allow(missing_docs)]
pub mod buffa {
    include!("../golden/buffa/mod.rs");
}

goldens! { bank semantics keywords helpers shapes legacy deprecated nopackage twins imports }
