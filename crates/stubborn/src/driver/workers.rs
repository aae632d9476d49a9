//! The workers of one server: a thread for each, with a runtime, a socket and a node of its own.

use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, OnceLock};
use std::thread;

use stubborn_core::limits::Limits;
use stubborn_core::node::{Finding, IncomingQuery, ServerConfig};
use stubborn_core::session::worker_incarnation;
use stubborn_core::transport::endpoint::Received;
use stubborn_core::transport::record::Recording;
use stubborn_core::wire::packet::steering_byte;
use tokio::sync::oneshot;

use super::mailbox::Mailbox;
use super::{Driver, NodeClock, Serving, Shared, Stage};
use crate::datagram::Socket;

/// Workers that a server can have: one byte of a connection id names them.
pub(crate) const MAX_WORKERS: usize = 256;

/// What the workers of a server know of one another.
pub(crate) struct Group {
    mailboxes: Vec<Mailbox>,
    /// Set before the first of them runs.
    nodes: OnceLock<Vec<Arc<Shared>>>,
}

/// A worker's place among the others.
pub(super) struct Member {
    group: Arc<Group>,
    index: usize,
    /// Datagrams for each of the others; empty between receives.
    strays: Vec<Vec<Received>>,
}

/// A worker that was started.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// Ends with the thread, when nothing of the worker is left.
    pub(crate) ended: oneshot::Receiver<()>,
}

/// What a worker's thread needs.
struct Plan {
    socket: UdpSocket,
    limits: Limits,
    server: Serving,
    clock: NodeClock,
    member: Member,
    recording: Recording,
}

/// Starts a worker on each socket. `limits` are those of one worker; the incarnation in `server` is
/// that of the process.
pub(crate) async fn start_workers(
    sockets: Vec<UdpSocket>,
    limits: Limits,
    server: Serving,
    recording: Recording,
) -> io::Result<(Arc<Group>, Vec<Worker>)> {
    let group = Arc::new(Group::new(sockets.len()));
    // One clock, so that a token that one of them has issued means the same to all.
    let clock = NodeClock::start();
    let (mut nodes, mut workers, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for (index, socket) in sockets.into_iter().enumerate() {
        let number = u8::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Kept sessions are of no worker.
        let incarnation = match server.keeper {
            Some(_) => server.config.incarnation,
            None => worker_incarnation(server.config.incarnation, number),
        };
        let config = ServerConfig { incarnation, ..server.config.clone() };
        let plan = Plan {
            socket,
            limits: limits.clone(),
            server: Serving { config, ..server.clone() },
            clock,
            member: Member::new(Arc::clone(&group), index),
            recording: recording.clone(),
        };
        let (report, ready) = oneshot::channel();
        let (start, begin) = oneshot::channel();
        let (alive, ended) = oneshot::channel();
        thread::Builder::new()
            .name(format!("stubborn-{index}"))
            .spawn(move || run(plan, report, begin, alive))?;
        let shared: Arc<Shared> = ready.await.map_err(io::Error::other)??;
        nodes.push(Arc::clone(&shared));
        workers.push(Worker { shared, ended });
        starts.push(start);
    }
    let _ = group.nodes.set(nodes);
    for start in starts {
        let _ = start.send(());
    }
    Ok((group, workers))
}

/// A worker's thread. `alive` is dropped last, after the runtime and all that it held.
fn run(
    plan: Plan,
    report: oneshot::Sender<io::Result<Arc<Shared>>>,
    begin: oneshot::Receiver<()>,
    alive: oneshot::Sender<()>,
) {
    let _alive = alive;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(report.send(Err(error))),
    };
    let driver = {
        let _context = runtime.enter();
        match plan.driver() {
            Ok(driver) => driver,
            Err(error) => return drop(report.send(Err(error))),
        }
    };
    let _ = report.send(Ok(Arc::clone(&driver.shared)));
    runtime.block_on(async {
        // An error means that another worker could not be started.
        if begin.await.is_ok() {
            driver.await;
        }
    });
}

impl Plan {
    fn driver(self) -> io::Result<Driver> {
        let socket = Socket::from_std(self.socket)?;
        Driver::new(
            socket,
            self.limits,
            Some(self.server),
            self.clock,
            Some(self.member),
            self.recording,
        )
    }
}

impl Group {
    fn new(workers: usize) -> Self {
        let mailboxes = std::iter::repeat_with(Mailbox::default).take(workers).collect();
        Self { mailboxes, nodes: OnceLock::new() }
    }

    /// Datagrams that reached another socket first, of each worker.
    pub(crate) fn forwarded(&self, worker: usize) -> u64 {
        self.mailboxes.get(worker).map_or(0, Mailbox::forwarded)
    }

    fn nodes(&self) -> &[Arc<Shared>] {
        self.nodes.get().map_or(&[], Vec::as_slice)
    }
}

impl Member {
    fn new(group: Arc<Group>, index: usize) -> Self {
        let strays = std::iter::repeat_with(Vec::new).take(group.mailboxes.len()).collect();
        Self { group, index, strays }
    }

    pub(super) fn number(&self) -> u8 {
        u8::try_from(self.index).expect("a server has at most 256 workers")
    }

    /// Takes those of `received` that are for others, and hands them over.
    pub(super) fn sort(&mut self, received: &mut Vec<Received>) {
        let (workers, own) = (self.strays.len(), self.index);
        let owner = |datagram: &Received| match steering_byte(&datagram.data) {
            Some(byte) => usize::from(byte) % workers,
            None => own,
        };
        let mut found = false;
        for datagram in received.extract_if(.., |datagram| owner(datagram) != own) {
            self.strays[owner(&datagram)].push(datagram);
            found = true;
        }
        if found {
            for (mailbox, strays) in self.group.mailboxes.iter().zip(&mut self.strays) {
                if !strays.is_empty() {
                    mailbox.post(strays);
                }
            }
        }
    }

    /// What others have received for this worker. Returns whether there was any.
    pub(super) fn collect(&self, waker: &std::task::Waker, received: &mut Vec<Received>) -> bool {
        self.group.mailboxes[self.index].collect(waker, received)
    }

    /// Asks the worker that keeps the session. Not to be called under this worker's own lock.
    pub(super) fn find(&self, query: &IncomingQuery) -> Finding {
        let asked = self.group.nodes().get(usize::from(query.worker()));
        let found = asked.and_then(|shared| shared.look(|state| state.node.find(query)));
        found.unwrap_or(Finding::NOTHING)
    }

    /// The worker has ended. If nobody wanted it to, the server is not whole any more: the others
    /// end as well, so that clients see what they would see of a server that has died.
    pub(super) fn ended(&self, stage: Stage) {
        if stage < Stage::Leaving {
            for other in self.group.nodes() {
                other.advance(Stage::Leaving);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::bind_group;
    use stubborn_tls::{TlsServer, self_signed};

    #[tokio::test]
    async fn a_worker_that_ends_by_itself_takes_the_server_with_it() {
        let sockets = bind_group("127.0.0.1:0".parse().unwrap(), 3, true).unwrap().sockets;
        let identity = self_signed(["localhost"]).unwrap().identity;
        let tls = Arc::new(TlsServer::builder(identity).build().unwrap());
        let config = ServerConfig { tls, incarnation: 1, group: false };
        let server = Serving { config, services: Arc::default(), keeper: None };
        let (group, workers) =
            start_workers(sockets, Limits::default(), server, Recording::default()).await.unwrap();
        let member = Member::new(group, 0);
        member.ended(Stage::Leaving);
        assert!(workers.iter().all(|worker| *worker.shared.stage.borrow() == Stage::Running));
        member.ended(Stage::Running);
        for worker in workers {
            assert!(worker.ended.await.is_err(), "its thread drops the sender");
        }
    }
}
