//! The door of a replica.
//!
//! It is a client of its own node, and its calls take the way of every client's call: what changes
//! something gets a slot and a number and goes through the log, under the caller's id if it has one; what
//! does not is a read of the group. So nothing of sessions, the log or the leader is here. The node takes
//! from it whose call it is (`replica/guests.rs`).

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::service::{
    Answer, Call, CallContext, CallError, Channel, Clock, Code, Encoded, IncomingReply, Metadata,
    Method, MethodId, NotExecuted, Outcome, OutgoingCall, Port, Registry, Replies, RequestKind,
    Semantics, ServiceDescriptor, Status,
};
use stubborn_core::session::NotExecutedReason as Reason;
use stubborn_core::time::Instant;
use stubborn_grpc::EXECUTING;
use stubborn_grpc::door::{
    Door, DoorConfig, Early, Ended, Handlers, Handling, KeyLimits, Place, Placing, Security,
};
use stubborn_tls::{ClientCertificates, CurrentIdentity};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Grpc, OpenDoor, listen, reflection, security, told};
use crate::driver::{NodeClock, start_handler};
use crate::health::Health;
use crate::replica::{Control, Door as Entrance, Guest};
use crate::reply;
use crate::security::{Identity, KeyLog, SecurityError, Trust};
use crate::server::{ServeError, Services};
use crate::{ChannelBuilder, Connection, Limits, RegisterError};

/// How long calls wait for a leader that the replica does not know. Most elections are over by then.
const LEADERLESS: Duration = Duration::from_millis(500);

/// When callers are asked to come back who came while there was none.
const COME_BACK: Duration = Duration::from_millis(500);

/// The longest pause before the door connects to its node again.
const RECONNECT: Duration = Duration::from_millis(100);

/// How long calls that are there may go on once the replica is to stop.
const DRAIN: Duration = Duration::from_secs(1);

/// A door that listens, whose replica does not run yet.
pub(crate) struct Opening {
    listener: TcpListener,
    local: SocketAddr,
    security: Security,
    identity: Option<Arc<CurrentIdentity>>,
    /// What the door answers by itself.
    registry: Registry,
}

/// What a door stands beside.
pub(crate) struct Beside {
    /// The name in the node's certificate.
    pub(crate) name: String,
    pub(crate) identity: Identity,
    pub(crate) authority: Trust,
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) control: Arc<Control>,
    pub(crate) health: Option<Health>,
}

/// The door of a replica that runs.
pub(crate) struct ReplicaDoor {
    door: OpenDoor,
    way: Connection,
    health: Option<Health>,
}

impl Opening {
    /// Listens at this address, where datagrams can be received, too.
    pub(crate) async fn at(
        address: SocketAddr,
        grpc: &Grpc,
        identity: &Identity,
        clients: &ClientCertificates,
        key_log: Option<&KeyLog>,
    ) -> Result<Self, ServeError> {
        let (security, current) = security(identity, clients, key_log, grpc.plain)?;
        let taken = |error| ServeError::Bind(address.to_string(), error);
        let listener = listen(address).await.map_err(taken)?;
        let local = listener.local_addr().map_err(taken)?;
        Ok(Self { listener, local, security, identity: current, registry: Registry::new() })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What is answered here and needs no log: health, and gRPC's reflection of these services.
    pub(crate) fn serve(
        &mut self,
        services: impl IntoIterator<Item = &'static ServiceDescriptor>,
        health: impl FnOnce(&mut Registry) -> Result<(), RegisterError>,
    ) -> Result<(), RegisterError> {
        reflection::add(&mut self.registry, services)?;
        health(&mut self.registry)
    }

    /// The services that only the door has.
    pub(crate) fn services(&self) -> impl Iterator<Item = &'static ServiceDescriptor> + '_ {
        self.registry.descriptors()
    }

    /// Opens the door of a replica that runs now.
    pub(crate) async fn open(self, beside: Beside) -> Result<ReplicaDoor, ServeError> {
        let Beside { name, identity, authority, entrance, control, health } = beside;
        let own = own_address(self.local);
        let taken = |error| ServeError::Bind(self.local.to_string(), error);
        let way = ChannelBuilder::new(format!("stubborn://{own}"))
            .server_name(name)
            .trust(authority)
            .identity(identity)
            .wait_for_ready(true)
            .backoff(RECONNECT / 4, RECONNECT)
            .stays()
            .open_now()
            .await
            .map_err(|error| taken(std::io::Error::other(error)))?;
        let clock = NodeClock::start();
        let handlers = Arc::new(Guarded {
            own: Services::of_admitted(self.registry, Arc::default()),
            entrance,
            way: way.channel(),
            led: control.led(),
            clock,
            handle: clock.handle(),
        });
        let config = DoorConfig {
            security: self.security,
            limits: Limits::default(),
            keys: KeyLimits::default(),
        };
        let door = Door::open(self.listener, handlers, config).map_err(taken)?;
        let traffic = door.traffic();
        control.set_door_traffic(move || told(traffic()));
        Ok(ReplicaDoor { door: OpenDoor { identity: self.identity, door }, way, health })
    }
}

/// Where a process reaches itself that listens at this address.
fn own_address(local: SocketAddr) -> SocketAddr {
    let mut own = local;
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => own.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => own.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    own
}

impl ReplicaDoor {
    /// Sends callers elsewhere, and waits a moment for calls that are there.
    pub(crate) async fn drain(&self) {
        if let Some(health) = &self.health {
            health.drain();
        }
        let _ = tokio::time::timeout(DRAIN, self.door.drain()).await;
        self.close();
    }

    /// Closes it at once.
    pub(crate) fn close(&self) {
        self.door.close();
    }

    /// Proves to be this from the next handshake on, to callers and to its node.
    pub(crate) fn replace(&self, identity: &Identity) -> Result<(), SecurityError> {
        if let Some(current) = self.door.identity() {
            current.replace(identity.tls.clone())?;
        }
        self.way.reload(identity)
    }
}

/// Runs calls that come over gRPC.
struct Guarded {
    /// What is answered here.
    own: Arc<Services>,
    entrance: Arc<Entrance>,
    /// To the node.
    way: Channel,
    led: watch::Receiver<bool>,
    clock: NodeClock,
    handle: Clock,
}

impl Handlers for Guarded {
    fn method(&self, id: MethodId) -> Option<&'static Method> {
        self.entrance.method(id)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn admit(&self, method: &'static Method, context: &mut CallContext) -> Result<(), Answer> {
        self.entrance.admit_guest(method, context).map_err(Answer::NotExecuted)
    }

    /// Waits for a leader, but for what is answered here.
    fn place(&self, method: &'static Method, _: &CallContext, _: usize) -> Placing {
        let here = self.own.method(method.id()).is_some();
        let mut led = Led(self.led.clone());
        Box::pin(async move {
            if !here {
                led.is_led().await?;
            }
            Ok(Box::new(()) as Box<dyn Place>)
        })
    }

    /// Streams wait for a leader, too, once they have begun.
    fn may_begin_stream(&self, _: &'static Method, _: &Metadata) -> Result<(), NotExecuted> {
        Ok(())
    }

    fn start(
        &self,
        kind: RequestKind,
        id: MethodId,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        if self.own.method(id).is_some() {
            return self.answer_here(kind, id, call, port);
        }
        let method = self.entrance.method(id).ok_or_else(|| refuse("there is no such method"))?;
        let (request, context) = call.into_parts();
        let guest = self.entrance.receive_guest(method, &request, &context);
        let guest = guest.map_err(Answer::NotExecuted)?;
        let CallContext { mut metadata, deadline, .. } = context;
        guest.sign(&mut metadata).map_err(|error| {
            Answer::NotExecuted(NotExecuted::because(Reason::TooLarge, error.to_string()))
        })?;
        let (way, led, clock) = (self.way.clone(), Led(self.led.clone()), self.clock);
        let errand = Errand { way, method, request, metadata, deadline, clock, led, guest };
        match (kind, port) {
            (RequestKind::Stream(shape), Some(port)) => {
                if shape.client_streams() || method.semantics() != Semantics::Read {
                    return Err(refuse(
                        "a group of replicas has no streams of the client, and none with side effects",
                    ));
                }
                Ok(Box::pin(errand.stream(port)))
            }
            _ => Ok(Box::pin(errand.call())),
        }
    }

    /// The group does, as part of what it replicates.
    fn know_ids(&self) -> bool {
        true
    }

    fn early(&self) -> Early {
        reply::take_early()
    }
}

impl Guarded {
    fn answer_here(
        &self,
        kind: RequestKind,
        id: MethodId,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        let handler = start_handler(&self.own, self.clock, &self.handle, port, id, kind, call)?;
        Ok(Box::pin(async move {
            let (answer, early) = handler.apart().await;
            Ended { early, ..Ended::of(answer) }
        }))
    }
}

fn refuse(why: &'static str) -> Answer {
    Answer::NotExecuted(NotExecuted::because(Reason::UnknownMethod, why))
}

/// A call on its way to the node.
struct Errand {
    way: Channel,
    method: &'static Method,
    request: Encoded,
    metadata: Metadata,
    deadline: Option<Instant>,
    clock: NodeClock,
    led: Led,
    /// Whose call it is, until it has ended.
    guest: Guest,
}

impl Errand {
    async fn call(self) -> Ended {
        let Self { way, method, request, metadata, deadline, clock, mut led, guest: _guest } = self;
        let call = way.call(OutgoingCall {
            method: method.clone(),
            request,
            metadata,
            deadline: left(deadline, clock),
            wait_for_ready: Some(true),
            reserved: None,
            max_staleness: None,
        });
        let Some(result) = led.unless_lost(call).await else { return led_away(method) };
        match result {
            Ok(IncomingReply { reply, metadata, .. }) => match arrived(method, &reply) {
                Ok(()) => Ended::of(Answer::Reply(reply, metadata)),
                Err(damaged) => damaged,
            },
            Err(error) => failed(method, error),
        }
    }

    /// Hands the messages of a stream of reads on.
    async fn stream(self, to: Arc<dyn Port>) -> Ended {
        let Self { way, method, request, metadata, deadline, clock, mut led, guest: _guest } = self;
        if let Err(why) = led.is_led().await {
            return Ended::of(Answer::NotExecuted(why));
        }
        let mut stream = way.raw_streaming::<Replies<()>>(method, request).wait_for_ready(true);
        if let Some(left) = left(deadline, clock) {
            stream = stream.deadline(left);
        }
        for (key, value) in metadata.iter() {
            stream = stream.metadata(key, value);
        }
        // Dropping it cancels the stream.
        let from = match stream.begin() {
            Ok(from) => from,
            Err(error) => return failed(method, error),
        };
        loop {
            let taken = led.unless_lost(poll_fn(|cx| from.poll_take(cx))).await;
            let Some(message) = taken else { return led_away(method) };
            let Some(message) = message else { break };
            if let Err(damaged) = arrived(method, &message) {
                return damaged;
            }
            let mut message = Some(message);
            if let Err(why) = poll_fn(|cx| to.poll_send(cx, &mut message)).await {
                return Ended::of(Answer::Status(why.into()));
            }
        }
        match poll_fn(|cx| from.poll_end(cx)).await {
            Ok(IncomingReply { reply, metadata, .. }) => Ended::of(Answer::Reply(reply, metadata)),
            Err(error) => failed(method, error),
        }
    }
}

fn left(deadline: Option<Instant>, clock: NodeClock) -> Option<Duration> {
    deadline.map(|at| at.since(clock.now()))
}

/// Whether a message is as it was sent: gRPC, which it goes on over, has no digest.
fn arrived(method: &Method, message: &Encoded) -> Result<(), Ended> {
    if method.id().digest(&message.body) == message.digest {
        return Ok(());
    }
    let why = "a message of the group was altered on its way";
    Err(Ended::of(Answer::Status(Status::new(Code::DataLoss, why))))
}

/// The end of a call that returned no reply.
fn failed(method: &Method, error: CallError) -> Ended {
    let why = error.to_string();
    match error.into_outcome() {
        Outcome::Executed(status) => Ended::of(Answer::Status(status)),
        Outcome::NotExecuted(why) => Ended::of(Answer::NotExecuted(why)),
        Outcome::Pending(_) => not_known_yet(method, why),
        Outcome::Lost | Outcome::Unanswered => Ended::unknown(Status::unavailable(why)),
    }
}

/// The replica has lost its leader while the call was under way.
fn led_away(method: &Method) -> Ended {
    not_known_yet(method, "the replica knows of no leader any more".into())
}

fn not_known_yet(method: &Method, why: String) -> Ended {
    let mut status = Status::unavailable(why);
    if method.semantics() != Semantics::Read {
        let mut metadata = Metadata::new();
        metadata.insert(EXECUTING, "1").expect("a short pair with a good key");
        status = status.with_metadata(metadata);
    }
    Ended::unknown(status)
}

/// Whether the replica knows who leads.
struct Led(watch::Receiver<bool>);

impl Led {
    /// Waits a moment until somebody leads.
    ///
    /// # Errors
    /// If nobody does.
    async fn is_led(&mut self) -> Result<(), NotExecuted> {
        let led = tokio::time::timeout(LEADERLESS, self.0.wait_for(|led| *led)).await;
        // An error means that the replica is gone.
        if matches!(led, Ok(Ok(_))) {
            return Ok(());
        }
        let why = "the replica knows of no leader: ask another one, or later";
        Err(NotExecuted::because(Reason::NeverSent, why).with_retry_after(COME_BACK))
    }

    /// The output, or `None` once nobody has led for some time.
    async fn unless_lost<F: Future>(&mut self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.lost() => None,
        }
    }

    async fn lost(&mut self) {
        // An error means that the replica is gone.
        while self.0.wait_for(|led| !*led).await.is_ok() {
            let led = tokio::time::timeout(LEADERLESS, self.0.wait_for(|led| *led)).await;
            if !matches!(led, Ok(Ok(_))) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reaches_itself_also_where_it_listens_at_every_address() {
        for (local, own) in [
            ("0.0.0.0:74", "127.0.0.1:74"),
            ("[::]:74", "[::1]:74"),
            ("10.0.0.7:74", "10.0.0.7:74"),
            ("[fe80::7%3]:74", "[fe80::7%3]:74"),
        ] {
            assert_eq!(own_address(local.parse().unwrap()), own.parse().unwrap(), "{local}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_leader_for_a_moment_and_is_told_when_to_come_back() {
        let leads = watch::Sender::new(false);
        let mut led = Led(leads.subscribe());
        let why = led.is_led().await.unwrap_err();
        assert_eq!((why.reason, why.retry_after()), (Reason::NeverSent, Some(COME_BACK)));
        leads.send_replace(true);
        led.is_led().await.unwrap();
        // An election.
        let election = async {
            leads.send_replace(false);
            tokio::time::sleep(LEADERLESS / 2).await;
            leads.send_replace(true);
            tokio::time::sleep(LEADERLESS * 2).await;
        };
        assert_eq!(led.unless_lost(election).await, Some(()));
        leads.send_replace(false);
        assert_eq!(led.unless_lost(std::future::pending::<()>()).await, None);
    }
}
