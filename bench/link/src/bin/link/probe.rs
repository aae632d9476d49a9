//! `link probe`: how precise the path itself is on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use link::{Faults, Path, SERVER, Settings};

use crate::Result;

/// Measure the path itself: round-trip time and jitter of bare datagrams without faults and with
/// delays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Datagrams for each delay.
    #[arg(long, default_value_t = 5_000)]
    count: u32,

    /// Sends datagrams from the client's side; `link probe` starts it.
    #[arg(long, hide = true)]
    from_inside: bool,

    /// Answers datagrams on the server's side; `link probe` starts it.
    #[arg(long, hide = true)]
    answer: bool,
}

const PORT: u16 = 7_000;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &Args) -> Result {
    let address = SocketAddr::from((SERVER, PORT));
    if args.answer {
        return answer(address);
    }
    if args.from_inside {
        return ping(address, args.count);
    }
    let mut path = Path::open(Settings::default())?;
    let own = std::env::current_exe()?;
    let mut server = path.server().command(&own);
    let mut server = server.args(["probe", "--answer"]).stdout(Stdio::piped()).spawn()?;
    wait_for_a_line(&mut server)?;
    println!("one-way delay: answers, round trip of a datagram in µs; how late the path was in µs");
    for micros in [0, 100, 1_000, 10_000] {
        let faults = Faults::loss_and_delay(0.0, Duration::from_micros(micros));
        path.set(faults, faults, 1);
        // About two seconds at most.
        let fits = (2_000_000 / (2 * micros + 100)) as u32;
        let count = args.count.min(fits).to_string();
        let mut client = path.client().command(&own);
        let output = client.args(["probe", "--from-inside", "--count", &count]).output()?;
        let late = path.stats();
        let us = |d: Duration| d.as_nanos() as f64 / 1e3;
        println!(
            "{:>7} ms: {:<52} p50 {:.1}  p99 {:.1}  max {:.0}",
            micros as f64 / 1e3,
            String::from_utf8_lossy(&output.stdout).trim(),
            us(late.late_p50),
            us(late.late_p99),
            us(late.late_max)
        );
    }
    server.kill()?;
    server.wait()?;
    Ok(())
}

fn wait_for_a_line(child: &mut Child) -> Result {
    let output = child.stdout.take().ok_or("the server has no output")?;
    BufReader::new(output).read_line(&mut String::new())?;
    Ok(())
}

fn answer(address: SocketAddr) -> Result {
    let socket = UdpSocket::bind(address)?;
    println!("listening");
    std::io::stdout().flush()?;
    let mut buffer = [0; 2_048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

fn ping(address: SocketAddr, count: u32) -> Result {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut times = Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3)?;
    let mut reply = [0; 64];
    for number in 0..count {
        let datagram = [number.to_be_bytes(); 16].concat();
        let start = Instant::now();
        socket.send(&datagram)?;
        // An answer that came too late belongs to a datagram before.
        while socket.recv(&mut reply).is_ok() {
            if reply[..] == datagram[..] {
                times.record(start.elapsed().as_nanos() as u64)?;
                break;
            }
        }
    }
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
    println!("{} p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  max {:.0}", times.len(), at(1.0));
    Ok(())
}
