//! `trait BankCalls`: the client's methods, to be mocked.

use proc_macro2::TokenStream;
use quote::quote;

use super::{Stub, StubMethod};
use crate::service::Shape;

pub(super) fn emit(stub: &Stub<'_>) -> TokenStream {
    let (name, client) = (stub.item(&stub.names.calls), stub.item(&stub.names.client));
    let docs = [
        format!(
            " The calls of [`{}`], so that code that makes them can be tested",
            stub.names.client
        ),
        " without a server: a mock returns `UnaryCall::resolved(..)`, and of a stream".into(),
        " `StreamCall::resolved(..)` or `StreamCall::failed(..)`.".into(),
    ];
    let (deprecated, allow) = (stub.deprecated(), stub.allow_deprecated());
    let vis = &stub.visibility;
    let declared = stub.methods.iter().map(|m| {
        let (docs, deprecated, signature) = (m.docs(&[]), m.deprecated(), signature(stub, m));
        quote!(#docs #deprecated #signature;)
    });
    let forwarded = stub.methods.iter().map(|m| {
        let (method, signature) = (m.ident(), signature(stub, m));
        let request = (!m.client_streams()).then(|| m.passed());
        quote!(#signature { #client::#method(self, #request) })
    });
    quote! {
        #(#[doc = #docs])*
        #deprecated
        #[allow(clippy::wrong_self_convention)]
        #vis trait #name: ::core::marker::Send + ::core::marker::Sync {
            #(#declared)*
        }

        #allow
        impl #name for #client {
            #(#forwarded)*
        }
    }
}

pub(super) fn signature(stub: &Stub<'_>, method: &StubMethod<'_>) -> TokenStream {
    let StubMethod { request, reply, .. } = method;
    let (runtime, name, parameters) = (&stub.runtime, method.ident(), method.parameters());
    match method.method.shape {
        Shape::Unary => {
            quote!(fn #name(&self, #parameters) -> #runtime::UnaryCall<#reply>)
        }
        Shape::ServerStreaming => quote! {
            fn #name(&self, #parameters) -> #runtime::StreamCall<#runtime::Replies<#reply>>
        },
        Shape::ClientStreaming => quote! {
            fn #name(&self) -> #runtime::StreamCall<#runtime::ClientStream<#request, #reply>>
        },
        Shape::BidiStreaming => quote! {
            fn #name(&self) -> #runtime::StreamCall<#runtime::BidiStream<#request, #reply>>
        },
    }
}
