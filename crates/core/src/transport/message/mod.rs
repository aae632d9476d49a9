//! What the sending and the receiving half of the message layer share: ids, the record of what a
//! packet carried, and the table of messages under way.

pub(crate) mod table;
#[cfg(test)]
mod tests;

/// Names a message of one direction of a connection; ids count up from 0 in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl core::fmt::Display for MessageId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a packet carried of the message layer, kept until the packet is acknowledged or lost and then
/// given back: [`Outbox`](super::send::Outbox) and [`Inbox`](super::receive::Inbox) each take their
/// own kinds and ignore the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentFrame {
    /// MESSAGE. Of the outbox.
    Data {
        /// The message.
        id: MessageId,
        /// Offset of the first byte.
        start: u64,
        /// Bytes, plus one if the frame says that the message ends.
        length: u32,
    },
    /// MESSAGE frames with all of short messages whose ids follow one another. Of the outbox.
    Run {
        /// The first of the messages.
        first: MessageId,
        /// How many.
        count: u32,
    },
    /// MESSAGE, sent again while an earlier packet with the same bytes may still arrive. If this one
    /// is lost, nothing follows: the earlier one answers for the bytes.
    Copy {
        /// The message.
        id: MessageId,
        /// Offset of the first byte.
        start: u64,
        /// As in `Data`.
        length: u32,
    },
    /// RESET_MESSAGE. Of the outbox.
    Reset(MessageId),
    /// DATA_BLOCKED at this total. Of the outbox.
    DataBlocked(u64),
    /// MESSAGES_BLOCKED at this count. Of the outbox.
    MessagesBlocked(u64),
    /// STOP_MESSAGE. Of the inbox.
    Stop(MessageId),
    /// MAX_DATA. Of the inbox.
    MaxData(u64),
    /// MAX_MESSAGE_DATA. Of the inbox.
    MaxMessageData {
        /// The message.
        id: MessageId,
        /// What was granted.
        value: u64,
    },
    /// MAX_MESSAGES. Of the inbox.
    MaxMessages(u64),
}

// One is kept per frame in flight.
const _: () = assert!(size_of::<SentFrame>() <= 24);

/// How much a receiver lets its peer send before it grants more: the initial values of the transport
/// parameters `initial_max_data`, `initial_max_message_data` and `initial_max_messages`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Bytes over all messages.
    pub data: u64,
    /// Bytes of each message.
    pub message_data: u64,
    /// Messages that may be opened.
    pub messages: u64,
}
