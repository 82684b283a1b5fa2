//! A secret in a file of its own: where it is, what it says, and who else may read it. Errors never quote it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use hyper::header::HeaderValue;

use crate::config::CREDENTIAL;

/// Where the service manager has put what `LoadCredential=` names (systemd.exec(5)).
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The file that is meant: a path, or the name of a credential.
pub(in crate::server) fn locate(path: &Path) -> io::Result<PathBuf> {
    locate_in(path, env::var_os(DIRECTORY).as_deref())
}

fn locate_in(path: &Path, directory: Option<&OsStr>) -> io::Result<PathBuf> {
    let Some(name) = path.to_str().and_then(|path| path.strip_prefix(CREDENTIAL)) else {
        return Ok(path.to_owned());
    };
    let Some(directory) = directory.filter(|directory| !directory.is_empty()) else {
        let message = format!("there is no ${DIRECTORY} here; LoadCredential={name}:/PATH in the unit makes it");
        return Err(io::Error::other(message));
    };
    Ok(Path::new(directory).join(name))
}

/// Read each time, so that it can be changed. Of what is no file, a pipe say, the end may never come.
pub(super) fn read(path: &Path) -> Result<HeaderValue, String> {
    let shown = path.display();
    let unreadable = |error| format!("cannot read authorization_file {shown}: {error}");
    let file = locate(path).map_err(unreadable)?;
    if !fs::metadata(&file).map_err(unreadable)?.is_file() {
        return Err(format!("authorization_file {shown} is no regular file"));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let mut value = HeaderValue::from_str(text.trim())
        .map_err(|_| format!("authorization_file {shown} is not one line of a header such as \"Bearer ...\""))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether every user of the system may read it. Its group may well be the daemon's.
pub(super) fn is_exposed(path: &Path) -> bool {
    let found = locate(path).and_then(fs::metadata);
    found.is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_file_of_the_service_managers() {
        let directory = Some(OsStr::new("/run/credentials/postward.service"));
        let located = |path, directory| locate_in(Path::new(path), directory).map_err(|error| error.to_string());
        let found = located("credential:alerts", directory).unwrap();
        assert_eq!(found, Path::new("/run/credentials/postward.service/alerts"));
        assert_eq!(located("/etc/secret", directory).unwrap(), Path::new("/etc/secret"));
        let problem = "there is no $CREDENTIALS_DIRECTORY here; LoadCredential=alerts:/PATH in the unit makes it";
        assert_eq!(located("credential:alerts", None).unwrap_err(), problem);
    }
}
