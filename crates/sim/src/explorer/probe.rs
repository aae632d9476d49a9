//! The service that the explorer calls: its requests say what it is to do, its runs are told to the
//! oracles, and its bytes can be checked on both sides.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use stubborn_core::service::{
    Answer, Call, Code, Encoded, Handling, IncomingReply, Metadata, Method, Semantics, Service,
    ServiceDescriptor, Shape, Status,
};

use super::unwell::Ailments;
use crate::oracle::calls::{Again, Token};
use crate::oracle::integrity::filler;
use crate::world::World;

/// What the explorer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// At most once.
    Once,
    Idempotent,
    Read,
    Maybe,
}

static METHODS: [Method; 4] = [
    Method::new("stubborn.sim.Probe/Once", Semantics::AtMostOnce, Shape::Unary),
    Method::new("stubborn.sim.Probe/Again", Semantics::Idempotent, Shape::Unary),
    Method::new("stubborn.sim.Probe/Look", Semantics::Read, Shape::Unary),
    Method::new("stubborn.sim.Probe/Tell", Semantics::Maybe, Shape::Unary),
];

static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "stubborn.sim.Probe", methods: &METHODS, file_descriptor_set: &[] };

impl Kind {
    pub(crate) fn method(self) -> &'static Method {
        &METHODS[self as usize]
    }

    /// Whether and where the method of this index may run again.
    fn again(method: usize) -> Again {
        match METHODS[method].semantics() {
            Semantics::Idempotent => Again::AtTheSameServer,
            Semantics::Read | Semantics::Maybe => Again::Anywhere,
            _ => Again::Never,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    pub(crate) token: Token,
    /// How long the handler takes.
    pub(crate) takes: Duration,
    /// Bytes of the reply after its token.
    pub(crate) reply: u32,
    /// Answer with a status instead.
    pub(crate) refuse: bool,
}

/// Bytes of a request before its filling.
const HEAD: usize = 8 + 4 + 4 + 1;

const REQUEST: u64 = 1;
const REPLY: u64 = 2;

/// The code that a refusing handler answers with.
pub(crate) const REFUSAL: Code = Code::FailedPrecondition;

impl Errand {
    /// The request, filled up with `filling` bytes.
    pub(crate) fn encode(&self, kind: Kind, filling: usize) -> Encoded {
        let mut body = BytesMut::with_capacity(HEAD + filling);
        body.put_u64(self.token.0);
        body.put_u32(self.takes.as_micros() as u32);
        body.put_u32(self.reply);
        body.put_u8(self.refuse.into());
        body.extend(filler(self.token, REQUEST).take(filling));
        Encoded::from_body(kind.method().id(), body.freeze())
    }

    fn decode(body: &[u8]) -> Option<(Self, &[u8])> {
        let (head, filling) = body.split_at_checked(HEAD)?;
        let number = |from: usize| u32::from_be_bytes(head[from..from + 4].try_into().unwrap());
        let token = Token(u64::from_be_bytes(head[..8].try_into().unwrap()));
        let takes = Duration::from_micros(number(8).into());
        Some((Self { token, takes, reply: number(12), refuse: head[16] != 0 }, filling))
    }
}

/// The service.
pub(crate) struct Probe {
    world: World,
    server: String,
    ailments: Ailments,
}

impl Probe {
    /// The service of a server.
    pub(super) fn new(world: World, server: &str, ailments: Ailments) -> Self {
        Self { world, server: server.to_owned(), ailments }
    }
}

impl Service for Probe {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, method: usize, request: Call<Encoded>) -> Handling {
        let id = METHODS[method].id();
        let body = match request.message().verified(id) {
            Ok(body) => body,
            Err(error) => return Box::pin(std::future::ready(Answer::unreadable(error))),
        };
        let errand = {
            let mut state = self.world.state();
            let now = state.now;
            let Some((errand, filling)) = Errand::decode(&body) else {
                let what = Err(format!("a request of {} bytes is none that was sent", body.len()));
                state.calls.accuse("integrity", now, what);
                return Box::pin(std::future::ready(Answer::Status(Status::new(
                    Code::Internal,
                    "",
                ))));
            };
            state.calls.message(errand.token, REQUEST, filling, now);
            state.calls.ran(errand.token, Kind::again(method), &self.server, now);
            errand
        };
        let answer = reply(&METHODS[method], &errand);
        if errand.takes.is_zero() && self.ailments.of(&self.world, &self.server).is_none() {
            return Box::pin(std::future::ready(answer));
        }
        let rest = self.world.sleep(errand.takes);
        let (world, server) = (self.world.clone(), self.server.clone());
        let ailments = self.ailments.clone();
        Box::pin(async move {
            let failed = ailments.bear(&world, &server).await;
            rest.await;
            match failed {
                None => answer,
                Some(code) => {
                    world.state().calls.fails(errand.token, code);
                    Answer::Status(Status::new(code, "not well"))
                }
            }
        })
    }
}

fn reply(method: &Method, errand: &Errand) -> Answer {
    if errand.refuse {
        return Answer::Status(Status::new(REFUSAL, errand.token.to_string()));
    }
    let mut body = BytesMut::with_capacity(8 + errand.reply as usize);
    body.put_u64(errand.token.0);
    body.extend(filler(errand.token, REPLY).take(errand.reply as usize));
    Answer::Reply(Encoded::from_body(method.id(), body.freeze()), Metadata::new())
}

/// Checks a reply as the caller's stub and then the oracle do.
pub(crate) fn check_reply(world: &World, kind: Kind, errand: &Errand, reply: &IncomingReply) {
    let judged = judge_reply(kind, errand, reply);
    let mut state = world.state();
    let now = state.now;
    match judged {
        Ok(filling) => state.calls.message(errand.token, REPLY, &filling, now),
        Err(what) => state.calls.accuse("integrity", now, Err(what)),
    }
}

fn judge_reply(kind: Kind, errand: &Errand, reply: &IncomingReply) -> Result<Bytes, String> {
    let token = errand.token;
    let body = reply
        .reply
        .verified(kind.method().id())
        .map_err(|error| format!("the reply to {token}: {error}"))?;
    let whole = 8 + errand.reply as usize;
    if body.len() != whole {
        return Err(format!("the reply to {token} has {} bytes, not {whole}", body.len()));
    }
    if body[..8] != token.0.to_be_bytes() {
        return Err(format!("the reply to {token} is another call's"));
    }
    if errand.refuse {
        return Err(format!("the handler of {token} refused, and the caller got a reply"));
    }
    Ok(body.slice(8..))
}
