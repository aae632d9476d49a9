//! The service: handlers that change a table in the transaction of their call's completion record.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use stubborn_completion::{CompletionError, Completions};
use stubborn_core::service::{
    Answer, Call, Code, Encoded, Handling, IncomingReply, Metadata, Method, Semantics, Service,
    ServiceDescriptor, Shape, Status,
};

use super::ledger::{Effect, Work};
use super::store::{Shared, SimStore};
use crate::oracle::calls::Token;
use crate::world::World;

static METHODS: [Method; 1] =
    [Method::new("stubborn.sim.Till/Work", Semantics::ExactlyOnce, Shape::Unary)];

static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "stubborn.sim.Till", methods: &METHODS, file_descriptor_set: &[] };

/// The code that handlers end with that refuse or charge.
pub(super) const REFUSAL: Code = Code::FailedPrecondition;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errand {
    pub(super) token: Token,
    pub(super) work: Work,
    /// How long the handler waits before it begins its transaction, and in it.
    pub(super) before: Duration,
    pub(super) within: Duration,
    /// Bytes of the reply beside its head.
    pub(super) size: u32,
}

impl Errand {
    pub(super) fn method() -> &'static Method {
        &METHODS[0]
    }

    pub(super) fn encode(&self) -> Encoded {
        let mut body = BytesMut::new();
        body.put_u64(self.token.0);
        let work = Work::ALL.iter().position(|work| *work == self.work);
        body.put_u8(work.map_or(u8::MAX, |place| place as u8));
        body.put_u32(self.before.as_micros() as u32);
        body.put_u32(self.within.as_micros() as u32);
        body.put_u32(self.size);
        Encoded::from_body(Self::method().id(), body.freeze())
    }

    pub(super) fn decode(mut body: Bytes) -> Option<Self> {
        let token = Token(body.try_get_u64().ok()?);
        let work = *Work::ALL.get(usize::from(body.try_get_u8().ok()?))?;
        let mut time = || body.try_get_u32().ok().map(|it| Duration::from_micros(it.into()));
        let (before, within) = (time()?, time()?);
        Some(Self { token, work, before, within, size: body.try_get_u32().ok()? })
    }
}

/// The run that a reply is of, if it is the reply to this call.
pub(super) fn run_of(reply: &IncomingReply, errand: &Errand) -> Result<u64, String> {
    let token = errand.token;
    let body = reply.reply.verified(Errand::method().id());
    let body = body.map_err(|error| format!("the reply to {token}: {error}"))?;
    let mut body: Bytes =
        Message::decode(body).map_err(|error| format!("the reply to {token}: {error}"))?;
    let whole = 16 + errand.size as usize;
    if body.len() != whole || body.get_u64() != token.0 {
        return Err(format!("the reply to {token} is another one's"));
    }
    Ok(body.get_u64())
}

/// The service of a server.
#[derive(Clone)]
pub(super) struct Till {
    pub(super) world: World,
    pub(super) shared: Shared,
    pub(super) completions: Completions<SimStore>,
}

impl Service for Till {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, _: usize, call: Call<Encoded>) -> Handling {
        let read = call.message().verified(Errand::method().id()).map(Errand::decode);
        let errand = match read {
            Ok(Some(errand)) => errand,
            Ok(None) => {
                let status = Status::internal("a request that nobody made");
                return Box::pin(std::future::ready(Answer::Status(status)));
            }
            Err(error) => return Box::pin(std::future::ready(Answer::unreadable(error))),
        };
        let till = self.clone();
        Box::pin(async move {
            match till.work(&call, errand).await {
                Ok(reply) => {
                    let reply = Encoded::new(Errand::method().id(), &reply);
                    Answer::Reply(reply, Metadata::new())
                }
                Err(status) => Answer::Status(status),
            }
        })
    }
}

impl Till {
    async fn work(&self, call: &Call<Encoded>, errand: Errand) -> Result<Bytes, Status> {
        let Errand { token, work, .. } = errand;
        let run = self.shared.lock().database.ledger.runs(token, self.world.now());
        let effect = Effect { token, run };
        self.world.sleep(errand.before).await;
        if work == Work::Plain {
            self.world.sleep(errand.within).await;
            return Ok(reply(effect, errand.size));
        }
        if work == Work::Twice {
            let mut guard = self.completions.begin(call).await?;
            self.change(guard.transaction(), effect).await?;
        }
        let mut guard = self.completions.begin(call).await?;
        self.change(guard.transaction(), effect).await?;
        self.world.sleep(errand.within).await;
        match work {
            Work::Refuse => Err(Status::new(REFUSAL, "refused")),
            Work::Charge => Err(guard.commit_status(Status::new(REFUSAL, "charged")).await),
            _ => guard.commit(reply(effect, errand.size)).await,
        }
    }

    async fn change(
        &self,
        tx: &mut super::store::SimTransaction,
        effect: Effect,
    ) -> Result<(), CompletionError> {
        Ok(tx.insert(effect).await?)
    }
}

fn reply(Effect { token, run }: Effect, size: u32) -> Bytes {
    let mut body = BytesMut::with_capacity(16 + size as usize);
    body.put_u64(token.0);
    body.put_u64(run);
    body.put_bytes(0x5a, size as usize);
    body.freeze()
}
