//! From the trait to the items of its service.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use stubborn_stubs::{Files, Options as What, Service, ServiceNames, Stub};
use syn::{Error, Item, ItemTrait, Result, TraitItem, parse_quote};

use crate::method::{self, Read};
use crate::options::Options;

/// Expands the attribute.
///
/// # Errors
/// What cannot be sent or called from elsewhere, and what to write instead; all of it at once.
pub(crate) fn service(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(attribute)?;
    let item = match syn::parse2::<Item>(item)? {
        Item::Trait(item) => item,
        other => {
            let text = "`service` stands on a trait, whose methods are those of the service";
            return Err(Error::new_spanned(other, text));
        }
    };
    let name = item.ident.to_string();
    let full_name = options.full_name(name.trim_start_matches("r#"));
    let mut findings = check(&item).err();
    let mut methods = Vec::new();
    for item in &item.items {
        let read = match item {
            TraitItem::Fn(method) => Read::of(method, &full_name),
            other => Err(Error::new_spanned(other, "a service has methods and nothing else")),
        };
        match read {
            Ok(read) => methods.push(read),
            Err(error) => add(&mut findings, error),
        }
    }
    if let Some(error) = twice(&methods) {
        add(&mut findings, error);
    }
    match findings {
        Some(error) => Err(error),
        None => emit(&options, &item, full_name, methods),
    }
}

fn add(findings: &mut Option<Error>, error: Error) {
    match findings {
        Some(findings) => findings.combine(error),
        None => *findings = Some(error),
    }
}

/// Checks what stands around the methods.
fn check(item: &ItemTrait) -> Result<()> {
    let wrong = |tokens: &dyn ToTokens, text: &str| Err(Error::new_spanned(tokens, text));
    if !item.generics.params.is_empty() || item.generics.where_clause.is_some() {
        return wrong(
            &item.generics,
            "a service is not generic: what travels has one type. Write that type, and one service \
             for each",
        );
    }
    if !item.supertraits.is_empty() {
        return wrong(
            &item.supertraits,
            "a service requires no other traits: it is `Send + Sync + 'static` already",
        );
    }
    if let Some(unsafety) = &item.unsafety {
        return wrong(unsafety, "a service is safe: callers are on other machines");
    }
    match &item.auto_token {
        Some(auto) => wrong(auto, "a service is no auto trait"),
        None => Ok(()),
    }
}

/// Two methods with one name on the wire.
fn twice(methods: &[Read]) -> Option<Error> {
    methods.iter().enumerate().find_map(|(n, read)| {
        let name = &read.method.full_name;
        let before = methods[..n].iter().find(|other| other.method.full_name == *name)?;
        let text = format!(
            "`{}` and `{}` would both be {name}: give one another name with `#[name = \"..\"]`",
            before.method.rust_name, read.method.rust_name
        );
        Some(Error::new(read.stub(n).span, text))
    })
}

fn emit(
    options: &Options,
    item: &ItemTrait,
    full_name: String,
    methods: Vec<Read>,
) -> Result<TokenStream> {
    let rust_name = item.ident.to_string();
    let names = ServiceNames::of(&rust_name);
    let deprecated = item.attrs.iter().any(|attribute| attribute.path().is_ident("deprecated"));
    let service =
        Service { full_name, rust_name, deprecated, methods: Vec::new(), files: Files::None };
    let stub = Stub {
        service: &service,
        methods: methods.iter().enumerate().map(|(n, read)| read.stub(n)).collect(),
        comment: method::comment(&item.attrs),
        runtime: options.runtime(),
        names,
        codec: Some(options.codec()),
        visibility: item.vis.to_token_stream(),
        span: item.ident.span(),
    };
    let what = What { client: true, server: true, connect: true };
    let mut items = syn::parse2::<syn::File>(stubborn_stubs::emit(&stub, &what))?.items;
    for item in &mut items {
        if let Some(attributes) = attributes(item) {
            // Not all of it is used by everybody.
            attributes.push(parse_quote!(#[allow(clippy::all, clippy::pedantic, dead_code)]));
        }
    }
    // What the trait calls `Status` has to be ours, and its import is used.
    let (runtime, statuses) = (options.runtime(), methods.iter().map(|read| &read.status));
    Ok(quote! {
        #(#items)*
        #(const _: fn(#statuses) -> #runtime::Status = |status| status;)*
    })
}

fn attributes(item: &mut Item) -> Option<&mut Vec<syn::Attribute>> {
    match item {
        Item::Struct(item) => Some(&mut item.attrs),
        Item::Trait(item) => Some(&mut item.attrs),
        Item::Impl(item) => Some(&mut item.attrs),
        Item::Static(item) => Some(&mut item.attrs),
        _ => None,
    }
}
