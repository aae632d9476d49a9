//! The message layer of `stubborn_core::transport`: sequences of operations against a peer that does
//! as it likes.

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::transport::receive::{Chunk, Inbox, MessageId, SentFrame};
use stubborn_core::transport::send::{Credit, Outbox};
use stubborn_core::wire::frame::{Frame, Frames};
use stubborn_core::wire::{PacketType, Side};

/// Takes operands off the input.
struct Input<'a>(std::slice::Iter<'a, u8>);

impl Input<'_> {
    fn byte(&mut self) -> Option<u64> {
        self.0.next().map(|byte| u64::from(*byte))
    }

    /// Mostly small numbers, some huge.
    fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            small @ 0..224 => small,
            shift => (self.byte()? + 1) << ((shift - 224) * 2) & ((1 << 62) - 1),
        })
    }
}

/// The byte at an offset, of every message: what is read must be it, whatever came in which order.
fn pattern(offset: u64) -> u8 {
    (offset ^ (offset >> 8)) as u8
}

/// A receiver, its reader, and a sender that breaks rules.
pub fn fuzz_inbox(data: &[u8]) {
    let mut input = Input(data.iter());
    let _ = inbox(&mut input);
}

fn inbox(input: &mut Input<'_>) -> Option<()> {
    let receive_window = 1 + input.number()?.min(1 << 20);
    let open_messages = 1 + input.byte()?;
    let limits = Limits { receive_window, open_messages, ..Limits::default() };
    let mut inbox = Inbox::new(&limits);
    let mut read = vec![0u64; 1 << 12];
    let (mut buf, mut record, mut accepted) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let outcome = match input.byte()? {
            0..140 => {
                let (id, offset, length, fin) =
                    (input.number()?, input.number()?, input.byte()?, input.byte()?);
                let data: Bytes = (0..length).map(|n| pattern(offset.wrapping_add(n))).collect();
                inbox.on_message(id, offset, data, fin < 40)
            }
            140..160 => inbox.on_reset(input.number()?, input.number()?, input.number()?),
            160..170 => {
                inbox.stop(MessageId(input.number()?), 7);
                Ok(())
            }
            170..220 => {
                while let Some(id) = inbox.accept() {
                    accepted.push(id);
                }
                let id = *accepted.get(input.byte()? as usize).unwrap_or(&MessageId(0));
                if let Chunk::Data { data, end } = inbox.read(id) {
                    assert!(end || !data.is_empty());
                    if let Some(at) = read.get_mut(id.0 as usize) {
                        assert!(data.iter().zip(*at..).all(|(byte, at)| *byte == pattern(at)));
                        *at += data.len() as u64;
                    }
                }
                Ok(())
            }
            220..240 => {
                let pending = inbox.has_pending();
                buf.clear();
                inbox.write(&mut buf, 64, &mut record);
                assert_eq!(pending, !buf.is_empty());
                Ok(())
            }
            _ => {
                let lost = record.get(input.byte()? as usize).copied();
                lost.iter().for_each(|frame: &SentFrame| inbox.on_lost(frame));
                Ok(())
            }
        };
        // An error closes the connection.
        outcome.ok()?;
        assert!(inbox.bytes_waiting() <= receive_window);
        assert!(inbox.open() as u64 <= open_messages);
    }
}

/// A sender, its user, and a receiver that says what it likes.
pub fn fuzz_outbox(data: &[u8]) {
    let mut input = Input(data.iter());
    let _ = outbox(&mut input);
}

fn outbox(input: &mut Input<'_>) -> Option<()> {
    static BODY: [u8; 4096] = [9; 4096];
    let send_window = 1 + input.number()?;
    let limits = Limits { send_window, queued_messages: 64, ..Limits::default() };
    let mut outbox = Outbox::new(&limits);
    let (mut record, mut credit) = (Vec::new(), Credit::default());
    loop {
        match input.byte()? {
            0..60 => {
                let (head, body) = (input.byte()? as usize, input.byte()? as usize * 16);
                let (head, body) = (BODY.get(..head)?, BODY.get(..body)?);
                let _ = outbox.queue(Bytes::from_static(head), Bytes::from_static(body));
            }
            60..120 => {
                let room = input.number()?.min(2000) as usize;
                let (mut buf, pending) = (Vec::new(), outbox.has_pending());
                outbox.write(&mut buf, room, &mut record);
                assert!(buf.len() <= room && (room < 64 || pending != buf.is_empty()));
                check(&buf, &credit);
            }
            120..160 => {
                let frame: SentFrame = *record.get(input.byte()? as usize)?;
                outbox.on_acked(&frame);
            }
            160..190 => {
                let frame = *record.get(input.byte()? as usize)?;
                outbox.on_lost(&frame);
            }
            190..200 => {
                let more = Credit {
                    data: input.number()?,
                    message_data: input.number()?,
                    messages: input.number()?,
                };
                outbox.on_peer_credit(more);
                credit.messages = credit.messages.max(more.messages);
            }
            200..210 => outbox.on_max_data(input.number()?),
            210..220 => drop(outbox.on_max_message_data(input.number()?, input.number()?)),
            220..230 => {
                let value = input.number()?;
                outbox.on_max_messages(value);
                credit.messages = credit.messages.max(value);
            }
            230..240 => drop(outbox.on_stop(input.number()?, input.number()?)),
            240..250 => {
                outbox.reset(MessageId(input.number()?), 3);
            }
            _ => {
                outbox.on_early_data_rejected();
                record.clear();
                credit = Credit::default();
            }
        }
        while outbox.poll_event().is_some() {}
        assert!(outbox.in_flight() <= send_window);
    }
}

/// What is written decodes and keeps to the ids that were granted.
fn check(payload: &[u8], credit: &Credit) {
    if payload.is_empty() {
        return;
    }
    for frame in Frames::new(payload, PacketType::OneRtt, Side::Client) {
        match frame {
            Ok(Frame::Message(m)) => assert!(m.id < credit.messages && m.data.len() < 4096 * 2),
            Ok(Frame::ResetMessage { id, .. }) => assert!(id < credit.messages),
            Ok(Frame::DataBlocked(_) | Frame::MessagesBlocked(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
