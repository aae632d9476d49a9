//! What stands in the attribute: `package`, `name`, `codec`, `crate`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser;
use syn::{LitStr, Path};

#[derive(Default)]
pub(crate) struct Options {
    package: Option<LitStr>,
    name: Option<LitStr>,
    codec: Option<Path>,
    runtime: Option<Path>,
}

impl Options {
    pub(crate) fn parse(attribute: TokenStream) -> syn::Result<Self> {
        let mut options = Self::default();
        let parser = syn::meta::parser(|meta| {
            let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
            let twice = match name.as_str() {
                "package" => options.package.replace(dotted(meta.value()?.parse()?)?).is_some(),
                "name" => options.name.replace(single(meta.value()?.parse()?)?).is_some(),
                "codec" => options.codec.replace(meta.value()?.parse()?).is_some(),
                "crate" => options.runtime.replace(meta.value()?.parse()?).is_some(),
                _ => {
                    return Err(meta.error(
                        "`service` takes `package = \"bank.v1\"`, `name = \"Bank\"`, \
                         `codec = path` and `crate = path`",
                    ));
                }
            };
            if twice { Err(meta.error(format!("`{name}` is given twice"))) } else { Ok(()) }
        });
        parser.parse2(attribute)?;
        Ok(options)
    }

    /// The full name of the service, if the trait is called this.
    pub(crate) fn full_name(&self, of_trait: &str) -> String {
        let name = self.name.as_ref().map_or(of_trait.to_owned(), LitStr::value);
        match &self.package {
            Some(package) => format!("{}.{name}", package.value()),
            None => name,
        }
    }

    pub(crate) fn runtime(&self) -> TokenStream {
        self.runtime.as_ref().map_or(quote!(::stubborn), |path| quote!(#path))
    }

    pub(crate) fn codec(&self) -> TokenStream {
        let runtime = self.runtime();
        self.codec.as_ref().map_or(quote!(#runtime::codec::Postcard), |path| quote!(#path))
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn dotted(text: LitStr) -> syn::Result<LitStr> {
    match text.value().split('.').all(is_name) {
        true => Ok(text),
        false => Err(syn::Error::new(text.span(), "a package is names with dots: \"bank.v1\"")),
    }
}

/// A name without a package.
pub(crate) fn single(text: LitStr) -> syn::Result<LitStr> {
    match is_name(&text.value()) {
        true => Ok(text),
        false => Err(syn::Error::new(
            text.span(),
            "a name has letters, digits and underscores; dots belong into `package`",
        )),
    }
}
