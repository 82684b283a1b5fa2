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
        let error = || EndpointError { found: text.to_owned() };
        let (kind, rest) = text.split_once(':').ok_or_else(error)?;
        match kind {
            "inet" | "inet6" => inet(rest).ok_or_else(error),
            "unix" | "local" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            _ => Err(error()),
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

/// Why a text is not an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointError {
    found: String,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = "inet:HOST:PORT, inet:PORT@HOST, unix:/PATH or local:/PATH";
        write!(f, "expected {expected}, found \"{}\"", self.found)
    }
}

impl std::error::Error for EndpointError {}

/// Sendmail puts the port first and an `@` between, Postfix the host first and a colon.
fn inet(text: &str) -> Option<Endpoint> {
    let (host, port) = match text.split_once('@') {
        Some((port, host)) => (host, port),
        None => text.rsplit_once(':')?,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ambiguous = bare.contains(':') && bare == host && !text.contains('@');
    if bare.is_empty() || ambiguous {
        return None;
    }
    Some(Endpoint::Inet { host: bare.to_owned(), port: port.parse().ok()? })
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
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
