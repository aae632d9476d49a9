//! The network between the nodes, and between the clients and each node: datagrams are carried by
//! this process, on a wire for each way, so that it can cut any of them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::runtime::Handle;

/// Where datagrams come from or go to: a node, or the clients.
pub(crate) type End = Option<usize>;

/// All the wires.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network(Arc<Mutex<Vec<Arc<Wire>>>>);

/// Carries from the users of one end to the other, and what is answered back.
#[derive(Debug)]
struct Wire {
    ends: [End; 2],
    cut: AtomicBool,
    /// Datagrams that were carried there and back, and those that were lost to a cut.
    there: AtomicU64,
    back: AtomicU64,
    lost: AtomicU64,
}

impl Network {
    /// Carries between one end and the node at `to` until the runtime ends; answers go to whoever
    /// has asked. Returns the address that stands for the node there.
    pub(crate) fn wire(&self, runtime: &Handle, ends: [End; 2], to: SocketAddr) -> SocketAddr {
        let front = Arc::new(runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap());
        let address = front.local_addr().unwrap();
        let count = AtomicU64::default;
        let cut = AtomicBool::new(false);
        let wire = Arc::new(Wire { ends, cut, there: count(), back: count(), lost: count() });
        self.0.lock().unwrap().push(Arc::clone(&wire));
        runtime.spawn(wire.carry(front, to));
        address
    }

    /// Cuts every wire of a node, those of clients included.
    pub(crate) fn cut_off(&self, node: usize) {
        self.cut(|ends| ends.contains(&Some(node)));
    }

    /// Cuts the wires between two nodes, both ways.
    pub(crate) fn cut_between(&self, a: usize, b: usize) {
        self.cut(|ends| ends.contains(&Some(a)) && ends.contains(&Some(b)));
    }

    /// Whether every pair of nodes that is cut has tried to speak.
    pub(crate) fn cuts_are_felt(&self) -> bool {
        let wires = self.0.lock().unwrap();
        let is_cut = |wire: &&Arc<Wire>| wire.cut.load(Ordering::Relaxed);
        wires.iter().filter(is_cut).all(|wire| {
            let same_pair = |other: &&Arc<Wire>| wire.ends.iter().all(|e| other.ends.contains(e));
            let mut pair = wires.iter().filter(same_pair);
            pair.any(|wire| wire.lost.load(Ordering::Relaxed) > 0)
        })
    }

    fn cut(&self, is_meant: impl Fn(&[End; 2]) -> bool) {
        let wires = self.0.lock().unwrap();
        let meant = wires.iter().filter(|wire| is_meant(&wire.ends));
        meant.for_each(|wire| wire.cut.store(true, Ordering::Relaxed));
    }

    /// Nothing is cut any more.
    pub(crate) fn heal(&self) {
        let wires = self.0.lock().unwrap();
        wires.iter().for_each(|wire| wire.cut.store(false, Ordering::Relaxed));
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |end: End| end.map_or("clients".into(), |node| format!("node {}", node + 1));
        for wire in self.0.lock().unwrap().iter() {
            let [from, to] = wire.ends.map(name);
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let (there, back, lost) = (count(&wire.there), count(&wire.back), count(&wire.lost));
            let cut = if wire.cut.load(Ordering::Relaxed) { ", cut" } else { "" };
            writeln!(f, "  {from} -> {to}: {there} there, {back} back, {lost} lost{cut}")?;
        }
        Ok(())
    }
}

impl Wire {
    async fn carry(self: Arc<Self>, front: Arc<UdpSocket>, to: SocketAddr) {
        let mut buffer = vec![0; 1 << 16];
        // A socket for each who speaks, so that answers find their way.
        let mut backs: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
        loop {
            let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
            let back = match backs.iter().find(|(known, _)| *known == from) {
                Some((_, back)) => Arc::clone(back),
                None => {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    let wire = Arc::clone(&self);
                    tokio::spawn(wire.carry_answers(Arc::clone(&back), Arc::clone(&front), from));
                    backs.push((from, Arc::clone(&back)));
                    back
                }
            };
            self.pass(&back, to, &buffer[..length], &self.there).await;
        }
    }

    async fn carry_answers(
        self: Arc<Self>,
        back: Arc<UdpSocket>,
        front: Arc<UdpSocket>,
        to: SocketAddr,
    ) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
            self.pass(&front, to, &buffer[..length], &self.back).await;
        }
    }

    async fn pass(&self, by: &UdpSocket, to: SocketAddr, datagram: &[u8], passed: &AtomicU64) {
        if self.cut.load(Ordering::Relaxed) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            passed.fetch_add(1, Ordering::Relaxed);
            let _ = by.send_to(datagram, to).await;
        }
    }
}
