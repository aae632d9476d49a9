//! Types of the frames of the message layer (`docs/protocol.md` section 2).

pub(crate) const RESET_MESSAGE: u64 = 0x04;
pub(crate) const STOP_MESSAGE: u64 = 0x05;
/// MESSAGE; the next three are its flags.
pub(crate) const MESSAGE: u64 = 0x08;
pub(crate) const MESSAGE_FIN: u64 = 0x01;
pub(crate) const MESSAGE_LENGTH: u64 = 0x02;
pub(crate) const MESSAGE_OFFSET: u64 = 0x04;
pub(crate) const MAX_DATA: u64 = 0x10;
pub(crate) const MAX_MESSAGE_DATA: u64 = 0x11;
pub(crate) const MAX_MESSAGES: u64 = 0x12;
pub(crate) const DATA_BLOCKED: u64 = 0x14;
pub(crate) const MESSAGES_BLOCKED: u64 = 0x16;
