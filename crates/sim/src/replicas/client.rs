//! A client of a group: counts and reads, one thing after another, and asks until it is answered.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stubborn_core::datagram::Datagrams;

use super::counter::Command;
use super::group::Group;
use super::wire::{Ask, Datagram};
use crate::nodes::Nodes;
use crate::world::{SimSocket, millis};

pub(super) struct Client {
    group: Group,
    socket: SimSocket,
    id: u64,
    next: u64,
    /// The replica that was asked last.
    turn: usize,
    /// Sends each question to two replicas at once.
    doubles: bool,
}

impl Client {
    pub(super) fn new(group: Group, id: u64, doubles: bool) -> Self {
        let socket = group.world.socket(&format!("client-{id}"));
        Self { group, socket, id, next: 1, turn: 0, doubles }
    }

    /// Works until nothing goes wrong any more.
    pub(super) async fn run(mut self, reads: f64, pause: u64) {
        while !self.group.lock().healed {
            if self.group.chance(reads) {
                self.read().await
            } else {
                self.count().await
            }
            let pause = Duration::from_micros(self.group.below(pause));
            self.group.world.sleep(pause).await;
        }
        self.group.lock().clients_done += 1;
    }

    /// Has the group count, once.
    pub(super) async fn count(&mut self) {
        let command = self.command();
        let operation = self.group.lock().invariants.begin();
        let value = self.ask(Ask::Count(command)).await;
        let verdict = self.group.lock().invariants.on_counted(&operation, value);
        self.group.judge(verdict);
        self.group.lock().counts.counted += 1;
    }

    async fn read(&mut self) {
        let command = self.command();
        let operation = self.group.lock().invariants.begin();
        let value = self.ask(Ask::Read(command)).await;
        let verdict = self.group.lock().invariants.on_read(&operation, value);
        self.group.judge(verdict);
    }

    fn command(&mut self) -> Command {
        let number = self.next;
        self.next += 1;
        Command { client: self.id, number }
    }

    /// Asks one replica after another, so that the leader's turn comes soon.
    async fn ask(&mut self, ask: Ask) -> u64 {
        loop {
            for _ in 0..1 + u32::from(self.doubles) {
                self.send(ask);
            }
            let patience = millis(50 + self.group.below(250));
            if let Some(value) = self.answer(ask, patience).await {
                return value;
            }
        }
    }

    fn send(&mut self, ask: Ask) {
        let nodes = self.group.nodes();
        self.turn = (self.turn + 1) % nodes.len();
        let node = nodes[self.turn];
        let Some(address) = self.group.address(node) else { return };
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.socket.poll_send_to(&mut cx, &Datagram::Ask(ask).encode(), address);
    }

    async fn answer(&self, ask: Ask, patience: Duration) -> Option<u64> {
        let mut sleep = Box::pin(self.group.world.sleep(patience));
        poll_fn(|cx| {
            while let Poll::Ready(Ok(received)) = self.socket.poll_recv_from(cx) {
                if let Some(Datagram::Answer(to, value)) = Datagram::decode(&received.data)
                    && to == ask
                {
                    return Poll::Ready(Some(value));
                }
            }
            sleep.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}
