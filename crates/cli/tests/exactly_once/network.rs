//! The network between the nodes, and between the clients and each node: datagrams are carried by
//! this process, so that it can cut any node off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UdpSocket;
use tokio::runtime::Handle;

/// Who is cut off, a bit for each node. Clients never are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts(Arc<AtomicU64>);

/// Where datagrams come from or go to: a node, or the clients.
pub(crate) type End = Option<usize>;

impl Cuts {
    pub(crate) fn cut_off(&self, node: usize) {
        self.0.fetch_or(1 << node, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn between(&self, ends: [End; 2]) -> bool {
        let cuts = self.0.load(Ordering::Relaxed);
        ends.into_iter().flatten().any(|node| cuts & (1 << node) != 0)
    }
}

/// Carries between one end and the node at `to` until the runtime ends. Returns the address that
/// stands for the node there.
pub(crate) fn wire(runtime: &Handle, cuts: &Cuts, ends: [End; 2], to: SocketAddr) -> SocketAddr {
    let bind = || runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
    let (front, cuts) = (Arc::new(bind()), cuts.clone());
    let address = front.local_addr().unwrap();
    runtime.spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        // A socket for each who speaks, so that answers find their way.
        let mut backs: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
        loop {
            let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
            let back = match backs.iter().find(|(known, _)| *known == from) {
                Some((_, back)) => Arc::clone(back),
                None => {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    let (front, cuts) = (Arc::clone(&front), cuts.clone());
                    tokio::spawn(carry_answers(Arc::clone(&back), front, from, cuts, ends));
                    backs.push((from, Arc::clone(&back)));
                    back
                }
            };
            if !cuts.between(ends) {
                let _ = back.send_to(&buffer[..length], to).await;
            }
        }
    });
    address
}

async fn carry_answers(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    to: SocketAddr,
    cuts: Cuts,
    ends: [End; 2],
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
        if !cuts.between(ends) {
            let _ = front.send_to(&buffer[..length], to).await;
        }
    }
}
