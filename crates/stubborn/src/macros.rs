//! Brings generated code into a crate.

/// Brings in what `stubborn_build` generated: a module tree that follows the packages, so that
/// `package bank.v1;` becomes `bank::v1`.
///
/// ```ignore
/// stubborn::include_protos!();
/// use bank::v1::BankClient;
/// ```
///
/// A package whose name begins with `stubborn.` becomes a module `stubborn`, which the compiler cannot
/// tell from this crate. Put the tree into a module then:
///
/// ```ignore
/// mod protos {
///     ::stubborn::include_protos!();
/// }
/// ```
#[macro_export]
macro_rules! include_protos {
    () => {
        ::core::include!(::core::concat!(::core::env!("OUT_DIR"), "/_protos.rs"));
    };
}

/// Brings in one generated package, without a module around it, for example
/// `stubborn::include_proto!("bank.v1")`. Only for packages that use no other: types of others are
/// reached by their place in the tree that [`include_protos!`](crate::include_protos) makes.
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        ::core::include!(::core::concat!(::core::env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
