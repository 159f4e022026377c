//! The process inside the namespaces that connects to the ports that the program publishes. A socket
//! belongs to the namespace of the process that opens it.

use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use pgentra_local::inside;

use super::arguments::LocalConnector;
use crate::problem::{Outcome, Problem};

/// The hidden command of this process.
pub(super) const COMMAND: &str = "local-connector";

/// Connects to each port that the relay asks for, until the relay ends. The first process only starts
/// a second one, which is no child of the program.
pub(crate) fn serve(arguments: &LocalConnector) -> Outcome {
    if !arguments.detached {
        let own = std::env::current_exe()
            .map_err(|error| Problem::ours("cannot find this program's own file", error))?;
        return std::process::Command::new(own)
            .args([COMMAND, "--detached", "--socket"])
            .arg(&arguments.socket)
            .stdin(Stdio::null())
            .spawn()
            .map(drop)
            .map_err(|error| Problem::ours("cannot start the connector", error));
    }
    let mut stream = UnixStream::connect(&arguments.socket)
        .map_err(|error| Problem::ours("cannot reach the relay", error))?;
    let mut port = [0; 2];
    while stream.read_exact(&mut port).is_ok() {
        let port = u16::from_be_bytes(port);
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .or_else(|_| TcpStream::connect((Ipv6Addr::LOCALHOST, port)));
        let sent = match &connected {
            Ok(connected) => inside::send(&stream, 1, Some(connected)),
            Err(_) => inside::send(&stream, 0, None),
        };
        if sent.is_err() {
            break;
        }
    }
    Ok(())
}
