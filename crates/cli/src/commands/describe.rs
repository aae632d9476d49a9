//! `stubborn describe ADDR NAME`

use std::fmt::Write;

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor,
};
use serde_json::{Value, json};

use crate::error::Error;
use crate::output::Output;
use crate::remote::{Link, Remote};
use crate::schema::{self, Described, Schema, Source};
use crate::task::block_on;

/// Describe a service, a method or a message.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,

    /// pkg.Service, pkg.Service/Method or pkg.Message; without it every service.
    what: Option<String>,

    #[command(flatten)]
    source: Source,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        let link = args.remote.connect().await?;
        let described = describe(&args, &link).await;
        link.close().await;
        let (text, value) = described?;
        out.line(text.trim_end());
        out.json(&value);
        Ok(())
    })
}

async fn describe(args: &Args, link: &Link) -> Result<(String, Value), Error> {
    let Some(name) = &args.what else { return describe_all(args, link).await };
    if let Some((service, _)) = name.split_once('/') {
        return match args.source.load(link, service).await? {
            Described::Files(schema) => {
                let method = schema.method(name)?;
                let mut text = show_method(&schema, &method);
                for message in [method.input(), method.output()] {
                    let _ = write!(text, "\n{}", show_message(&message));
                }
                Ok((text, method_value(&schema, &method)))
            }
            Described::Trait(service) => service.show(Some(name)),
        };
    }
    // A server of gRPC finds messages by itself.
    if args.source.of_files()?.is_some() || link.is_grpc() {
        return show(args.source.load(link, name).await?, name);
    }
    let services = schema::list(link).await?;
    if services.contains(name) {
        return show(args.source.load(link, name).await?, name);
    }
    // A message: whichever service knows it.
    for service in &services {
        if let Described::Files(schema) = args.source.load(link, service).await?
            && schema.message(name).is_some()
        {
            return show(Described::Files(schema), name);
        }
    }
    Err(Error::usage(format!("the server has no service or message {name}"))
        .with_hint("stubborn ls ADDR lists the services"))
}

async fn describe_all(args: &Args, link: &Link) -> Result<(String, Value), Error> {
    let (mut text, mut values) = (String::new(), Vec::new());
    for service in schema::list(link).await?.iter().filter(|s| !schema::is_of_every_server(s)) {
        let (shown, value) = match args.source.load(link, service).await {
            Ok(described) => show(described, service)?,
            // gRPC's reflection knows files and nothing else.
            Err(_) if link.is_grpc() => (
                format!("service {service};  // no .proto file describes it\n"),
                json!({ "service": service, "methods": [] }),
            ),
            Err(error) => return Err(error),
        };
        text += &shown;
        text.push('\n');
        values.push(value);
    }
    Ok((text, json!({ "services": values })))
}

fn show(described: Described, name: &str) -> Result<(String, Value), Error> {
    let schema = match described {
        Described::Files(schema) => schema,
        Described::Trait(service) => return service.show(None),
    };
    if let Some(message) = schema.message(name) {
        return Ok((show_message(&message), message_value(&message)));
    }
    let service = schema.service(name)?;
    Ok((show_service(&schema, &service), service_value(&schema, &service)))
}

fn show_service(schema: &Schema, service: &ServiceDescriptor) -> String {
    let mut text = format!("service {} {{\n", service.full_name());
    for method in service.methods() {
        let _ = writeln!(text, "  {}", show_method(schema, &method).trim_end());
    }
    text + "}\n"
}

fn show_method(schema: &Schema, method: &MethodDescriptor) -> String {
    let side = |message: MessageDescriptor, streams: bool| {
        let stream = if streams { "stream " } else { "" };
        format!("({stream}{})", message.full_name())
    };
    format!(
        "rpc {}{} returns {};  // {}\n",
        method.name(),
        side(method.input(), method.is_client_streaming()),
        side(method.output(), method.is_server_streaming()),
        schema::word(schema.semantics(method)),
    )
}

fn show_message(message: &MessageDescriptor) -> String {
    let mut text = format!("message {} {{\n", message.full_name());
    for field in message.fields() {
        let _ = writeln!(text, "  {} {} = {};", field_type(&field), field.name(), field.number());
    }
    for inner in message.child_enums() {
        text += &show_enum(&inner);
    }
    text + "}\n"
}

fn show_enum(inner: &EnumDescriptor) -> String {
    let values: Vec<_> =
        inner.values().map(|value| format!("{} = {};", value.name(), value.number())).collect();
    format!("  enum {} {{ {} }}\n", inner.name(), values.join(" "))
}

fn field_type(field: &FieldDescriptor) -> String {
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return format!("map<{}, {}>", kind_name(&key.kind()), kind_name(&value.kind()));
    }
    let kind = kind_name(&field.kind());
    match field.is_list() {
        true => format!("repeated {kind}"),
        false if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) => {
            format!("oneof {kind}")
        }
        false => kind,
    }
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(inner) => inner.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn service_value(schema: &Schema, service: &ServiceDescriptor) -> Value {
    let methods: Vec<_> = service.methods().map(|m| method_value(schema, &m)).collect();
    json!({ "service": service.full_name(), "methods": methods })
}

fn method_value(schema: &Schema, method: &MethodDescriptor) -> Value {
    json!({
        "method": schema::full_name(method),
        "semantics": schema::word(schema.semantics(method)),
        "client_streaming": method.is_client_streaming(),
        "server_streaming": method.is_server_streaming(),
        "request": message_value(&method.input()),
        "reply": message_value(&method.output()),
    })
}

fn message_value(message: &MessageDescriptor) -> Value {
    let fields: Vec<_> = message
        .fields()
        .map(|f| json!({ "name": f.name(), "type": field_type(&f), "number": f.number() }))
        .collect();
    json!({ "message": message.full_name(), "fields": fields })
}
