//! What a server listens on: a port, or a socket in the file system that only its user can open.
//!
//! 1. A socket file has mode 0600 before anybody can connect: it is bound, restricted, and only then listened on.
//! 2. A file that nobody listens on, as a killed server leaves it, is replaced. One that somebody listens on, or that is
//!    no socket, never is. A lock on its directory keeps servers apart that start at the same time.
//! 3. The file goes when the listener does, if it is still the one that was made here.

use std::{
    fmt, fs,
    future::Future,
    io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use crate::grpc::Peer;

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags},
    net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::ServeError;

/// Longest path of a socket file, bytes: the kernel's structure has room for one more, which ends it.
pub(super) const MAX_PATH: usize = 107;
/// Connections that may wait to be taken.
const BACKLOG: i32 = 1024;
/// How often, and after which pause, the lock of a directory is tried.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Where a server listens. Shown as clients write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A port.
    Tcp(SocketAddr),
    /// A socket file, by its whole path.
    Unix(PathBuf),
}

impl Address {
    /// The port, if it is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The path in `unix:PATH` or `unix://PATH`.
pub(super) fn unix_path(address: &str) -> Option<&str> {
    let path = address.strip_prefix("unix:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connection that was taken.
#[derive(Debug)]
pub(super) enum Taken {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Taken {
    /// Who is at its other end, as people read it.
    pub(super) fn peer(&self) -> Peer {
        Peer(match self {
            Self::Tcp(stream) => {
                stream.peer_addr().map(|address| address.to_string()).unwrap_or_default().into()
            }
            Self::Unix(_) => "unix".into(),
        })
    }
}

impl Listener {
    /// Listens on `host:port` or `unix:PATH`.
    pub(super) async fn bind(given: &str) -> Result<Self, ServeError> {
        let bound = match unix_path(given) {
            None => TcpListener::bind(given).await.map(Self::Tcp),
            Some(path) => bind_unix(Path::new(path)).await,
        };
        bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::AddressInUse { address: given.to_owned() },
            _ => ServeError::Address { address: given.to_owned(), source },
        })
    }

    /// Where it listens: the port that was taken, the whole path.
    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// The next connection.
    pub(super) async fn take(&self) -> io::Result<Taken> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and awaited: no waiting for more to send.
                stream.set_nodelay(true)?;
                Ok(Taken::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Taken::Unix(listener.accept().await?.0)),
        }
    }
}

/// A socket file that was made here; removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn made(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let found = fs::symlink_metadata(&path)?;
        Ok(Self { path, device: found.dev(), inode: found.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: &fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(|found| ours(&found)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let _lock = lock_directory_of(path).await?;
    clear(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::made(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Listener::Unix(UnixListener::from_std(StdListener::from(socket))?, file))
}

/// Removes a socket file that nobody listens on. What is something else, or in use, is an error.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else at this path, not a socket",
        )),
        Ok(_) => match StdStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            // Also one that is too busy to answer, or that this user may not talk to.
            Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
    }
}

/// Held while a socket file is made, so that what has just been bound is not taken for a dead one.
async fn lock_directory_of(path: &Path) -> io::Result<OwnedFd> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty())?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "another process has its directory locked"))
}

/// A connection whose first bytes can be looked at without taking them.
pub(super) trait Glance: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// Waits for bytes and copies as many as fit; 0 at the end.
    fn glance(&self, into: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Glance for TcpStream {
    async fn glance(&self, into: &mut [u8]) -> io::Result<usize> {
        self.peek(into).await
    }
}

impl Glance for UnixStream {
    async fn glance(&self, into: &mut [u8]) -> io::Result<usize> {
        let peek = || Ok(rustix::net::recv(self, &mut *into, RecvFlags::PEEK)?.0);
        self.async_io(Interest::READABLE, peek).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_clients_write_them() {
        assert_eq!(Address::Tcp(([127, 0, 0, 1], 7411).into()).to_string(), "127.0.0.1:7411");
        let unix = Address::Unix("/run/annals.sock".into());
        assert_eq!((unix.to_string().as_str(), unix.port()), ("unix:/run/annals.sock", None));
        for address in ["unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(unix_path(address), Some("/run/a.sock"));
        }
        assert_eq!((unix_path("unix:a.sock"), unix_path("127.0.0.1:1")), (Some("a.sock"), None));
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed server leaves");
        let listener = bind_unix(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let in_use = bind_unix(&path).await.unwrap_err();
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        StdStream::connect(&path).expect("the first still listens");
        drop(listener);
        assert!(!path.exists(), "it goes with its listener");
    }

    #[tokio::test]
    async fn what_is_no_socket_stays_and_another_one_s_file_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        fs::write(&path, "mine").unwrap();
        assert_eq!(bind_unix(&path).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        let listener = bind_unix(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let other = StdListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists(), "this one is somebody else's");
        drop(other);
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_one_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(StdListener::bind(&path).unwrap());
        let starts: Vec<_> = (0..16)
            .map(|_| {
                tokio::spawn({
                    let path = path.clone();
                    async move { bind_unix(&path).await }
                })
            })
            .collect();
        let mut listeners = Vec::new();
        for start in starts {
            listeners.extend(start.await.unwrap().ok());
        }
        assert_eq!(listeners.len(), 1);
        StdStream::connect(&path).expect("it is the one that can be reached");
    }
}
