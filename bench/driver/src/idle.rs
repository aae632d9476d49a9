//! Connections that do nothing, and what the server holds for them.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::{ClientOptions, Idle, IdleReport, Outcome};
use crate::system::{Client, System, Target};
use crate::{Result, process};

/// Calls over the first connection before the server's memory is looked at, so that what it keeps
/// once for all connections is there.
const WARM_UP_CALLS: usize = 200;

/// Bytes of each call.
const PAYLOAD: usize = 64;

/// Opens the connections, makes a call over each, leaves them alone, and compares the server's
/// memory with what it was with one connection.
pub(crate) async fn perform<S: System>(
    system: &S,
    options: &ClientOptions,
    idle: Idle,
) -> Result<Outcome> {
    let target = |index| Target { server: options.server.clone(), index };
    let payload = Bytes::from(vec![0x5a; PAYLOAD]);
    let first = system.connect(&target(0)).await?;
    for _ in 0..WARM_UP_CALLS {
        first.echo(payload.clone()).await?;
    }
    let before = process::memory(options.server_pid)?.resident;
    let mut clients = Vec::with_capacity(idle.connections);
    for index in 1..=idle.connections {
        let client = system.connect(&target(index)).await?;
        client.echo(payload.clone()).await?;
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(idle.hold_ms)).await;
    let memory = process::memory(options.server_pid)?;
    let mut report = IdleReport {
        connections: idle.connections,
        before,
        after: memory.resident,
        peak: memory.peak,
        ..IdleReport::default()
    };
    for client in &clients {
        if let Err(error) = client.echo(payload.clone()).await {
            report.failed += 1;
            report.first_failure.get_or_insert(error.to_string());
        }
    }
    Ok(Outcome::Idle(report))
}
