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
        let methods = service.methods.iter().zip(&ast.methods);
        let methods = methods.enumerate().map(|(index, (method, ast))| StubMethod {
            index,
            method,
            request: tokens(&ast.input_type),
            reply: tokens(&ast.output_type),
            comment: comments::tidy(&comments::lines(&ast.comments)),
            arguments: None,
            span: Span::call_site(),
        });
        let stub = Stub {
            service: &service,
            methods: methods.collect(),
            comment: comments::tidy(&comments::lines(&ast.comments)),
            runtime: tokens(self.config.runtime.trim_end_matches("::")),
            names: ServiceNames::of(&service.rust_name),
            codec: None,
            visibility: quote!(pub),
            span: Span::call_site(),
        };
        let Config { client, server, connect, .. } = self.config;
        let options = Options { client, server, connect };
        out.push_str(&stubborn_stubs::emit(&stub, &options).to_string());
        out.push('\n');
    }
}

fn tokens(path: &str) -> TokenStream {
    path.parse().expect("types and paths are Rust: prost-build made them or they were checked")
}
