//! A service and its client in one process, with seeded faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stubborn::in_process::{Faults, InProcess};
use stubborn::{Call, CallState, Code, Outcome, ReplySender, Requests, Status};

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

mod semantics {
    include!("../../build/tests/golden/semantics/mod.rs");
}

use semantics::semantics::v1::*;

/// Counts; what a database would be, it outlives the server.
#[derive(Clone, Default)]
struct Handlers(Arc<AtomicU64>);

fn text(text: impl ToString) -> Text {
    Text { text: text.to_string() }
}

impl Handlers {
    fn ran(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    async fn run(&self, call: Call<Text>) -> Result<Text, Status> {
        let ran = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        match call.text.as_str() {
            "slow" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(text(ran))
            }
            "refuse" => Err(Status::failed_precondition("no")),
            "panic" => panic!("on purpose"),
            _ => Ok(text(ran)),
        }
    }
}

impl Kinds for Handlers {
    async fn plain(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn once(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn exactly(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn perhaps(&self, call: Call<Text>) -> Result<(), Status> {
        self.run(call).await.map(drop)
    }

    async fn again(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn look(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn touch(&self, _: Call<()>) -> Result<(), Status> {
        Ok(())
    }

    async fn down(&self, call: Call<Text>, mut replies: ReplySender<Text>) -> Result<(), Status> {
        for n in 0..call.text.parse().unwrap_or(0) {
            replies.send(&text(n)).await?;
        }
        Ok(())
    }

    async fn up(&self, _: Call<()>, mut requests: Requests<Text>) -> Result<Text, Status> {
        let mut count = 0;
        while requests.message().await?.is_some() {
            count += 1;
        }
        Ok(text(count))
    }

    async fn both(
        &self,
        _: Call<()>,
        mut requests: Requests<Text>,
        mut replies: ReplySender<Text>,
    ) -> Result<(), Status> {
        while let Some(message) = requests.message().await? {
            replies.send(&message).await?;
        }
        Ok(())
    }
}

fn start() -> (Handlers, InProcess, KindsClient) {
    let handlers = Handlers::default();
    let server = InProcess::new(KindsServer::new(handlers.clone()));
    let client = KindsClient::new(server.channel());
    (handlers, server, client)
}

#[tokio::test(start_paused = true)]
async fn calls_and_streams_of_every_kind_reach_their_handlers() {
    let (handlers, _server, client) = start();
    assert_eq!(client.plain(text("")).await.unwrap(), text(1));
    assert_eq!(client.look(text("")).await.unwrap(), text(2));
    let error = client.again(text("refuse")).await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::FailedPrecondition);
    let error = client.plain(text("panic")).await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::Internal);
    client.perhaps(text("")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handlers.ran(), 5);

    let mut replies = client.down(text(100)).await.unwrap();
    for n in 0..100 {
        assert_eq!(replies.message().await.unwrap(), Some(text(n)));
    }
    assert_eq!(replies.message().await.unwrap(), None);
    let mut upload = client.up().await.unwrap();
    for n in 0..100 {
        upload.send(&text(n)).await.unwrap();
    }
    let finished = upload.finish().await.unwrap();
    assert_eq!((finished.taken, finished.reply), (100, text(100)));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_leaves_a_call_pending_and_its_outcome_tells_the_rest() {
    let (_, _server, client) = start();
    let error = client.plain(text("slow")).deadline(Duration::from_secs(1)).await.unwrap_err();
    let Outcome::Pending(id) = *error.outcome() else { panic!("{error}") };
    assert!(matches!(client.plain_outcome(id).await.unwrap(), CallState::Executing));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(client.plain_outcome(id).await.unwrap(), CallState::Replied(text(1)));
    // A number that was not used never will be.
    let mut unsent = client.plain(text(""));
    let id = unsent.id().await.unwrap();
    assert!(matches!(client.plain_outcome(id).await.unwrap(), CallState::NotExecuted(_)));
    assert!(matches!(unsent.await.unwrap_err().outcome(), Outcome::NotExecuted(_)));
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_what_was_under_way_and_what_was_known() {
    let (handlers, server, client) = start();
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.plain(text("slow")).await }
    });
    let mut call = client.plain(text(""));
    let id = call.id().await.unwrap();
    call.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.restart();
    let error = slow.await.unwrap().unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost);
    assert_eq!(client.plain_outcome(id).await.unwrap(), CallState::Lost);
    client.plain(text("")).await.unwrap();
    assert_eq!(handlers.ran(), 3);
}

/// What a hundred calls were told, and how often they ran.
async fn told(seed: u64) -> (Vec<String>, u64) {
    let (handlers, server, client) = start();
    let faults =
        Faults { delay: Duration::from_millis(100), not_executed: 0.2, pending: 0.2, lost: 0.2 };
    let _server = server.faults(seed, faults);
    let (mut told, mut least, mut most) = (Vec::new(), 0, 0);
    for _ in 0..100 {
        let result = client.plain(text("")).await;
        let (sure, maybe, word) = match &result {
            Ok(_) => (1, 1, "done"),
            Err(error) => match error.outcome() {
                Outcome::NotExecuted(_) => (0, 0, "not executed"),
                Outcome::Lost => (0, 1, "lost"),
                Outcome::Pending(id) => {
                    let state = client.plain_outcome(*id).await.unwrap();
                    assert!(matches!(state, CallState::Replied(_)), "{state:?}");
                    (1, 1, "pending")
                }
                other => panic!("{other:?}"),
            },
        };
        (least, most) = (least + sure, most + maybe);
        told.push(word.to_owned());
    }
    let ran = handlers.ran();
    assert!((least..=most).contains(&ran), "{least} {ran} {most}");
    (told, ran)
}

#[tokio::test(start_paused = true)]
async fn faults_follow_from_the_seed_and_no_outcome_is_a_lie() {
    let (first, ran) = told(7).await;
    for word in ["done", "not executed", "lost", "pending"] {
        assert!(first.iter().any(|told| told == word), "{word}");
    }
    assert_eq!(told(7).await, (first.clone(), ran));
    assert_ne!(told(8).await.0, first);
}

#[tokio::test(start_paused = true)]
async fn calls_overtake_one_another_and_streams_fail_with_an_outcome() {
    let (_, server, client) = start();
    let delay = Duration::from_millis(500);
    let server = server.faults(1, Faults { delay, ..Faults::default() });
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.plain(text("")).await.unwrap().text })
        })
        .collect();
    let mut order = Vec::new();
    for call in calls {
        order.push(call.await.unwrap().parse::<u64>().unwrap());
    }
    assert!(!order.is_sorted(), "{order:?}");
    let _server = server.faults(1, Faults { lost: 1.0, ..Faults::default() });
    let mut upload = client.up().await.unwrap();
    let _ = upload.send(&text("")).await;
    assert_eq!(*upload.finish().await.unwrap_err().outcome(), Outcome::Lost);
}
