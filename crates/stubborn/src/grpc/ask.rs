//! Asks a server of gRPC what it has, by gRPC's server reflection.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorProto;
use stubborn_core::service::{
    BidiStream, CallError, Channel, Code, Method, NotTaken, Outcome, Semantics, Shape, Status,
};

use super::generated::grpc::reflection::v1::{
    SERVER_REFLECTION_DESCRIPTOR, ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_request::MessageRequest as Ask,
    server_reflection_response::MessageResponse as Said,
};

/// The name that the protocol had before it was settled; the messages are the same.
const ALPHA: Method = Method::new(
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    Semantics::Read,
    Shape::BidiStreaming,
);

/// What a server may make us hold: the bytes of its files.
const MOST: usize = 64 << 20;

/// The files that everybody has who can read others, and that not every server sends. In
/// `google/protobuf/`.
const WELL_KNOWN: [&str; 10] = [
    "any",
    "api",
    "duration",
    "empty",
    "field_mask",
    "source_context",
    "struct",
    "timestamp",
    "type",
    "wrappers",
];

/// What a server of gRPC tells of its services, asked over a channel to it.
#[derive(Clone, Debug)]
pub struct Reflected {
    channel: Channel,
}

impl Reflected {
    /// Of the server at the end of this channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The full names of its services, in alphabetical order.
    ///
    /// # Errors
    /// If it cannot be asked; `UNIMPLEMENTED` if it has no reflection.
    pub async fn services(&self) -> Result<Vec<String>, CallError> {
        let (mut talk, said) = self.begin(Ask::ListServices(String::new())).await?;
        talk.stream.end();
        let Said::ListServicesResponse(list) = said else { return Err(talk.confused()) };
        let mut names: Vec<String> = list.service.into_iter().map(|found| found.name).collect();
        names.sort();
        Ok(names)
    }

    /// An encoded `google.protobuf.FileDescriptorSet` with the file that declares a service, a method or a
    /// message, and those that it imports, imported files first; without protobuf's own, such as
    /// `google/protobuf/any.proto`.
    ///
    /// # Errors
    /// If it cannot be asked; `NOT_FOUND` if it does not know the name.
    pub async fn files(&self, symbol: &str) -> Result<Vec<u8>, CallError> {
        let (mut talk, said) = self.begin(Ask::FileContainingSymbol(symbol.to_owned())).await?;
        let mut files = Files::default();
        let mut said = said;
        loop {
            let Said::FileDescriptorResponse(found) = said else { return Err(talk.confused()) };
            for file in found.file_descriptor_proto {
                files.add(file).map_err(|why| talk.refused(why))?;
            }
            let Some(missing) = files.next_missing() else { break };
            said = talk.ask(Ask::FileByFilename(missing)).await?;
        }
        talk.stream.end();
        Ok(files.set())
    }

    /// Asks a first question, by the name that the server knows the protocol by.
    async fn begin(&self, question: Ask) -> Result<(Talk, Said), CallError> {
        let settled = self.ask_as(&SERVER_REFLECTION_DESCRIPTOR.methods[0], question.clone()).await;
        match settled {
            Err(error) if error.status().is_some_and(|s| s.code() == Code::Unimplemented) => {
                self.ask_as(&ALPHA, question).await.map_err(|_| error)
            }
            other => other,
        }
    }

    async fn ask_as(&self, method: &Method, question: Ask) -> Result<(Talk, Said), CallError> {
        let stream = self.channel.bidi_streaming(method).await?;
        let mut talk = Talk { stream, name: method.name().to_owned() };
        let said = talk.ask(question).await?;
        Ok((talk, said))
    }
}

/// Questions and answers on one stream.
struct Talk {
    stream: BidiStream<ServerReflectionRequest, ServerReflectionResponse>,
    name: String,
}

impl Talk {
    async fn ask(&mut self, question: Ask) -> Result<Said, CallError> {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        if let Err(NotTaken::TooLarge { .. }) = self.stream.send(&request).await {
            return Err(self.refused("the name is too long"));
        }
        // Why it was not taken is how the stream ended.
        match self.stream.message().await?.and_then(|reply| reply.message_response) {
            Some(Said::ErrorResponse(error)) => {
                let code = Code::from_number(u64::try_from(error.error_code).unwrap_or_default());
                Err(self.ended(Status::new(code, error.error_message)))
            }
            Some(said) => Ok(said),
            None => Err(self.confused()),
        }
    }

    fn ended(&self, status: Status) -> CallError {
        CallError::new(self.name.clone(), Outcome::Executed(status))
    }

    fn refused(&self, why: &str) -> CallError {
        self.ended(Status::internal(why.to_owned()))
    }

    fn confused(&self) -> CallError {
        self.refused("the server has not answered what was asked")
    }
}

fn is_well_known(file: &str) -> bool {
    let name = file.strip_prefix("google/protobuf/").and_then(|name| name.strip_suffix(".proto"));
    name.is_some_and(|name| WELL_KNOWN.contains(&name))
}

/// Files, as they were sent.
#[derive(Default)]
struct Files {
    all: Vec<(FileDescriptorProto, Vec<u8>)>,
    /// What was asked for: a server may have answered with something else.
    asked: BTreeSet<String>,
    bytes: usize,
}

impl Files {
    fn add(&mut self, file: Vec<u8>) -> Result<(), &'static str> {
        self.bytes += file.len();
        if self.bytes > MOST {
            return Err("the server's files are too large");
        }
        let read = FileDescriptorProto::decode(file.as_slice())
            .map_err(|_| "the server has sent a file that is none")?;
        if !is_well_known(read.name()) && !self.has(read.name()) {
            self.all.push((read, file));
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.all.iter().any(|(file, _)| file.name() == name)
    }

    fn next_missing(&mut self) -> Option<String> {
        let imports = self.all.iter().flat_map(|(file, _)| &file.dependency);
        let known = |name: &&String| {
            is_well_known(name) || self.has(name) || self.asked.contains(name.as_str())
        };
        let missing = imports.filter(|name| !known(name)).min().cloned();
        self.asked.extend(missing.clone());
        missing
    }

    /// Imported files first, as the set has to be.
    fn set(&self) -> Vec<u8> {
        let mut set = Vec::with_capacity(self.bytes + 8 * self.all.len());
        let mut placed = BTreeSet::new();
        loop {
            let ready = |file: &FileDescriptorProto| {
                !placed.contains(file.name())
                    && file
                        .dependency
                        .iter()
                        .all(|name| placed.contains(name.as_str()) || !self.has(name))
            };
            // Files that import each other in a circle, which no compiler makes, are left out.
            let Some((file, bytes)) = self.all.iter().find(|(file, _)| ready(file)) else { break };
            placed.insert(file.name());
            prost::encoding::bytes::encode(1, bytes, &mut set);
        }
        set
    }
}
