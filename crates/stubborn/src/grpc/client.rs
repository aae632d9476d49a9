//! Channels to servers of gRPC.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stubborn_core::service::Channel;
use stubborn_grpc::client::{ClientConfig, GrpcCaller, Targets};
use stubborn_grpc::door::ALPN;
use stubborn_tls::rustls::pki_types::ServerName;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::Limits;
use crate::client::{ChannelBuilder, ConnectError, ConnectErrorKind, GrpcChoices};
use crate::naming::{Address, MAX_ADDRESSES, Resolver, at_least_one};
use crate::security::{Identity, Trust};
use crate::{deadline, trace};

/// How long an attempt to connect to one address may take, unless something else is chosen.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The first pause between attempts to connect, and the longest, unless something else is chosen.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The pause before a resolver is asked again: after an error, and while no server answers.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);

const PLAIN: &str = "grpc://";
const SECURED: &str = "grpcs://";

/// Whether this is the address of a server of gRPC.
pub(crate) fn is_grpc(address: &str) -> bool {
    address.starts_with(PLAIN) || address.starts_with(SECURED)
}

/// Connects to a server of gRPC.
pub(crate) async fn connect(builder: ChannelBuilder) -> Result<Channel, ConnectError> {
    let mut choices = builder.into_grpc();
    let around = std::mem::take(&mut choices.around);
    let text = choices.address.clone();
    let failed = |kind| ConnectError::new(text.clone(), kind);
    let verifying = choices.trust.as_ref().is_none_or(Trust::is_verifying);
    if around.has_bearer() && !(verifying && text.starts_with(SECURED)) {
        return Err(failed(ConnectErrorKind::UnverifiedBearer));
    }
    let address = address(&text).map_err(failed)?;
    let follows = choices.resolver.is_some() || address.may_change();
    let mut resolver = match choices.resolver.take() {
        Some(resolver) => resolver,
        None => address.resolver().map_err(|e| failed(ConnectErrorKind::Resolve(e)))?,
    };
    let targets = loop {
        match resolver.next().await.and_then(at_least_one) {
            Ok(targets) => break targets,
            Err(_) if choices.wait_for_ready => tokio::time::sleep(RESOLVE_AGAIN).await,
            Err(error) => return Err(failed(ConnectErrorKind::Resolve(error))),
        }
    };
    let (mut config, kept) = config(choices, &address).map_err(failed)?;
    config.targets = bounded(targets);
    let kept = Arc::new(kept);
    config.kept = Some(kept.clone());
    let refused = |error: io::Error| failed(ConnectErrorKind::Refused(error.to_string()));
    let caller = GrpcCaller::new(config).map_err(refused)?;
    if follows {
        kept.add(tokio::spawn(follow(resolver, caller.targets())).abort_handle());
    }
    caller.ready().await.map_err(refused)?;
    #[cfg(feature = "tracing")]
    let caller = crate::trace::Traced(caller);
    Ok(around.channel(Channel::new(caller)))
}

/// What `grpc://` and `grpcs://` lead to.
fn address(text: &str) -> Result<Address, ConnectErrorKind> {
    let hosts = text.strip_prefix(SECURED).or_else(|| text.strip_prefix(PLAIN));
    format!("stubborn://{}", hosts.unwrap_or_default()).parse().map_err(ConnectErrorKind::Address)
}

/// What a channel is made of but for its servers, and what lives as long as it does.
fn config(
    choices: GrpcChoices,
    address: &Address,
) -> Result<(ClientConfig, Kept), ConnectErrorKind> {
    let secured = choices.address.strip_prefix(SECURED);
    let name = choices.server_name.unwrap_or_else(|| address.server_name());
    let tls = match secured {
        None => None,
        Some(_) => {
            let trust = choices.trust.or_else(|| address.pin().map(Trust::key)).unwrap_or_default();
            let config =
                trust.tcp_client(choices.identity.as_ref(), &[ALPN], choices.key_log.as_ref());
            let server = ServerName::try_from(name.clone()).map_err(|error| {
                let wrong = io::Error::new(io::ErrorKind::InvalidInput, error);
                ConnectErrorKind::Resolve(wrong)
            })?;
            Some((config.map_err(ConnectErrorKind::Security)?, server))
        }
    };
    let kept = Kept::default();
    if let Some(((tls, _), files)) = tls.clone().zip(choices.files) {
        let replace = move |identity: &Identity| Ok(tls.replace_identity(identity.tls.clone())?);
        kept.add(tokio::spawn(files.watch(replace)).abort_handle());
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| ConnectErrorKind::Socket(io::Error::other(error.to_string())))?;
    let limits = Limits::default();
    let config = ClientConfig {
        targets: Vec::new(),
        service: choices.service,
        backoff: choices.backoff.unwrap_or(BACKOFF),
        seed,
        authority: address.authority(&name),
        tls,
        kept: None,
        deadline: choices.deadline,
        shorten: deadline::shorten,
        carry: trace::carry,
        wait_for_ready: choices.wait_for_ready,
        attempt_timeout: choices.attempt_timeout.unwrap_or(ATTEMPT),
        message: usize::try_from(limits.message).unwrap_or(usize::MAX),
        stream_window: limits.stream_window,
    };
    Ok((config, kept))
}

/// Tasks that end with the channel: one looks for renewed certificates, one for other servers.
#[derive(Default)]
struct Kept(Mutex<Vec<AbortHandle>>);

impl Kept {
    fn add(&self, task: AbortHandle) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let tasks = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
    }
}

fn bounded(mut targets: Vec<SocketAddr>) -> Vec<SocketAddr> {
    targets.truncate(MAX_ADDRESSES);
    targets
}

/// Keeps the servers as the resolver tells them, and asks it for another list whenever none of them can be
/// reached.
async fn follow(mut resolver: Box<dyn Resolver>, mut targets: Targets) {
    let mut urged = Instant::now();
    loop {
        let unanswered = async {
            tokio::time::sleep_until(urged + RESOLVE_AGAIN).await;
            targets.unanswered().await
        };
        tokio::select! {
            biased;
            found = resolver.next() => match found {
                Ok(found) if !found.is_empty() => {
                    if !targets.set(&bounded(found)) {
                        return;
                    }
                }
                Ok(_) | Err(_) => tokio::time::sleep(RESOLVE_AGAIN).await,
            },
            there = unanswered => {
                if !there {
                    return;
                }
                resolver.look_again();
                urged = Instant::now();
            }
        }
    }
}
