//! One handshake.

use rustls::CommonState;
use rustls::quic::{ClientConnection, Connection, KeyChange as RustlsKeyChange, Secrets};
use stubborn_core::transport::crypto::{
    DirectionalKeys, KeyChange, PacketKey, PeerIdentity, TlsSession,
};
use stubborn_core::transport::{Code, TransportError};

use crate::error::transport_error;
use crate::{keys, peer_identity};

pub(crate) struct Session {
    /// Ten times the size of all the rest. A server drops it when the handshake is complete: no client
    /// has anything to say after that (RFC 9001 §4.4, §6).
    connection: Option<Box<Connection>>,
    /// From which the keys of the next key phase are made.
    next: Option<Secrets>,
    /// At a server: whether it takes early data, once it has decided.
    early_data_taken: Option<bool>,
}

impl Session {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection: Some(Box::new(connection)), next: None, early_data_taken: None }
    }

    fn client(&self) -> Option<&ClientConnection> {
        match self.connection.as_deref()? {
            Connection::Client(client) => Some(client),
            Connection::Server(_) => None,
        }
    }

    fn state(&self) -> Option<&CommonState> {
        self.connection.as_deref().map(|connection| &**connection)
    }
}

impl TlsSession for Session {
    fn read_handshake(&mut self, data: &[u8]) -> Result<(), TransportError> {
        let Some(connection) = &mut self.connection else {
            // An `unexpected_message` alert (RFC 8446 §6.2).
            return Err(TransportError::new(Code::crypto(10), "handshake bytes from a client"));
        };
        connection.read_hs(data).map_err(|error| transport_error(&error, connection.alert()))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        let connection = self.connection.as_mut()?;
        match connection.write_hs(out)? {
            RustlsKeyChange::Handshake { keys } => {
                // The server decides on early data when it answers the ClientHello.
                self.early_data_taken = Some(connection.zero_rtt_keys().is_some());
                Some(KeyChange::Handshake(keys::keys(keys)))
            }
            RustlsKeyChange::OneRtt { keys, next } => {
                self.next = Some(next);
                Some(KeyChange::Data(keys::keys(keys)))
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        self.state().is_some_and(CommonState::is_handshaking)
    }

    fn peer_parameters(&self) -> Option<&[u8]> {
        self.connection.as_ref()?.quic_transport_parameters()
    }

    fn next_data_keys(&mut self) -> (Box<dyn PacketKey>, Box<dyn PacketKey>) {
        let next = self.next.as_mut().expect("1-RTT keys are handed out before they are updated");
        let keys = next.next_packet_keys();
        (keys::packet(keys.local), keys::packet(keys.remote))
    }

    fn early_keys(&mut self) -> Option<DirectionalKeys> {
        self.connection.as_ref()?.zero_rtt_keys().map(keys::directional)
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match self.client() {
            Some(client) if self.is_handshaking() => {
                // An acceptance is known early, a refusal only once the handshake is complete.
                client.is_early_data_accepted().then_some(true)
            }
            Some(client) => Some(client.is_early_data_accepted()),
            None => self.early_data_taken,
        }
    }

    fn peer_identity(&self) -> Option<PeerIdentity> {
        if self.is_handshaking() {
            return None;
        }
        peer_identity(self.state()?.peer_certificates()?)
    }

    fn on_complete(&mut self) {
        if self.client().is_none() {
            self.connection = None;
        }
    }
}
