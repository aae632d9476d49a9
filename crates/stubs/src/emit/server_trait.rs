//! `trait Bank`: what a server implements.

use proc_macro2::TokenStream;
use quote::quote;

use super::{Stub, StubMethod};

pub(super) fn emit(stub: &Stub<'_>) -> TokenStream {
    let (name, vis) = (stub.item(&stub.names.handler), &stub.visibility);
    let server = &stub.names.server;
    let docs = stub.docs(
        &format!("The service `{}`, as a server implements it.", stub.service.full_name),
        &[format!("Implement it with plain `async fn`s and serve it with [`{server}`].")],
    );
    let deprecated = stub.deprecated();
    let methods = stub.methods.iter().map(|m| method(stub, m));
    quote! {
        #docs
        #deprecated
        #[allow(clippy::wrong_self_convention)]
        #vis trait #name: ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#methods)*
        }
    }
}

fn method(stub: &Stub<'_>, method: &StubMethod<'_>) -> TokenStream {
    let (runtime, name) = (&stub.runtime, method.ident());
    let (docs, deprecated) = (method.docs(&[]), method.deprecated());
    let (parameters, returned) = (method.handled(stub), method.returned());
    quote! {
        #docs
        #deprecated
        fn #name(
            &self,
            #parameters
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<#returned, #runtime::Status>,
        > + ::core::marker::Send;
    }
}
