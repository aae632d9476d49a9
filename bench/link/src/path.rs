//! A path: two namespaces and what is between them.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::carrier::{Carrier, Order};
use crate::faults::Faults;
use crate::namespace::{self, Namespace, Unavailable, ip};
use crate::stats::PathStats;
use crate::tun;

/// Both addresses.
const NETWORK: &str = "10.99.0.0/30";
/// The address in the client's namespace.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The address in the server's namespace.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// How a path is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// Whether the thread in between never sleeps: more precise, and takes a whole processor.
    pub busy: bool,
    /// The processor that it runs on.
    pub processor: Option<usize>,
}

impl Default for Settings {
    /// 1,500 bytes; never sleeps if there are at least four processors.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { mtu: 1_500, busy: processors >= 4, processor: None }
    }
}

/// Two namespaces, a client's and a server's, and the thread that carries packets between them.
/// Without faults at first. All of it is removed when this is dropped.
#[derive(Debug)]
pub struct Path {
    // Dropped first: no packet is carried into a namespace that goes.
    thread: Option<JoinHandle<()>>,
    orders: mpsc::Sender<Order>,
    bell: UnixStream,
    client: Namespace,
    server: Namespace,
    devices: [String; 2],
    /// Drops of the two devices when the faults were set.
    unseen_before: u64,
}

impl Path {
    /// Makes one.
    ///
    /// # Errors
    /// If this machine or this user cannot: no `ip`, no TUN devices, no right to make them.
    pub fn open(settings: Settings) -> Result<Self, Unavailable> {
        namespace::sweep();
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        let client_device = device(&client, CLIENT, settings.mtu)?;
        let server_device = device(&server, SERVER, settings.mtu)?;
        let (orders, receiver) = mpsc::channel();
        let failed = |error: io::Error| Unavailable(error.to_string());
        let (bell, ringing) = UnixStream::pair().map_err(failed)?;
        ringing.set_nonblocking(true).map_err(failed)?;
        let carrier = Carrier {
            devices: [client_device.1, server_device.1],
            orders: receiver,
            bell: ringing,
            mtu: settings.mtu.into(),
            busy: settings.busy,
        };
        let thread = std::thread::Builder::new().name("link".into()).spawn(move || {
            if let Some(processor) = settings.processor {
                let mut set = rustix::thread::CpuSet::new();
                set.set(processor);
                // Where that is refused it runs anywhere.
                let _ = rustix::thread::sched_setaffinity(None, &set);
            }
            carrier.run();
        });
        let thread = Some(thread.map_err(failed)?);
        let devices = [client_device.0, server_device.0];
        Ok(Self { thread, orders, bell, client, server, devices, unseen_before: 0 })
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The server's namespace.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// From now on packets from the client meet these faults, those from the server the others. The
    /// statistics begin anew, and packets on the way are forgotten.
    pub fn set(&mut self, forth: Faults, back: Faults, seed: u64) {
        self.order(Order::Set { forth, back, seed });
        self.unseen_before = self.dropped();
    }

    /// Begins the statistics anew and changes nothing else.
    pub fn watch(&mut self) {
        self.order(Order::Watch);
        self.unseen_before = self.dropped();
    }

    /// What has happened since the faults were set or the statistics began anew.
    pub fn stats(&mut self) -> PathStats {
        let (to, from) = mpsc::sync_channel(1);
        self.order(Order::Tell(to));
        let unseen = self.dropped().saturating_sub(self.unseen_before);
        PathStats { unseen, ..from.recv().unwrap_or_default() }
    }

    /// Chooses the congestion control of TCP on both sides, for example `cubic` or `bbr`. It goes with
    /// the route: the setting of a namespace (`net.ipv4.tcp_congestion_control`) takes only what the
    /// whole machine permits to everybody.
    ///
    /// # Errors
    /// If the kernel does not have it.
    pub fn set_congestion_control(&self, name: &str) -> Result<(), Unavailable> {
        let sides = [(&self.client, CLIENT), (&self.server, SERVER)];
        for ((namespace, address), device) in sides.into_iter().zip(&self.devices) {
            let address = address.to_string();
            let route = ["route", "replace", NETWORK, "dev", device, "proto", "kernel"];
            let with = ["scope", "link", "src", &address, "congctl", name];
            namespace.ip(&[&route[..], &with].concat()).map_err(|why| {
                Unavailable(format!("TCP has no congestion control {name} here: {why}"))
            })?;
        }
        Ok(())
    }

    fn order(&mut self, order: Order) {
        // Both fail only if the thread is gone; then `stats` says nothing and the path is dead.
        let _ = self.orders.send(order);
        let _ = self.bell.write(&[0]);
    }

    /// Packets that the two kernels dropped before the path saw them.
    fn dropped(&self) -> u64 {
        let of = |namespace: &Namespace, device: &str| -> u64 {
            let file = format!("/sys/class/net/{device}/statistics/tx_dropped");
            let output = namespace.command("cat").arg(file).output();
            let text = output.map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&text).trim().parse().unwrap_or(0)
        };
        of(&self.client, &self.devices[0]) + of(&self.server, &self.devices[1])
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes a device and puts it into a namespace.
fn device(
    namespace: &Namespace,
    address: Ipv4Addr,
    mtu: u16,
) -> Result<(String, std::fs::File), Unavailable> {
    let number = namespace.name().rsplit('-').next().unwrap_or_default();
    let name = format!("sl{}-{number}", std::process::id());
    let file = tun::open(&name).map_err(|error| {
        Unavailable(format!("cannot make a TUN device with /dev/net/tun: {error}"))
    })?;
    ip(&["link", "set", "dev", &name, "netns", namespace.name()])?;
    // Neighbour discovery would mix its packets with those that are measured.
    let _ = namespace.set("net.ipv6.conf.all.disable_ipv6", "1");
    // What one connection learnt about the path must not help the next one.
    let _ = namespace.set("net.ipv4.tcp_no_metrics_save", "1");
    let (address, mtu) = (format!("{address}/30"), mtu.to_string());
    namespace.ip(&["addr", "add", &address, "dev", &name])?;
    namespace.ip(&["link", "set", "dev", "lo", "up"])?;
    let up = ["link", "set", "dev", &name, "mtu", &mtu, "txqueuelen", "10000", "up"];
    namespace.ip(&up)?;
    Ok((name, file))
}
