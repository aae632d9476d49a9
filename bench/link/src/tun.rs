//! TUN devices: network interfaces whose packets a program reads and writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// The longest name of an interface, in bytes.
const NAME: usize = 15;

/// Opens a TUN device of this name in the namespace of this thread. It vanishes when the file is
/// closed. Each read and write is one IP packet, complete with its checksums.
///
/// # Errors
/// If there is no `/dev/net/tun`, this user may not create devices, or the name is taken.
pub(crate) fn open(name: &str) -> io::Result<File> {
    if name.is_empty() || name.len() > NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of 1 to 15 bytes"));
    }
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open("/dev/net/tun")?;
    set_interface(&file, name)?;
    Ok(file)
}

/// `struct ifreq` of linux/if.h as TUNSETIFF reads it: a name, flags, and a union of which only the
/// flags are used, 40 bytes in all on 64-bit systems.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME + 1],
    flags: i16,
    rest: [u8; 22],
}

/// TUNSETIFF of linux/if_tun.h: `_IOW('T', 202, int)`.
const SET_INTERFACE: rustix::ioctl::Opcode = 0x4004_54ca;
const IFF_TUN: i16 = 1;
/// No bytes before the IP header.
const IFF_NO_PI: i16 = 0x1000;

#[allow(unsafe_code)]
fn set_interface(file: &File, name: &str) -> io::Result<()> {
    const { assert!(size_of::<InterfaceRequest>() == 40) };
    let mut request =
        InterfaceRequest { name: [0; NAME + 1], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // Safety: TUNSETIFF takes a pointer to a `struct ifreq`, reads it, and writes the name that it
    // has chosen back into it. `InterfaceRequest` has that size and layout, every bit pattern is a
    // value of it, it is exclusively borrowed for the length of the call, and its name ends with a
    // zero since `open` leaves at least one byte of it.
    unsafe {
        let request = rustix::ioctl::Updater::<SET_INTERFACE, _>::new(&mut request);
        rustix::ioctl::ioctl(file, request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        for wrong in ["", "sixteen-bytes-xx"] {
            assert!(super::open(wrong).is_err());
        }
    }
}
