//! Services that are Rust traits, as their server tells of them.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use stubborn::reflection::{FileDescriptorsReply, TraitArgument, TraitMethod, TraitPromise};
use stubborn::{Method, Semantics, Shape};

use super::{Callable, split, word};
use crate::error::Error;

/// The only format that the shell writes.
const JSON: &str = "json";

/// A service that is a Rust trait.
pub(crate) struct RustTrait {
    name: String,
    methods: Vec<TraitMethod>,
    types: Vec<String>,
}

/// How JSON becomes the request of a method.
pub(crate) struct JsonMethod {
    name: String,
    /// The names of the arguments; `None` where a message stands alone, in a stream.
    arguments: Option<Vec<String>>,
}

impl RustTrait {
    pub(super) fn new(name: &str, reply: FileDescriptorsReply) -> Self {
        Self { name: name.to_owned(), methods: reply.methods, types: reply.types }
    }

    fn method(&self, full_name: &str) -> Result<&TraitMethod, Error> {
        let (_, name) = split(full_name)?;
        self.methods.iter().find(|method| method.name == name).ok_or_else(|| {
            let service = &self.name;
            if self.methods.is_empty() {
                // Of a server that is older than this program.
                return Error::usage(format!("{service} is a Rust trait that is not described"))
                    .with_hint("call it from Rust, with the client that the trait has");
            }
            let known: Vec<_> = self.methods.iter().map(|method| method.name.as_str()).collect();
            Error::usage(format!("{service} has no method {name}; it has: {}", known.join(", ")))
        })
    }

    /// A method by its full name, if its messages are JSON.
    pub(super) fn callable(&self, full_name: &str) -> Result<Callable, Error> {
        let method = self.method(full_name)?;
        if method.format != JSON {
            let format = match method.format.as_str() {
                "" => "a format of their own",
                format => format,
            };
            let text = format!(
                "{full_name} is a method of a Rust trait whose messages are {format}: only Rust \
                 programs that have the trait can write them"
            );
            return Err(Error::usage(text).with_hint(
                "call it from Rust, with the client that the trait has, or give the service \
                 `codec = stubborn::codec::Json` or a .proto file: those can be called from the \
                 shell",
            ));
        }
        let shape = match (method.client_streams, method.server_streams) {
            (false, false) => Shape::Unary,
            (true, false) => Shape::ClientStreaming,
            (false, true) => Shape::ServerStreaming,
            (true, true) => Shape::BidiStreaming,
        };
        let names = || method.arguments.iter().map(|argument| argument.name.clone()).collect();
        let arguments = (!method.client_streams).then(names);
        let messages = JsonMethod { name: full_name.to_owned(), arguments };
        let callable = Method::dynamic(full_name.to_owned(), semantics(method), shape);
        Ok(Callable::of_trait(callable, messages))
    }

    /// All of it, or one method, with the types that are named.
    pub(crate) fn show(&self, only: Option<&str>) -> Result<(String, Value), Error> {
        let mut text = String::new();
        let value = match only {
            Some(full_name) => {
                let method = self.method(full_name)?;
                let _ = writeln!(text, "{}", show_method(method));
                self.method_value(method)
            }
            None => {
                let _ = writeln!(text, "service {} {{  // a Rust trait", self.name);
                for method in &self.methods {
                    let _ = writeln!(text, "  {}", show_method(method));
                }
                text += "}\n";
                let methods: Vec<_> = self.methods.iter().map(|m| self.method_value(m)).collect();
                json!({ "service": self.name, "methods": methods, "types": self.types })
            }
        };
        for definition in &self.types {
            let _ = writeln!(text, "\n{definition}");
        }
        Ok((text, value))
    }

    fn method_value(&self, method: &TraitMethod) -> Value {
        let argument =
            |argument: &TraitArgument| json!({ "name": argument.name, "type": argument.r#type });
        json!({
            "method": format!("{}/{}", self.name, method.name),
            "semantics": word(semantics(method)),
            "client_streaming": method.client_streams,
            "server_streaming": method.server_streams,
            "format": method.format,
            "arguments": method.arguments.iter().map(argument).collect::<Vec<_>>(),
            "reply": method.reply,
        })
    }
}

fn semantics(method: &TraitMethod) -> Semantics {
    match method.promise() {
        TraitPromise::Maybe => Semantics::Maybe,
        TraitPromise::ExactlyOnce => Semantics::ExactlyOnce,
        TraitPromise::Idempotent => Semantics::Idempotent,
        TraitPromise::Read => Semantics::Read,
        TraitPromise::AtMostOnce | TraitPromise::Unspecified => Semantics::AtMostOnce,
    }
}

fn show_method(method: &TraitMethod) -> String {
    let arguments =
        method.arguments.iter().map(|TraitArgument { name, r#type, .. }| match name.as_str() {
            "" => format!("stream {type}"),
            name => format!("{name}: {type}"),
        });
    let format = if method.format.is_empty() { "its own format" } else { &method.format };
    format!(
        "rpc {}({}) returns ({}{});  // {}, {format}",
        method.name,
        arguments.collect::<Vec<_>>().join(", "),
        if method.server_streams { "stream " } else { "" },
        method.reply,
        word(semantics(method)),
    )
}

impl JsonMethod {
    /// The body of a request: the arguments one after the other, from an object that names them or from
    /// what the method's codec writes.
    pub(super) fn request(&self, json: &str) -> Result<Vec<u8>, Error> {
        let wrong = |why: String| {
            Error::usage(format!("the request of {}: {why}", self.name))
                .with_hint(format!("stubborn describe ADDR {} shows its arguments", self.name))
        };
        let value: Value = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        let value = match (&self.arguments, value) {
            (Some(names), Value::Object(given)) => in_order(names, given).map_err(wrong)?,
            (_, value) => value,
        };
        serde_json::to_vec(&value).map_err(|error| wrong(error.to_string()))
    }
}

/// Without arguments nothing is sent; one that is not given is `null`, as `None` is.
fn in_order(names: &[String], mut given: Map<String, Value>) -> Result<Value, String> {
    let values = names.iter().map(|name| given.remove(name).unwrap_or_default());
    let values = values.collect::<Vec<_>>();
    match given.keys().next() {
        Some(name) => Err(format!("it has no argument {name}; it has: {}", names.join(", "))),
        None if names.is_empty() => Ok(Value::Null),
        None => Ok(values.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sent_in_the_order_of_the_method_whatever_that_of_the_request() {
        let method = |arguments: Option<&[&str]>| JsonMethod {
            name: "a.B/C".into(),
            arguments: arguments.map(|names| names.iter().map(|name| (*name).into()).collect()),
        };
        let request = |method: &JsonMethod, json| {
            method.request(json).map(|body| String::from_utf8(body).unwrap())
        };
        let two = method(Some(&["from", "to"]));
        assert_eq!(request(&two, r#"{"to": 2, "from": [1]}"#).unwrap(), "[[1],2]");
        assert_eq!(request(&two, r#"{"to": 2}"#).unwrap(), "[null,2]");
        assert_eq!(request(&two, "[1, 2]").unwrap(), "[1,2]");
        let error = request(&two, r#"{"too": 2}"#).unwrap_err();
        assert!(error.message().contains("no argument too; it has: from, to"), "{error}");
        assert_eq!(request(&method(Some(&[])), "{}").unwrap(), "null");
        assert_eq!(request(&method(None), r#"{"a": 1}"#).unwrap(), r#"{"a":1}"#);
    }
}
