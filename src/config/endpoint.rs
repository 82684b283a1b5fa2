//! Where to listen, in Postfix's and in Sendmail's spelling.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A milter endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `inet:host:port`, `inet:[::1]:port`, `inet:port@host`, `inet6:port@host`.
    Inet {
        /// A name or address, without brackets.
        host: String,
        /// Zero: any free one.
        port: u16,
    },
    /// `unix:/path`, `local:/path`.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = |why| EndpointError { why, found: text.to_owned() };
        let spelling = || error(Why::Spelling { meant: meant(text) });
        let (kind, rest) = text.split_once(':').ok_or_else(spelling)?;
        match kind {
            "inet" | "inet6" => inet(rest).map_err(|why| error(why.unwrap_or(Why::Spelling { meant: None }))),
            "unix" | "local" if !rest.starts_with('/') => Err(error(Why::RelativePath)),
            "unix" | "local" if rest.len() > LONGEST_PATH => Err(error(Why::PathTooLong)),
            "unix" | "local" if !rest.contains(char::is_control) => Ok(Self::Unix(rest.into())),
            _ => Err(spelling()),
        }
    }
}

/// In Postfix's spelling.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host, port } if host.contains(':') => write!(f, "inet:[{host}]:{port}"),
            Self::Inet { host, port } => write!(f, "inet:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `sun_path` has 108 octets, the last one zero (unix(7)).
pub(super) const LONGEST_PATH: usize = 107;

/// Why a text is not an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointError {
    found: String,
    why: Why,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Why {
    PathTooLong,
    Port,
    RelativePath,
    Spelling { meant: Option<String> },
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, why } = self;
        match why {
            Why::PathTooLong => write!(f, "the path of a socket has at most {LONGEST_PATH} characters"),
            Why::Port => write!(f, "expected a port from 0 (any free one) to 65535 in \"{found}\""),
            Why::RelativePath => write!(f, "expected a path that starts with / in \"{found}\""),
            Why::Spelling { meant: Some(meant) } => {
                write!(f, "expected an endpoint, found \"{found}\"; did you mean \"{meant}\"?")
            }
            Why::Spelling { meant: None } => {
                let expected = "inet:HOST:PORT, inet:PORT@HOST, unix:/PATH or local:/PATH";
                write!(f, "expected {expected}, found \"{found}\"")
            }
        }
    }
}

impl std::error::Error for EndpointError {}

/// A path or a host and port without the kind before it.
fn meant(text: &str) -> Option<String> {
    let kind = if text.starts_with('/') { "unix" } else { "inet" };
    let meant = format!("{kind}:{text}");
    meant.parse::<Endpoint>().is_ok().then_some(meant)
}

/// Sendmail puts the port first and an `@` between, Postfix the host first and a colon.
fn inet(text: &str) -> Result<Endpoint, Option<Why>> {
    let (host, port) = match text.split_once('@') {
        Some((port, host)) => (host, port),
        None => text.rsplit_once(':').ok_or(None)?,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ambiguous = bare.contains(':') && bare == host && !text.contains('@');
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    if bare.is_empty() || ambiguous || !bare.chars().all(is_host) {
        return Err(None);
    }
    Ok(Endpoint::Inet { host: bare.to_owned(), port: port.parse().map_err(|_| Why::Port)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mtas_spellings_are_read() {
        for (text, shown) in [
            ("inet:127.0.0.1:8891", "inet:127.0.0.1:8891"),
            ("inet:localhost:8891", "inet:localhost:8891"),
            ("inet:[::1]:8891", "inet:[::1]:8891"),
            ("inet6:[::1]:8891", "inet:[::1]:8891"),
            ("inet:8891@127.0.0.1", "inet:127.0.0.1:8891"),
            ("inet6:8891@::1", "inet:[::1]:8891"),
            ("inet6:8891@[::1]", "inet:[::1]:8891"),
            ("unix:/run/postward/postward.sock", "unix:/run/postward/postward.sock"),
            ("local:/run/postward/postward.sock", "unix:/run/postward/postward.sock"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "8891",
            "inet:",
            "inet::8891",
            "inet:localhost",
            "inet:::1:8891",
            "unix:run/x",
            "tcp:a:1",
            "inet:a:70000",
            "inet:*:8891",
            "127.0.0.1:8891",
            "/run/x",
            "unix:/run/\n",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
