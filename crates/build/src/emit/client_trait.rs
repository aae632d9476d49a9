//! `trait BankCalls`: the client's methods, to be mocked.

use proc_macro2::TokenStream;
use quote::quote;

use super::{Stub, StubMethod, ident};

pub(super) fn emit(stub: &Stub<'_>) -> TokenStream {
    let (name, client) = (ident(&stub.names.calls), ident(&stub.names.client));
    let docs = [
        format!(
            " The calls of [`{}`], so that code that makes them can be tested",
            stub.names.client
        ),
        " without a server: a mock returns `UnaryCall::resolved(..)`.".into(),
    ];
    let (deprecated, allow) = (stub.deprecated(), stub.allow_deprecated());
    let declared = stub.unary().map(|m| {
        let (docs, deprecated, signature) = (m.docs(&[]), m.deprecated(), signature(stub, m));
        quote!(#docs #deprecated #signature;)
    });
    let forwarded = stub.unary().map(|m| {
        let (method, signature) = (m.ident(), signature(stub, m));
        quote!(#signature { #client::#method(self, request) })
    });
    quote! {
        #(#[doc = #docs])*
        #deprecated
        #[allow(clippy::wrong_self_convention)]
        pub trait #name: ::core::marker::Send + ::core::marker::Sync {
            #(#declared)*
        }

        #allow
        impl #name for #client {
            #(#forwarded)*
        }
    }
}

fn signature(stub: &Stub<'_>, method: &StubMethod<'_>) -> TokenStream {
    let StubMethod { request, reply, .. } = method;
    let (runtime, name) = (&stub.runtime, method.ident());
    quote!(fn #name(&self, request: #request) -> #runtime::UnaryCall<#reply>)
}
