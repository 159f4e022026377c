//! A Unix socket for its owner, and for other users that the configuration names.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::client::{ClientOrigin, Socket};
use super::listen::{BACKLOG, Listen};

/// The access modes of the folder and the socket: those required, and those set on creation.
struct Modes {
    folder: u32,
    /// The mode bits that the folder must not have for other users; `what` names them in the error.
    closed: u32,
    what: &'static str,
    socket: u32,
}

/// Only the owner may enter the folder and use the socket.
const OWN: Modes = Modes { folder: 0o700, closed: 0o077, what: "enter", socket: 0o600 };
/// For other users too: they may enter the folder and use the socket, but cannot replace it. The
/// peer's user id, as the system reports it, decides which of them may connect.
const SHARED: Modes = Modes { folder: 0o755, closed: 0o022, what: "write to", socket: 0o666 };

/// A listening Unix socket with the name that libpq looks for, `.s.PGSQL.PORT`. Dropping it removes the socket.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that a socket which another process put in its place is not removed.
    /// `None`: the socket is not removed at all.
    identity: Option<(u64, u64)>,
    owner: u32,
}

/// The peer of a Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<u32>,
    owner: u32,
}

impl UnixSocket {
    /// Listens in `folder`, which is made if it is missing. The folder must belong to the process's
    /// user and have mode 0700; the socket is 0600, and a client of another user id is refused as
    /// well. A socket of this user on which no process listens is replaced; any other file of its
    /// name stays. Blocks for the time of some system calls; must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// A folder of another user, or one that others may enter; a name in use; a path too long for a
    /// socket; and errors of the system calls.
    pub fn bind(folder: &Path, port: u16) -> io::Result<Self> {
        Self::bind_with(folder, port, &OWN)
    }

    /// As [`UnixSocket::bind`], but other users may connect too, if the client authentication names
    /// them. The folder must belong to the process's user, and no other user may write to it (it is
    /// made with mode 0755); the socket is 0666, and the peer's user id decides whether a client
    /// may connect.
    ///
    /// # Errors
    /// A folder that others may write to, and those of [`UnixSocket::bind`].
    pub fn bind_shared(folder: &Path, port: u16) -> io::Result<Self> {
        Self::bind_with(folder, port, &SHARED)
    }

    fn bind_with(folder: &Path, port: u16, modes: &Modes) -> io::Result<Self> {
        if !folder.exists() {
            DirBuilder::new().recursive(true).mode(modes.folder).create(folder)?;
            // Sets the bits that the process's umask removed.
            fs::set_permissions(folder, Permissions::from_mode(modes.folder))?;
        }
        let owner = rustix::process::geteuid().as_raw();
        let metadata = fs::metadata(folder)?;
        let refused = |message| Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        if metadata.uid() != owner {
            return refused(format!("the folder {} belongs to another user", folder.display()));
        }
        if metadata.permissions().mode() & modes.closed != 0 {
            let (what, folder) = (modes.what, folder.display());
            return refused(format!(
                "others may {what} the folder {folder}: it must have mode {:04o}",
                modes.folder
            ));
        }
        // From here on no other user can change the file of this name.
        let path = folder.join(format!(".s.PGSQL.{port}"));
        remove_stale(&path, owner)?;
        let socket = tokio::net::UnixSocket::new_stream()?;
        socket.bind(&path)?;
        let listener = socket.listen(BACKLOG)?;
        fs::set_permissions(&path, Permissions::from_mode(modes.socket))?;
        let socket = fs::metadata(&path)?;
        Ok(Self { listener, path, identity: Some((socket.dev(), socket.ino())), owner })
    }

    /// Uses a listening socket that another process, such as the service manager, made and will
    /// remove. That process sets the socket's permissions; a client of another user id than this
    /// process's is refused all the same. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// The error of the system call that failed.
    pub fn inherit(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let path =
            listener.local_addr()?.as_pathname().unwrap_or(Path::new("a socket without a path")).to_owned();
        let owner = rustix::process::geteuid().as_raw();
        Ok(Self { listener: UnixListener::from_std(listener)?, path, identity: None, owner })
    }

    /// The path of the socket's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes a socket that a process of this user left behind. Any other file of this name stays and
/// gives an error.
fn remove_stale(path: &Path, owner: u32) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    let in_use =
        |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} {why}", path.display())));
    if !there.file_type().is_socket() {
        return in_use("is there already and is no socket");
    }
    if there.uid() != owner {
        return in_use("is a socket of another user");
    }
    // A connection attempt that blocks shows that a process listens.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => in_use("is in use by another process"),
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).ok().map(|it| (it.dev(), it.ino()));
        let ours = self.identity.is_some() && self.identity == there;
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket could not be removed");
        }
    }
}

impl Listen for UnixSocket {
    type Socket = UnixStream;

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        Ok((stream, Peer { uid, owner: self.owner }))
    }
}

impl Socket for UnixStream {
    type Address = Peer;
    const IS_NETWORK: bool = false;

    fn origin(peer: &Peer) -> ClientOrigin {
        ClientOrigin::User(peer.uid)
    }

    fn prepare(&self) {}

    async fn speaks(&self) -> io::Result<()> {
        loop {
            self.readable().await?;
            let peeked =
                self.try_io(Interest::READABLE, || SockRef::from(self).peek(&mut [MaybeUninit::uninit()]));
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return peeked.map(|_| ()),
            }
        }
    }

    /// libpq never uses TLS over a Unix socket.
    async fn begins_with_tls(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn is_remote(_: &Peer) -> bool {
        false
    }

    fn is_trusted(peer: &Peer, users: &[u32]) -> bool {
        peer.uid.is_some_and(|uid| uid == peer.owner || users.contains(&uid))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "local user {uid}"),
            None => f.write_str("unknown local user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("pgentra-unix-{}-{name}", std::process::id()))
    }

    #[tokio::test]
    async fn only_the_owner_is_trusted() {
        let folder = folder("owner");
        let socket = UnixSocket::bind(&folder, 5432).unwrap();
        assert!(socket.path().ends_with(".s.PGSQL.5432"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(socket.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let _client = UnixStream::connect(socket.path()).await.unwrap();
        let (_, peer) = socket.next().await.unwrap();
        assert!(UnixStream::is_trusted(&peer, &[]));
        // No other user is let in, not even root.
        let other = Peer { owner: peer.owner + 1, ..peer };
        assert!(!UnixStream::is_trusted(&other, &[]), "{other}");
        assert!(!UnixStream::is_trusted(&other, &[peer.owner + 2]));
        assert!(UnixStream::is_trusted(&other, &[4711, peer.owner]));
        assert!(!UnixStream::is_trusted(&Peer { uid: None, ..peer }, &[peer.owner]));
        drop(socket);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the socket goes with its listener");
        fs::remove_dir(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_shared_socket_is_for_all_and_its_folder_is_not() {
        let folder = folder("users");
        let socket = UnixSocket::bind_shared(&folder, 5432).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(socket.path()).unwrap().permissions().mode() & 0o777, 0o666);
        drop(socket);
        for (mode, may) in [(0o711, true), (0o750, true), (0o775, false), (0o777, false), (0o1777, false)] {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            assert_eq!(UnixSocket::bind_shared(&folder, 1).is_ok(), may, "{mode:o}");
        }
        fs::remove_dir(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let folder = folder("stale");
        let first = UnixSocket::bind(&folder, 1).unwrap();
        assert_eq!(UnixSocket::bind(&folder, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let path = first.path().to_owned();
        let kept = folder.join("kept");
        fs::rename(&path, &kept).unwrap();
        drop(first);
        // The name now leads to a socket on which no process listens.
        fs::rename(&kept, &path).unwrap();
        let second = UnixSocket::bind(&folder, 1).unwrap();
        let _client = UnixStream::connect(second.path()).await.unwrap();
        drop(second);
        fs::remove_dir(&folder).unwrap();
    }

    #[tokio::test]
    async fn what_is_not_a_socket_that_was_left_behind_stays() {
        let folder = folder("others");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let path = folder.join(".s.PGSQL.1");
        let bind = || UnixSocket::bind(&folder, 1).unwrap_err();
        fs::write(&path, "a file").unwrap();
        assert_eq!(bind().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
        fs::remove_file(&path).unwrap();

        fs::create_dir(&path).unwrap();
        assert_eq!(bind().kind(), io::ErrorKind::AddrInUse);
        fs::remove_dir(&path).unwrap();

        // A link to a socket on which no process listens, and a link without a target.
        let target = folder.join("target");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert_eq!(bind().kind(), io::ErrorKind::AddrInUse);
        drop(std::os::unix::net::UnixListener::bind(&target).unwrap());
        assert_eq!(bind().kind(), io::ErrorKind::AddrInUse);
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && target.exists());
        fs::remove_file(&path).unwrap();

        // A socket whose process does not accept: its queue is full.
        let hung = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        hung.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        hung.listen(0).unwrap();
        let _waiting: Vec<_> = (0..4)
            .map(|_| {
                let client = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&SockAddr::unix(&path).unwrap());
                client
            })
            .collect();
        assert_eq!(bind().kind(), io::ErrorKind::AddrInUse);
        drop(hung);

        // A datagram socket belongs to another program, so it stays.
        fs::remove_file(&path).unwrap();
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert_eq!(bind().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Only root can give away a folder and a socket, so the test needs root.
    #[tokio::test]
    async fn nothing_of_another_user_is_touched() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = folder("another");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let path = folder.join(".s.PGSQL.1");
        fs::write(&path, "theirs").unwrap();
        std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
        for bind in [UnixSocket::bind, UnixSocket::bind_shared] {
            assert_eq!(bind(&folder, 1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(bind(&folder, 2).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is made there either");
        // A folder of this user that contains a socket of another user.
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert_eq!(UnixSocket::bind(&folder, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn what_somebody_else_made_is_used_and_stays() {
        let folder = folder("inherited");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let socket = UnixSocket::inherit(std::os::unix::net::UnixListener::bind(&path).unwrap()).unwrap();
        assert_eq!(socket.path(), path);
        let _client = UnixStream::connect(&path).await.unwrap();
        let (_, peer) = socket.next().await.unwrap();
        assert!(UnixStream::is_trusted(&peer, &[]));
        drop(socket);
        fs::remove_file(&path).unwrap();
        fs::remove_dir(&folder).unwrap();
    }

    #[tokio::test]
    async fn an_open_folder_is_refused() {
        let folder = folder("open");
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
        assert_eq!(UnixSocket::bind(&folder, 1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::remove_dir(&folder).unwrap();
    }
}
