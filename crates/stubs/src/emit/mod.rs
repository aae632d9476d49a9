//! What is generated for a service: one file per item.

mod arguments;
mod client;
mod client_trait;
mod coding;
mod descriptor;
mod machine;
mod machine_trait;
mod server;
mod server_trait;

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

pub use self::arguments::{Argument, Given};
use crate::names::ServiceNames;
use crate::service::{Method, Semantics, Service, Shape};

/// A service with the Rust types of its methods.
#[derive(Debug)]
pub struct Stub<'a> {
    /// The service.
    pub service: &'a Service,
    /// Its methods, in order.
    pub methods: Vec<StubMethod<'a>>,
    /// The lines of its comment, each as it would stand after `///`.
    pub comment: Vec<String>,
    /// The path of the runtime crate.
    pub runtime: TokenStream,
    /// What its items are called.
    pub names: ServiceNames,
    /// The value of the codec that messages are written with; `None` for that of `prost`, which the
    /// runtime takes where none is named.
    pub codec: Option<TokenStream>,
    /// Who sees its items.
    pub visibility: TokenStream,
    /// Where its name stands.
    pub span: Span,
}

/// A method with its Rust types.
#[derive(Debug)]
pub struct StubMethod<'a> {
    /// In the descriptor.
    pub index: usize,
    /// The method.
    pub method: &'a Method,
    /// The type of its requests.
    pub request: TokenStream,
    /// The type of its replies.
    pub reply: TokenStream,
    /// The lines of its comment, each as it would stand after `///`.
    pub comment: Vec<String>,
    /// What its functions take in the place of one message: the request is a tuple of them.
    pub arguments: Option<Vec<Argument>>,
    /// Where its name stands.
    pub span: Span,
}

/// What is generated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Clients.
    pub client: bool,
    /// Server traits.
    pub server: bool,
    /// A function `connect` of clients.
    pub connect: bool,
}

/// The items of a service.
pub fn emit(stub: &Stub<'_>, options: &Options) -> TokenStream {
    let mut out = TokenStream::new();
    if options.server {
        out.extend(server_trait::emit(stub));
        out.extend(server::emit(stub));
        out.extend(machine_trait::emit(stub));
        out.extend(machine::emit(stub));
    }
    if options.client {
        out.extend(client::emit(stub, options));
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
        self.item(&self.names.descriptor)
    }

    /// One of the service's items.
    fn item(&self, name: &str) -> Ident {
        let mut name = ident(name);
        name.set_span(self.span);
        name
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
        let mut name = ident(&self.method.rust_name);
        name.set_span(self.span);
        name
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
