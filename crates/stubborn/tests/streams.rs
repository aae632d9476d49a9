//! Streams from generated client to generated server, over UDP on the loopback.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::soon;
use stubborn::{
    Call, Code, Identity, Outcome, ReplySender, Requests, Server, ServerHandle, Status,
};
use tokio::sync::Notify;

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

mod semantics {
    include!("../../build/tests/golden/semantics/mod.rs");
}

use semantics::semantics::v1::*;

/// What the handlers have seen.
#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    bytes: AtomicU64,
    stopped: Notify,
}

#[derive(Default)]
struct Handlers(Arc<Seen>);

/// Tells when a handler is dropped.
struct Stopped(Arc<Seen>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.stopped.notify_one();
    }
}

impl Handlers {
    fn note(&self, text: &Text) {
        self.0.messages.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(text.text.len() as u64, Ordering::Relaxed);
    }
}

/// Message number `n`.
fn text(n: u64) -> Text {
    Text { text: n.to_string() }
}

impl Kinds for Handlers {
    async fn plain(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn once(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn exactly(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn perhaps(&self, _: Call<Text>) -> Result<(), Status> {
        Ok(())
    }

    async fn again(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn look(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn touch(&self, _: Call<()>) -> Result<(), Status> {
        Ok(())
    }

    /// Sends as many messages as the request says; without end if it says nothing.
    async fn down(&self, call: Call<Text>, mut replies: ReplySender<Text>) -> Result<(), Status> {
        let _stopped = Stopped(Arc::clone(&self.0));
        let count = call.text.parse().unwrap_or(u64::MAX);
        for n in 0..count {
            replies.send(&text(n)).await?;
            self.0.messages.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes all messages; refuses from the one that says so on.
    async fn up(&self, _: Call<()>, mut requests: Requests<Text>) -> Result<Text, Status> {
        let _stopped = Stopped(Arc::clone(&self.0));
        while let Some(message) = requests.message().await? {
            self.note(&message);
            if message.text == "stop" {
                return Err(Status::failed_precondition("stopped"));
            }
        }
        Ok(text(self.0.messages.load(Ordering::Relaxed)))
    }

    /// Sends every message back.
    async fn both(
        &self,
        _: Call<()>,
        mut requests: Requests<Text>,
        mut replies: ReplySender<Text>,
    ) -> Result<(), Status> {
        while let Some(message) = requests.message().await? {
            self.note(&message);
            replies.send(&message).await?;
        }
        Ok(())
    }
}

async fn start() -> (ServerHandle, KindsClient, Arc<Seen>) {
    let identity = Identity::self_signed(["localhost"]).unwrap();
    let seen = Arc::<Seen>::default();
    let server = Server::bind("127.0.0.1:0")
        .identity(identity.clone())
        .service(KindsServer::new(Handlers(Arc::clone(&seen))))
        .start()
        .await
        .unwrap();
    let pin = identity.fingerprint().unwrap();
    let address = format!("stubborn://{}?pin={pin}", server.local_addr());
    let client = KindsClient::connect(&address).await.unwrap();
    (server, client, seen)
}

#[tokio::test]
async fn replies_come_in_order_and_end() {
    let (_server, client, _) = start().await;
    let mut replies = client.down(text(10_000)).await.unwrap();
    for n in 0..10_000 {
        assert_eq!(soon(replies.message()).await.unwrap(), Some(text(n)));
    }
    assert_eq!(soon(replies.message()).await.unwrap(), None);
    assert_eq!(soon(replies.message()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_and_answered_on_several_threads() {
    let (_server, client, _) = start().await;
    let mut upload = client.up().await.unwrap();
    for n in 0..10_000 {
        soon(upload.send(&text(n))).await.unwrap();
    }
    let finished = soon(upload.finish()).await.unwrap();
    assert_eq!((finished.taken, finished.reply), (10_000, text(10_000)));
}

#[tokio::test]
async fn a_handler_that_refuses_says_how_many_messages_it_took() {
    let (_server, client, _) = start().await;
    let mut upload = client.up().await.unwrap();
    upload.send(&text(1)).await.unwrap();
    upload.send(&Text { text: "stop".into() }).await.unwrap();
    let error = soon(upload.finish()).await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::FailedPrecondition);
    assert_eq!(error.taken(), Some(2));
}

#[tokio::test]
async fn both_sides_talk_in_turns_and_from_two_tasks() {
    let (_server, client, _) = start().await;
    let mut talk = client.both().await.unwrap();
    for n in 0..100 {
        soon(talk.send(&text(n))).await.unwrap();
        assert_eq!(soon(talk.message()).await.unwrap(), Some(text(n)));
    }
    let (mut requests, mut replies) = talk.split();
    let sender = tokio::spawn(async move {
        for n in 100..5_000 {
            requests.send(&text(n)).await.unwrap();
        }
        requests.end();
    });
    for n in 100..5_000 {
        assert_eq!(soon(replies.message()).await.unwrap(), Some(text(n)));
    }
    assert_eq!(soon(replies.message()).await.unwrap(), None);
    sender.await.unwrap();
}

#[tokio::test]
async fn dropping_the_replies_stops_the_handler() {
    let (_server, client, seen) = start().await;
    let mut replies = client.down(Text::default()).await.unwrap();
    assert_eq!(soon(replies.message()).await.unwrap(), Some(text(0)));
    drop(replies);
    soon(seen.stopped.notified()).await;
}

#[tokio::test]
async fn dropping_an_unfinished_upload_stops_the_handler() {
    let (_server, client, seen) = start().await;
    let mut upload = client.up().await.unwrap();
    for n in 0..2 {
        upload.send(&text(n)).await.unwrap();
    }
    soon(async {
        while seen.messages.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(upload);
    soon(seen.stopped.notified()).await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let (_server, client, seen) = start().await;
    let mut upload = client.up().deadline(Duration::from_secs(2)).await.unwrap();
    upload.send(&text(1)).await.unwrap();
    soon(seen.stopped.notified()).await;
    let error = soon(upload.finish()).await.unwrap_err();
    assert_eq!(error.status().map(Status::code), Some(Code::DeadlineExceeded), "{error}");
    assert_eq!(error.taken(), Some(1));
}

#[tokio::test]
async fn a_stream_to_a_dead_server_is_not_executed_or_lost() {
    let (server, client, _) = start().await;
    let mut upload = client.up().await.unwrap();
    upload.send(&text(1)).await.unwrap();
    server.kill().await;
    let error = soon(async {
        let replies = client.down(text(1)).deadline(Duration::from_millis(300)).await;
        replies.unwrap().message().await.unwrap_err()
    });
    let error = error.await;
    assert!(
        matches!(error.outcome(), Outcome::NotExecuted(_) | Outcome::Pending(_) | Outcome::Lost),
        "{error}"
    );
}

/// How much passes: `STUBBORN_STREAM_BYTES` says otherwise, for example 10737418240.
fn large() -> u64 {
    std::env::var("STUBBORN_STREAM_BYTES").map_or(256 << 20, |bytes| bytes.parse().unwrap())
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_stream_passes_both_ways_through_bounded_memory() {
    let (_server, client, seen) = start().await;
    let chunk = Text { text: "x".repeat(64 << 10) };
    let count = large() / chunk.text.len() as u64;
    let before = peak_memory();
    let began = std::time::Instant::now();
    let (mut requests, mut replies) = client.both().await.unwrap().split();
    let sender = {
        let chunk = chunk.clone();
        tokio::spawn(async move {
            for _ in 0..count {
                requests.send(&chunk).await.unwrap();
            }
            requests.end();
        })
    };
    let mut came = 0;
    while let Some(message) = replies.message().await.unwrap() {
        assert_eq!(message.text.len(), chunk.text.len());
        came += 1;
    }
    sender.await.unwrap();
    assert_eq!((came, seen.messages.load(Ordering::Relaxed)), (count, count));
    assert_eq!(seen.bytes.load(Ordering::Relaxed), count * chunk.text.len() as u64);
    let grown = peak_memory().zip(before).map(|(now, before)| now - before);
    println!("{} MiB each way in {:?}, memory {grown:?}", large() >> 20, began.elapsed());
    if let Some(grown) = grown {
        assert!(grown < 128 << 20, "{grown} bytes of memory");
    }
}
