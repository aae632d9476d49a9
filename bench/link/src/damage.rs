//! What is done to the bytes of a packet.

/// How a packet is damaged. Where is drawn with the decision, so that the same seed damages the same
/// places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit is turned over, anywhere in the packet. The checksums are left as they are, so that
    /// the receiving kernel finds them wrong.
    Flip(u64),
    /// Two neighbouring 16-bit words of what UDP or TCP carries change places. The sum over the
    /// words stays the same, so that no checksum below the application notices it (Stone and
    /// Partridge, "When the CRC and TCP checksum disagree", 2000).
    Swap(u64),
}

impl Damage {
    /// Does it. False where nothing could be changed.
    pub fn apply(self, packet: &mut [u8]) -> bool {
        match self {
            Damage::Flip(at) => {
                let Some(at) = at.checked_rem(packet.len() as u64 * 8) else { return false };
                packet[(at / 8) as usize] ^= 1 << (at % 8);
                true
            }
            Damage::Swap(at) => swap(packet, at),
        }
    }
}

fn swap(packet: &mut [u8], at: u64) -> bool {
    let Some(payload) = payload(packet) else { return false };
    let words = payload.len() / 2;
    let Some(pairs) = words.checked_sub(1).filter(|pairs| *pairs > 0) else { return false };
    let first = (at % pairs as u64) as usize;
    // Equal neighbours change nothing: look on from there.
    for pair in (first..pairs).chain(0..first) {
        let [a, b, c, d] = &mut payload[2 * pair..2 * pair + 4] else { return false };
        if (*a, *b) != (*c, *d) {
            std::mem::swap(a, c);
            std::mem::swap(b, d);
            return true;
        }
    }
    false
}

/// What UDP or TCP carries in this packet of IPv4. Both headers have an even length, so that words
/// here are words of the checksum.
fn payload(packet: &mut [u8]) -> Option<&mut [u8]> {
    let (&first, &protocol) = (packet.first()?, packet.get(9)?);
    if first >> 4 != 4 {
        return None;
    }
    let header = usize::from(first & 0xf) * 4;
    let transport = match protocol {
        6 => usize::from(packet.get(header + 12)? >> 4) * 4,
        17 => 8,
        _ => return None,
    };
    packet.get_mut(header + transport..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 28];
        (packet[0], packet[9]) = (0x45, 17);
        packet.extend_from_slice(payload);
        packet
    }

    fn sum(packet: &[u8]) -> u32 {
        packet.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
    }

    #[test]
    fn what_cannot_be_damaged_is_left_alone() {
        assert!(!Damage::Flip(5).apply(&mut []));
        for mut packet in
            [vec![], vec![0x45], vec![0xff; 40], udp(&[]), udp(&[1, 2, 3]), udp(&[7; 8])]
        {
            let before = packet.clone();
            assert!(!Damage::Swap(3).apply(&mut packet));
            assert_eq!(packet, before);
        }
    }

    #[test]
    fn a_flip_changes_one_bit_wherever_it_is_drawn() {
        for at in [0, 17, u64::MAX] {
            let mut packet = udp(&[0; 9]);
            let before = packet.clone();
            assert!(Damage::Flip(at).apply(&mut packet));
            let changed: u32 = packet.iter().zip(&before).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(changed, 1);
        }
    }

    #[test]
    fn a_swap_leaves_headers_and_checksum_as_they_are() {
        for at in [0, 3, u64::MAX] {
            let mut packet = udp(&[1, 1, 1, 1, 2, 3, 1, 1, 9]);
            let before = packet.clone();
            assert!(Damage::Swap(at).apply(&mut packet));
            assert_ne!(packet, before);
            assert_eq!(packet[..28], before[..28]);
            assert_eq!(sum(&packet), sum(&before));
        }
    }
}
