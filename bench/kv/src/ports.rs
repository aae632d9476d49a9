//! Free ports of this machine.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// So many, free at this moment, for TCP and for UDP.
pub(crate) fn free(count: usize) -> Result<Vec<u16>, String> {
    let bind = || {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let udp = UdpSocket::bind(tcp.local_addr()?)?;
        Ok((tcp, udp))
    };
    let held: Result<Vec<_>, std::io::Error> = (0..count).map(|_| bind()).collect();
    let held = held.map_err(|e| format!("no free ports: {e}"))?;
    held.iter()
        .map(|(tcp, _)| tcp.local_addr().map(|a| a.port()).map_err(|e| e.to_string()))
        .collect()
}
