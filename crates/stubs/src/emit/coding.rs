//! How items name the codec of their messages: not at all where it is that of `prost`.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::{Stub, StubMethod, ident};

impl Stub<'_> {
    /// A call of a channel's function, such as `unary`, without the channel.
    pub(super) fn of_channel(&self, function: &str, arguments: TokenStream) -> TokenStream {
        let (function, codec) = self.coded(function);
        quote!(#function(#codec #arguments))
    }

    /// Decodes an `Encoded`: `function` is `decode` or `into_message`.
    pub(super) fn decoded(
        &self,
        encoded: TokenStream,
        function: &str,
        of: &TokenStream,
    ) -> TokenStream {
        let (function, codec) = self.coded(function);
        match &self.codec {
            None => quote!(#encoded.#function::<#of>(id)),
            Some(_) => quote!(#encoded.#function::<_, #of>(#codec id)),
        }
    }

    /// The same of one that names no message but the end of a call of this method.
    pub(super) fn of_channel_at_end(
        &self,
        function: &str,
        method: &StubMethod<'_>,
        arguments: TokenStream,
    ) -> TokenStream {
        let Some(codec) = self.codec_of_end(method) else {
            return self.of_channel(function, arguments);
        };
        let function = format_ident!("{function}_with");
        quote!(#function(#codec, #arguments))
    }

    /// The answer with a handler's reply.
    pub(super) fn answered(&self, method: &StubMethod<'_>) -> TokenStream {
        let runtime = &self.runtime;
        match self.codec_of_end(method) {
            None => quote! {
                #runtime::Answer::Reply(
                    #runtime::Encoded::new(id, &reply),
                    #runtime::Metadata::new(),
                )
            },
            Some(codec) => quote!(#runtime::Answer::reply_with(#codec, id, &reply)),
        }
    }

    /// What a machine's stream says next, encoded.
    pub(super) fn next_encoded(&self) -> TokenStream {
        let runtime = &self.runtime;
        match &self.codec {
            None => quote! {
                ::core::result::Result::Ok(next.map(|reply| #runtime::Encoded::new(id, &reply)))
            },
            Some(codec) => quote! {
                next.try_map(|reply| #runtime::Encoded::with(#codec, id, &reply))
                    .map_err(|error| #runtime::Answer::unwritable(&error))
            },
        }
    }

    /// A handler's end of a stream: `of` is `Requests` or `ReplySender`.
    pub(super) fn end_of_stream(&self, of: &str) -> TokenStream {
        let (runtime, of) = (&self.runtime, ident(of));
        let port = quote!(::std::sync::Arc::clone(&port), id);
        match &self.codec {
            None => quote!(#runtime::#of::new(#port)),
            Some(codec) => quote!(#runtime::#of::with(#codec, #port)),
        }
    }

    /// Of the codec's messages, unless the server streams them: then a call ends with nothing, which
    /// each codec would write as no bytes and not all have a type for.
    fn codec_of_end(&self, method: &StubMethod<'_>) -> Option<TokenStream> {
        let (runtime, codec) = (&self.runtime, self.codec.as_ref()?);
        let streams = method.server_streams();
        Some(if streams { quote!(#runtime::codec::Prost) } else { codec.clone() })
    }

    /// The function that takes a codec, and the codec as its first argument.
    fn coded(&self, function: &str) -> (Ident, Option<TokenStream>) {
        match &self.codec {
            None => (ident(function), None),
            Some(codec) => (format_ident!("{function}_with"), Some(quote!(#codec,))),
        }
    }
}
