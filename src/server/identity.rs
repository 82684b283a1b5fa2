//! Who the daemon is once it serves: the user who started it, or, where that was root, the one that the configuration names.
//!
//! Sockets are opened before, by whoever started it, so that they may be where only root can make them; files are opened
//! after, so that they are the user's own. Nothing leads back.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;

use nix::sys::prctl;
use nix::unistd;
use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;

use crate::config::At;
use crate::config::Server;

/// Whom the built-in configuration runs as where root starts it: it needs no files.
const NOBODY: &str = "nobody";

/// Who is to serve.
#[derive(Clone, Debug)]
pub struct Identity {
    successor: Option<Successor>,
    note: Option<String>,
}

/// Whom root makes way for.
#[derive(Clone, Debug)]
struct Successor {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// As `--user` says, or else `server.user` and `server.group`.
    ///
    /// # Errors
    ///
    /// There is no such user or group, or root is to serve and nobody said so.
    pub fn of(server: &Server, option: Option<&str>, is_built_in: bool) -> Result<Self, IdentityError> {
        let configured = server.user.as_ref().map(|user| user.value.as_str());
        let group = server.group.as_ref().map(group).transpose()?;
        let Some(name) = option.or(configured).or(if is_built_in { Some(NOBODY) } else { None }) else {
            return if unistd::geteuid().is_root() { Err(IdentityError::Root) } else { Ok(Self::unchanged(None)) };
        };
        if !unistd::geteuid().is_root() {
            let is_named = option.is_some() || configured.is_some();
            return Ok(Self::unchanged(if is_named { not_root(name)? } else { None }));
        }
        let user = user(name)?;
        let gid = group.unwrap_or(user.gid);
        if user.uid.is_root() && group.is_none() {
            return Ok(Self::unchanged(None));
        }
        Ok(Self { successor: Some(Successor { name: name.to_owned(), uid: user.uid, gid }), note: None })
    }

    /// Whoever runs the program.
    #[must_use]
    pub const fn unchanged(note: Option<String>) -> Self {
        Self { successor: None, note }
    }

    /// The name of the user that root makes way for.
    #[must_use]
    pub fn successor(&self) -> Option<&str> {
        self.successor.as_ref().map(|successor| successor.name.as_str())
    }

    /// What of the configuration has no effect.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// To whom sockets belong that root has opened.
    pub(super) fn owner(&self) -> Option<u32> {
        self.successor.as_ref().map(|successor| successor.uid.as_raw())
    }

    /// Makes all threads this user's, for good.
    pub(super) fn assume(&self) -> Result<(), IdentityError> {
        let Some(Successor { name, uid, gid }) = &self.successor else {
            return Ok(());
        };
        let error = |what| move |error: nix::Error| IdentityError::Change { what, error: error.into() };
        // NUL is no part of a name that was found.
        let c_name = CString::new(name.as_str()).unwrap_or_default();
        unistd::initgroups(&c_name, *gid).map_err(error("set the groups"))?;
        unistd::setresgid(*gid, *gid, *gid).map_err(error("set the group"))?;
        unistd::setresuid(*uid, *uid, *uid).map_err(error("set the user"))?;
        // Else /proc/self would be root's, from which the metrics of the process are read.
        prctl::set_dumpable(true).map_err(error("keep /proc/self"))?;
        verify(*uid, *gid)
    }
}

/// A C library may change one thread only; then this one would serve mail without rights, and another with all of them.
fn verify(uid: Uid, gid: Gid) -> Result<(), IdentityError> {
    let change = |error| IdentityError::Change { what: "see that no thread has stayed root", error };
    let groups = unistd::getgroups().map_err(|error| change(error.into()))?;
    for task in fs::read_dir("/proc/self/task").map_err(change)? {
        let status = match fs::read_to_string(task.map_err(change)?.path().join("status")) {
            Ok(status) => status,
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(change(error)),
        };
        if let Some(line) = remains(&status, uid, gid, &groups) {
            return Err(change(io::Error::other(format!("a thread has {line}"))));
        }
    }
    Ok(())
}

/// The line of a thread's status that tells of rights it should not have.
fn remains<'a>(status: &'a str, uid: Uid, gid: Gid, groups: &[Gid]) -> Option<&'a str> {
    let is_theirs = |word: &str| groups.iter().any(|group| group.to_string() == word);
    let is_left = |line: &&str| {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Uid:") => words.any(|word| word != uid.to_string()),
            Some("Gid:") => words.any(|word| word != gid.to_string()),
            Some("Groups:") => words.any(|word| !is_theirs(word)),
            Some("CapPrm:" | "CapEff:" | "CapAmb:") => {
                !uid.is_root() && words.any(|word| word.bytes().any(|b| b != b'0'))
            }
            Some(_) | None => false,
        }
    };
    status.lines().find(is_left)
}

/// Only root can become another; who is another already may as well be meant.
fn not_root(name: &str) -> Result<Option<String>, IdentityError> {
    let uid = unistd::geteuid();
    if user(name)?.uid == uid {
        return Ok(None);
    }
    let ours = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    Ok(Some(format!("running as user {ours}, not as {name}: only root can become another user")))
}

fn user(name: &str) -> Result<User, IdentityError> {
    let error = |error| IdentityError::User { name: name.to_owned(), error };
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(error(None)),
        Err(problem) => Err(error(Some(problem.into()))),
    }
}

fn group(name: &At<String>) -> Result<Gid, IdentityError> {
    let error = |error| IdentityError::Group { name: name.value.clone(), error };
    match Group::from_name(&name.value) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(error(None)),
        Err(problem) => Err(error(Some(problem.into()))),
    }
}

/// The user who is to serve, for whom `check` looks around; `None` if that cannot be told.
pub(super) fn expected_uid(server: &Server) -> Option<u32> {
    let user = server.user.as_ref()?;
    User::from_name(&user.value).ok().flatten().map(|user| user.uid.as_raw())
}

/// Why nobody can serve.
#[derive(Debug)]
pub enum IdentityError {
    /// The system does not allow it, or did not do it.
    Change {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// There is no such group, or nobody can say.
    Group {
        /// Its name.
        name: String,
        /// Why nobody can say.
        error: Option<io::Error>,
    },
    /// Root would serve, and nobody said so.
    Root,
    /// There is no such user, or nobody can say.
    User {
        /// The name.
        name: String,
        /// Why nobody can say.
        error: Option<io::Error>,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change { what, error } => write!(f, "server.user: cannot {what}: {error}"),
            Self::Group { name, error: None } => write!(f, "server.group: there is no group `{name}` on this system"),
            Self::Group { name, error: Some(error) } => {
                write!(f, "server.group: cannot look up group `{name}`: {error}")
            }
            Self::Root => f.write_str(
                "does not serve as root; add user = \"postward\" to [server], or any user that needs no rights \
                 (user = \"root\" if root is meant)",
            ),
            Self::User { name, error: None } => write!(f, "server.user: there is no user `{name}` on this system"),
            Self::User { name, error: Some(error) } => write!(f, "server.user: cannot look up user `{name}`: {error}"),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Change { error, .. } => Some(error),
            Self::Group { error, .. } | Self::User { error, .. } => error.as_ref().map(|error| error as _),
            Self::Root => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPPED: &str = "Name:\tpostward\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t8 9\n\
                           CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                           CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";

    #[test]
    fn a_thread_that_kept_any_right_is_found() {
        let groups = [8, 9].map(Gid::from_raw);
        let remains = |status: &str| remains(status, Uid::from_raw(7), Gid::from_raw(8), &groups).map(str::to_owned);
        assert_eq!(remains(DROPPED), None);
        for (before, after) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t0\t7"),
            ("Gid:\t8\t8\t8\t8", "Gid:\t0\t8\t8\t8"),
            ("Groups:\t8 9", "Groups:\t0 8 9"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000400"),
            ("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001"),
        ] {
            assert_eq!(remains(&DROPPED.replace(before, after)).as_deref(), Some(after));
        }
    }
}
