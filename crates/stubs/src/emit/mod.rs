//! What is generated for a service: one file per item.

mod client;
mod client_trait;
mod descriptor;
mod machine;
mod machine_trait;
mod server;
mod server_trait;

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

use crate::config::Config;
use crate::names::ServiceNames;
use crate::semantics::{Semantics, Shape};
use crate::services::{Method, Service};

/// A service with the Rust types of its methods.
pub(crate) struct Stub<'a> {
    pub(crate) service: &'a Service,
    pub(crate) methods: Vec<StubMethod<'a>>,
    pub(crate) comment: Vec<String>,
    pub(crate) runtime: TokenStream,
    pub(crate) names: ServiceNames,
}

pub(crate) struct StubMethod<'a> {
    /// In the descriptor.
    pub(crate) index: usize,
    pub(crate) method: &'a Method,
    pub(crate) request: TokenStream,
    pub(crate) reply: TokenStream,
    pub(crate) comment: Vec<String>,
}

pub(crate) fn emit(stub: &Stub<'_>, config: &Config) -> TokenStream {
    let mut out = TokenStream::new();
    if config.server {
        out.extend(server_trait::emit(stub));
        out.extend(server::emit(stub));
        out.extend(machine_trait::emit(stub));
        out.extend(machine::emit(stub));
    }
    if config.client {
        out.extend(client::emit(stub, config));
        out.extend(client_trait::emit(stub));
    }
    out.extend(descriptor::emit(stub));
    out
}

impl<'a> Stub<'a> {
    /// The methods with one request and one reply.
    fn unary(&self) -> impl Iterator<Item = &StubMethod<'a>> {
        self.methods.iter().filter(|m| m.method.shape == Shape::Unary)
    }

    fn streaming(&self) -> impl Iterator<Item = &StubMethod<'a>> {
        self.methods.iter().filter(|m| m.method.shape != Shape::Unary)
    }

    /// The methods that a replicated machine has: a `maybe` call has no place in a log.
    fn replicated(&self) -> impl Iterator<Item = &StubMethod<'a>> {
        self.unary().filter(|m| m.method.semantics != Semantics::Maybe)
    }

    /// The streams that a replicated machine answers.
    fn watched(&self) -> impl Iterator<Item = &StubMethod<'a>> {
        self.methods.iter().filter(|m| {
            m.method.shape == Shape::ServerStreaming && m.method.semantics == Semantics::Read
        })
    }

    /// The name of the static with the descriptor.
    fn descriptor(&self) -> Ident {
        ident(&self.names.descriptor)
    }

    /// The comment of the service, or a sentence if it has none, then `more`.
    fn docs(&self, instead: &str, more: &[String]) -> TokenStream {
        let mut lines = self.comment.clone();
        if lines.iter().all(|l| l.trim().is_empty()) {
            lines = vec![format!(" {instead}")];
        }
        for paragraph in more {
            lines.push(String::new());
            lines.push(format!(" {paragraph}"));
        }
        doc_attributes(&lines)
    }

    fn deprecated(&self) -> Option<TokenStream> {
        self.service.deprecated.then(|| quote!(#[deprecated]))
    }

    /// For items that use others of this service, which may be deprecated.
    fn allow_deprecated(&self) -> Option<TokenStream> {
        let any = self.service.deprecated || self.methods.iter().any(|m| m.method.deprecated);
        any.then(|| quote!(#[allow(deprecated)]))
    }
}

impl StubMethod<'_> {
    fn ident(&self) -> Ident {
        ident(&self.method.rust_name)
    }

    fn client_streams(&self) -> bool {
        matches!(self.method.shape, Shape::ClientStreaming | Shape::BidiStreaming)
    }

    fn server_streams(&self) -> bool {
        matches!(self.method.shape, Shape::ServerStreaming | Shape::BidiStreaming)
    }

    /// What a handler of the method returns: nothing where it sends its replies itself.
    fn returned(&self) -> TokenStream {
        if self.server_streams() { quote!(()) } else { self.reply.clone() }
    }

    /// The comment of the rpc, what is promised about its calls, then `more`.
    fn docs(&self, more: &[String]) -> TokenStream {
        let mut lines = self.comment.clone();
        if lines.iter().all(|l| l.trim().is_empty()) {
            lines = vec![format!(" Calls `{}`.", self.method.full_name)];
        }
        let promise = self.method.semantics.sentence().to_owned();
        for paragraph in [&[promise], more].concat() {
            lines.push(String::new());
            lines.push(format!(" {paragraph}"));
        }
        doc_attributes(&lines)
    }

    fn deprecated(&self) -> Option<TokenStream> {
        self.method.deprecated.then(|| quote!(#[deprecated]))
    }
}

fn doc_attributes(lines: &[String]) -> TokenStream {
    quote!(#(#[doc = #lines])*)
}

/// An identifier that may be raw.
fn ident(name: &str) -> Ident {
    match name.strip_prefix("r#") {
        Some(bare) => Ident::new_raw(bare, Span::call_site()),
        None => Ident::new(name, Span::call_site()),
    }
}
