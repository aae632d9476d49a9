//! The attribute `service`, by which a Rust trait gets the stubs that a `.proto` file gets. The crate
//! `stubborn` re-exports it with its feature `traits`.

mod expand;
mod method;
mod options;
mod semantics;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Makes a service of a trait: its client, its server, and the rest of what a `.proto` file gives.
///
/// ```ignore
/// use stubborn::Status;
///
/// /// Accounts with money in them.
/// #[stubborn::service(package = "bank.v1")]
/// pub trait Bank {
///     /// Moves money from one account to another.
///     #[exactly_once]
///     async fn transfer(&self, from: Account, to: Account, cents: u64) -> Result<Receipt, Status>;
///
///     /// Returns the balance of an account, in cents.
///     #[no_side_effects]
///     async fn balance(&self, of: Account) -> Result<u64, Status>;
/// }
/// ```
///
/// A server implements the trait as it stands here and serves it with `BankServer::new(..)`. A client is
/// a `BankClient`: `client.transfer(from, to, 100).await?`. Code that calls takes an `impl BankCalls`,
/// which a mock implements too. A replicated state machine implements `BankMachine`, whose methods are
/// those of the trait without `async`.
///
/// # Messages
/// Arguments and replies are serde types, sent one after the other in the postcard format:
/// `stubborn::codec::Postcard` says what of them may change. `codec = stubborn::codec::Json` sends JSON
/// instead, in which structs may get fields anywhere, and any other `stubborn::codec::Codec` can be named.
///
/// # What is not sent
/// By the names of their types:
///
/// | argument | what the handler gets |
/// |---|---|
/// | `context: CallContext` | who calls, the call's id, its deadline, its metadata |
/// | `requests: Requests<T>` | a stream of the client, in the place of the arguments |
/// | `replies: ReplySender<T>` | where to send a stream of replies; the method returns `Result<(), Status>` |
///
/// # Names
/// The service is `package.Name`, and a method is the trait's in upper camel case: `bank.v1.Bank/Transfer`.
/// What travels is a digest of that, so a trait and a `.proto` file that agree in names agree in methods.
/// Put the version into the package. Without `package` the service has none; `name = ".."` gives
/// it another name than the trait's, and `#[name = ".."]` a method another than the function's.
///
/// # Semantics
/// At most one on each method: `#[exactly_once]`, `#[idempotent]`, `#[no_side_effects]`, `#[maybe]`, or
/// `#[at_most_once]`, which it is without one. They are those of the `.proto` option.
///
/// # Arguments of the attribute
/// `package = ".."`, `name = ".."`, `codec = path`, and `crate = path`, where `stubborn` has another name.
#[proc_macro_attribute]
pub fn service(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = expand::service(attribute.into(), item.into());
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}
