//! Services that are learned at run time: from a server by reflection, or from .proto files.

mod callable;
mod traits;

use std::path::PathBuf;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use prost_reflect::{SerializeOptions, ServiceDescriptor};
use serde_json::Value;
use stubborn::grpc::Reflected;
use stubborn::reflection::{FileDescriptorsRequest, ListServicesRequest, ReflectionClient};
use stubborn::{Channel, Code, Method, Semantics, Shape};

use crate::error::{Error, Exit};
use crate::remote::Link;

pub(crate) use self::callable::Callable;
pub(crate) use self::traits::RustTrait;

/// Where descriptions of services come from.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Source {
    /// Read the service from this .proto file instead of asking the server; may be given more than
    /// once.
    #[arg(long, value_name = "FILE")]
    proto: Vec<PathBuf>,

    /// Look for files and imports of --proto here.
    #[arg(short = 'I', long, value_name = "DIR", requires = "proto")]
    include: Vec<PathBuf>,
}

/// Compiled .proto files.
pub(crate) struct Schema {
    pool: DescriptorPool,
}

/// What is known of a service.
pub(crate) enum Described {
    /// By `.proto` files.
    Files(Schema),
    /// It is a Rust trait.
    Trait(RustTrait),
}

impl Source {
    /// Reads the files, or asks the server to describe what has this name: a service, or of a server of
    /// gRPC also a message.
    pub(crate) async fn load(&self, link: &Link, name: &str) -> Result<Described, Error> {
        if let Some(schema) = self.of_files()? {
            return Ok(Described::Files(schema));
        }
        if link.is_grpc() {
            return ask_grpc(&link.channel(), name).await.map(Described::Files);
        }
        let request = FileDescriptorsRequest { service: name.to_owned() };
        let reply = ReflectionClient::new(link.channel()).file_descriptors(request).await;
        match reply {
            Ok(reply) if reply.file_descriptor_set.is_empty() => {
                Ok(Described::Trait(RustTrait::new(name, reply)))
            }
            Ok(reply) => Schema::decode(&reply.file_descriptor_set)
                .map(Described::Files)
                .map_err(|error| unreadable(name, &error)),
            Err(error) if error.status().is_some() => Err(unknown(name)),
            Err(error) => Err(Error::from(error).with_hint(NO_REFLECTION)),
        }
    }

    /// The same of this method, `package.Service/Method`, so that it can be called.
    pub(crate) async fn callable(&self, link: &Link, name: &str) -> Result<Callable, Error> {
        let (service, _) = split(name)?;
        match self.load(link, service).await? {
            Described::Files(schema) => {
                let descriptor = schema.method(name)?;
                Ok(Callable::of_file(schema.callable(&descriptor), descriptor))
            }
            Described::Trait(service) => service.callable(name),
        }
    }

    /// The schema of the files; `None` if there are none.
    pub(crate) fn of_files(&self) -> Result<Option<Schema>, Error> {
        if self.proto.is_empty() {
            return Ok(None);
        }
        let config = self.include.iter().fold(stubborn_build::Config::new(), |c, d| c.include(d));
        let generated = config.generate(&self.proto)?;
        Schema::decode(&generated.file_descriptor_set).map(Some).map_err(Error::internal)
    }
}

/// Whether servers have this service by themselves, for the command line.
pub(crate) fn is_of_every_server(service: &str) -> bool {
    let known = [
        "stubborn.v1.Reflection",
        "stubborn.metrics.v1.Metrics",
        "stubborn.trace.v1.Trace",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    known.contains(&service)
}

const NO_REFLECTION: &str =
    "a server without reflection does not describe itself: use --proto FILE";

fn unknown(name: &str) -> Error {
    Error::usage(format!("the server has no service {name}"))
        .with_hint("stubborn ls ADDR lists the services")
}

fn unreadable(name: &str, why: &str) -> Error {
    Error::new(Exit::Failed, format!("the server's description of {name}: {why}"))
}

async fn ask_grpc(channel: &Channel, name: &str) -> Result<Schema, Error> {
    match Reflected::new(channel.clone()).files(name).await {
        Ok(set) => Schema::decode_with_known(&set).map_err(|error| unreadable(name, &error)),
        Err(error) if error.status().is_some_and(|status| status.code() == Code::NotFound) => {
            Err(unknown(name))
        }
        Err(error) => Err(Error::from(error).with_hint(NO_REFLECTION)),
    }
}

/// The names of a server's services, in alphabetical order.
pub(crate) async fn list(link: &Link) -> Result<Vec<String>, Error> {
    let off = |error| Error::from(error).with_hint("the server's reflection may be off");
    if link.is_grpc() {
        return Reflected::new(link.channel()).services().await.map_err(off);
    }
    let reply = ReflectionClient::new(link.channel()).list_services(ListServicesRequest {}).await;
    Ok(reply.map_err(off)?.services)
}

impl Schema {
    fn decode(set: &[u8]) -> Result<Self, String> {
        DescriptorPool::decode(set).map(|pool| Self { pool }).map_err(|error| error.to_string())
    }

    /// Without protobuf's own files, which are here.
    fn decode_with_known(set: &[u8]) -> Result<Self, String> {
        let mut pool = DescriptorPool::global();
        pool.decode_file_descriptor_set(set).map_err(|error| error.to_string())?;
        Ok(Self { pool })
    }

    pub(crate) fn service(&self, name: &str) -> Result<ServiceDescriptor, Error> {
        self.pool.get_service_by_name(name).ok_or_else(|| {
            let known: Vec<_> = self.pool.services().map(|s| s.full_name().to_owned()).collect();
            Error::usage(format!("there is no service {name}; there are: {}", known.join(", ")))
        })
    }

    pub(crate) fn message(&self, name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(name)
    }

    /// A method by its full name, `package.Service/Method`.
    pub(crate) fn method(&self, name: &str) -> Result<MethodDescriptor, Error> {
        let (service, method) = split(name)?;
        let service = self.service(service)?;
        service.methods().find(|m| m.name() == method).ok_or_else(|| {
            let known: Vec<_> = service.methods().map(|m| m.name().to_owned()).collect();
            let service = service.full_name();
            Error::usage(format!("{service} has no method {method}; it has: {}", known.join(", ")))
        })
    }

    /// What is promised about calls of a method.
    pub(crate) fn semantics(&self, method: &MethodDescriptor) -> Semantics {
        let options = method.options();
        let chosen = self
            .pool
            .get_extension_by_name("stubborn.semantics")
            .and_then(|extension| options.get_extension(&extension).as_enum_number());
        match chosen {
            Some(1) => return Semantics::Maybe,
            Some(2) => return Semantics::AtMostOnce,
            Some(3) => return Semantics::ExactlyOnce,
            _ => {}
        }
        // google.protobuf.MethodOptions.idempotency_level
        let level = options.get_field_by_name("idempotency_level").and_then(|v| v.as_enum_number());
        match level {
            Some(1) => Semantics::Read,
            Some(2) => Semantics::Idempotent,
            _ => Semantics::AtMostOnce,
        }
    }

    /// A method as channels know it.
    pub(crate) fn callable(&self, method: &MethodDescriptor) -> Method {
        Method::dynamic(full_name(method), self.semantics(method), shape(method))
    }
}

/// `package.Service/Method`
pub(crate) fn full_name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

/// Splits `package.Service/Method`.
pub(crate) fn split(name: &str) -> Result<(&str, &str), Error> {
    name.split_once('/').filter(|(s, m)| !s.is_empty() && !m.is_empty()).ok_or_else(|| {
        Error::usage(format!("{name:?} is no method: expected package.Service/Method"))
    })
}

pub(crate) fn shape(method: &MethodDescriptor) -> Shape {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => Shape::Unary,
        (true, false) => Shape::ClientStreaming,
        (false, true) => Shape::ServerStreaming,
        (true, true) => Shape::BidiStreaming,
    }
}

/// The promise in a word, as in the .proto file.
pub(crate) fn word(semantics: Semantics) -> &'static str {
    match semantics {
        Semantics::Maybe => "maybe",
        Semantics::AtMostOnce => "at most once",
        Semantics::Idempotent => "idempotent",
        Semantics::Read => "read",
        Semantics::ExactlyOnce => "exactly once",
    }
}

/// Reads a message from JSON, with protobuf's mapping.
pub(crate) fn from_json(
    descriptor: MessageDescriptor,
    json: &str,
) -> Result<DynamicMessage, Error> {
    let name = descriptor.full_name().to_owned();
    let mut input = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(descriptor.clone(), &mut input)
        .and_then(|message| input.end().map(|()| message))
        .map_err(|error| {
            let wrong = serde_json::from_str(json).ok();
            let field = wrong.and_then(|value: Value| wrong_field(&descriptor, &value));
            let place = field.as_ref().map(|field| format!(", field {field}")).unwrap_or_default();
            let told = Error::usage(format!("the request is no {name} as JSON{place}: {error}"))
                .with_hint(format!("stubborn describe ADDR {name} shows its fields"));
            field.into_iter().fold(told, |told, field| told.with("field", field))
        })
}

/// The path of the first field that is not as its type wants it, as in `lines[2].price`.
fn wrong_field(descriptor: &MessageDescriptor, value: &Value) -> Option<String> {
    let reads = |value: Value| DynamicMessage::deserialize(descriptor.clone(), value).is_ok();
    let only = |name: &str, value: Value| Value::from_iter([(name.to_owned(), value)]);
    let wrong =
        value.as_object()?.iter().find(|(name, value)| !reads(only(name, (*value).clone())));
    let (name, value) = wrong?;
    let field = descriptor.get_field_by_json_name(name).or(descriptor.get_field_by_name(name));
    let Some(field) = field else { return Some(name.clone()) };
    let kind = field.kind();
    let inner = kind.as_message();
    Some(match value {
        Value::Array(elements) if field.is_list() => {
            let unfit = |element: &Value| !reads(only(name, vec![element.clone()].into()));
            let Some(index) = elements.iter().position(unfit) else { return Some(name.clone()) };
            below(format!("{name}[{index}]"), inner, &elements[index])
        }
        Value::Object(entries) if field.is_map() => {
            let unfit =
                |(key, entry): &(&String, &Value)| !reads(only(name, only(key, (*entry).clone())));
            let Some((key, entry)) = entries.iter().find(unfit) else { return Some(name.clone()) };
            let of_map = inner.and_then(|entry| entry.get_field_by_name("value"));
            let kind = of_map.map(|value| value.kind());
            let inner = kind.as_ref().and_then(|kind| kind.as_message());
            below(format!("{name}[{key:?}]"), inner, entry)
        }
        value => below(name.clone(), inner, value),
    })
}

fn below(place: String, inner: Option<&MessageDescriptor>, value: &Value) -> String {
    match inner.and_then(|inner| wrong_field(inner, value)) {
        Some(deeper) => format!("{place}.{deeper}"),
        None => place,
    }
}

/// Writes a message as JSON, with protobuf's mapping; fields with their default value too, so that
/// a zero can be seen.
pub(crate) fn to_json(message: &DynamicMessage) -> Result<Value, Error> {
    let options = SerializeOptions::new().skip_default_fields(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| Error::internal(format!("the reply has no JSON form: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_wrong_is_told_with_the_path_of_its_field() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop.proto");
        let proto = "syntax = \"proto3\"; package shop;\n\
            message Order { string id = 1; repeated Line lines = 2; map<string, Line> named = 3; }\n\
            message Line { int32 price = 1; Size size = 2; } enum Size { SMALL = 0; LARGE = 1; }\n\
            service Shop { rpc Buy(Order) returns (Order); }";
        std::fs::write(&file, proto).unwrap();
        let source = Source { proto: vec![file], include: vec![dir.path().to_owned()] };
        let order = source.of_files().unwrap().unwrap().message("shop.Order").unwrap();
        for (json, field) in [
            (r#"{"id": 5}"#, "id"),
            (r#"{"id": "a", "lines": [{}, {"price": "many"}]}"#, "lines[1].price"),
            (r#"{"lines": [{"size": "HUGE"}]}"#, "lines[0].size"),
            (r#"{"named": {"x": {"price": 1.5}}}"#, "named[\"x\"].price"),
            (r#"{"colour": 1}"#, "colour"),
        ] {
            let error = from_json(order.clone(), json).unwrap_err();
            assert_eq!(error.to_json()["error"]["field"], field, "{error}");
            assert!(error.message().contains(&format!("field {field}: ")), "{error}");
        }
        assert!(from_json(order.clone(), "7").is_err());
        assert!(from_json(order, r#"{"lines": [{"price": 7}]}"#).is_ok());
    }
}
