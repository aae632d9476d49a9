//! One connection as somebody sees it who listens and has its secrets.

use bytes::{Bytes, BytesMut};
use stubborn_core::transport::crypto::{DirectionalKeys, HeaderKey, PacketKey};
use stubborn_core::wire::packet::{Packet, ProtectedPacket};
use stubborn_core::wire::{PacketType, Side, Space, VERSION};
use stubborn_tls::{LoggedSecrets, SecretKind, keys_of_initial, keys_of_secret, next_secret};

use super::Opened;

/// Bytes of a ServerHello up to its cipher suite, at most (RFC 8446 §4.1.3).
const HELLO: usize = 4 + 2 + 32 + 1 + 32 + 2;

/// Of each pair the client's comes first.
pub(super) struct Watched {
    initial: [DirectionalKeys; 2],
    handshake: [Option<DirectionalKeys>; 2],
    data: [Option<DataKeys>; 2],
    hellos: [Beginning; 2],
    /// The number above the highest that was opened, by sender and space.
    expected: [[u64; 3]; 2],
}

/// The keys of 1-RTT packets of one direction (RFC 9001 §6).
struct DataKeys {
    suite: u16,
    header: Box<dyn HeaderKey>,
    packet: Box<dyn PacketKey>,
    before: Option<Box<dyn PacketKey>>,
    secret: Vec<u8>,
    phase: bool,
}

/// The first bytes of what one side says in Initial packets, which may come in any order.
#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
    has: Vec<bool>,
}

impl Watched {
    /// `destination` is that of the client's first packet.
    pub(super) fn new(destination: &[u8]) -> Self {
        Self {
            initial: keys_of_initial(destination),
            handshake: [None, None],
            data: [None, None],
            hellos: Default::default(),
            expected: [[0; 3]; 2],
        }
    }

    /// The server has answered with Retry, and named this id.
    pub(super) fn begin_anew(&mut self, destination: &[u8]) {
        self.initial = keys_of_initial(destination);
    }

    /// Takes in what a side says in Initial packets.
    pub(super) fn hear(&mut self, sender: Side, offset: u64, data: &[u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let hello = &mut self.hellos[of(sender)];
        hello.bytes.resize(HELLO, 0);
        hello.has.resize(HELLO, false);
        for (at, byte) in (from..HELLO).zip(data) {
            (hello.bytes[at], hello.has[at]) = (*byte, true);
        }
    }

    /// Removes the protection of a packet; none if its keys are not known or it is not authentic.
    pub(super) fn open(
        &mut self,
        sender: Side,
        packet: ProtectedPacket,
        bytes: &[u8],
        secrets: &LoggedSecrets,
    ) -> Option<Opened> {
        let (packet_type, source) = (packet.packet_type(), packet.source().to_vec());
        let header = Bytes::copy_from_slice(bytes.get(..packet.number_at())?);
        let space = match packet_type {
            PacketType::Initial => Space::Initial,
            PacketType::Handshake => Space::Handshake,
            PacketType::OneRtt => Space::Data,
            PacketType::ZeroRtt => return None,
        };
        let expected = self.expected[of(sender)][space as usize];
        let (number, key_phase, frames) = match packet_type {
            PacketType::OneRtt => self.data_keys(sender, secrets)?.open(packet, bytes, expected)?,
            PacketType::Handshake => {
                let keys = self.handshake_keys(sender, secrets)?;
                open_with(packet, &*keys.header, &*keys.packet, expected)?
            }
            _ => {
                let keys = &self.initial[of(sender)];
                open_with(packet, &*keys.header, &*keys.packet, expected)?
            }
        };
        let seen = &mut self.expected[of(sender)][space as usize];
        *seen = (*seen).max(number + 1);
        Some(Opened { packet_type, source, number, key_phase, header, frames })
    }

    fn handshake_keys(
        &mut self,
        sender: Side,
        secrets: &LoggedSecrets,
    ) -> Option<&DirectionalKeys> {
        let kinds = [SecretKind::ClientHandshake, SecretKind::ServerHandshake];
        if self.handshake[of(sender)].is_none() {
            let (suite, secret) = self.secret(kinds[of(sender)], secrets)?;
            self.handshake[of(sender)] = keys_of_secret(suite, secret);
        }
        self.handshake[of(sender)].as_ref()
    }

    fn data_keys(&mut self, sender: Side, secrets: &LoggedSecrets) -> Option<&mut DataKeys> {
        let kinds = [SecretKind::ClientData, SecretKind::ServerData];
        if self.data[of(sender)].is_none() {
            let (suite, secret) = self.secret(kinds[of(sender)], secrets)?;
            let DirectionalKeys { header, packet } = keys_of_secret(suite, secret)?;
            let secret = secret.to_vec();
            let keys = DataKeys { suite, header, packet, before: None, secret, phase: false };
            self.data[of(sender)] = Some(keys);
        }
        self.data[of(sender)].as_mut()
    }

    /// A secret, and the cipher suite that the server chose.
    fn secret<'a>(&self, kind: SecretKind, secrets: &'a LoggedSecrets) -> Option<(u16, &'a [u8])> {
        // Both hellos: type, length, version, random; then of the server's: session id, suite.
        let client_random: [u8; 32] = self.hellos[0].get(6, 32)?.try_into().ok()?;
        let id = usize::from(*self.hellos[1].get(38, 1)?.first()?);
        let suite = self.hellos[1].get(39 + id, 2)?.try_into().ok()?;
        Some((u16::from_be_bytes(suite), secrets.find(&client_random, kind)?))
    }
}

impl Beginning {
    fn get(&self, at: usize, length: usize) -> Option<&[u8]> {
        let whole = self.has.get(at..at + length)?.iter().all(|has| *has);
        whole.then(|| &self.bytes[at..at + length])
    }
}

impl DataKeys {
    /// Tries the keys that the packet's phase may mean: these, those before, the next ones.
    fn open(
        &mut self,
        packet: ProtectedPacket,
        bytes: &[u8],
        expected: u64,
    ) -> Option<(u64, bool, Bytes)> {
        let unprotected = packet.unprotect(&*self.header).ok()?;
        let (phase, number) = (unprotected.key_phase(), unprotected.number(expected));
        let opened = |with: &dyn PacketKey| {
            let again = decode(bytes)?.unprotect(&*self.header).ok()?;
            Some((number, phase, again.open(with, number).ok()?.payload))
        };
        if phase == self.phase {
            return opened(&*self.packet);
        }
        if let Some(of_before) = self.before.as_deref().and_then(opened) {
            return Some(of_before);
        }
        let secret = next_secret(self.suite, &self.secret)?;
        let next = keys_of_secret(self.suite, &secret)?.packet;
        let of_next = opened(&*next)?;
        self.before = Some(std::mem::replace(&mut self.packet, next));
        (self.secret, self.phase) = (secret.to_vec(), phase);
        Some(of_next)
    }
}

fn open_with(
    packet: ProtectedPacket,
    header: &dyn HeaderKey,
    key: &dyn PacketKey,
    expected: u64,
) -> Option<(u64, bool, Bytes)> {
    let unprotected = packet.unprotect(header).ok()?;
    let number = unprotected.number(expected);
    Some((number, false, unprotected.open(key, number).ok()?.payload))
}

fn decode(bytes: &[u8]) -> Option<ProtectedPacket> {
    match Packet::decode(BytesMut::from(bytes), &[VERSION]) {
        Ok((Packet::Protected(packet), _)) => Some(packet),
        _ => None,
    }
}

fn of(side: Side) -> usize {
    usize::from(side.is_server())
}
