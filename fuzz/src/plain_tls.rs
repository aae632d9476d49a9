//! A handshake without cryptography, behind the transport's traits: quick, deterministic, and open to
//! a fuzzer, which can seal what it likes. Packets carry a checksum for a tag, so that altered ones are
//! noticed.

use std::sync::Arc;

use stubborn_core::transport::crypto::{
    ClientTls, DirectionalKeys, HeaderKey, InitialCrypto, KeyChange, Keys, OpenError, PacketKey,
    PeerIdentity, ServerTls, TlsSession,
};
use stubborn_core::transport::{ConnectionId, Side, TransportError};

const TAG: usize = 16;

/// FNV-1a.
fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A key that everybody knows: `phase` counts key updates.
#[derive(Clone, Copy, Debug)]
pub struct PlainKey {
    pub space: u8,
    pub sender: Side,
    pub phase: u64,
}

impl PlainKey {
    fn tag(&self, number: u64, header: &[u8], text: &[u8]) -> [u8; TAG] {
        let key = [self.space, u8::from(self.sender.is_client())];
        let hash =
            checksum([&key[..], &self.phase.to_be_bytes(), &number.to_be_bytes(), header, text]);
        let mut tag = [0; TAG];
        tag[..8].copy_from_slice(&hash.to_be_bytes());
        tag[8..].copy_from_slice(&hash.rotate_left(17).to_be_bytes());
        tag
    }

    fn pair(self) -> DirectionalKeys {
        DirectionalKeys { header: Box::new(PlainHeader), packet: Box::new(self) }
    }
}

impl PacketKey for PlainKey {
    fn seal(&self, packet_number: u64, header: &[u8], payload: &mut [u8]) {
        let (text, tag) = payload.split_at_mut(payload.len() - TAG);
        tag.copy_from_slice(&self.tag(packet_number, header, text));
    }

    fn open(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<usize, OpenError> {
        let length = payload.len().checked_sub(TAG).ok_or(OpenError)?;
        let (text, tag) = payload.split_at(length);
        if tag == self.tag(packet_number, header, text) { Ok(length) } else { Err(OpenError) }
    }

    fn tag_len(&self) -> usize {
        TAG
    }

    fn confidentiality_limit(&self) -> u64 {
        1 << 23
    }

    fn integrity_limit(&self) -> u64 {
        1 << 20
    }
}

/// Protects nothing.
#[derive(Debug)]
pub struct PlainHeader;

impl HeaderKey for PlainHeader {
    fn protect(&self, _: &[u8], _: &mut u8, _: &mut [u8]) {}

    fn unprotect(&self, _: &[u8], _: &mut u8, _: &mut [u8]) {}

    fn sample_len(&self) -> usize {
        TAG
    }
}

fn keys(space: u8, phase: u64, side: Side) -> Keys {
    let of = |sender| PlainKey { space, sender, phase }.pair();
    Keys { local: of(side), remote: of(side.peer()) }
}

/// Both configurations in one.
#[derive(Debug)]
pub struct PlainTls;

impl PlainTls {
    /// For [`Endpoint::connect`](stubborn_core::transport::endpoint::Endpoint::connect).
    pub fn client() -> Arc<dyn ClientTls> {
        Arc::new(Self)
    }

    /// For [`Endpoint::new`](stubborn_core::transport::endpoint::Endpoint::new).
    pub fn server() -> Arc<dyn ServerTls> {
        Arc::new(Self)
    }
}

impl InitialCrypto for PlainTls {
    fn initial_keys(&self, _: u32, _: &ConnectionId, side: Side) -> Keys {
        keys(0, 0, side)
    }

    fn retry_tag(&self, _: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        PlainKey { space: 9, sender: Side::Server, phase: 0 }.tag(0, original, packet)
    }
}

impl ClientTls for PlainTls {
    fn start(
        &self,
        _: u32,
        _: &str,
        parameters: &[u8],
    ) -> Result<Box<dyn TlsSession>, TransportError> {
        Ok(Box::new(Session::new(Side::Client, parameters)))
    }
}

impl ServerTls for PlainTls {
    fn start(&self, _: u32, parameters: &[u8]) -> Result<Box<dyn TlsSession>, TransportError> {
        Ok(Box::new(Session::new(Side::Server, parameters)))
    }

    fn seal_token(&self, nonce: [u8; 16], plaintext: &[u8], associated: &[u8]) -> Vec<u8> {
        let mut token = nonce.to_vec();
        token.extend_from_slice(plaintext);
        token.extend_from_slice(&checksum([&token[..], associated]).to_be_bytes());
        token
    }

    fn open_token(&self, token: &[u8], associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (sealed, sum) = token.split_last_chunk::<8>().ok_or(OpenError)?;
        let right = checksum([sealed, associated]).to_be_bytes() == *sum;
        match sealed.get(16..) {
            Some(plain) if right => Ok(plain.to_vec()),
            _ => Err(OpenError),
        }
    }

    fn reset_token(&self, id: &ConnectionId) -> [u8; 16] {
        PlainKey { space: 8, sender: Side::Server, phase: 0 }.tag(0, id, &[])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Hello,
    HandshakeKeys,
    Parameters,
    Finished,
    Wait,
    Done,
}

/// Messages are a type, a length of two bytes, and the parameters where there are any.
#[derive(Debug)]
struct Session {
    side: Side,
    ours: Vec<u8>,
    theirs: Option<Vec<u8>>,
    input: Vec<u8>,
    step: Step,
    done: bool,
    phase: u64,
}

impl Session {
    fn new(side: Side, parameters: &[u8]) -> Self {
        let step = if side.is_client() { Step::Hello } else { Step::Wait };
        Self {
            side,
            ours: parameters.to_vec(),
            theirs: None,
            input: Vec::new(),
            step,
            done: false,
            phase: 0,
        }
    }

    fn on_message(&mut self, ty: u8, body: &[u8]) -> Result<(), TransportError> {
        match (self.side, ty) {
            (Side::Server, 1) if self.theirs.is_none() => {
                self.theirs = Some(body.to_vec());
                self.step = Step::HandshakeKeys;
            }
            (Side::Client, 2) => self.step = Step::HandshakeKeys,
            (Side::Client, 3) if self.theirs.is_none() => {
                self.theirs = Some(body.to_vec());
                self.step = Step::Finished;
            }
            (Side::Server, 4) => self.done = true,
            _ => return Err(TransportError::violation("no such handshake message")),
        }
        Ok(())
    }
}

fn message(ty: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(ty);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
}

impl TlsSession for Session {
    fn read_handshake(&mut self, data: &[u8]) -> Result<(), TransportError> {
        self.input.extend_from_slice(data);
        while let Some(([ty, high, low], rest)) = self.input.split_first_chunk::<3>() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (ty, Some(body)) = (*ty, rest.get(..length).map(<[u8]>::to_vec)) else { break };
            self.input.drain(..3 + length);
            self.on_message(ty, &body)?;
        }
        Ok(())
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        match self.step {
            Step::Hello => {
                message(1, &self.ours, out);
                self.step = Step::Wait;
                None
            }
            Step::HandshakeKeys => {
                if self.side.is_server() {
                    message(2, &[], out);
                    self.step = Step::Parameters;
                } else {
                    self.step = Step::Wait;
                }
                Some(KeyChange::Handshake(keys(1, 0, self.side)))
            }
            Step::Parameters => {
                message(3, &self.ours, out);
                self.step = Step::Done;
                Some(KeyChange::Data(keys(2, 0, self.side)))
            }
            Step::Finished => {
                message(4, &[], out);
                self.step = Step::Done;
                self.done = true;
                Some(KeyChange::Data(keys(2, 0, self.side)))
            }
            Step::Wait | Step::Done => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        !self.done
    }

    fn peer_parameters(&self) -> Option<&[u8]> {
        self.theirs.as_deref()
    }

    fn next_data_keys(&mut self) -> (Box<dyn PacketKey>, Box<dyn PacketKey>) {
        self.phase += 1;
        let of = |sender| Box::new(PlainKey { space: 2, sender, phase: self.phase });
        (of(self.side), of(self.side.peer()))
    }

    fn early_keys(&mut self) -> Option<DirectionalKeys> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn peer_identity(&self) -> Option<PeerIdentity> {
        None
    }
}
