//! `BANK_DESCRIPTOR`: the service's names, semantics and shapes, and its compiled files.

use std::fmt::Write;

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use super::{Stub, StubMethod, ident};
use crate::names::ServiceNames;
use crate::service::Files;

pub(super) fn emit(stub: &Stub<'_>) -> TokenStream {
    let (runtime, name) = (&stub.runtime, stub.descriptor());
    let (full_name, vis) = (&stub.service.full_name, &stub.visibility);
    let docs = match stub.service.files {
        Files::None => format!(" The methods of `{full_name}`."),
        _ => format!(" The methods of `{full_name}`, and the files that describe them."),
    };
    let methods = stub.methods.iter().map(|m| {
        let name = &m.method.full_name;
        let semantics = ident(&format!("{:?}", m.method.semantics));
        let shape = ident(&format!("{:?}", m.method.shape));
        let signed = signature(stub, m).map(|signature| quote!(.signed(|| #signature)));
        quote! {
            #runtime::Method::new(#name, #runtime::Semantics::#semantics, #runtime::Shape::#shape)
                #signed
        }
    });
    let files_name = |service: &str| ident(&ServiceNames::of(service).files);
    let (files, definition) = match &stub.service.files {
        Files::None => (quote!(&[]), None),
        Files::With(other) => {
            let files = files_name(other);
            (quote!(#files), None)
        }
        Files::Own(bytes) => {
            let (files, literal) = (files_name(&stub.service.rust_name), byte_string(bytes));
            let docs = format!(
                " The file of `{full_name}` and its imports: an encoded \
                 `google.protobuf.FileDescriptorSet`."
            );
            let definition = quote! {
                #[doc = #docs]
                static #files: &[u8] = #literal;
            };
            (quote!(#files), Some(definition))
        }
    };
    quote! {
        #[doc = #docs]
        #vis static #name: #runtime::ServiceDescriptor = #runtime::ServiceDescriptor {
            name: #full_name,
            methods: &[#(#methods),*],
            file_descriptor_set: #files,
        };

        #definition
    }
}

/// What reflection tells of a method of a trait, which no file describes.
fn signature(stub: &Stub<'_>, method: &StubMethod<'_>) -> Option<TokenStream> {
    let (runtime, codec) = (&stub.runtime, stub.codec.as_ref()?);
    let (request, reply) = (&method.request, &method.reply);
    let sent = method.arguments.iter().flatten().filter(|argument| argument.given.is_none());
    let names = sent.map(|argument| argument.name.to_string().trim_start_matches("r#").to_owned());
    let arguments = names.collect::<Vec<_>>();
    let tells = matches!(stub.service.files, Files::None);
    let form = |of: &TokenStream| quote!(#runtime::codec::form_of::<_, #of>(#codec));
    let (request, reply) = (form(request), form(reply));
    tells.then(|| {
        quote! {
            #runtime::codec::Signature {
                arguments: ::std::vec![#(#arguments),*],
                request: #request,
                reply: #reply,
            }
        }
    })
}

/// The longest line of a byte string, without indentation.
const LINE: usize = 92;

/// A byte string over several lines, so that diffs stay readable.
fn byte_string(bytes: &[u8]) -> Literal {
    let mut text = String::from("b\"");
    let mut line = 0;
    for &byte in bytes {
        if line >= LINE {
            text.push_str("\\\n    ");
            line = 0;
        }
        let start = text.len();
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b'\n' => text.push_str("\\n"),
            // White space after a continued line would be taken away.
            b' ' if line == 0 => text.push_str("\\x20"),
            b' '..=b'~' => text.push(byte as char),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        line += text.len() - start;
    }
    text.push('"');
    text.parse().expect("a byte string")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_in_a_byte_string_of_many_lines() {
        let bytes: Vec<u8> = (0..=255).chain([b' '; 300]).collect();
        let literal: syn::LitByteStr = syn::parse_str(&byte_string(&bytes).to_string()).unwrap();
        assert_eq!(literal.value(), bytes);
    }
}
