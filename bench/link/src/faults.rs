//! What one direction of a path does to packets, and how that is written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What one direction of a path does to packets. The default does nothing to them.
///
/// Written as `loss=5%,delay=10ms,jitter=1ms,reorder=1%,reorder-by=2ms,duplicate=1%,corrupt=0.1%,`
/// `garble=0.01%,rate=100mbit,queue=250kB`, in any order; what is left out does not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share of packets that are lost.
    pub loss: f64,
    /// Time on the way.
    pub delay: Duration,
    /// Up to this much more time on the way, evenly spread. Packets stay in order.
    pub jitter: Duration,
    /// Share of packets that are held back for [`reorder_by`](Self::reorder_by) while others pass.
    pub reorder: f64,
    /// How long these are held back.
    pub reorder_by: Duration,
    /// Share of packets that arrive twice.
    pub duplicate: f64,
    /// Share of packets in which one bit is turned over: checksums notice that.
    pub corrupt: f64,
    /// Share of packets in which two 16-bit words of what is carried change places, as faulty
    /// memory in routers does it: the checksums of IP, UDP and TCP do not notice that.
    pub garble: f64,
    /// Bits per second, IP headers included; 0 for no limit.
    pub rate: u64,
    /// Bytes that wait for the rate before packets are dropped; 0 for no limit.
    pub queue: u64,
}

impl Faults {
    /// Nothing but loss and delay.
    pub fn loss_and_delay(loss: f64, delay: Duration) -> Self {
        Self { loss, delay, ..Self::default() }
    }

    /// Whether this direction does anything to packets.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Why faults could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

impl FromStr for Faults {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| ParseError(format!("{part:?} has no value: NAME=VALUE")))?;
            match name {
                "loss" => faults.loss = share(value)?,
                "delay" => faults.delay = time(value)?,
                "jitter" => faults.jitter = time(value)?,
                "reorder" => faults.reorder = share(value)?,
                "reorder-by" => faults.reorder_by = time(value)?,
                "duplicate" => faults.duplicate = share(value)?,
                "corrupt" => faults.corrupt = share(value)?,
                "garble" => faults.garble = share(value)?,
                "rate" => faults.rate = scaled(value, &["bit", "kbit", "mbit", "gbit"])?,
                "queue" => faults.queue = scaled(value, &["B", "kB", "MB", "GB"])?,
                other => return Err(ParseError(format!("no fault is called {other:?}"))),
            }
        }
        if faults.reorder > 0.0 && faults.reorder_by.is_zero() {
            return Err(ParseError("reorder needs reorder-by=TIME".into()));
        }
        Ok(faults)
    }
}

fn share(text: &str) -> Result<f64, ParseError> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share: Option<f64> = number.parse().ok().map(|n: f64| n / unit);
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| ParseError(format!("{text:?} is no share: 5% or 0.05")))
}

fn time(text: &str) -> Result<Duration, ParseError> {
    let wrong = || ParseError(format!("{text:?} is no time: 10ms, 100us or 1s"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())?;
    Some(time).filter(|time| *time <= Duration::from_secs(3_600)).ok_or_else(wrong)
}

/// A number with one of these units, each a thousand of the one before.
fn scaled(text: &str, units: &[&str]) -> Result<u64, ParseError> {
    let wrong = || ParseError(format!("{text:?} needs a unit of {}", units.join(", ")));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = units.iter().position(|unit| *unit == &text[digits.len()..]).ok_or_else(wrong)?;
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let value = number * 1_000f64.powi(power as i32);
    if (0.0..=1e12).contains(&value) { Ok(value as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_fault_is_refused_with_a_reason() {
        for wrong in [
            "loss",
            "loss=",
            "loss=101%",
            "loss=-1",
            "loss=NaN",
            "delay=5",
            "delay=-1ms",
            "delay=infs",
            "delay=2000s0",
            "rate=100",
            "rate=-1mbit",
            "queue=5%",
            "reorder=1%",
            "speed=1",
        ] {
            assert!(wrong.parse::<Faults>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_are_read_with_their_units() {
        let read: Faults = "loss=5%, delay=10ms,jitter=500us,reorder=0.01,reorder-by=1ms,\
                            duplicate=1%,corrupt=0.1%,garble=0%,rate=100mbit,queue=250kB"
            .parse()
            .unwrap();
        let ms = Duration::from_millis;
        let expected = Faults {
            loss: 0.05,
            delay: ms(10),
            jitter: Duration::from_micros(500),
            reorder: 0.01,
            reorder_by: ms(1),
            duplicate: 0.01,
            corrupt: 0.001,
            garble: 0.0,
            rate: 100_000_000,
            queue: 250_000,
        };
        assert_eq!(read, expected);
        assert!(!"".parse::<Faults>().unwrap().any());
    }
}
