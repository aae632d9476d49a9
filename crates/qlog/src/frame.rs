//! Frames as JSON. Messages are shown as the streams of QUIC that they are most like: those of one
//! direction, numbered as RFC 9000 §2.1 has it.

use std::fmt::Write;
use std::time::Duration;

use stubborn_core::transport::Side;
use stubborn_core::transport::record::Packet;
use stubborn_core::wire::frame::{Ack, Frame, Frames};

use super::event::{Milliseconds, hex, hex_bytes, short, text};

/// The frames of a packet, with commas between them.
pub(super) fn frames(line: &mut String, sender: Side, packet: &Packet<'_>) {
    let frames = Frames::new(packet.frames, packet.packet_type, sender);
    // What is no frame closes the connection, and that is told.
    for (at, frame) in frames.map_while(Result::ok).enumerate() {
        line.push_str(if at == 0 { "{\"frame_type\":" } else { ",{\"frame_type\":" });
        write_frame(line, sender, &frame);
        line.push('}');
    }
}

fn write_frame(line: &mut String, sender: Side, frame: &Frame<'_>) {
    let ours = |id: u64| id * 4 + if sender.is_client() { 2 } else { 3 };
    let theirs = |id: u64| id * 4 + if sender.is_client() { 3 } else { 2 };
    let _ = match *frame {
        Frame::Padding(length) => {
            write!(line, "\"padding\",\"length\":{length},\"payload_length\":{length}")
        }
        Frame::Ping => write!(line, "\"ping\""),
        Frame::Ack(ack) => write_ack(line, &ack),
        Frame::ResetMessage { id, code, final_size } => write!(
            line,
            "\"reset_stream\",\"stream_id\":{},\"error_code\":{},\"final_size\":{final_size}",
            ours(id),
            short(code)
        ),
        Frame::StopMessage { id, code } => {
            let (id, code) = (theirs(id), short(code));
            write!(line, "\"stop_sending\",\"stream_id\":{id},\"error_code\":{code}")
        }
        Frame::Crypto { offset, data } => {
            write!(line, "\"crypto\",\"offset\":{offset},\"length\":{}", data.len())
        }
        Frame::Message(m) => write!(
            line,
            "\"stream\",\"stream_id\":{},\"offset\":{},\"length\":{},\"fin\":{}",
            ours(m.id),
            m.offset,
            m.data.len(),
            m.end
        ),
        Frame::MaxData(maximum) => write!(line, "\"max_data\",\"maximum\":{maximum}"),
        Frame::MaxMessageData { id, limit } => {
            write!(line, "\"max_stream_data\",\"stream_id\":{},\"maximum\":{limit}", theirs(id))
        }
        Frame::MaxMessages(maximum) => {
            write!(line, "\"max_streams\",\"stream_type\":\"unidirectional\",\"maximum\":{maximum}")
        }
        Frame::DataBlocked(limit) => write!(line, "\"data_blocked\",\"limit\":{limit}"),
        Frame::MessagesBlocked(limit) => {
            write!(line, "\"streams_blocked\",\"stream_type\":\"unidirectional\",\"limit\":{limit}")
        }
        Frame::NewConnectionId(new) => {
            let _ = write!(
                line,
                "\"new_connection_id\",\"sequence_number\":{},\"retire_prior_to\":{},\
                 \"connection_id_length\":{},\"connection_id\":\"",
                short(new.sequence),
                short(new.retire_prior_to),
                new.id.len()
            );
            hex(line, &new.id);
            write!(line, "\"")
        }
        Frame::RetireConnectionId(sequence) => {
            let sequence = short(sequence);
            write!(line, "\"retire_connection_id\",\"sequence_number\":{sequence}")
        }
        Frame::PathChallenge(data) => challenge(line, "path_challenge", data),
        Frame::PathResponse(data) => challenge(line, "path_response", data),
        Frame::ConnectionClose { code, reason, .. } => close(line, "transport", code, reason),
        Frame::ApplicationClose { code, reason } => close(line, "application", code, reason),
        Frame::HandshakeDone => write!(line, "\"handshake_done\""),
        Frame::Datagram(data) => write!(line, "\"datagram\",\"length\":{}", data.len()),
    };
}

fn write_ack(line: &mut String, ack: &Ack<'_>) -> std::fmt::Result {
    let delay = Milliseconds(Duration::from_micros(ack.delay));
    write!(line, "\"ack\",\"ack_delay\":{delay},\"acked_ranges\":[")?;
    for (at, range) in ack.ranges().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(line, "{comma}[{},{}]", range.start, range.end - 1)?;
    }
    line.push(']');
    match ack.ecn {
        Some(ecn) => write!(line, ",\"ect0\":{},\"ect1\":{},\"ce\":{}", ecn.ect0, ecn.ect1, ecn.ce),
        None => Ok(()),
    }
}

fn challenge(line: &mut String, name: &str, data: [u8; 8]) -> std::fmt::Result {
    write!(line, "\"{name}\",\"data\":\"")?;
    hex_bytes(line, &data);
    write!(line, "\"")
}

fn close(line: &mut String, space: &str, code: u64, reason: &[u8]) -> std::fmt::Result {
    let code = short(code);
    write!(
        line,
        "\"connection_close\",\"error_space\":\"{space}\",\"error_code\":{code},\"reason\":"
    )?;
    text(line, &String::from_utf8_lossy(reason));
    Ok(())
}
