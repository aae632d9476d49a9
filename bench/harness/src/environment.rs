//! Where client and server run: which processors, which network.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use link::{Faults, PathStats};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::rows::Network;

/// Where the processes of a run are started.
#[derive(Debug)]
pub(crate) struct Place {
    /// What stands in front of the command line of each.
    pub(crate) server_prefix: Vec<String>,
    pub(crate) client_prefix: Vec<String>,
    /// Where the server listens.
    pub(crate) bind: IpAddr,
    /// Taken away with the place.
    _namespace: Option<Namespace>,
    /// What lies between client and server, if it is not a loopback.
    path: Option<(Mutex<link::Path>, Faults)>,
}

impl Place {
    /// Makes the network.
    ///
    /// # Errors
    /// Why it cannot be made, in words for the user.
    pub(crate) fn make(network: Network, cores: &Cores, realtime: bool) -> Result<Self, String> {
        let mut place = Self {
            server_prefix: Vec::new(),
            client_prefix: Vec::new(),
            bind: Ipv4Addr::LOCALHOST.into(),
            _namespace: None,
            path: None,
        };
        if let Network::LoopbackMtu(mtu) = network {
            let namespace = Namespace::with_loopback(mtu)?;
            let prefix: Vec<String> =
                ["ip", "netns", "exec", &namespace.name].map(str::to_owned).into();
            (place.server_prefix, place.client_prefix) = (prefix.clone(), prefix);
            place._namespace = Some(namespace);
        }
        if let Some(faults) = network.faults() {
            let settings = link::Settings { processor: cores.spare(), ..Default::default() };
            let path = link::Path::open(settings).map_err(|why| why.to_string())?;
            place.server_prefix = path.server().prefix();
            place.client_prefix = path.client().prefix();
            place.bind = link::SERVER.into();
            place.path = Some((Mutex::new(path), faults));
        }
        if realtime {
            for prefix in [&mut place.server_prefix, &mut place.client_prefix] {
                prefix.extend(["chrt", "--rr", "1"].map(str::to_owned));
            }
        }
        Ok(place)
    }

    /// Makes everything ready for a measurement. The same repetition loses the same packets for each
    /// system.
    ///
    /// # Errors
    /// If the kernel does not have this congestion control.
    pub(crate) fn begin(
        &self,
        repetition: usize,
        congestion_control: Option<&str>,
    ) -> Result<(), String> {
        let Some((path, faults)) = &self.path else { return Ok(()) };
        let mut path = path.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = congestion_control {
            let set = path.set_congestion_control(name);
            set.map_err(|why| why.to_string())?;
        }
        path.set(*faults, *faults, repetition as u64 + 1);
        Ok(())
    }

    /// What the path does in this time, and its faults; nothing on a loopback.
    pub(crate) fn watch(&self, time: Duration) -> Option<(PathStats, Faults)> {
        let (path, faults) = self.path.as_ref()?;
        let mut path = path.lock().unwrap_or_else(PoisonError::into_inner);
        path.watch();
        std::thread::sleep(time);
        Some((path.stats(), *faults))
    }
}

/// A network namespace, removed when it is dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
}

/// What the names of our namespaces begin with; the process and the MTU follow.
const PREFIX: &str = "stubborn-bench-";

impl Namespace {
    fn with_loopback(mtu: u32) -> Result<Self, String> {
        let name = format!("{PREFIX}{}-{mtu}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        let mtu = mtu.to_string();
        ip(&["-n", &namespace.name, "link", "set", "lo", "mtu", &mtu, "up"])?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// Removes namespaces that runs have left which were interrupted.
pub(crate) fn remove_leftovers() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(process) = process else { continue };
        if !std::path::Path::new(&format!("/proc/{process}")).exists() {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|e| format!("cannot start ip (iproute2): {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("`ip {}` failed: {}", arguments.join(" "), why.trim()))
        }
    }
}

/// The processors that are used: the servers' first.
#[derive(Clone, Debug)]
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// These, or those that this process may run on, the last ones first: the first processor often
    /// has more to do. One of each physical core, as long as there are two.
    ///
    /// # Errors
    /// If there are less than two.
    pub(crate) fn choose(wanted: &[usize]) -> Result<Self, String> {
        if wanted.len() >= 2 {
            return Ok(Self(wanted.to_vec()));
        }
        if !wanted.is_empty() {
            return Err("--cores needs at least two, one for each side".into());
        }
        let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(|e| e.to_string())?;
        let mut cores: Vec<usize> =
            (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
        let physical: Vec<usize> =
            cores.iter().copied().filter(|core| first_sibling(*core) == *core).collect();
        if physical.len() >= 2 {
            cores = physical;
        }
        cores.reverse();
        match cores.len() {
            0 | 1 => Err("client and server need a processor each, and there is only one".into()),
            _ => Ok(Self(cores)),
        }
    }

    /// A processor that neither side uses, if there is one and each side has one thread.
    fn spare(&self) -> Option<usize> {
        self.0.get(2).copied()
    }

    /// Processors for a server and a client of so many threads each. Nothing if there are too few.
    pub(crate) fn split(&self, threads: usize) -> Option<(&[usize], &[usize])> {
        Some((self.0.get(..threads)?, self.0.get(threads..2 * threads)?))
    }
}

/// The first of the hardware threads that share a core with this one.
fn first_sibling(core: usize) -> usize {
    let file = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    let list = std::fs::read_to_string(file).unwrap_or_default();
    let first = list.trim().split([',', '-']).next().and_then(|first| first.parse().ok());
    first.unwrap_or(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_gets_as_many_processors_as_it_has_threads() {
        let cores = Cores::choose(&[3, 2, 1, 0]).unwrap();
        assert_eq!(cores.split(1), Some((&[3][..], &[2][..])));
        assert_eq!(cores.split(2), Some((&[3, 2][..], &[1, 0][..])));
        assert_eq!(cores.split(3), None);
        assert_eq!((cores.spare(), Cores::choose(&[1, 0]).unwrap().spare()), (Some(1), None));
        assert!(Cores::choose(&[1]).is_err());
    }
}
