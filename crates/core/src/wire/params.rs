//! Transport parameters: what each side grants the other, authenticated by the handshake
//! (docs/protocol.md section 1, RFC 9000 §18).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

use super::{ConnectionId, Malformed, Reader, Side, varint};
use crate::limits::{MAX_TRANSPORT_PARAMETERS, MAX_VERSIONS, MIN_DATAGRAM};

#[cfg(test)]
mod tests;

mod id {
    pub(super) const ORIGINAL_DESTINATION_CONNECTION_ID: u64 = 0x00;
    pub(super) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(super) const STATELESS_RESET_TOKEN: u64 = 0x02;
    pub(super) const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
    pub(super) const INITIAL_MAX_DATA: u64 = 0x04;
    pub(super) const INITIAL_MAX_MESSAGE_DATA: u64 = 0x05;
    pub(super) const INITIAL_MAX_MESSAGES: u64 = 0x08;
    pub(super) const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
    pub(super) const INITIAL_SOURCE_CONNECTION_ID: u64 = 0x0f;
    pub(super) const RETRY_SOURCE_CONNECTION_ID: u64 = 0x10;
    pub(super) const VERSION_INFORMATION: u64 = 0x11;
    pub(super) const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;
    pub(super) const INCARNATION: u64 = 0x5342;
    pub(super) const GROUP: u64 = 0x5343;
    pub(super) const IDS: u64 = 0x5344;
}

/// What one side declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportParameters {
    /// Source connection id of the sender's first Initial packet (RFC 9000 §7.3).
    pub initial_source: ConnectionId,
    /// Milliseconds of silence after which the sender gives the connection up; 0 = never.
    pub max_idle_timeout: u64,
    /// The largest UDP payload that the sender takes; at least 1,200.
    pub max_udp_payload_size: u64,
    /// Bytes of messages that the receiver may send, over all of them.
    pub initial_max_data: u64,
    /// Bytes of each message that the receiver may send unasked.
    pub initial_max_message_data: u64,
    /// Messages that the receiver may open.
    pub initial_max_messages: u64,
    /// Connection ids of the receiver that the sender stores; at least 2.
    pub active_connection_id_limit: u64,
    /// The largest DATAGRAM frame that the sender takes; 0 = none.
    pub max_datagram_frame_size: u64,
    /// Which version the sender uses and which it could use (RFC 9368 §3).
    pub version_information: Option<VersionInformation>,
    /// What only a server declares; `Some` exactly when the sender is one.
    pub server: Option<ServerParameters>,
}

/// What only a server declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerParameters {
    /// Destination connection id of the client's very first Initial packet (RFC 9000 §7.3).
    pub original_destination: ConnectionId,
    /// Source connection id of the Retry packet, if there was one.
    pub retry_source: Option<ConnectionId>,
    /// What a stateless reset for the server's first connection id ends with.
    pub stateless_reset_token: Option<[u8; 16]>,
    /// Drawn anew each time that a server process starts; for a replica the id of its group.
    pub incarnation: u64,
    /// Whether the server is a replica, so that any other one of the same incarnation has the same
    /// sessions.
    pub group: bool,
    /// Whether that replica knows ids of calls.
    pub ids: bool,
}

/// A defence against downgrades (RFC 9368 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInformation {
    /// The version of this connection.
    pub chosen: u32,
    /// Versions that the sender speaks, by preference.
    pub available: Vec<u32>,
}

/// Transport parameters that break the rules: TRANSPORT_PARAMETER_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterError(pub &'static str);

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ParameterError {}

impl From<Malformed> for ParameterError {
    fn from(_: Malformed) -> Self {
        Self("malformed transport parameter")
    }
}

impl TransportParameters {
    /// Parameters with the values that absence stands for: no windows, no timeout.
    pub fn new(initial_source: ConnectionId) -> Self {
        Self {
            initial_source,
            max_idle_timeout: 0,
            max_udp_payload_size: 65_527,
            initial_max_data: 0,
            initial_max_message_data: 0,
            initial_max_messages: 0,
            active_connection_id_limit: 2,
            max_datagram_frame_size: 0,
            version_information: None,
            server: None,
        }
    }

    /// The encoding that goes into the TLS extension.
    ///
    /// # Panics
    /// If a number is above 2^62 - 1.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        let absent = Self::new(self.initial_source);
        for (id, value, default) in [
            (id::MAX_IDLE_TIMEOUT, self.max_idle_timeout, absent.max_idle_timeout),
            (id::MAX_UDP_PAYLOAD_SIZE, self.max_udp_payload_size, absent.max_udp_payload_size),
            (id::INITIAL_MAX_DATA, self.initial_max_data, 0),
            (id::INITIAL_MAX_MESSAGE_DATA, self.initial_max_message_data, 0),
            (id::INITIAL_MAX_MESSAGES, self.initial_max_messages, 0),
            (
                id::ACTIVE_CONNECTION_ID_LIMIT,
                self.active_connection_id_limit,
                absent.active_connection_id_limit,
            ),
            (id::MAX_DATAGRAM_FRAME_SIZE, self.max_datagram_frame_size, 0),
        ] {
            if value != default {
                varint::encode(id, &mut out);
                varint::encode(varint::size(value) as u64, &mut out);
                varint::encode(value, &mut out);
            }
        }
        encode_bytes(id::INITIAL_SOURCE_CONNECTION_ID, &self.initial_source, &mut out);
        if let Some(info) = &self.version_information {
            let versions = core::iter::once(&info.chosen).chain(&info.available);
            let bytes: Vec<u8> = versions.flat_map(|version| version.to_be_bytes()).collect();
            encode_bytes(id::VERSION_INFORMATION, &bytes, &mut out);
        }
        if let Some(server) = &self.server {
            server.encode(&mut out);
        }
        out
    }

    /// Reads what `sender` declared. Unknown parameters are skipped.
    ///
    /// # Errors
    /// [`ParameterError`] when one is malformed, doubled, missing, out of range or not for this side
    /// to send.
    pub fn decode(bytes: &[u8], sender: Side) -> Result<Self, ParameterError> {
        let mut found = Self::new(ConnectionId::EMPTY);
        let mut server = FoundServer::default();
        let mut seen = BTreeSet::new();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let id = reader.varint()?;
            let value = reader.length_prefixed()?;
            if !seen.insert(id) {
                return Err(ParameterError("doubled transport parameter"));
            }
            if seen.len() > MAX_TRANSPORT_PARAMETERS {
                return Err(ParameterError("too many transport parameters"));
            }
            if !server.take(id, value, sender)? {
                found.take(id, value)?;
            }
        }
        if !seen.contains(&id::INITIAL_SOURCE_CONNECTION_ID) {
            return Err(ParameterError("initial_source_connection_id is missing"));
        }
        found.server = if sender.is_server() { Some(server.complete()?) } else { None };
        found.check()?;
        Ok(found)
    }

    fn take(&mut self, id: u64, value: &[u8]) -> Result<(), ParameterError> {
        let field = match id {
            id::MAX_IDLE_TIMEOUT => &mut self.max_idle_timeout,
            id::MAX_UDP_PAYLOAD_SIZE => &mut self.max_udp_payload_size,
            id::INITIAL_MAX_DATA => &mut self.initial_max_data,
            id::INITIAL_MAX_MESSAGE_DATA => &mut self.initial_max_message_data,
            id::INITIAL_MAX_MESSAGES => &mut self.initial_max_messages,
            id::ACTIVE_CONNECTION_ID_LIMIT => &mut self.active_connection_id_limit,
            id::MAX_DATAGRAM_FRAME_SIZE => &mut self.max_datagram_frame_size,
            id::INITIAL_SOURCE_CONNECTION_ID => {
                self.initial_source = connection_id(value)?;
                return Ok(());
            }
            id::VERSION_INFORMATION => {
                self.version_information = Some(VersionInformation::decode(value)?);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let mut reader = Reader::new(value);
        *field = reader.varint()?;
        if reader.is_empty() { Ok(()) } else { Err(Malformed.into()) }
    }

    fn check(&self) -> Result<(), ParameterError> {
        if self.max_udp_payload_size < MIN_DATAGRAM as u64 {
            return Err(ParameterError("max_udp_payload_size below 1200"));
        }
        if self.active_connection_id_limit < 2 {
            return Err(ParameterError("active_connection_id_limit below 2"));
        }
        if self.initial_max_messages > 1 << 60 {
            return Err(ParameterError("initial_max_messages above 2^60"));
        }
        Ok(())
    }
}

impl ServerParameters {
    fn encode(&self, out: &mut Vec<u8>) {
        let original = &self.original_destination;
        encode_bytes(id::ORIGINAL_DESTINATION_CONNECTION_ID, original, out);
        if let Some(retry) = &self.retry_source {
            encode_bytes(id::RETRY_SOURCE_CONNECTION_ID, retry, out);
        }
        if let Some(token) = &self.stateless_reset_token {
            encode_bytes(id::STATELESS_RESET_TOKEN, token, out);
        }
        encode_bytes(id::INCARNATION, &self.incarnation.to_be_bytes(), out);
        if self.group {
            encode_bytes(id::GROUP, &[], out);
        }
        if self.ids {
            encode_bytes(id::IDS, &[], out);
        }
    }
}

/// What has been found so far of what only a server may declare.
#[derive(Default)]
struct FoundServer {
    original_destination: Option<ConnectionId>,
    retry_source: Option<ConnectionId>,
    stateless_reset_token: Option<[u8; 16]>,
    incarnation: Option<u64>,
    group: bool,
    ids: bool,
}

impl FoundServer {
    /// True when the parameter was one of these.
    fn take(&mut self, id: u64, value: &[u8], sender: Side) -> Result<bool, ParameterError> {
        match id {
            id::ORIGINAL_DESTINATION_CONNECTION_ID => {
                self.original_destination = Some(connection_id(value)?);
            }
            id::RETRY_SOURCE_CONNECTION_ID => self.retry_source = Some(connection_id(value)?),
            id::STATELESS_RESET_TOKEN => {
                self.stateless_reset_token = Some(value.try_into().map_err(|_| Malformed)?);
            }
            id::INCARNATION => {
                let bytes = value.try_into().map_err(|_| Malformed)?;
                self.incarnation = Some(u64::from_be_bytes(bytes));
            }
            id::GROUP if value.is_empty() => self.group = true,
            id::IDS if value.is_empty() => self.ids = true,
            id::GROUP | id::IDS => return Err(Malformed.into()),
            _ => return Ok(false),
        }
        if sender.is_client() {
            return Err(ParameterError("a client sent a server's transport parameter"));
        }
        Ok(true)
    }

    fn complete(self) -> Result<ServerParameters, ParameterError> {
        Ok(ServerParameters {
            original_destination: self
                .original_destination
                .ok_or(ParameterError("original_destination_connection_id is missing"))?,
            retry_source: self.retry_source,
            stateless_reset_token: self.stateless_reset_token,
            incarnation: self.incarnation.ok_or(ParameterError("incarnation is missing"))?,
            group: self.group,
            ids: self.ids,
        })
    }
}

impl VersionInformation {
    fn decode(value: &[u8]) -> Result<Self, ParameterError> {
        let (versions, rest) = value.as_chunks::<4>();
        let Some((chosen, available)) = versions.split_first() else {
            return Err(Malformed.into());
        };
        if !rest.is_empty() || versions.contains(&[0; 4]) {
            return Err(ParameterError("malformed version_information"));
        }
        if available.len() > MAX_VERSIONS {
            return Err(ParameterError("too many available versions"));
        }
        let available = available.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        Ok(Self { chosen: u32::from_be_bytes(*chosen), available })
    }
}

fn connection_id(value: &[u8]) -> Result<ConnectionId, ParameterError> {
    ConnectionId::new(value).ok_or(ParameterError("connection id longer than 20 bytes"))
}

fn encode_bytes(id: u64, value: &[u8], out: &mut Vec<u8>) {
    varint::encode(id, out);
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(value);
}
