//! Captures: pcap and pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

use std::io::{self, ErrorKind, Read};

/// The largest frame or block that is read: what is larger was not written by a capture.
const LARGEST: u32 = 16 << 20;

/// A captured frame.
pub(super) struct Frame {
    /// When, in nanoseconds since 1970.
    pub(super) nanos: u64,
    /// How it begins: a number of the list of link-layer header types.
    pub(super) link: u32,
    pub(super) bytes: Vec<u8>,
}

/// Reads frame after frame.
pub(super) struct Reader<R> {
    from: R,
    form: Form,
    little: bool,
}

enum Form {
    Pcap { link: u32, nanos_each: u64 },
    Pcapng { interfaces: Vec<Interface> },
}

#[derive(Clone, Copy)]
struct Interface {
    link: u32,
    /// Ticks of its clock in a second.
    ticks: u64,
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const RESOLUTION: u16 = 9;

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub(super) fn new(mut from: R) -> io::Result<Self> {
        let mut magic = [0; 4];
        from.read_exact(&mut magic)?;
        let (little, nanos_each) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (true, 1_000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (true, 1),
            [0xa1, 0xb2, 0xc3, 0xd4] => (false, 1_000),
            [0xa1, 0xb2, 0x3c, 0x4d] => (false, 1),
            _ if magic == SECTION.to_be_bytes() => {
                let form = Form::Pcapng { interfaces: Vec::new() };
                let mut reader = Self { from, form, little: true };
                reader.section()?;
                return Ok(reader);
            }
            _ => return Err(wrong("neither a pcap nor a pcapng file")),
        };
        let mut header = [0; 20];
        from.read_exact(&mut header)?;
        let mut reader = Self { from, form: Form::Pcap { link: 0, nanos_each }, little };
        // The upper bits say how frames end.
        let link = reader.u32(&header[16..]) & 0xffff;
        reader.form = Form::Pcap { link, nanos_each };
        Ok(reader)
    }

    /// The next frame; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        match self.form {
            Form::Pcap { link, nanos_each } => {
                let mut header = [0; 16];
                if !read_or_end(&mut self.from, &mut header)? {
                    return Ok(None);
                }
                let seconds = u64::from(self.u32(&header));
                let parts = u64::from(self.u32(&header[4..]));
                let bytes = self.take(self.u32(&header[8..]))?;
                let nanos = seconds * 1_000_000_000 + parts * nanos_each;
                Ok(Some(Frame { nanos, link, bytes }))
            }
            Form::Pcapng { .. } => self.next_of_blocks(),
        }
    }

    fn next_of_blocks(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut kind = [0; 4];
            if !read_or_end(&mut self.from, &mut kind)? {
                return Ok(None);
            }
            let kind = self.u32(&kind);
            if kind == SECTION {
                self.section()?;
                continue;
            }
            let mut length = [0; 4];
            self.from.read_exact(&mut length)?;
            let body = self.block(self.u32(&length))?;
            match kind {
                INTERFACE => self.interface(&body)?,
                ENHANCED_PACKET => return self.packet(&body).map(Some),
                _ => {}
            }
        }
    }

    /// A section begins anew, maybe in another byte order, behind its type.
    fn section(&mut self) -> io::Result<()> {
        let mut head = [0; 8];
        self.from.read_exact(&mut head)?;
        self.little = match self.u32_as(&head[4..], true) {
            BYTE_ORDER => true,
            other if other.swap_bytes() == BYTE_ORDER => false,
            _ => return Err(wrong("a section of pcapng without its byte order")),
        };
        let length = self.u32(&head).checked_sub(4).ok_or_else(|| wrong("a block is too short"))?;
        self.block(length)?;
        self.form = Form::Pcapng { interfaces: Vec::new() };
        Ok(())
    }

    /// What is left of a block of this length, of which 8 bytes were read, without the length at its end.
    fn block(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let left = length.checked_sub(8).filter(|left| *left >= 4 && left.is_multiple_of(4));
        let mut body = self.take(left.ok_or_else(|| wrong("a block of an impossible length"))?)?;
        body.truncate(body.len() - 4);
        Ok(body)
    }

    fn interface(&mut self, body: &[u8]) -> io::Result<()> {
        let short = || wrong("an interface block is too short");
        let link = u32::from(self.u16(body.get(..2).ok_or_else(short)?));
        let mut options = body.get(8..).ok_or_else(short)?;
        let mut ticks = 1_000_000;
        while let Some((head, rest)) = options.split_at_checked(4) {
            let (code, length) = (self.u16(head), usize::from(self.u16(&head[2..])));
            let Some(value) = rest.get(..length) else { break };
            if let (RESOLUTION, [exponent]) = (code, value) {
                ticks = match exponent & 0x80 {
                    0 => 10u64.checked_pow(u32::from(*exponent)),
                    _ => 1u64.checked_shl(u32::from(exponent & 0x7f)),
                }
                .ok_or_else(|| wrong("a clock with an impossible resolution"))?;
            }
            options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        let Form::Pcapng { interfaces } = &mut self.form else { return Ok(()) };
        interfaces.push(Interface { link, ticks });
        Ok(())
    }

    fn packet(&self, body: &[u8]) -> io::Result<Frame> {
        let head = body.get(..20).ok_or_else(|| wrong("a packet block is too short"))?;
        let Form::Pcapng { interfaces } = &self.form else {
            return Err(wrong("a block outside a section"));
        };
        let Interface { link, ticks } = *interfaces
            .get(self.u32(head) as usize)
            .ok_or_else(|| wrong("a packet of an interface that was not described"))?;
        let time = u64::from(self.u32(&head[4..])) << 32 | u64::from(self.u32(&head[8..]));
        let nanos = u128::from(time) * 1_000_000_000 / u128::from(ticks);
        let bytes = body.get(20..).and_then(|rest| rest.get(..self.u32(&head[12..]) as usize));
        let bytes = bytes.ok_or_else(|| wrong("a packet is longer than its block"))?.to_vec();
        Ok(Frame { nanos: u64::try_from(nanos).unwrap_or(u64::MAX), link, bytes })
    }

    fn take(&mut self, length: u32) -> io::Result<Vec<u8>> {
        if length > LARGEST {
            return Err(wrong("a frame of an impossible length"));
        }
        let mut bytes = Vec::new();
        self.from.by_ref().take(length.into()).read_to_end(&mut bytes)?;
        match bytes.len() == length as usize {
            true => Ok(bytes),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn u32(&self, bytes: &[u8]) -> u32 {
        self.u32_as(bytes, self.little)
    }

    fn u32_as(&self, bytes: &[u8], little: bool) -> u32 {
        let four = *bytes.first_chunk().expect("the caller has four bytes");
        if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    }

    fn u16(&self, bytes: &[u8]) -> u16 {
        let two = *bytes.first_chunk().expect("the caller has two bytes");
        if self.little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) }
    }
}

/// Fills the buffer; false where nothing is left.
fn read_or_end(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let (first, rest) = buffer.split_at_mut(1);
    if from.read(first)? == 0 {
        return Ok(false);
    }
    from.read_exact(rest).map(|()| true)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
