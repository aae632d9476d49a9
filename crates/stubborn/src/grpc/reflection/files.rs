//! An index of compiled `.proto` files.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use stubborn_core::service::ServiceDescriptor;

/// A set whose files are kept as they were encoded: custom options in them stay.
#[derive(Clone, PartialEq, Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// The files of some services, each once, by what they declare.
pub(super) struct Files {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    symbols: BTreeMap<String, usize>,
    extensions: BTreeMap<(String, i32), usize>,
    messages: BTreeSet<String>,
    services: Vec<&'static str>,
}

struct File {
    encoded: Vec<u8>,
    imports: Vec<String>,
}

impl Files {
    /// Of these services, and these further files. What cannot be read is left out.
    pub(super) fn new(services: &[&'static ServiceDescriptor], more: &[u8]) -> Self {
        let mut files = Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            symbols: BTreeMap::new(),
            extensions: BTreeMap::new(),
            messages: BTreeSet::new(),
            services: services.iter().map(|service| service.name).collect(),
        };
        files.services.sort_unstable();
        let sets = services.iter().map(|service| service.file_descriptor_set).chain([more]);
        for encoded in sets.filter_map(|set| RawSet::decode(set).ok()).flat_map(|set| set.file) {
            if let Ok(file) = FileDescriptorProto::decode(&encoded[..]) {
                files.add(encoded, file);
            }
        }
        files
    }

    pub(super) fn services(&self) -> &[&'static str] {
        &self.services
    }

    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The file that declares a message, field, enum, value, service or method.
    pub(super) fn declaring(&self, symbol: &str) -> Option<usize> {
        self.symbols.get(symbol).copied()
    }

    pub(super) fn extending(&self, message: &str, number: i32) -> Option<usize> {
        self.extensions.get(&(message.to_owned(), number)).copied()
    }

    /// The numbers of a message's extensions; `None` if there is no such message.
    pub(super) fn extensions_of(&self, message: &str) -> Option<Vec<i32>> {
        let known = self.messages.contains(message);
        let range = (message.to_owned(), i32::MIN)..=(message.to_owned(), i32::MAX);
        let numbers: Vec<i32> = self.extensions.range(range).map(|((_, n), _)| *n).collect();
        (known || !numbers.is_empty()).then_some(numbers)
    }

    /// The file, and those that it imports, without those that were sent before.
    pub(super) fn with_imports(&self, file: usize, sent: &mut BTreeSet<usize>) -> Vec<Vec<u8>> {
        let (mut found, mut due) = (Vec::new(), vec![file]);
        // Who asks for a file gets it, also if it was sent before.
        sent.remove(&file);
        while let Some(next) = due.pop() {
            if sent.insert(next) {
                let File { encoded, imports } = &self.files[next];
                found.push(encoded.clone());
                due.extend(imports.iter().filter_map(|import| self.names.get(import)));
            }
        }
        found
    }

    fn add(&mut self, encoded: Vec<u8>, file: FileDescriptorProto) {
        let at = self.files.len();
        if self.names.contains_key(file.name()) {
            return;
        }
        self.names.insert(file.name().to_owned(), at);
        let package = file.package();
        for message in &file.message_type {
            self.add_message(at, package, message);
        }
        for enumeration in &file.enum_type {
            self.add_enum(at, package, enumeration);
        }
        for extension in &file.extension {
            self.add_extension(at, package, extension);
        }
        for service in &file.service {
            let name = join(package, service.name());
            for method in &service.method {
                self.symbols.insert(join(&name, method.name()), at);
            }
            self.symbols.insert(name, at);
        }
        self.files.push(File { encoded, imports: file.dependency });
    }

    fn add_message(&mut self, at: usize, scope: &str, message: &DescriptorProto) {
        let name = join(scope, message.name());
        for field in &message.field {
            self.symbols.insert(join(&name, field.name()), at);
        }
        for oneof in &message.oneof_decl {
            self.symbols.insert(join(&name, oneof.name()), at);
        }
        for nested in &message.nested_type {
            self.add_message(at, &name, nested);
        }
        for enumeration in &message.enum_type {
            self.add_enum(at, &name, enumeration);
        }
        for extension in &message.extension {
            self.add_extension(at, &name, extension);
        }
        self.messages.insert(name.clone());
        self.symbols.insert(name, at);
    }

    /// The values of an enum are its siblings.
    fn add_enum(&mut self, at: usize, scope: &str, enumeration: &EnumDescriptorProto) {
        for value in &enumeration.value {
            self.symbols.insert(join(scope, value.name()), at);
        }
        self.symbols.insert(join(scope, enumeration.name()), at);
    }

    fn add_extension(&mut self, at: usize, scope: &str, extension: &FieldDescriptorProto) {
        let message = extension.extendee().trim_start_matches('.').to_owned();
        self.extensions.insert((message, extension.number()), at);
        self.symbols.insert(join(scope, extension.name()), at);
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// A set of files of one package under the name of another.
pub(super) fn renamed(
    set: &[u8],
    folder: &str,
    new_folder: &str,
    package: &str,
    new_package: &str,
) -> Vec<u8> {
    let Ok(mut set) = prost_types::FileDescriptorSet::decode(set) else { return Vec::new() };
    let (old, new) = (format!(".{package}."), format!(".{new_package}."));
    let rename = |name: &mut Option<String>| {
        if let Some(name) = name {
            *name = name.replacen(&old, &new, 1);
        }
    };
    for file in set.file.iter_mut().filter(|file| file.package() == package) {
        file.name = Some(file.name().replacen(folder, new_folder, 1));
        file.package = Some(new_package.to_owned());
        for field in file.message_type.iter_mut().flat_map(|message| &mut message.field) {
            rename(&mut field.type_name);
        }
        for method in file.service.iter_mut().flat_map(|service| &mut service.method) {
            rename(&mut method.input_type);
            rename(&mut method.output_type);
        }
    }
    set.encode_to_vec()
}
