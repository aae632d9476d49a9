//! `stubborn ping ADDR`

use std::time::{Duration, Instant};

use indicatif::HumanCount;
use serde_json::{Value, json};
use stubborn::reflection::{ListServicesRequest, ReflectionClient};
use stubborn::{Connection, Fingerprint, Outcome};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, Exit};
use crate::output::{Output, Style};
use crate::remote::{self, Link, Remote, duration};
use crate::task::block_on;

/// Measure the way to a server: round-trip times of calls, loss, path MTU, certificate.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,

    /// How many probes to send.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    count: u32,

    /// The pause between probes.
    #[arg(short, long, value_name = "TIME", default_value = "200ms", value_parser = duration)]
    interval: Duration,

    /// How long to wait for the answer to a probe before it counts as lost.
    #[arg(short = 'W', long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    wait: Duration,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    block_on(async {
        remote::not_grpc(&args.remote.addr, "be pinged")?;
        let link = args.remote.connect().await?;
        let mut probes = Probes::default();
        for probe in 0..args.count {
            if probe > 0 {
                tokio::time::sleep(args.interval).await;
            }
            probes.send(&link, args.wait).await;
        }
        let report = Report::new(&link, probes);
        link.close().await;
        report.print(out)
    })
}

/// Round-trip times of the probes that were answered.
#[derive(Default)]
struct Probes {
    sent: u32,
    times: Vec<Duration>,
}

impl Probes {
    /// A read that every server answers: one without reflection says that it has no such method.
    async fn send(&mut self, link: &Link, wait: Duration) {
        let client = ReflectionClient::new(link.channel());
        self.sent += 1;
        let began = Instant::now();
        let result = client.list_services(ListServicesRequest {}).deadline(wait).await;
        let answered = match &result {
            Ok(_) => true,
            Err(error) => match error.outcome() {
                Outcome::Executed(_) => true,
                Outcome::NotExecuted(_) => error.peer().is_some() && began.elapsed() < wait,
                _ => false,
            },
        };
        if answered {
            self.times.push(began.elapsed());
        }
    }
}

struct Report {
    sent: u32,
    lost: u32,
    /// Smallest, median and largest round-trip time.
    times: Option<[Duration; 3]>,
    /// Path MTU, packets sent and packets lost, as the transport knows them.
    path: Option<(usize, u64, u64)>,
    server: Option<(Fingerprint, Option<Certificate>)>,
}

struct Certificate {
    subject: String,
    not_after: i64,
    days_left: i64,
}

impl Report {
    fn new(link: &Link, mut probes: Probes) -> Self {
        probes.times.sort_unstable();
        let times = match &probes.times[..] {
            [] => None,
            all @ [first, .., last] => Some([*first, all[all.len() / 2], *last]),
            [only] => Some([*only; 3]),
        };
        let connection = link.connection();
        let server =
            connection.and_then(Connection::server_identity).map(|(fingerprint, chain)| {
                (fingerprint, chain.first().and_then(|der| certificate(der)))
            });
        let stats = connection.and_then(Connection::stats);
        let path = stats.map(|(_, s)| (s.mtu, s.packets_sent, s.packets_lost));
        let lost = probes.sent - u32::try_from(probes.times.len()).unwrap_or(probes.sent);
        Self { sent: probes.sent, lost, times, path, server }
    }

    fn print(self, out: &Output) -> Result<(), Error> {
        let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        let mut parts = vec![format!("{} probes, {} lost", self.sent, self.lost)];
        if let Some([min, median, max]) = self.times {
            let [min, median, max] = [ms(min), ms(median), ms(max)];
            parts.push(format!("RTT min {min} / median {median} / max {max} ms"));
        }
        if let Some((mtu, ..)) = self.path {
            parts.push(format!("path MTU {}", HumanCount(mtu as u64)));
        }
        parts.push("TLS 1.3".into());
        if let Some((_, Some(certificate))) = &self.server {
            parts.push(format!("certificate {}", certificate.subject));
            parts.push(certificate.expiry());
        }
        out.line(parts.join(", "));
        if let Some((fingerprint, _)) = &self.server {
            out.line(out.paint(Style::Faint, format_args!("fingerprint {fingerprint}")));
        }
        if self.sent > 0 && self.times.is_none() {
            return Err(Error::new(Exit::Failed, "no probe was answered"));
        }
        out.json(&self.to_json());
        Ok(())
    }

    fn to_json(&self) -> Value {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let [min, median, max] = self.times.map_or([None; 3], |times| times.map(|t| Some(us(t))));
        let certificate = self.server.as_ref().and_then(|(_, certificate)| certificate.as_ref());
        json!({
            "probes": self.sent,
            "lost": self.lost,
            "rtt_min_us": min,
            "rtt_median_us": median,
            "rtt_max_us": max,
            "path_mtu": self.path.map(|(mtu, ..)| mtu),
            "packets_sent": self.path.map(|(_, sent, _)| sent),
            "packets_lost": self.path.map(|(.., lost)| lost),
            "tls": "1.3",
            "fingerprint": self.server.as_ref().map(|(fingerprint, _)| fingerprint.to_string()),
            "certificate": certificate.map(|c| json!({
                "subject": c.subject,
                "not_after_unix": c.not_after,
                "days_left": c.days_left,
            })),
        })
    }
}

impl Certificate {
    fn expiry(&self) -> String {
        match self.days_left {
            // RFC 5280 §4.1.2.5: 99991231235959Z stands for "no known end".
            days if days > 365 * 1000 => "does not expire".into(),
            1 => "expires in 1 day".into(),
            days if days >= 0 => format!("expires in {days} days"),
            days => format!("expired {} days ago", -days),
        }
    }
}

/// Reads a certificate for display. It comes from the peer: what it says is escaped.
fn certificate(der: &[u8]) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let subject: String = parsed.subject().to_string().chars().take(200).collect();
    let not_after = parsed.validity().not_after.timestamp();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = i64::try_from(now.as_secs()).ok()?;
    let days_left = (not_after - now).div_euclid(24 * 3600);
    Some(Certificate { subject: subject.escape_debug().collect(), not_after, days_left })
}
