//! `stubborn pcap IN OUT`

mod capture;
mod network;
mod opened;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use serde_json::json;
use stubborn::capture::{CapturedPacket, Opener};
use stubborn::security::KEY_LOG_VARIABLE;

use crate::error::Error;
use crate::output::Output;

/// What Wireshark is given.
const DISSECTOR: &str = include_str!("../../../../../packaging/wireshark/stubborn.lua");

/// Open the packets of a capture, for Wireshark and tshark.
///
/// Reads a pcap or pcapng file and the keys of its connections, and writes a pcapng file with the
/// packets of Stubborn without their encryption, which the dissector that --dissector prints shows to
/// the end. A connection is opened if its first packets are in the capture.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    /// The capture, for example of `tcpdump -i any -w IN udp`.
    #[arg(value_name = "IN", required_unless_present = "dissector")]
    input: Option<PathBuf>,

    /// Where to write the opened packets.
    #[arg(value_name = "OUT", required_unless_present = "dissector")]
    output: Option<PathBuf>,

    /// The file with the keys; without it $SSLKEYLOGFILE.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,

    /// Print the dissector, a Lua script for Wireshark's folder of plugins, and do nothing.
    #[arg(long)]
    dissector: bool,
}

/// What was in a capture.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    datagrams: u64,
    others: u64,
    opened: u64,
    sealed: u64,
    /// Put together of several packets.
    messages: u64,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let (Some(input), Some(output), false) = (&args.input, &args.output, args.dissector) else {
        out.print(DISSECTOR);
        return Ok(());
    };
    let keys = args.keys.or_else(|| std::env::var_os(KEY_LOG_VARIABLE).map(PathBuf::from));
    let keys = keys.ok_or_else(|| {
        Error::usage("no keys are named").with_hint(format!(
            "set {KEY_LOG_VARIABLE}=FILE for one end of the connections while they are captured, and \
             name that file here with --keys FILE"
        ))
    })?;
    let text = std::fs::read(&keys).map_err(|error| unreadable(&keys, &error))?;
    let mut opener = Opener::new(&String::from_utf8_lossy(&text));
    let source = File::open(input).map_err(|error| unreadable(input, &error))?;
    let mut frames =
        capture::Reader::new(BufReader::new(source)).map_err(|error| unreadable(input, &error))?;
    let failed = |error| Error::io("write", output, &error);
    let target = BufWriter::new(File::create(output).map_err(failed)?);
    let mut writer = opened::Writer::new(target).map_err(failed)?;
    let mut counts = Counts::default();
    loop {
        let frame = match frames.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            // What came before is of use: captures end as their program was killed.
            Err(error) => {
                out.warn(format_args!("{} ends in the middle: {error}", input.display()));
                break;
            }
        };
        let Some(datagram) = network::datagram(frame.link, &frame.bytes) else {
            counts.others += 1;
            continue;
        };
        let packets = opener.datagram(datagram.payload);
        if packets.is_empty() {
            counts.others += 1;
            continue;
        }
        counts.datagrams += 1;
        for packet in &packets {
            match packet {
                CapturedPacket::Sealed(_) => counts.sealed += 1,
                CapturedPacket::Opened(packet) => {
                    counts.opened += 1;
                    counts.messages += packet.messages.len() as u64;
                }
            }
        }
        writer.write(frame.nanos, &datagram, &packets).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    tell(&counts, opener.connections(), output, out);
    Ok(())
}

fn tell(counts: &Counts, connections: usize, output: &Path, out: &Output) {
    let Counts { datagrams, others, opened, sealed, messages } = *counts;
    out.line(format_args!(
        "{datagrams} datagrams of {connections} connections: {opened} packets opened, {sealed} not; \
         {messages} messages put together; {others} frames of others left out"
    ));
    out.line(format_args!("look at them with: wireshark {}", output.display()));
    if sealed > opened {
        out.warn(
            "most packets stay closed: are these the keys of one end, and is the beginning of \
                  the connections in the capture?",
        );
    }
    out.json(&json!({
        "datagrams": datagrams, "connections": connections, "opened": opened, "sealed": sealed,
        "messages": messages, "others": others, "output": output.display().to_string(),
    }));
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::usage(format!("cannot read {}: {error}", path.display()))
}
