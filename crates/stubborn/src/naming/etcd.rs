//! etcd: servers that are written under a prefix of its keys, followed by a watch.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_stream::iter;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::address::{Target, parse_target};
use super::{MAX_ADDRESSES, Resolver, Resolving, system};

/// A member of etcd that does not answer within this time is given up for now.
const PATIENCE: Duration = Duration::from_secs(5);

/// The servers of a service as etcd has them: each a key under `PREFIX/`, whose value is `HOST[:PORT]`,
/// or what etcd's own naming package writes (`{"Addr": "HOST:PORT"}`). A change is told as soon as the
/// watch brings it. Values that cannot be understood are left aside while others can; an etcd that
/// cannot be reached changes nothing.
///
/// Only the addresses come from etcd. Who a server is, it proves to the client as everywhere else.
#[derive(Debug)]
pub struct Etcd {
    channel: Channel,
    /// With the slash at its end.
    prefix: String,
    watch: Option<Streaming<WatchResponse>>,
    /// What was told last may not hold any more.
    stale: bool,
}

impl Etcd {
    /// Asks the members of etcd at these `HOST:PORT`s, without TLS: whoever can change what they answer
    /// can keep clients from their servers, but not be taken for one. [`over`](Self::over) takes a
    /// channel with TLS.
    ///
    /// # Errors
    /// If one of them is no host and port.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(members: impl IntoIterator<Item = String>, prefix: &str) -> io::Result<Self> {
        let wrong = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let endpoint = |member: String| -> Result<Endpoint, tonic::transport::Error> {
            let endpoint = Endpoint::from_shared(format!("http://{member}"))?;
            Ok(endpoint
                .connect_timeout(PATIENCE)
                .http2_keep_alive_interval(PATIENCE)
                .keep_alive_timeout(PATIENCE)
                .keep_alive_while_idle(true))
        };
        let endpoints: Vec<Endpoint> =
            members.into_iter().map(endpoint).collect::<Result<_, _>>().map_err(wrong)?;
        Ok(Self::over(Channel::balance_list(endpoints.into_iter()), prefix))
    }

    /// Asks etcd over this channel.
    pub fn over(channel: Channel, prefix: &str) -> Self {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        Self { channel, prefix, watch: None, stale: true }
    }

    /// Waits until the keys may be others than those that were read last.
    async fn changed(&mut self) -> io::Result<()> {
        while !self.stale {
            let Some(watch) = &mut self.watch else { break };
            let broken = match watch.message().await {
                Ok(Some(heard)) if !heard.canceled => {
                    self.stale = !heard.events.is_empty();
                    continue;
                }
                // An error too: an etcd that ends every watch at once is asked again after a pause.
                Ok(_) => Status::aborted("etcd has ended it"),
                Err(status) => status,
            };
            (self.watch, self.stale) = (None, true);
            return Err(explain("the watch broke off", &broken));
        }
        Ok(())
    }

    /// Reads the keys, and watches them from then on.
    async fn list(&mut self) -> io::Result<Vec<SocketAddr>> {
        let end = end_of(self.prefix.as_bytes());
        let range = RangeRequest {
            key: self.prefix.clone().into_bytes(),
            range_end: end.clone(),
            limit: MAX_ADDRESSES as i64,
        };
        let asking = self.unary("/etcdserverpb.KV/Range", range);
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "etcd does not answer");
        let found: RangeResponse =
            asked.map_err(silent)?.map_err(|status| explain("etcd cannot be read", &status))?;
        if self.watch.is_none() {
            let revision = found.header.as_ref().map_or(0, |header| header.revision);
            let create = WatchCreateRequest {
                key: self.prefix.clone().into_bytes(),
                range_end: end,
                start_revision: revision.saturating_add(1),
            };
            let watching = tokio::time::timeout(PATIENCE, self.watch(create)).await;
            let watch = watching.map_err(silent)?;
            self.watch = Some(watch.map_err(|status| explain("etcd cannot be watched", &status))?);
        }
        let targets = targets(&found.kvs)?;
        if targets.is_empty() { Ok(Vec::new()) } else { system::look_up(&targets).await }
    }

    async fn unary<Q, R>(&self, path: &'static str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let reply = grpc.unary(Request::new(request), path, ProstCodec::<Q, R>::default()).await?;
        Ok(reply.into_inner())
    }

    async fn watch(&self, create: WatchCreateRequest) -> Result<Streaming<WatchResponse>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let requests = iter([WatchRequest { create_request: Some(create) }]);
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        Ok(grpc.streaming(Request::new(requests), path, codec).await?.into_inner())
    }
}

impl Resolver for Etcd {
    fn next(&mut self) -> Resolving<'_> {
        Box::pin(async {
            self.changed().await?;
            let found = self.list().await?;
            self.stale = false;
            Ok(found)
        })
    }

    fn look_again(&mut self) {
        // Names in it may have moved.
        self.stale = true;
    }
}

/// The least key behind all that begin with these bytes, as etcd wants the end of a range.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// # Errors
/// If there are servers, and the address of none can be understood.
fn targets(keys: &[KeyValue]) -> io::Result<Vec<Target>> {
    let mut failure = None;
    let mut found = Vec::new();
    for KeyValue { key, value } in keys {
        match target(value) {
            Ok(target) => found.push(target),
            Err(why) => {
                let key = String::from_utf8_lossy(key).into_owned();
                failure.get_or_insert_with(|| format!("etcd's value of {key}: {why}"));
            }
        }
    }
    match failure {
        Some(why) if found.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        _ => Ok(found),
    }
}

fn target(value: &[u8]) -> Result<Target, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is no text".to_owned())?.trim();
    if !text.starts_with('{') {
        return parse_target(text);
    }
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    parse_target(json["Addr"].as_str().ok_or("it has no \"Addr\"")?)
}

fn explain(what: &str, status: &Status) -> io::Error {
    io::Error::other(format!("{what}: {}", status.message()))
}

// What is needed of etcd's interface, version 3 (`etcdserverpb/rpc.proto`, `mvccpb/kv.proto`).

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    limit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchResponse {
    #[prost(bool, tag = "4")]
    canceled: bool,
    /// Only that there are some is of interest.
    #[prost(bytes = "vec", repeated, tag = "11")]
    events: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> KeyValue {
        KeyValue { key: b"bank/a".to_vec(), value: value.into() }
    }

    #[test]
    fn an_address_is_read_plain_and_as_etcds_own_naming_writes_it() {
        let plain = target(b"10.0.0.1:7\n").unwrap();
        assert_eq!(plain, target(br#"{"Op":0,"Addr":"10.0.0.1:7","Metadata":null}"#).unwrap());
    }

    #[test]
    fn what_cannot_be_understood_is_left_aside_unless_it_is_all_there_is() {
        assert_eq!(targets(&[key("a b"), key("bank.example")]).unwrap().len(), 1);
        assert!(targets(&[]).unwrap().is_empty());
        for (value, why) in [("a b", "no host name"), ("{}", "no \"Addr\""), ("{", "EOF")] {
            let error = targets(&[key(value)]).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("bank/a"), "{error}");
        }
    }

    #[test]
    fn a_range_ends_behind_all_keys_with_its_prefix() {
        assert_eq!(end_of(b"a/"), b"a0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), b"\0");
    }
}
