//! What the functions of a method take: one message, or the arguments of a trait's method.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::{Stub, StubMethod};

/// An argument of a trait's method.
#[derive(Clone, Debug)]
pub struct Argument {
    /// What it is called.
    pub name: Ident,
    /// Its type.
    pub of: TokenStream,
    /// Whether it is sent. What is not sent is what a handler is given with a call: its context, and the
    /// ends of its streams.
    pub given: Option<Given>,
}

/// What a handler is given with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// What is known of the call.
    Context,
    /// The client's stream.
    Requests,
    /// The handler's own stream.
    Replies,
}

impl StubMethod<'_> {
    fn sent(&self) -> Option<Vec<&Argument>> {
        let arguments = self.arguments.as_ref()?;
        Some(arguments.iter().filter(|argument| argument.given.is_none()).collect())
    }

    /// The parameters of a client's function, or of a machine's: what is sent.
    pub(super) fn parameters(&self) -> TokenStream {
        let Some(sent) = self.sent() else {
            let request = &self.request;
            return quote!(request: #request);
        };
        let parameters = sent.iter().map(|Argument { name, of, .. }| quote!(#name: #of));
        quote!(#(#parameters),*)
    }

    /// These, in a call of another such function.
    pub(super) fn passed(&self) -> TokenStream {
        match self.sent() {
            None => quote!(request),
            Some(sent) => {
                let names = sent.iter().map(|argument| &argument.name);
                quote!(#(#names),*)
            }
        }
    }

    /// In a client's function: makes the request of what was passed.
    pub(super) fn packed(&self) -> Option<TokenStream> {
        let names = self.sent()?.into_iter().map(|argument| &argument.name);
        Some(quote!(let request = (#(#names,)*);))
    }

    /// A pattern for a decoded message, and what of it is passed to a machine's function.
    pub(super) fn unpacked(&self) -> (TokenStream, TokenStream) {
        match self.sent() {
            None => (quote!(message), quote!(message)),
            Some(sent) => {
                let names = (0..sent.len()).map(|n| format_ident!("argument_{n}"));
                let names: Vec<_> = names.collect();
                (quote!((#(#names,)*)), quote!(#(#names),*))
            }
        }
    }

    /// A name for a parameter beside those that are sent.
    pub(super) fn beside(&self, name: &str) -> Ident {
        let mut name = name.to_owned();
        while self.sent().is_some_and(|sent| sent.iter().any(|other| other.name == name)) {
            name.push('_');
        }
        super::ident(&name)
    }

    /// The parameters of a handler.
    pub(super) fn handled(&self, stub: &Stub<'_>) -> TokenStream {
        let StubMethod { request, reply, .. } = self;
        let runtime = &stub.runtime;
        if let Some(arguments) = &self.arguments {
            let parameters = arguments.iter().map(|Argument { name, of, .. }| quote!(#name: #of));
            return quote!(#(#parameters),*);
        }
        let called = if self.client_streams() { quote!(()) } else { request.clone() };
        let requests =
            self.client_streams().then(|| quote!(requests: #runtime::Requests<#request>,));
        let replies =
            self.server_streams().then(|| quote!(replies: #runtime::ReplySender<#reply>,));
        quote!(call: #runtime::Call<#called>, #requests #replies)
    }

    /// What a server does with a decoded message and what it passes to the handler.
    pub(super) fn handed(&self, stub: &Stub<'_>) -> Handed {
        let runtime = &stub.runtime;
        let requests = self.client_streams().then(|| stub.end_of_stream("Requests"));
        let replies = self.server_streams().then(|| stub.end_of_stream("ReplySender"));
        let Some(arguments) = &self.arguments else {
            let ends = requests.into_iter().chain(replies);
            return Handed {
                bound: quote!(call),
                value: quote!(#runtime::Call::new(message, context)),
                of_stream: quote!(let call = #runtime::Call::new((), context);),
                unused: None,
                passed: quote!(call, #(#ends,)*),
            };
        };
        let is_used = arguments.iter().any(|a| a.given == Some(Given::Context));
        let unused = (!is_used).then(|| quote!(::core::mem::drop(context);));
        let mut n: usize = 0;
        let passed = arguments.iter().map(|argument| match argument.given {
            None => {
                n += 1;
                let name = format_ident!("argument_{}", n - 1);
                quote!(#name)
            }
            Some(Given::Context) => quote!(context),
            Some(Given::Requests) => quote!(#requests),
            Some(Given::Replies) => quote!(#replies),
        });
        let passed = quote!(#(#passed,)*);
        let (bound, _) = self.unpacked();
        Handed { bound, value: quote!(message), of_stream: quote!(), unused, passed }
    }
}

/// See [`StubMethod::handed`].
pub(super) struct Handed {
    /// What is bound to `value`.
    pub(super) bound: TokenStream,
    /// What becomes of the decoded `message` and the `context` of the call.
    pub(super) value: TokenStream,
    /// In the place of both where the client sends a stream.
    pub(super) of_stream: TokenStream,
    /// Drops what the handler does not take.
    pub(super) unused: Option<TokenStream>,
    /// What the handler is passed.
    pub(super) passed: TokenStream,
}
