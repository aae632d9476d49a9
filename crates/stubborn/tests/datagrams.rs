//! Plain datagrams against sockets of this crate and programs written by others.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stubborn::datagram::{DatagramError, Datagrams, DatagramsExt, UdpEndpoint};

const LIMIT: Duration = Duration::from_secs(10);

fn loopback() -> UdpEndpoint {
    UdpEndpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn receive(endpoint: &UdpEndpoint) -> (SocketAddr, Vec<u8>) {
    let datagram = tokio::time::timeout(LIMIT, endpoint.recv_from()).await.unwrap().unwrap();
    (datagram.from, datagram.data.to_vec())
}

#[tokio::test]
async fn datagrams_of_every_size_keep_their_bounds() {
    let (a, b) = (loopback(), loopback());
    for size in [0, 1, 1200, 1200, 1472, 9000, 65_507] {
        let sent = vec![size as u8; size];
        a.send_to(&sent, b.local_addr()).await.unwrap();
        assert_eq!(receive(&b).await, (a.local_addr(), sent));
    }
}

#[tokio::test]
async fn a_burst_that_the_kernel_joins_is_taken_apart_again() {
    let (a, b) = (loopback(), loopback());
    for n in 0..50u8 {
        a.send_to(&[n; 100], b.local_addr()).await.unwrap();
    }
    for n in 0..50u8 {
        assert_eq!(receive(&b).await.1, [n; 100]);
    }
}

#[tokio::test]
async fn one_that_no_network_carries_is_refused_with_its_size() {
    let (a, b) = (loopback(), loopback());
    let error = a.send_to(&vec![0; 65_508], b.local_addr()).await.unwrap_err();
    assert_eq!(error, DatagramError::TooLarge(65_508));
}

#[tokio::test]
async fn nobody_is_told_that_no_one_listens() {
    let a = loopback();
    let gone = loopback().local_addr();
    for _ in 0..3 {
        a.send_to(b"lost", gone).await.unwrap();
    }
    let b = loopback();
    a.send_to(b"kept", b.local_addr()).await.unwrap();
    assert_eq!(receive(&b).await.1, b"kept");
}

#[tokio::test]
async fn one_socket_reaches_ipv4_and_shows_ipv4_addresses() {
    let any = UdpEndpoint::bind_any().unwrap();
    let b = loopback();
    any.send_to(b"ping", b.local_addr()).await.unwrap();
    let (from, _) = receive(&b).await;
    assert_eq!(from.port(), any.local_addr().port());
    b.send_to(b"pong", from).await.unwrap();
    assert_eq!(receive(&any).await, (b.local_addr(), b"pong".to_vec()));
}

#[tokio::test]
async fn the_standard_librarys_socket_understands_it_and_is_understood() {
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    plain.set_read_timeout(Some(LIMIT)).unwrap();
    let ours = loopback();
    ours.send_to(b"to std", plain.local_addr().unwrap()).await.unwrap();
    let mut buffer = [0; 64];
    let (size, from) = plain.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..size], from), (&b"to std"[..], ours.local_addr()));
    plain.send_to(b"from std", from).unwrap();
    assert_eq!(receive(&ours).await.1, b"from std");
}

/// Ends the process, and only that one, when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn pythons_socket_understands_it_and_is_understood() {
    const ECHO: &str = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.bind(('127.0.0.1', 0))\n\
        print(s.getsockname()[1], flush=True)\n\
        while True:\n    data, peer = s.recvfrom(65536)\n    s.sendto(data.upper(), peer)\n";
    let started = Command::new("python3").args(["-c", ECHO]).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        println!("skipped: there is no python3 on this machine");
        return;
    };
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let _python = Running(child);
    let to: SocketAddr = ([127, 0, 0, 1], port.trim().parse().unwrap()).into();
    let ours = loopback();
    ours.send_to(b"shout", to).await.unwrap();
    assert_eq!(receive(&ours).await, (to, b"SHOUT".to_vec()));
}

#[tokio::test]
async fn netcat_understands_it_and_is_understood() {
    let ours = loopback();
    let port = ours.local_addr().port().to_string();
    let started = ["nc", "ncat"].iter().find_map(|program| {
        Command::new(program)
            .args(["-u", "127.0.0.1", &port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()
    });
    let Some(mut child) = started else {
        println!("skipped: there is no nc or ncat on this machine");
        return;
    };
    child.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let _netcat = Running(child);
    let (from, data) = receive(&ours).await;
    assert_eq!(data, b"hello\n");
    ours.send_to(b"world\n", from).await.unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "world\n");
}
