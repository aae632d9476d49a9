//! Several sockets on one address, one for each worker of a server.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::socket::bound;

/// Whether this system lets several sockets share an address.
const CAN_SHARE: bool =
    cfg!(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "nuttx"))));

/// Sockets that share an address.
pub(crate) struct SocketGroup {
    /// In the order of the workers.
    pub(crate) sockets: Vec<UdpSocket>,
    /// Whether the kernel gives each datagram to the worker that its destination names. If not, it
    /// spreads them as it likes, and the workers hand them to one another.
    pub(crate) steered: bool,
}

/// Binds `count` sockets to one address, or one where the system does not let several share it. Port
/// 0 lets the system choose one for all of them. With `steer` the kernel is asked to give each its
/// worker's datagrams.
///
/// # Errors
/// If the system refuses the address. In particular if anybody has bound it, also with another such
/// group: two servers must not take one another's datagrams.
pub(crate) fn bind_group(
    address: SocketAddr,
    count: usize,
    steer: bool,
) -> io::Result<SocketGroup> {
    if count <= 1 || !CAN_SHARE {
        let socket = bound(address, |_| Ok(()))?;
        return Ok(SocketGroup { sockets: vec![socket.into()], steered: true });
    }
    let first = bind_first(address)?;
    let address: SocketAddr = UdpSocket::from(first.try_clone()?).local_addr()?;
    let mut sockets = vec![UdpSocket::from(first)];
    for _ in 1..count {
        sockets.push(bound(address, share)?.into());
    }
    let steered = steer && steer_group(&sockets);
    Ok(SocketGroup { sockets, steered })
}

/// Linux lets a bound socket start to share, so the first one can make sure that it is alone.
#[cfg(target_os = "linux")]
fn bind_first(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = bound(address, |_| Ok(()))?;
    share(&socket)?;
    Ok(socket)
}

/// Other systems want to know before. Whoever else has the address is found out by a first socket
/// that does not share; another server may come in between, but no sooner.
#[cfg(not(target_os = "linux"))]
fn bind_first(address: SocketAddr) -> io::Result<socket2::Socket> {
    drop(bound(address, |_| Ok(()))?);
    bound(address, share)
}

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "nuttx"))))]
fn share(socket: &socket2::Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(
    unix,
    not(any(target_os = "solaris", target_os = "illumos", target_os = "nuttx"))
)))]
fn share(_: &socket2::Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A kernel that refuses the program (too old, or a sandbox) is no error: workers forward then.
#[cfg(target_os = "linux")]
fn steer_group(sockets: &[UdpSocket]) -> bool {
    let Ok(count) = u32::try_from(sockets.len()) else { return false };
    sockets.first().is_some_and(|socket| super::steering::steer(socket, count).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn steer_group(_: &[UdpSocket]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "127.0.0.1:0";

    #[test]
    fn a_second_server_cannot_join_a_group_that_has_the_address() {
        let group = bind_group(LOCAL.parse().unwrap(), 3, true).unwrap();
        let address = group.sockets[0].local_addr().unwrap();
        assert!(group.sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        for count in [1, 2] {
            let error = bind_group(address, count, true).err().expect("the address is taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_group_cannot_join_a_socket_that_has_the_address() {
        let one = bind_group(LOCAL.parse().unwrap(), 1, true).unwrap();
        let address = one.sockets[0].local_addr().unwrap();
        assert!(bind_group(address, 2, true).is_err());
    }
}
