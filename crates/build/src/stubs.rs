//! Receives services from `prost-build`, which knows the Rust types of requests and replies, and
//! has the emitters write their items.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use stubborn_stubs::{Options, Service, ServiceNames, Stub, StubMethod};

use crate::comments;
use crate::config::Config;

pub(crate) struct StubGenerator {
    config: Config,
    services: BTreeMap<String, Service>,
}

impl StubGenerator {
    pub(crate) fn new(config: &Config, services: Vec<Service>) -> Self {
        let services = services.into_iter().map(|s| (s.full_name.clone(), s)).collect();
        Self { config: config.clone(), services }
    }
}

impl prost_build::ServiceGenerator for StubGenerator {
    fn generate(&mut self, ast: prost_build::Service, out: &mut String) {
        let full_name = match ast.package.as_str() {
            "" => ast.proto_name.clone(),
            package => format!("{package}.{}", ast.proto_name),
        };
        let service =
            self.services.remove(&full_name).expect("only services that were read are shown");
        assert_eq!(service.methods.len(), ast.methods.len(), "both come from the same file");
        let methods = ast.methods.iter().map(|ast| MethodTypes {
            request: ast.input_type.clone(),
            reply: ast.output_type.clone(),
            comment: comments::tidy(&comments::lines(&ast.comments)),
        });
        let comment = comments::tidy(&comments::lines(&ast.comments));
        out.push_str(&write(&self.config, &service, comment, methods.collect(), None));
    }
}

/// What a backend says of a method: the Rust types of its messages, and its comment.
pub(crate) struct MethodTypes {
    pub(crate) request: String,
    pub(crate) reply: String,
    pub(crate) comment: Vec<String>,
}

/// The items of a service, whose messages `codec` writes: the name of one of the runtime's.
pub(crate) fn write(
    config: &Config,
    service: &Service,
    comment: Vec<String>,
    types: Vec<MethodTypes>,
    codec: Option<&str>,
) -> String {
    let runtime = tokens(config.runtime.trim_end_matches("::"));
    let methods = service.methods.iter().zip(types).enumerate();
    let methods = methods.map(|(index, (method, types))| StubMethod {
        index,
        method,
        request: tokens(&types.request),
        reply: tokens(&types.reply),
        comment: types.comment,
        arguments: None,
        span: Span::call_site(),
    });
    let stub = Stub {
        service,
        methods: methods.collect(),
        comment,
        names: ServiceNames::of(&service.rust_name),
        codec: codec.map(tokens).map(|codec| quote!(#runtime::codec::#codec)),
        visibility: quote!(pub),
        span: Span::call_site(),
        runtime,
    };
    let Config { client, server, connect, .. } = *config;
    let options = Options { client, server, connect };
    stubborn_stubs::emit(&stub, &options).to_string() + "\n"
}

fn tokens(path: &str) -> TokenStream {
    path.parse().expect("types and paths are Rust: prost-build made them or they were checked")
}
