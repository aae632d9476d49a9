//! Handlers of streams in the test world, and its client's side of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::node::{
    CallKey, IncomingRequest, RequestKey, StreamKey, StreamRead, StreamRefusal,
};
use stubborn_core::service::{
    Answer, CallError, Encoded, IncomingReply, Metadata, Method, OutgoingCall, Semantics, Shape,
    Status,
};
use stubborn_core::time::Duration;

use crate::world::{World, outgoing};

/// Takes every message, then replies with how many there were.
pub(crate) const COUNT: Method =
    Method::new("test.Stream/Count", Semantics::AtMostOnce, Shape::ClientStreaming);
/// Takes three messages and replies.
pub(crate) const THREE: Method =
    Method::new("test.Stream/Three", Semantics::AtMostOnce, Shape::ClientStreaming);
/// Never takes a message and never ends.
pub(crate) const HOARD: Method =
    Method::new("test.Stream/Hoard", Semantics::AtMostOnce, Shape::BidiStreaming);
/// Sends as many messages as the request says, each with its number, then ends; with the status
/// `NotFound` if the number is odd.
pub(crate) const LIST: Method =
    Method::new("test.Stream/List", Semantics::AtMostOnce, Shape::ServerStreaming);
/// Sends every message back.
pub(crate) const CHAT: Method =
    Method::new("test.Stream/Chat", Semantics::AtMostOnce, Shape::BidiStreaming);

const METHODS: [&Method; 5] = [&COUNT, &THREE, &HOARD, &LIST, &CHAT];

/// Every handler at work, and what became of the others.
#[derive(Default)]
pub(crate) struct Handlers {
    running: BTreeMap<(usize, RequestKey), Handler>,
    pub(crate) started: usize,
    pub(crate) stopped: usize,
    /// What handlers took, in order.
    pub(crate) took: Vec<Bytes>,
}

struct Handler {
    method: &'static Method,
    took: u64,
    sent: u64,
    to_send: u64,
    size: usize,
    /// Taken and not yet sent back.
    pending: Option<Encoded>,
}

impl Handlers {
    pub(crate) fn stop(&mut self, host: usize, key: RequestKey) {
        self.stopped += usize::from(self.running.remove(&(host, key)).is_some());
    }

    pub(crate) fn kill(&mut self, host: usize) {
        self.running.retain(|(other, _), _| *other != host);
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }
}

/// Message `n` of a stream with messages of this size.
pub(crate) fn message(n: u64, size: usize) -> Bytes {
    let mut message = vec![n as u8; size.max(8)];
    message[..8].copy_from_slice(&n.to_be_bytes());
    message.into()
}

pub(crate) fn number(message: &[u8]) -> u64 {
    u64::from_be_bytes(message[..8].try_into().expect("a number"))
}

/// A request of [`LIST`].
pub(crate) fn list(count: u64, size: u64) -> Bytes {
    [count.to_be_bytes(), size.to_be_bytes()].concat().into()
}

impl World {
    pub(crate) fn start_handler(&mut self, host: usize, request: IncomingRequest) {
        let IncomingRequest { key, method, call, .. } = request;
        let method = METHODS.into_iter().find(|m| m.id() == method).expect("a known method");
        let body = call.message().verified(method.id()).expect("an unaltered request");
        let number = |at: usize| match body.get(at..at + 8) {
            Some(bytes) => number(bytes),
            None => 0,
        };
        let (to_send, size) = (number(0), number(8) as usize);
        self.handlers.started += 1;
        let handler = Handler { method, took: 0, sent: 0, to_send, size, pending: None };
        self.handlers.running.insert((host, key), handler);
        self.run_handler(host, key);
    }

    pub(crate) fn stream_moved(&mut self, host: usize, key: StreamKey) {
        if let StreamKey::Request(key) = key {
            self.run_handler(host, key);
        }
    }

    fn run_handler(&mut self, host: usize, key: RequestKey) {
        let Some(mut handler) = self.handlers.running.remove(&(host, key)) else { return };
        let answer = self.handler_step(host, key, &mut handler);
        match answer {
            None => {
                self.handlers.running.insert((host, key), handler);
            }
            Some(answer) => {
                let now = self.now;
                self.node(host).answer(now, key, answer);
            }
        }
    }

    /// Runs a handler until it has to wait or ends.
    fn handler_step(&mut self, host: usize, key: RequestKey, h: &mut Handler) -> Option<Answer> {
        let (now, id) = (self.now, h.method.id());
        let reply =
            |body: Bytes| Some(Answer::Reply(Encoded::from_body(id, body), Metadata::new()));
        loop {
            if h.method == &HOARD {
                return None;
            }
            if h.method == &LIST {
                if h.sent == h.to_send {
                    let odd = h.to_send % 2 == 1;
                    return if odd {
                        Some(Answer::Status(Status::not_found("odd")))
                    } else {
                        reply(Bytes::new())
                    };
                }
                let next = Encoded::from_body(id, message(h.sent, h.size));
                match self.node(host).send_message(now, StreamKey::Request(key), next) {
                    Ok(()) => h.sent += 1,
                    Err(StreamRefusal::Full(_)) => return None,
                    Err(other) => panic!("{other:?}"),
                }
                continue;
            }
            if let Some(back) = h.pending.take() {
                match self.node(host).send_message(now, StreamKey::Request(key), back) {
                    Ok(()) => {}
                    Err(StreamRefusal::Full(back)) => {
                        h.pending = Some(back);
                        return None;
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            if h.method == &THREE && h.took == 3 {
                return reply(Bytes::from_static(b"three"));
            }
            match self.node(host).take_message(now, StreamKey::Request(key)) {
                StreamRead::Blocked => return None,
                StreamRead::End if h.method == &COUNT => {
                    return reply(h.took.to_be_bytes().to_vec().into());
                }
                StreamRead::End => return reply(Bytes::new()),
                StreamRead::Message(message) => {
                    h.took += 1;
                    let body = message.verified(id).expect("an unaltered message");
                    self.handlers.took.push(body);
                    if h.method == &CHAT {
                        h.pending = Some(message);
                    }
                }
            }
        }
    }

    pub(crate) fn open(&mut self, method: &Method, body: Bytes) -> CallKey {
        self.open_within(method, body, None)
    }

    pub(crate) fn open_within(
        &mut self,
        method: &Method,
        body: Bytes,
        deadline: Option<u64>,
    ) -> CallKey {
        let (now, channel) = (self.now, self.channel);
        let deadline = deadline.map(Duration::from_millis);
        let wait_for_ready = Some(true);
        let call = OutgoingCall { deadline, wait_for_ready, ..outgoing(method, body) };
        self.client().call(now, channel, call)
    }

    /// Whether there was room for the message.
    pub(crate) fn send(&mut self, key: CallKey, method: &Method, body: Bytes) -> bool {
        let now = self.now;
        let message = Encoded::from_body(method.id(), body);
        match self.client().send_message(now, StreamKey::Call(key), message) {
            Ok(()) => true,
            Err(StreamRefusal::Full(_)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }

    pub(crate) fn end(&mut self, key: CallKey) {
        let now = self.now;
        self.client().end_messages(now, key);
    }

    /// The next message, if there is one.
    pub(crate) fn next(&mut self, key: CallKey, method: &Method) -> Option<Bytes> {
        let now = self.now;
        match self.client().take_message(now, StreamKey::Call(key)) {
            StreamRead::Message(message) => Some(message.verified(method.id()).expect("unaltered")),
            StreamRead::Blocked | StreamRead::End => None,
        }
    }

    pub(crate) fn end_of(&mut self, key: CallKey) -> Result<IncomingReply, CallError> {
        assert!(
            self.run_until(300_000, |w| w.results.contains_key(&key)),
            "the stream did not end"
        );
        self.results.remove(&key).unwrap()
    }

    /// The network is gone for a while, with what is under way.
    pub(crate) fn cut_for(&mut self, millis: u64) {
        self.wire.clear();
        self.rules.cut = true;
        self.run(millis);
        self.rules.cut = false;
    }
}
