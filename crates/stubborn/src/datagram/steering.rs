//! Lets the kernel give each datagram to the socket of the worker that its destination names: a
//! classic BPF program on the group of sockets (`SO_ATTACH_REUSEPORT_CBPF`, Linux 4.5).

#![expect(unsafe_code, reason = "no safe interface offers this socket option: see `attach`")]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JA, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET,
    sock_filter,
};
use stubborn_core::wire::packet::{STEERING_OFFSET_LONG, STEERING_OFFSET_SHORT};

/// The bit of a datagram's first byte that tells a long header (RFC 8999 §5.1).
const LONG_HEADER: u32 = 0x80;

/// Attaches the program to the group that `member` is in, whose sockets were bound in the order of
/// their workers.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn steer(member: &UdpSocket, workers: u32) -> io::Result<()> {
    attach(member, &program(workers))
}

/// Computes [`steering_byte`](stubborn_core::wire::packet::steering_byte) modulo `workers`. The
/// program sees the UDP payload and returns the index of a socket. What it reads past the end of a
/// short datagram makes it return 0, and so does nothing worse than to choose the first worker.
fn program(workers: u32) -> [sock_filter; 7] {
    [
        statement(BPF_LD | BPF_B | BPF_ABS, 0),
        // Long header: fall through. Short header: skip two.
        sock_filter { code: (BPF_JMP | BPF_JSET | BPF_K) as u16, jt: 0, jf: 2, k: LONG_HEADER },
        statement(BPF_LD | BPF_B | BPF_ABS, STEERING_OFFSET_LONG as u32),
        // Jump always, over the next one.
        statement(BPF_JMP | BPF_JA, 1),
        statement(BPF_LD | BPF_B | BPF_ABS, STEERING_OFFSET_SHORT as u32),
        statement(BPF_ALU | BPF_MOD | BPF_K, workers),
        statement(BPF_RET | BPF_A, 0),
    ]
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn attach(member: &UdpSocket, program: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the descriptor is open, since `member` is borrowed. The option's value is a
    // `sock_fprog` of the size that is passed; its `len` and `filter` describe the slice, which is
    // borrowed until after the call. The kernel checks and copies the program before it returns and
    // writes to neither, so that the pointer made from a shared reference is only read through.
    let result = unsafe {
        libc::setsockopt(
            member.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use stubborn_core::wire::packet::steering_byte;

    use crate::datagram::bind_group;

    /// The socket that got a datagram. Over loopback a datagram is there when its send returns.
    fn receiver(sockets: &[UdpSocket]) -> usize {
        let mut buffer = [0; 64];
        let got = |socket: &UdpSocket| socket.recv(&mut buffer).is_ok();
        let mut sockets = sockets.iter();
        let at = sockets.position(got).expect("one of them gets it");
        assert!(!sockets.any(|socket| socket.recv(&mut [0; 64]).is_ok()), "only one gets it");
        at
    }

    #[test]
    fn the_kernel_gives_each_datagram_to_the_worker_that_its_destination_names() {
        for workers in [2_usize, 3, 4] {
            let group = bind_group("127.0.0.1:0".parse().unwrap(), workers, true).unwrap();
            assert!(group.steered);
            let address = group.sockets[0].local_addr().unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            for byte in 0..=u8::MAX {
                let short = [0x40, byte, 9, 9, 9, 9, 9, 9, 9, 9, 9];
                let long = [0xc0, 9, 9, 9, 9, 8, byte, 9, 9, 9, 9, 9, 9, 9];
                for datagram in [&short[..], &long] {
                    client.send_to(datagram, address).unwrap();
                    let named = usize::from(steering_byte(datagram).unwrap()) % workers;
                    assert_eq!(receiver(&group.sockets), named);
                }
            }
        }
    }

    #[test]
    fn a_datagram_too_short_to_name_a_worker_goes_to_the_first() {
        let group = bind_group("127.0.0.1:0".parse().unwrap(), 3, true).unwrap();
        let address = group.sockets[0].local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in [&[0x40][..], &[0xc0, 0, 0, 0, 0, 8]] {
            client.send_to(datagram, address).unwrap();
            assert_eq!(receiver(&group.sockets), 0);
        }
    }
}
