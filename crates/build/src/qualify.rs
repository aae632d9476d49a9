//! Writes the names of types out in full, as protoc understands them.
//!
//! A name such as `config.Shape` is looked for in the scopes around it, innermost first, and the first
//! scope that has a `config` decides. protoc counts only what a file can see: itself, the files that it
//! imports, and those which they import publicly (`DescriptorBuilder::LookupSymbolNoPlaceholder` in
//! protobuf's `descriptor.cc`). The compiler used here counts the packages of all files that it has
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};
use prost_types::{FileDescriptorProto, ServiceDescriptorProto};

/// What a file names.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// In full, without a leading dot.
    names: BTreeMap<String, Kind>,
    imports: Vec<String>,
    public_imports: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A message or an enum.
    Type,
    /// A package or a service: it can stand in front of a name, but is no type.
    Scope,
}

impl Symbols {
    pub(crate) fn of(file: &FileDescriptorProto) -> Self {
        let public = file.public_dependency.iter();
        let public = public.filter_map(|index| file.dependency.get(usize::try_from(*index).ok()?));
        let mut symbols = Self {
            names: BTreeMap::new(),
            imports: file.dependency.clone(),
            public_imports: public.cloned().collect(),
        };
        let package = file.package();
        for (end, _) in package.match_indices('.').chain([(package.len(), "")]) {
            symbols.names.insert(package[..end].to_owned(), Kind::Scope);
        }
        symbols.add(package, &file.message_type, &file.enum_type);
        for service in &file.service {
            symbols.names.insert(join(package, service.name()), Kind::Scope);
        }
        symbols
    }

    fn add(&mut self, scope: &str, messages: &[DescriptorProto], enums: &[EnumDescriptorProto]) {
        for message in messages {
            let name = join(scope, message.name());
            self.add(&name, &message.nested_type, &message.enum_type);
            self.names.insert(name, Kind::Type);
        }
        for item in enums {
            self.names.insert(join(scope, item.name()), Kind::Type);
        }
    }
}

/// Writes out each name in the file that is understood; others are left for the compiler to refuse.
/// `symbols` gives what another file names.
pub(crate) fn qualify(
    file: &mut FileDescriptorProto,
    symbols: impl FnMut(&str) -> Option<Rc<Symbols>>,
) {
    let view = View(visible(file, symbols));
    let package = file.package().to_owned();
    file.message_type.iter_mut().for_each(|message| view.message(&package, message));
    file.extension.iter_mut().for_each(|field| view.field(&package, field));
    file.service.iter_mut().for_each(|service| view.service(&package, service));
}

/// The files whose names a file can use: its own, its imports', and what those import publicly.
fn visible(
    file: &FileDescriptorProto,
    mut symbols: impl FnMut(&str) -> Option<Rc<Symbols>>,
) -> Vec<Rc<Symbols>> {
    let own = Symbols::of(file);
    let mut waiting = own.imports.clone();
    let mut seen = BTreeSet::new();
    let mut all = vec![Rc::new(own)];
    while let Some(name) = waiting.pop() {
        if seen.insert(name.clone())
            && let Some(found) = symbols(&name)
        {
            waiting.extend(found.public_imports.iter().cloned());
            all.push(found);
        }
    }
    all
}

struct View(Vec<Rc<Symbols>>);

impl View {
    fn message(&self, scope: &str, message: &mut DescriptorProto) {
        let scope = join(scope, message.name());
        message.nested_type.iter_mut().for_each(|nested| self.message(&scope, nested));
        message.field.iter_mut().for_each(|field| self.field(&scope, field));
        message.extension.iter_mut().for_each(|field| self.field(&scope, field));
    }

    fn field(&self, scope: &str, field: &mut FieldDescriptorProto) {
        self.name(scope, &mut field.type_name);
        self.name(scope, &mut field.extendee);
    }

    fn service(&self, scope: &str, service: &mut ServiceDescriptorProto) {
        let scope = join(scope, service.name());
        for method in &mut service.method {
            self.name(&scope, &mut method.input_type);
            self.name(&scope, &mut method.output_type);
        }
    }

    fn name(&self, scope: &str, name: &mut Option<String>) {
        if let Some(name) = name.as_mut().filter(|name| !name.starts_with('.'))
            && let Some(found) = self.find(scope, name)
        {
            *name = format!(".{found}");
        }
    }

    /// The type that a name means in a scope.
    fn find(&self, scope: &str, name: &str) -> Option<String> {
        let first = name.split('.').next().unwrap_or(name);
        let mut scope = Some(scope);
        while let Some(around) = scope {
            let candidate = join(around, first);
            match self.kind(&candidate) {
                // The scope that has the first part decides about the whole.
                Some(_) if first != name => {
                    let full = join(around, name);
                    return (self.kind(&full) == Some(Kind::Type)).then_some(full);
                }
                Some(Kind::Type) => return Some(candidate),
                Some(Kind::Scope) | None => {}
            }
            scope = match around {
                "" => None,
                around => Some(around.rsplit_once('.').map_or("", |(outer, _)| outer)),
            };
        }
        None
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        self.0.iter().find_map(|symbols| symbols.names.get(name)).copied()
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> FileDescriptorProto {
        protox::file::File::from_source(name, &format!("syntax = \"proto3\";\n{text}"))
            .unwrap()
            .file_descriptor_proto()
            .clone()
    }

    /// The type of the field `f` of the first message of `main`, beside these other files.
    fn type_of(main: &str, others: &[(&str, &str)]) -> String {
        let mut main = parse("main.proto", main);
        let others: BTreeMap<_, _> =
            others.iter().map(|(n, t)| (*n, Rc::new(Symbols::of(&parse(n, t))))).collect();
        qualify(&mut main, |name| others.get(name).cloned());
        main.message_type[0].field[0].type_name().to_owned()
    }

    #[test]
    fn the_innermost_scope_that_has_the_first_part_decides() {
        let other = [("o.proto", "package a.b; message M { message N {} }")];
        let of = |body| type_of(&format!("package a.c; import \"o.proto\"; {body}"), &other);
        assert_eq!(of("message T { b.M f = 1; }"), ".a.b.M");
        assert_eq!(of("message T { a.b.M.N f = 1; }"), ".a.b.M.N");
        assert_eq!(of("message T { M f = 1; message M {} }"), ".a.c.T.M");
        assert_eq!(of("message T { M f = 1; } message M {}"), ".a.c.M");
        assert_eq!(of("message T { .a.b.M f = 1; }"), ".a.b.M");
        // `T` has a `b`, so the package `a.b` is not looked at.
        assert_eq!(of("message T { b.M f = 1; message b {} }"), "b.M");
    }

    #[test]
    fn packages_of_files_that_are_not_imported_do_not_count_but_public_imports_do() {
        let others = [
            ("near.proto", "package p.config; message M {}"),
            ("far.proto", "package p.q.config; message Other {}"),
            ("public.proto", "package x; import public \"near.proto\"; import \"far.proto\";"),
        ];
        let text = "package p.q; import \"public.proto\"; message T { config.M f = 1; }";
        assert_eq!(type_of(text, &others), ".p.config.M");
    }

    #[test]
    fn what_is_not_known_is_left_as_it_was_written() {
        assert_eq!(type_of("message T { Nothing f = 1; }", &[]), "Nothing");
    }
}
