//! `BankReplica<T>`: drives a `BankMachine` as a `Machine`.

use proc_macro2::{Ident, TokenStream};
use quote::quote;

use super::{Stub, StubMethod, machine_trait, server};
use crate::service::Semantics;

pub(super) fn emit(stub: &Stub<'_>) -> Option<TokenStream> {
    stub.replicated().next()?;
    let (name, machine) = (stub.item(&stub.names.replica), stub.item(&stub.names.machine));
    let docs = format!(" Lets a group of replicas run a [`{machine}`].");
    let (deprecated, allow) = (stub.deprecated(), stub.allow_deprecated());
    let (generic, label, vis) = (server::generic(stub), &stub.names.replica, &stub.visibility);
    let driven = driven(stub, &name, &machine, &generic);
    Some(quote! {
        #[doc = #docs]
        #deprecated
        #vis struct #name<#generic> {
            machine: #generic,
        }

        #allow
        impl<#generic> #name<#generic> {
            #[doc = " Runs this machine, which is in the state that a new group begins with."]
            pub fn new(machine: #generic) -> Self {
                Self { machine }
            }
        }

        #allow
        impl<#generic> ::core::fmt::Debug for #name<#generic> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(#label)
            }
        }

        #driven
    })
}

fn driven(stub: &Stub<'_>, name: &Ident, machine: &Ident, generic: &Ident) -> TokenStream {
    let (runtime, descriptor, allow) = (&stub.runtime, stub.descriptor(), stub.allow_deprecated());
    let is_query = |m: &&StubMethod<'_>| m.method.semantics == Semantics::Read;
    let commands: Vec<_> = stub
        .replicated()
        .filter(|m| !is_query(m))
        .map(|m| arm(stub, m, machine, generic, &quote!(&mut self.machine, at,)))
        .collect();
    let queries: Vec<_> = stub
        .replicated()
        .filter(is_query)
        .map(|m| arm(stub, m, machine, generic, &quote!(&self.machine,)))
        .collect();
    let streams: Vec<_> = stub.watched().map(|m| stream_arm(stub, m, machine, generic)).collect();
    let next = next(stub, &streams);
    let apply = body(stub, &commands, &quote!((at, request)), "is no command of this group");
    let query = body(stub, &queries, &quote!(request), "is no query of this group");
    quote! {
        #allow
        impl<#generic: #machine> #runtime::Machine for #name<#generic> {
            fn descriptor(&self) -> &'static #runtime::ServiceDescriptor {
                &#descriptor
            }

            fn versions(&self) -> ::core::ops::RangeInclusive<u32> {
                <#generic as #machine>::VERSIONS
            }

            fn activate(&mut self, version: u32) {
                <#generic as #machine>::activate(&mut self.machine, version);
            }

            fn apply(
                &mut self,
                at: &#runtime::Applied,
                method: usize,
                request: &#runtime::Encoded,
            ) -> #runtime::Answer {
                #apply
            }

            fn query(&self, method: usize, request: &#runtime::Encoded) -> #runtime::Answer {
                #query
            }

            #next

            fn snapshot(&self) -> #runtime::Image {
                <#generic as #machine>::snapshot(&self.machine)
            }

            fn restore(
                &mut self,
                piece: #runtime::Piece<'_>,
            ) -> ::core::result::Result<(), #runtime::RestoreError> {
                <#generic as #machine>::restore(&mut self.machine, piece)
            }
        }
    }
}

/// Runs the arm of the method; `unused` is what is of no use where there is none.
fn body(stub: &Stub<'_>, arms: &[TokenStream], unused: &TokenStream, why: &str) -> TokenStream {
    let runtime = &stub.runtime;
    let why = format!("the method {why}");
    let otherwise = quote! {
        #runtime::Answer::Status(#runtime::Status::unimplemented(#why))
    };
    if arms.is_empty() {
        return quote! {
            let _ = (method, #unused);
            #otherwise
        };
    }
    quote! {
        match method {
            #(#arms)*
            _ => #otherwise,
        }
    }
}

/// The machine's streams; without one, the trait's own answer stands.
fn next(stub: &Stub<'_>, arms: &[TokenStream]) -> Option<TokenStream> {
    if arms.is_empty() {
        return None;
    }
    let runtime = &stub.runtime;
    Some(quote! {
        fn next(
            &self,
            method: usize,
            request: &#runtime::Encoded,
            position: u64,
        ) -> ::core::result::Result<#runtime::Next, #runtime::Answer> {
            match method {
                #(#arms)*
                _ => ::core::result::Result::Err(#runtime::Answer::Status(
                    #runtime::Status::unimplemented("the method is no stream of this group"),
                )),
            }
        }
    })
}

fn stream_arm(
    stub: &Stub<'_>,
    method: &StubMethod<'_>,
    machine: &Ident,
    generic: &Ident,
) -> TokenStream {
    let StubMethod { index, request, .. } = method;
    let (runtime, descriptor) = (&stub.runtime, stub.descriptor());
    let name = machine_trait::name(method);
    let decoded = stub.decoded(quote!(request), "decode", request);
    let (pattern, passed) = method.unpacked();
    let encoded = stub.next_encoded();
    let comma = (!passed.is_empty()).then(|| quote!(,));
    quote! {
        #index => {
            let id = #descriptor.methods[#index].id();
            let #pattern = #decoded.map_err(#runtime::Answer::unreadable)?;
            let next = <#generic as #machine>::#name(&self.machine, #passed #comma position)
                .map_err(#runtime::Answer::Status)?;
            #encoded
        }
    }
}

fn arm(
    stub: &Stub<'_>,
    method: &StubMethod<'_>,
    machine: &Ident,
    generic: &Ident,
    arguments: &TokenStream,
) -> TokenStream {
    let StubMethod { index, request, .. } = method;
    let (runtime, descriptor) = (&stub.runtime, stub.descriptor());
    let name = machine_trait::name(method);
    let decoded = stub.decoded(quote!(request), "decode", request);
    let (pattern, passed) = method.unpacked();
    let answered = stub.answered(method);
    quote! {
        #index => {
            let id = #descriptor.methods[#index].id();
            let #pattern = match #decoded {
                ::core::result::Result::Ok(message) => message,
                ::core::result::Result::Err(error) => return #runtime::Answer::unreadable(error),
            };
            match <#generic as #machine>::#name(#arguments #passed) {
                ::core::result::Result::Ok(reply) => #answered,
                ::core::result::Result::Err(status) => #runtime::Answer::Status(status),
            }
        }
    }
}
