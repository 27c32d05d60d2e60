//! System calls on sockets. Owns nothing else; all sockets are non-blocking.
#![allow(unsafe_code)] // Vectored I/O on registered memory: std's slices would claim exclusive access to it.

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A range of memory to receive into or to send from.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub at: *mut u8,
    pub len: usize,
}

impl Part {
    /// Bytes to send.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            at: bytes.as_ptr().cast_mut(),
            len: bytes.len(),
        }
    }

    /// Room to receive into.
    pub fn room(bytes: &mut [u8]) -> Self {
        Self {
            at: bytes.as_mut_ptr(),
            len: bytes.len(),
        }
    }

    fn iovec(self) -> libc::iovec {
        libc::iovec {
            iov_base: self.at.cast(),
            iov_len: self.len,
        }
    }
}

/// At most this many parts in one call.
pub(crate) const MAX_PARTS: usize = 64;

/// Receives into the parts in order; 0 is the end of the stream.
///
/// # Safety
/// Each part must be writable for the duration of the call.
pub(crate) unsafe fn receive(fd: BorrowedFd<'_>, parts: &[Part]) -> io::Result<usize> {
    let mut vector = [Part {
        at: std::ptr::null_mut(),
        len: 0,
    }
    .iovec(); 2];
    vector
        .iter_mut()
        .zip(parts)
        .for_each(|(slot, part)| *slot = part.iovec());
    let count = i32::try_from(parts.len().min(2)).expect("at most two");
    // SAFETY: the caller vouches for the parts; the vector has `count` of them.
    retry(|| unsafe { libc::readv(fd.as_raw_fd(), vector.as_ptr(), count) })
}

/// Sends the parts in order. A closed connection is an error, not a signal.
///
/// # Safety
/// Each part must be readable for the duration of the call.
pub(crate) unsafe fn send(fd: BorrowedFd<'_>, parts: &[Part]) -> io::Result<usize> {
    let mut vector = [Part {
        at: std::ptr::null_mut(),
        len: 0,
    }
    .iovec(); MAX_PARTS];
    vector
        .iter_mut()
        .zip(parts)
        .for_each(|(slot, part)| *slot = part.iovec());
    // SAFETY: all fields of a message header may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vector.as_mut_ptr();
    message.msg_iovlen = parts.len().min(MAX_PARTS) as _;
    // SAFETY: the caller vouches for the parts; the vector outlives the call.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
}

fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Listens on a port that the system chooses.
pub(crate) fn listen(ip: IpAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((ip, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Takes a connection that came.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<OwnedFd> {
    Ok(net::accept_with(
        listener,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
    )?)
}

/// Begins to connect; the socket becomes writable when that is decided.
pub(crate) fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let fd = net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    match net::connect(&fd, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// What became of `connect`.
pub(crate) fn connected(fd: impl AsFd) -> io::Result<()> {
    sockopt::socket_error(fd)?.map_err(Into::into)
}

/// No delay for small frames; a dead host is noticed within `timeout`. Buffer sizes are left to the kernel, whose own tuning
/// reaches several MiB, while a size that is set is capped at a fraction of that and switches the tuning off.
pub(crate) fn tune(fd: impl AsFd, timeout: Duration) -> io::Result<()> {
    let fd = fd.as_fd();
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, (timeout / 2).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(fd, (timeout / 6).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(fd, 3)?;
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
    sockopt::set_tcp_user_timeout(fd, millis)?;
    Ok(())
}

/// Ends a connection at once in both directions; its descriptor is closed by its owner.
pub(crate) fn shut(fd: impl AsFd) {
    // The peer may have ended it before; either way it is over.
    let _ = net::shutdown(fd, net::Shutdown::Both);
}
