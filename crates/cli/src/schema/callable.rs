//! A method that can be called: how its messages are written from JSON, and read.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MethodDescriptor, prost::Message};
use serde_json::Value;
use stubborn::{Encoded, IncomingReply, Method};

use super::traits::JsonMethod;
use super::{from_json, to_json};
use crate::error::{Error, Exit};

/// A method, and how its messages look.
pub(crate) struct Callable {
    pub(crate) method: Method,
    messages: Messages,
}

enum Messages {
    Proto(MethodDescriptor),
    Json(JsonMethod),
}

impl Callable {
    pub(crate) fn of_file(method: Method, descriptor: MethodDescriptor) -> Self {
        Self { method, messages: Messages::Proto(descriptor) }
    }

    pub(super) fn of_trait(method: Method, messages: JsonMethod) -> Self {
        Self { method, messages: Messages::Json(messages) }
    }

    /// The request that this JSON is; an empty one if the client streams.
    pub(crate) fn request(&self, json: &str) -> Result<Encoded, Error> {
        if self.method.shape().client_streams() {
            return Ok(Encoded::from_body(self.method.id(), Bytes::new()));
        }
        self.message(json)
    }

    /// The messages of a client that streams: a JSON value for each.
    pub(crate) fn stream(&self, input: &str) -> Result<Vec<Encoded>, Error> {
        if !self.method.shape().client_streams() {
            return Ok(Vec::new());
        }
        let values = serde_json::Deserializer::from_str(input).into_iter::<Value>();
        let values = values.map(|value| {
            let value =
                value.map_err(|error| Error::usage(format!("the input is no JSON: {error}")))?;
            self.message(&value.to_string())
        });
        values.collect()
    }

    fn message(&self, json: &str) -> Result<Encoded, Error> {
        let body = match &self.messages {
            Messages::Proto(descriptor) => from_json(descriptor.input(), json)?.encode_to_vec(),
            Messages::Json(method) => method.request(json)?,
        };
        Ok(Encoded::from_body(self.method.id(), body.into()))
    }

    /// Checks and reads a reply.
    pub(crate) fn reply(&self, incoming: &IncomingReply) -> Result<Value, Error> {
        let unreadable = |why: &dyn std::fmt::Display| {
            let method = &self.method;
            let text = format!("{method}: executed, but its reply is unreadable: {why}");
            Error::new(Exit::Failed, text)
        };
        let body: Bytes =
            incoming.reply.verified(self.method.id()).map_err(|error| unreadable(&error))?;
        match &self.messages {
            Messages::Proto(descriptor) => {
                let message = DynamicMessage::decode(descriptor.output(), body);
                to_json(&message.map_err(|error| unreadable(&error))?)
            }
            Messages::Json(_) => serde_json::from_slice(&body).map_err(|error| unreadable(&error)),
        }
    }
}
