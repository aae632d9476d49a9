//! The closed loop, the same for every system.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::{Load, Work};
use crate::system::Client;
use crate::{Recorder, Result};

/// How long after the time the last calls may end. On a bad path a call may take longer: then it is
/// given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the calls of this load in flight, spread over the connections, until the time is up; then
/// waits for the last ones.
pub(crate) async fn perform<C: Client>(
    clients: Vec<C>,
    load: &Load,
    recorder: Recorder,
) -> Result<Recorder> {
    let recorder = Rc::new(RefCell::new(recorder));
    let payload = Bytes::from(vec![0x5a; load.payload]);
    let clients: Vec<_> = clients.into_iter().map(Rc::new).collect();
    let callers: Vec<_> = (0..load.in_flight)
        .zip(clients.iter().cycle())
        .map(|(_, client)| {
            let caller = call(Rc::clone(client), load.work, payload.clone(), Rc::clone(&recorder));
            tokio::task::spawn_local(caller)
        })
        .collect();
    let patience = recorder.borrow().end() + PATIENCE;
    for mut caller in callers {
        match tokio::time::timeout_at(patience.into(), &mut caller).await {
            Ok(ended) => ended?,
            Err(_) => {
                caller.abort();
                let _ = caller.await;
                recorder.borrow_mut().unfinished();
            }
        }
    }
    drop(clients);
    Ok(Rc::into_inner(recorder).ok_or("a caller is still running")?.into_inner())
}

/// One call after another.
async fn call<C: Client>(
    client: Rc<C>,
    work: Work,
    payload: Bytes,
    recorder: Rc<RefCell<Recorder>>,
) {
    let mut started = Instant::now();
    while recorder.borrow().wants(started) {
        let result = client.call(work, payload.clone()).await;
        let ended = Instant::now();
        let failure = match result {
            Ok(bytes) if bytes == payload.len() => None,
            Ok(bytes) => Some(format!("{bytes} bytes came back of {}", payload.len())),
            Err(error) => Some(error.to_string()),
        };
        match failure {
            None => recorder.borrow_mut().answered(started, ended),
            Some(why) => {
                recorder.borrow_mut().failed(why);
                // Not one failure after another as fast as they come.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        started = ended;
    }
}
