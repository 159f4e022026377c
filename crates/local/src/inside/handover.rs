//! Open sockets for another process (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Sends a number, and a socket with it if there is one.
///
/// # Errors
/// If the other process has ended.
pub fn send(stream: &UnixStream, number: u8, socket: Option<&dyn AsFd>) -> io::Result<()> {
    let sockets: Vec<_> = socket.map(AsFd::as_fd).into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    sendmsg(stream, &[IoSlice::new(&[number])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives what [`send`] sent. `None`: the other process has ended.
///
/// # Errors
/// If the system does not give the socket.
pub fn receive(stream: &UnixStream) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut number = [0];
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut number)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    Ok(Some((number[0], socket)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_that_was_handed_over_accepts() {
        let (near, far) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        send(&near, 7, Some(&listener)).unwrap();
        send(&near, 0, None).unwrap();
        drop((near, listener));
        let (number, socket) = receive(&far).unwrap().unwrap();
        assert_eq!(number, 7);
        assert!(matches!(receive(&far).unwrap(), Some((0, None))));
        assert!(receive(&far).unwrap().is_none());
        TcpStream::connect(address).unwrap().write_all(b"hello").unwrap();
        let mut text = String::new();
        TcpListener::from(socket.unwrap()).accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
