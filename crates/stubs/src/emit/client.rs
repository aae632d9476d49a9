//! `BankClient`: calls the service.

use std::collections::BTreeSet;

use proc_macro2::{Ident, TokenStream};
use quote::quote;

use super::{Options, Stub, StubMethod, client_trait, ident};
use crate::service::Shape;

pub(super) fn emit(stub: &Stub<'_>, options: &Options) -> TokenStream {
    let (runtime, name, calls) = (&stub.runtime, stub.item(&stub.names.client), &stub.names.calls);
    let vis = &stub.visibility;
    let docs = stub.docs(
        &format!("A client of the service `{}`.", stub.service.full_name),
        &[
            "Each method returns a call that is sent when it is awaited, and whose error says what \
             became of it."
                .into(),
            format!("Cheap to clone. To test code that calls, let it take a [`{calls}`]."),
        ],
    );
    let (deprecated, allow) = (stub.deprecated(), stub.allow_deprecated());
    let connect = options.connect.then(|| connect(stub));
    let mut taken: BTreeSet<_> = stub.methods.iter().map(|m| m.method.rust_name.clone()).collect();
    let methods: Vec<_> = stub.methods.iter().map(|m| method(stub, m)).collect();
    let outcomes: Vec<_> = stub
        .methods
        .iter()
        .filter(|m| m.method.semantics.takes_slot() || m.method.shape != Shape::Unary)
        .map(|m| outcome_of(stub, m, &mut taken))
        .collect();
    // Derives expand to items of their own, which would warn if the client is deprecated.
    quote! {
        #docs
        #deprecated
        #vis struct #name {
            channel: #runtime::Channel,
        }

        #allow
        impl ::core::clone::Clone for #name {
            fn clone(&self) -> Self {
                Self { channel: ::core::clone::Clone::clone(&self.channel) }
            }
        }

        #allow
        impl ::core::fmt::Debug for #name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(::core::stringify!(#name)).field("channel", &self.channel).finish()
            }
        }

        #allow
        #[allow(clippy::wrong_self_convention)]
        impl #name {
            #[doc = " A client that calls through this channel."]
            pub fn new(channel: #runtime::Channel) -> Self {
                Self { channel }
            }

            #connect
            #(#methods)*

            #[doc = " Asks what became of a call of any method; the reply is handed out encoded."]
            #[doc = ""]
            #[doc = " # Errors"]
            #[doc = " If no server answers in time."]
            pub async fn outcome(
                &self,
                id: #runtime::CallId,
            ) -> ::core::result::Result<
                #runtime::CallState<#runtime::IncomingReply>,
                #runtime::CallError,
            > {
                self.channel.raw_outcome(id).await
            }

            #(#outcomes)*
        }
    }
}

fn connect(stub: &Stub<'_>) -> TokenStream {
    let runtime = &stub.runtime;
    quote! {
        #[doc = " Connects to a server, for example `stubborn://bank.example:7400`."]
        #[doc = ""]
        #[doc = " # Errors"]
        #[doc = " If the address cannot be read or no server can be reached."]
        pub async fn connect(
            uri: &str,
        ) -> ::core::result::Result<Self, #runtime::ConnectError> {
            ::core::result::Result::Ok(Self::new(#runtime::connect(uri).await?))
        }
    }
}

fn method(stub: &Stub<'_>, method: &StubMethod<'_>) -> TokenStream {
    let (descriptor, index) = (stub.descriptor(), method.index);
    let (docs, deprecated) = (method.docs(&[]), method.deprecated());
    let signature = client_trait::signature(stub, method);
    let described = quote!(&#descriptor.methods[#index]);
    let (how, packed) = match method.method.shape {
        Shape::Unary => ("unary", method.packed()),
        Shape::ServerStreaming => ("server_streaming", method.packed()),
        Shape::ClientStreaming => ("client_streaming", None),
        Shape::BidiStreaming => ("bidi_streaming", None),
    };
    let request = (!method.client_streams()).then(|| quote!(, &request));
    let how = stub.of_channel(how, quote!(#described #request));
    quote! {
        #docs
        #deprecated
        pub #signature {
            #packed
            self.channel.#how
        }
    }
}

fn outcome_of(
    stub: &Stub<'_>,
    method: &StubMethod<'_>,
    taken: &mut BTreeSet<String>,
) -> TokenStream {
    let (index, reply) = (method.index, method.returned());
    let (runtime, descriptor) = (&stub.runtime, stub.descriptor());
    let name = free_name(&method.method.rust_name, taken);
    let rpc = method.method.rust_name.trim_start_matches("r#");
    let docs = format!(" Asks what became of a call of [`{rpc}`](Self::{rpc}).");
    let deprecated = method.deprecated();
    let asked = stub.of_channel_at_end("outcome", method, quote!(&#descriptor.methods[#index], id));
    quote! {
        #[doc = #docs]
        #[doc = ""]
        #[doc = " # Errors"]
        #[doc = " If no server answers in time or the kept reply cannot be read."]
        #deprecated
        pub async fn #name(
            &self,
            id: #runtime::CallId,
        ) -> ::core::result::Result<#runtime::CallState<#reply>, #runtime::CallError> {
            self.channel.#asked.await
        }
    }
}

/// `transfer_outcome`, or that with underscores if an rpc has the name.
fn free_name(method: &str, taken: &mut BTreeSet<String>) -> Ident {
    let bare = method.trim_start_matches("r#").trim_end_matches('_');
    let mut name = format!("{bare}_outcome");
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    ident(&name)
}
