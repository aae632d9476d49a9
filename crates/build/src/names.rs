//! Names of the `.proto` files as Rust names, and where two of them would be one.

use std::collections::{BTreeMap, BTreeSet};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, OneofDescriptorProto,
};
use stubborn_stubs::ServiceNames;

use crate::config::Config;
use crate::diagnostic::{Diagnostic, Label};
use crate::sources::Sources;

/// The client's own functions: an rpc of that name gets an underscore.
const HELPERS: [&str; 3] = ["new", "connect", "outcome"];

/// A name as a Rust identifier: keywords are written raw, or with an underscore where Rust has no
/// raw form. The same as `prost-build` does.
pub(crate) fn escape(name: String) -> String {
    match name.as_str() {
        "_" | "self" | "Self" | "super" | "crate" | "extern" => name + "_",
        // Refused by `check`.
        "" => name,
        "gen" => "r#gen".into(),
        _ if name.starts_with(|c: char| c.is_ascii_digit()) => format!("_{name}"),
        _ if syn::parse_str::<syn::Ident>(&name).is_ok() => name,
        _ => format!("r#{name}"),
    }
}

pub(crate) fn snake(name: &str) -> String {
    escape(name.to_snake_case())
}

pub(crate) fn camel(name: &str) -> String {
    escape(name.to_upper_camel_case())
}

/// The method of an rpc.
pub(crate) fn method(name: &str) -> String {
    let name = snake(name);
    if HELPERS.contains(&name.as_str()) { name + "_" } else { name }
}

/// Checks that no two names of these files become one in Rust, and that each has a Rust form.
pub(crate) fn check(
    files: &[FileDescriptorProto],
    config: &Config,
    sources: &Sources,
) -> Vec<Diagnostic> {
    let mut check = Check { config, sources, taken: BTreeMap::new(), findings: Vec::new() };
    for file in files {
        check.file(file);
    }
    check.packages(files);
    check.findings
}

struct Check<'a> {
    config: &'a Config,
    sources: &'a Sources,
    /// By scope and Rust name.
    taken: BTreeMap<(String, String), Taken>,
    findings: Vec<Diagnostic>,
}

struct Taken {
    what: String,
    place: Option<Label>,
}

/// The file at hand and the path of the descriptor at hand in it.
struct At<'a> {
    file: &'a FileDescriptorProto,
    path: Vec<i32>,
}

impl At<'_> {
    fn down(&self, field: i32, index: usize) -> Self {
        let mut path = self.path.clone();
        path.extend([field, index as i32]);
        Self { file: self.file, path }
    }
}

impl Check<'_> {
    fn file(&mut self, file: &FileDescriptorProto) {
        let scope = module_path(file.package()).join("::");
        let prefix = dotted("", file.package());
        let at = At { file, path: Vec::new() };
        for (i, message) in file.message_type.iter().enumerate() {
            self.message(&scope, &prefix, message, &at.down(4, i));
        }
        for (i, enumeration) in file.enum_type.iter().enumerate() {
            self.enumeration(&scope, &prefix, enumeration, &at.down(5, i));
        }
        for (i, service) in file.service.iter().enumerate() {
            let at = at.down(6, i);
            let full = dotted(&prefix, service.name());
            let full = full.trim_start_matches('.');
            let names = ServiceNames::of(&self.config.service_name(full, service.name()));
            let what = format!("service {full}");
            self.claim(&scope, names.handler.clone(), &what, &at);
            let server = [names.server, names.machine, names.replica];
            let server = self.config.server.then_some(server);
            let client = self.config.client.then_some([names.client, names.calls]);
            let more = server.into_iter().flatten().chain(client.into_iter().flatten());
            for name in more.chain([names.descriptor]) {
                self.claim(&scope, name, &format!("what is generated for {what}"), &at);
            }
            for (j, rpc) in service.method.iter().enumerate() {
                let rpc_name = format!("{full}/{}", rpc.name());
                let name = self.config.method_name(&rpc_name, rpc.name());
                self.claim(full, name, &format!("rpc {rpc_name}"), &at.down(2, j));
            }
        }
    }

    /// The module of a message's nested types must not be that of a package.
    fn packages(&mut self, files: &[FileDescriptorProto]) {
        let mut seen = BTreeSet::new();
        for file in files {
            let path = module_path(file.package());
            for depth in 0..path.len() {
                let (scope, name) = (path[..depth].join("::"), &path[depth]);
                if !seen.insert((scope.clone(), name.clone())) {
                    continue;
                }
                if let Some(taken) = self.taken.get(&(scope, name.clone())) {
                    let finding = Diagnostic::new(format!(
                        "package {} and the nested types of {} would both be module `{name}`",
                        file.package(),
                        taken.what
                    ));
                    let help = "rename the package or the message, or map one of them to a crate \
                                of its own with Config::extern_path";
                    self.findings.push(finding.at(taken.place.clone()).help(help));
                }
            }
        }
    }

    fn message(&mut self, scope: &str, prefix: &str, message: &DescriptorProto, at: &At<'_>) {
        let full = dotted(prefix, message.name());
        if message.options.as_ref().is_some_and(|o| o.map_entry()) || self.config.is_extern(&full) {
            return;
        }
        let what = format!("message {}", &full[1..]);
        self.claim(scope, camel(message.name()), &what, at);
        let inner = inner_scope(scope, message.name());
        let fields = format!("{} {{}}", &full[1..]);
        let oneofs = message.oneof_decl.iter().enumerate();
        let oneofs: Vec<_> = oneofs.filter(|(i, _)| is_real_oneof(message, *i)).collect();
        let in_oneof = |index: Option<i32>| {
            index.filter(|i| oneofs.iter().any(|(real, _)| *real as i32 == *i))
        };
        for (i, field) in message.field.iter().enumerate() {
            let (at, what) = (at.down(2, i), format!("field {}", field.name()));
            match in_oneof(field.oneof_index) {
                None => self.claim(&fields, snake(field.name()), &what, &at),
                Some(oneof) => {
                    let variants = format!("{fields} oneof {oneof}");
                    self.claim(&variants, camel(field.name()), &what, &at);
                }
            }
        }
        for (i, nested) in message.nested_type.iter().enumerate() {
            self.message(&inner, &full, nested, &at.down(3, i));
        }
        for (i, nested) in message.enum_type.iter().enumerate() {
            self.enumeration(&inner, &full, nested, &at.down(4, i));
        }
        for (i, oneof) in &oneofs {
            let (at, what) = (at.down(8, *i), format!("oneof {}", oneof.name()));
            self.claim(&fields, snake(oneof.name()), &what, &at);
            self.claim(&inner, oneof_type(message, oneof), &what, &at);
        }
        if has_module(message, !oneofs.is_empty()) {
            let module = snake(message.name());
            self.claim(scope, module, &format!("module of {what}"), at);
        }
    }

    fn enumeration(
        &mut self,
        scope: &str,
        prefix: &str,
        enumeration: &EnumDescriptorProto,
        at: &At<'_>,
    ) {
        let full = dotted(prefix, enumeration.name());
        if self.config.is_extern(&full) {
            return;
        }
        let name = camel(enumeration.name());
        self.claim(scope, name.clone(), &format!("enum {}", &full[1..]), at);
        let mut numbers = BTreeSet::new();
        for (i, value) in enumeration.value.iter().enumerate() {
            // An alias has no variant of its own.
            if numbers.insert(value.number()) {
                let variant = variant_name(&name, value.name());
                let what = format!("value {}", value.name());
                self.claim(&full, variant, &what, &at.down(2, i));
            }
        }
    }

    fn claim(&mut self, scope: &str, name: String, what: &str, at: &At<'_>) {
        // The name itself stands at field 1 of every descriptor.
        let mut path = at.path.clone();
        path.push(1);
        let place = self.sources.locate(at.file, &path);
        if name.is_empty() {
            let finding = Diagnostic::new(format!("{what} has no letters to make a Rust name of"));
            self.findings.push(finding.at(place).help("give it a name with a letter"));
            return;
        }
        let key = (scope.to_owned(), name.clone());
        let Some(taken) = self.taken.get(&key) else {
            self.taken.insert(key, Taken { what: what.to_owned(), place });
            return;
        };
        let other = taken.place.clone().map(|l| l.saying("the other"));
        let finding =
            Diagnostic::new(format!("{what} and {} would both be `{name}` in Rust", taken.what));
        let help = match what.starts_with("rpc") || what.contains("service") {
            true => "rename one, or only its Rust form with Config::rename (or --rename)",
            false => "rename one of them",
        };
        self.findings.push(finding.at(place).at(other).help(help));
    }
}

/// The path of the module of a package.
pub(crate) fn module_path(package: &str) -> Vec<String> {
    package.split('.').filter(|part| !part.is_empty()).map(snake).collect()
}

fn inner_scope(scope: &str, message: &str) -> String {
    if scope.is_empty() { snake(message) } else { format!("{scope}::{}", snake(message)) }
}

fn dotted(prefix: &str, name: &str) -> String {
    if name.is_empty() { prefix.to_owned() } else { format!("{prefix}.{name}") }
}

/// Not the one that the compiler makes for a proto3 `optional` field.
fn is_real_oneof(message: &DescriptorProto, index: usize) -> bool {
    message
        .field
        .iter()
        .any(|f| f.oneof_index == Some(index as i32) && !f.proto3_optional.unwrap_or(false))
}

fn oneof_type(message: &DescriptorProto, oneof: &OneofDescriptorProto) -> String {
    let name = camel(oneof.name());
    let messages = message.nested_type.iter().map(|m| m.name());
    let mut nested = messages.chain(message.enum_type.iter().map(|e| e.name()));
    if nested.any(|nested| camel(nested) == name) { name + "OneOf" } else { name }
}

fn has_module(message: &DescriptorProto, has_oneofs: bool) -> bool {
    let is_map = |m: &DescriptorProto| m.options.as_ref().is_some_and(|o| o.map_entry());
    has_oneofs || !message.enum_type.is_empty() || !message.nested_type.iter().all(is_map)
}

/// The variant of an enum's value: without the enum's name in front, as `prost-build` does.
fn variant_name(enum_name: &str, value: &str) -> String {
    let full = value.to_upper_camel_case();
    match full.strip_prefix(enum_name) {
        Some(rest) if rest.starts_with(char::is_uppercase) => escape(rest.to_owned()),
        _ => escape(full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_written_raw_or_with_an_underscore() {
        assert_eq!(snake("Move"), "r#move");
        assert_eq!(snake("gen"), "r#gen");
        assert_eq!(snake("Self"), "self_");
        assert_eq!(camel("self"), "Self_");
        assert_eq!(snake("GetHTTPThing"), "get_http_thing");
    }

    #[test]
    fn an_rpc_named_like_a_helper_gets_an_underscore() {
        assert_eq!(method("New"), "new_");
        assert_eq!(method("Outcome"), "outcome_");
        assert_eq!(method("Clone"), "clone");
    }

    #[test]
    fn the_name_of_the_enum_is_taken_off_its_values_only_at_a_word() {
        assert_eq!(variant_name("Kind", "KIND_SAVINGS"), "Savings");
        assert_eq!(variant_name("Kind", "KINDLY"), "Kindly");
        assert_eq!(variant_name("Kind", "KIND_SELF"), "Self_");
    }
}
