//! Datagrams to a service manager's socket (unix(7)).
//!
//! Invariant: connected from the start, so that a sandbox which permits no new connection lets them through.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use super::super::os;

#[derive(Debug)]
pub(crate) struct Notifier {
    name: OsString,
    socket: RefCell<UnixDatagram>,
}

impl Notifier {
    pub(crate) fn connect(name: OsString) -> io::Result<Self> {
        let socket = RefCell::new(connected(&name)?);
        Ok(Self { name, socket })
    }

    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        let sent = self.socket.borrow().send(message);
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // A manager that was started anew listens at the same place.
                self.socket.replace(connected(&self.name)?);
                self.socket.borrow().send(message)?;
            }
            sent => drop(sent?),
        }
        Ok(())
    }
}

fn connected(name: &OsString) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&os::socket::address_of(name)?)?;
    Ok(socket)
}

/// The device and the inode of what standard error is.
pub(crate) fn standard_error() -> io::Result<(u64, u64)> {
    let metadata = File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
