//! Opening the sockets on which MTAs and administrators reach us.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;
use tokio::net::TcpListener;
use tokio::net::UnixListener;

use super::health::Heart;
use super::health::Pulse;
use super::identity::IdentityError;
use super::socket::Socket;
use crate::config::At;
use crate::config::Endpoint;
use crate::config::Server;

/// The keys of the configuration that errors name.
pub(super) const SOCKET_GROUP: &str = "server.socket_group";
pub(super) const CONTROL_GROUP: &str = "server.control_group";
const CONTROL: &str = "server.control";

/// A socket that MTAs, or administrators, connect to.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Kind,
    /// As it really is, in Postfix's spelling.
    endpoint: Endpoint,
    /// The file to remove at the end.
    file: Option<SocketFile>,
    heart: Heart,
    /// The endpoint, for logs.
    name: Arc<str>,
}

/// A socket's file, as it was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Opens one endpoint, for the user who is to serve if that is not the one who opens it. A unix socket that nobody listens on any more is replaced, one in use is left alone.
    pub(super) async fn bind(endpoint: &Endpoint, server: &Server, owner: Option<u32>) -> Result<Self, BindError> {
        match endpoint {
            Endpoint::Inet { host, port } => {
                let error = |error| BindError::Listen { key: "server.listen", endpoint: endpoint.clone(), error };
                let socket = TcpListener::bind((host.as_str(), *port)).await.map_err(error)?;
                let address = socket.local_addr().map_err(error)?;
                let endpoint = Endpoint::Inet { host: address.ip().to_string(), port: address.port() };
                Ok(Self::new(Kind::Tcp(socket), endpoint, None))
            }
            Endpoint::Unix(path) => {
                let (path, group, mode) = (path.clone(), server.socket_group.clone(), server.socket_mode);
                // Groups may be looked up far away, while sessions are served.
                let binding = tokio::task::spawn_blocking(move || {
                    Self::bind_unix(&path, &Access { owner, group: group.as_ref(), mode }, "server.listen")
                });
                let error = |panic| BindError::Listen {
                    key: "server.listen",
                    endpoint: endpoint.clone(),
                    error: io::Error::other(panic),
                };
                binding.await.unwrap_or_else(|panic| Err(error(panic)))
            }
        }
    }

    /// Opens the control socket: for the daemon's own user and, if there is one, a group of administrators.
    pub(super) fn bind_control(path: &Path, group: Option<&At<String>>, owner: Option<u32>) -> Result<Self, BindError> {
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        Self::bind_unix(path, &Access { owner, group, mode }, CONTROL)
    }

    fn bind_unix(path: &Path, access: &Access<'_>, key: &'static str) -> Result<Self, BindError> {
        let socket = bind_unix(path, access, key)?;
        let endpoint = Endpoint::Unix(path.to_owned());
        Ok(Self::new(Kind::Unix(socket), endpoint, SocketFile::find(path).ok()))
    }

    fn new(socket: Kind, endpoint: Endpoint, file: Option<SocketFile>) -> Self {
        let name = endpoint.to_string().into();
        Self { socket, endpoint, file, heart: Heart::new(), name }
    }

    /// Where it really listens.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where one feels whether somebody waits for connections here.
    pub(super) fn pulse(&self) -> Pulse {
        self.heart.pulse(self.to_string())
    }

    /// The next connection, and its other end.
    pub(super) async fn accept(&mut self) -> io::Result<(Socket, Peer)> {
        tokio::select! {
            accepted = self.socket.accept(&self.name) => accepted,
            never = self.heart.beat() => match never {},
        }
    }
}

impl Kind {
    async fn accept(&self, name: &Arc<str>) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A hint, as in `Socket::acknowledge`.
                _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Peer::Inet(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Unix(Arc::clone(name))))
            }
        }
    }
}

/// The other end of a connection, for logs.
#[derive(Debug)]
pub(super) enum Peer {
    Inet(SocketAddr),
    /// It has no name; ours says which socket it is.
    Unix(Arc<str>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => write!(f, "{address}"),
            Self::Unix(name) => f.write_str(name),
        }
    }
}

impl SocketFile {
    fn find(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Whether another has taken its place, such as that of a daemon that was started since.
    fn is_replaced(&self) -> bool {
        !Self::find(&self.path).is_ok_and(|found| (found.device, found.inode) == (self.device, self.inode))
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint)
    }
}

impl Drop for Listener {
    /// Removes the socket's file, so that the MTA's connection is refused at once and not by a file that leads nowhere.
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && !file.is_replaced()
        {
            _ = fs::remove_file(&file.path);
        }
    }
}

/// The sockets that systemd opened for us (`LISTEN_FDS`).
pub(super) fn inherited() -> Result<Vec<Listener>, BindError> {
    let mut sockets = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for number in 0..sockets.len() {
        let error = |error| BindError::Inherited { number, error };
        let listener = match sockets.take_tcp_listener(number) {
            Ok(None) => continue,
            Ok(Some(socket)) => tcp(socket).map_err(error)?,
            Err(_) => match sockets.take_unix_listener(number).map_err(error)? {
                None => continue,
                Some(socket) => unix(socket).map_err(error)?,
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

fn tcp(socket: std::net::TcpListener) -> io::Result<Listener> {
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let endpoint = Endpoint::Inet { host: address.ip().to_string(), port: address.port() };
    Ok(Listener::new(Kind::Tcp(TcpListener::from_std(socket)?), endpoint, None))
}

fn unix(socket: std::os::unix::net::UnixListener) -> io::Result<Listener> {
    socket.set_nonblocking(true)?;
    let path = socket.local_addr()?.as_pathname().unwrap_or_else(|| Path::new("unnamed")).to_owned();
    Ok(Listener::new(Kind::Unix(UnixListener::from_std(socket)?), Endpoint::Unix(path), None))
}

/// Who may use a unix socket.
struct Access<'a> {
    owner: Option<u32>,
    group: Option<&'a At<String>>,
    mode: u32,
}

fn bind_unix(path: &Path, access: &Access<'_>, key: &'static str) -> Result<UnixListener, BindError> {
    let group = match access.group {
        Some(name) => Some(group(&name.value, if key == CONTROL { CONTROL_GROUP } else { SOCKET_GROUP })?),
        None => None,
    };
    let endpoint = || Endpoint::Unix(path.to_owned());
    clear(path, key)?;
    let listener = UnixListener::bind(path).map_err(|error| BindError::Listen { key, endpoint: endpoint(), error })?;
    if let Err(error) = permit(path, access.owner, group, access.mode) {
        _ = fs::remove_file(path);
        return Err(BindError::Permissions { path: path.to_owned(), error });
    }
    Ok(listener)
}

/// Until the mode is set, the socket is nobody else's: see `umask` in `main`.
fn permit(path: &Path, owner: Option<u32>, group: Option<u32>, mode: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let (owner, group) = (owner.filter(|owner| *owner != found.uid()), group.filter(|group| *group != found.gid()));
    // Nothing is changed that is so already: root may have given it a group that its successor is not in.
    if owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, owner, group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Gives a unix socket that stays open the group and mode that the configuration has now. What somebody has put in its place
/// gets neither.
pub(super) fn permit_again(endpoint: &Endpoint, server: &Server) -> Result<(), BindError> {
    let Endpoint::Unix(path) = endpoint else {
        return Ok(());
    };
    let group = match &server.socket_group {
        Some(name) => Some(group(&name.value, SOCKET_GROUP)?),
        None => None,
    };
    let permissions = |error| BindError::Permissions { path: path.clone(), error };
    if !fs::symlink_metadata(path).map_err(permissions)?.file_type().is_socket() {
        return Err(BindError::NotASocket { key: "server.listen", path: path.clone() });
    }
    permit(path, None, group, server.socket_mode).map_err(permissions)
}

pub(super) fn group(name: &str, key: &'static str) -> Result<u32, BindError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(BindError::Group { key, name: name.to_owned(), error: None }),
        Err(error) => Err(BindError::Group { key, name: name.to_owned(), error: Some(error.into()) }),
    }
}

/// The name of the user that we run as, or his number.
fn own_user() -> String {
    let number = Uid::effective();
    User::from_uid(number).ok().flatten().map_or_else(|| number.to_string(), |user| user.name)
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path, key: &'static str) -> Result<(), BindError> {
    let listen = |error| BindError::Listen { key, endpoint: Endpoint::Unix(path.to_owned()), error };
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { key, path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse { key, path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(listen),
        Err(error) => Err(listen(error)),
    }
}

/// Why the daemon cannot start.
#[derive(Debug)]
pub enum BindError {
    /// The free space of a path that a rule asks about cannot be told.
    DiskFree {
        /// The path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no such group, or nobody can say.
    Group {
        /// The key of the configuration.
        key: &'static str,
        /// What the configuration calls it.
        name: String,
        /// Why nobody can say.
        error: Option<io::Error>,
    },
    /// The HTTP listener.
    Http {
        /// `HOST:PORT`
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Another program listens there.
    InUse {
        /// The key of the configuration.
        key: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// A socket from systemd is of no use.
    Inherited {
        /// Counted from zero.
        number: usize,
        /// Why.
        error: io::Error,
    },
    /// The endpoint cannot be opened.
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// Which.
        endpoint: Endpoint,
        /// Why.
        error: io::Error,
    },
    /// A metric cannot be registered.
    Metrics(prometheus::Error),
    /// Something else has that name.
    NotASocket {
        /// The key of the configuration.
        key: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The socket's group or mode cannot be set.
    Permissions {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Root cannot make way for the user who is to serve.
    Identity(IdentityError),
    /// Counters cannot be kept where the configuration says, or those that are there cannot be read.
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl BindError {
    /// Whether somebody else might be allowed to.
    pub(super) fn is_permission(&self) -> bool {
        match self {
            Self::Listen { error, .. } | Self::Permissions { error, .. } => {
                error.kind() == io::ErrorKind::PermissionDenied
            }
            Self::DiskFree { .. }
            | Self::Group { .. }
            | Self::Http { .. }
            | Self::Identity(_)
            | Self::InUse { .. }
            | Self::Inherited { .. }
            | Self::Metrics(_)
            | Self::NotASocket { .. }
            | Self::State { .. } => false,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFree { path, error } => {
                write!(f, "disk_free: cannot ask for the free space of {}: {error}", path.display())
            }
            Self::Group { key, name, error: None } => {
                write!(f, "{key}: there is no group `{name}` on this system")
            }
            Self::Group { key, name, error: Some(error) } => {
                write!(f, "{key}: cannot look up group `{name}`: {error}")
            }
            Self::Http { address, error } => write!(f, "http.listen: cannot listen on {address}: {error}"),
            Self::InUse { key, path } => {
                write!(f, "{key}: another program listens on unix:{}; stop it first", path.display())
            }
            Self::Identity(error) => error.fmt(f),
            Self::Inherited { number, error } => {
                write!(f, "socket {number} from the service manager is no listening stream socket: {error}")
            }
            Self::Listen { key, endpoint, error } => write!(f, "{key}: cannot listen on {endpoint}: {error}"),
            Self::Metrics(error) => write!(f, "cannot set up metrics: {error}"),
            Self::NotASocket { key, path } => {
                write!(f, "{key}: {} exists and is not a socket; remove it or choose another path", path.display())
            }
            Self::Permissions { path, error } => {
                let hint = "to give a socket to a group, the daemon must be in it";
                write!(f, "cannot set group and mode of unix:{}: {error}; {hint}", path.display())
            }
            Self::State { path, error } => {
                write!(f, "state.path: cannot keep counters in {}: {error}", path.display())?;
                if error.kind() == io::ErrorKind::PermissionDenied {
                    write!(f, "; it must belong to user {}, as whom the daemon runs", own_user())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Group { error, .. } => error.as_ref().map(|error| error as _),
            Self::DiskFree { error, .. }
            | Self::Http { error, .. }
            | Self::Inherited { error, .. }
            | Self::Listen { error, .. }
            | Self::Permissions { error, .. }
            | Self::State { error, .. } => Some(error),
            Self::Identity(error) => Some(error),
            Self::Metrics(error) => Some(error),
            Self::InUse { .. } | Self::NotASocket { .. } => None,
        }
    }
}
