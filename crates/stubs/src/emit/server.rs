//! `BankServer<T>`: drives a handler as a `Service`.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::quote;

use super::arguments::Handed;
use super::{Stub, StubMethod, ident};

pub(super) fn emit(stub: &Stub<'_>) -> TokenStream {
    let (name, handler) = (stub.item(&stub.names.server), stub.item(&stub.names.handler));
    let docs = format!(" Serves a [`{}`].", stub.names.handler.trim_start_matches("r#"));
    let (deprecated, allow) = (stub.deprecated(), stub.allow_deprecated());
    let (generic, label, vis) = (generic(stub), &stub.names.server, &stub.visibility);
    let service = service(stub, &name, &handler, &generic);
    quote! {
        #[doc = #docs]
        #deprecated
        #vis struct #name<#generic> {
            handler: ::std::sync::Arc<#generic>,
        }

        #allow
        impl<#generic> #name<#generic> {
            #[doc = " Serves with this handler."]
            pub fn new(handler: #generic) -> Self {
                Self::from_arc(::std::sync::Arc::new(handler))
            }

            #[doc = " Serves with this handler, which is also used elsewhere."]
            pub fn from_arc(handler: ::std::sync::Arc<#generic>) -> Self {
                Self { handler }
            }
        }

        #allow
        impl<#generic> ::core::clone::Clone for #name<#generic> {
            fn clone(&self) -> Self {
                Self::from_arc(::std::sync::Arc::clone(&self.handler))
            }
        }

        #allow
        impl<#generic> ::core::fmt::Debug for #name<#generic> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(#label)
            }
        }

        #service
    }
}

fn service(stub: &Stub<'_>, name: &Ident, handler: &Ident, generic: &Ident) -> TokenStream {
    let (runtime, descriptor, allow) = (&stub.runtime, stub.descriptor(), stub.allow_deprecated());
    let arms = stub.unary().map(|m| arm(stub, m, handler, generic));
    let stream = stream(stub, handler, generic);
    quote! {
        #allow
        impl<#generic: #handler> #runtime::Service for #name<#generic> {
            fn descriptor(&self) -> &'static #runtime::ServiceDescriptor {
                &#descriptor
            }

            fn call(
                &self,
                method: usize,
                request: #runtime::Call<#runtime::Encoded>,
            ) -> #runtime::Handling {
                match method {
                    #(#arms)*
                    _ => {
                        ::core::mem::drop(request);
                        ::std::boxed::Box::pin(async move {
                            #runtime::Answer::Status(#runtime::Status::unimplemented(
                                "this server cannot run this method",
                            ))
                        })
                    }
                }
            }

            #stream
        }
    }
}

/// The part of the service that starts handlers of streams; none if no method streams.
fn stream(stub: &Stub<'_>, handler: &Ident, generic: &Ident) -> Option<TokenStream> {
    let runtime = &stub.runtime;
    let arms: Vec<_> = stub.streaming().map(|m| stream_arm(stub, m, handler, generic)).collect();
    if arms.is_empty() {
        return None;
    }
    Some(quote! {
        fn stream(
            &self,
            method: usize,
            request: #runtime::Call<#runtime::Encoded>,
            port: ::std::sync::Arc<dyn #runtime::Port>,
        ) -> #runtime::Handling {
            match method {
                #(#arms)*
                _ => {
                    ::core::mem::drop((request, port));
                    ::std::boxed::Box::pin(async move {
                        #runtime::Answer::Status(#runtime::Status::unimplemented(
                            "this server cannot run this method",
                        ))
                    })
                }
            }
        }
    })
}

fn stream_arm(
    stub: &Stub<'_>,
    method: &StubMethod<'_>,
    handler: &Ident,
    generic: &Ident,
) -> TokenStream {
    let StubMethod { index, request, .. } = method;
    let (runtime, descriptor, name) = (&stub.runtime, stub.descriptor(), method.ident());
    let Handed { bound, value, of_stream, unused, passed } = method.handed(stub);
    let taken = if method.client_streams() {
        quote! {
            ::core::mem::drop(encoded);
            #of_stream
        }
    } else {
        let decoded = stub.decoded(quote!(encoded), "into_message", request);
        quote! {
            let #bound = match #decoded {
                ::core::result::Result::Ok(message) => #value,
                ::core::result::Result::Err(error) => {
                    return #runtime::Answer::unreadable(error);
                }
            };
        }
    };
    let answered = stub.answered(method);
    quote! {
        #index => {
            let handler = ::std::sync::Arc::clone(&self.handler);
            ::std::boxed::Box::pin(async move {
                let id = #descriptor.methods[#index].id();
                let (encoded, context) = request.into_parts();
                #taken
                #unused
                match <#generic as #handler>::#name(&handler, #passed).await {
                    ::core::result::Result::Ok(reply) => #answered,
                    ::core::result::Result::Err(status) => #runtime::Answer::Status(status),
                }
            })
        }
    }
}

/// The request is decoded before its handler's future is made, which then does not hold both.
fn arm(stub: &Stub<'_>, method: &StubMethod<'_>, handler: &Ident, generic: &Ident) -> TokenStream {
    let StubMethod { index, request, .. } = method;
    let (runtime, descriptor, name) = (&stub.runtime, stub.descriptor(), method.ident());
    let decoded = stub.decoded(quote!(encoded), "into_message", request);
    let Handed { bound, value, unused, passed, .. } = method.handed(stub);
    let answered = stub.answered(method);
    quote! {
        #index => {
            let id = #descriptor.methods[#index].id();
            let (encoded, context) = request.into_parts();
            let #bound = match #decoded {
                ::core::result::Result::Ok(message) => #value,
                ::core::result::Result::Err(error) => {
                    let answer = #runtime::Answer::unreadable(error);
                    return ::std::boxed::Box::pin(::core::future::ready(answer));
                }
            };
            #unused
            let handler = ::std::sync::Arc::clone(&self.handler);
            ::std::boxed::Box::pin(async move {
                match <#generic as #handler>::#name(&handler, #passed).await {
                    ::core::result::Result::Ok(reply) => #answered,
                    ::core::result::Result::Err(status) => #runtime::Answer::Status(status),
                }
            })
        }
    }
}

/// A name for the type parameter that hides no message.
pub(super) fn generic(stub: &Stub<'_>) -> Ident {
    let mut taken = vec![stub.names.handler.clone(), stub.names.machine.clone()];
    for method in &stub.methods {
        words(method.request.clone(), &mut taken);
        words(method.reply.clone(), &mut taken);
    }
    let free = |name: &&str| taken.iter().all(|t| t != name);
    let name = ["T", "Handler", "HandlerOf", "TheHandler"].into_iter().find(free);
    ident(name.unwrap_or("StubbornHandler"))
}

fn words(tokens: TokenStream, into: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => into.push(word.to_string()),
            TokenTree::Group(group) => words(group.stream(), into),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}
