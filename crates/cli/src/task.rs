//! Runs asynchronous commands.

use std::future::Future;
use std::time::Duration;

use crate::error::Error;
use crate::output::Output;

/// After this time of silence somebody who looks wants to know what is going on.
const SILENCE: Duration = Duration::from_secs(2);

/// Runs a command's future to its end on this thread.
///
/// # Errors
/// If the operating system gives no means for I/O, or the command fails.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot start: {e}")))?;
    runtime.block_on(future)
}

/// Waits for a server's answer, and says so if it takes long.
pub(crate) async fn answered<T>(out: &Output, answer: impl Future<Output = T>) -> T {
    told_if_long(out, "no answer yet; it is waited for: Ctrl-C gives up", answer).await
}

/// Says this if that takes long.
pub(crate) async fn told_if_long<T>(out: &Output, words: &str, it: impl Future<Output = T>) -> T {
    let mut it = std::pin::pin!(it);
    tokio::select! {
        biased;
        done = &mut it => return done,
        () = tokio::time::sleep(SILENCE) => {}
    }
    out.warn(words);
    it.await
}

/// Waits for Ctrl-C, or for being told to end.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
