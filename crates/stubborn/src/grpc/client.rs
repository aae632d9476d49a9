//! Channels to servers of gRPC.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::service::Channel;
use stubborn_grpc::client::{ClientConfig, GrpcCaller, Lookup};
use stubborn_grpc::door::ALPN;
use stubborn_tls::rustls::pki_types::ServerName;
use tokio::task::AbortHandle;

use crate::Limits;
use crate::client::{ChannelBuilder, ConnectError, ConnectErrorKind, GrpcChoices};
use crate::naming::{Address, at_least_one};
use crate::security::{Identity, Trust};
use crate::{deadline, trace};

/// How long an attempt to connect to one address may take, unless something else is chosen.
const ATTEMPT: Duration = Duration::from_secs(3);

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
    let config = config(choices).map_err(failed)?;
    let caller = GrpcCaller::connect(config).await;
    let caller = caller.map_err(|e| failed(ConnectErrorKind::Refused(e.to_string())))?;
    #[cfg(feature = "tracing")]
    let caller = crate::trace::Traced(caller);
    Ok(around.channel(Channel::new(caller)))
}

fn config(choices: GrpcChoices) -> Result<ClientConfig, ConnectErrorKind> {
    let secured = choices.address.strip_prefix(SECURED);
    let hosts = secured.or_else(|| choices.address.strip_prefix(PLAIN)).unwrap_or_default();
    let address: Address =
        format!("stubborn://{hosts}").parse().map_err(ConnectErrorKind::Address)?;
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
    let watched = tls.clone().zip(choices.files).map(|((tls, _), files)| {
        let replace = move |identity: &Identity| Ok(tls.replace_identity(identity.tls.clone())?);
        Arc::new(Watching(tokio::spawn(files.watch(replace)).abort_handle())) as _
    });
    let limits = Limits::default();
    Ok(ClientConfig {
        authority: address.authority(&name),
        lookup: lookup(address),
        tls,
        kept: watched,
        deadline: choices.deadline,
        shorten: deadline::shorten,
        carry: trace::carry,
        wait_for_ready: choices.wait_for_ready,
        attempt_timeout: choices.attempt_timeout.unwrap_or(ATTEMPT),
        message: usize::try_from(limits.message).unwrap_or(usize::MAX),
        stream_window: limits.stream_window,
    })
}

/// Looks for renewed certificates as long as the channel is there.
struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks the address up anew each time.
fn lookup(address: Address) -> Lookup {
    let address = Arc::new(address);
    Arc::new(move || {
        let address = address.clone();
        Box::pin(async move { address.resolver()?.next().await.and_then(at_least_one) })
    })
}
