//! Who may see the status page: whoever is on this host, or has the token, or comes through a proxy that asked for a login.
//!
//! `/metrics` and the probes tell nothing of people and are open as ever.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hyper::header::AUTHORIZATION;
use hyper::header::HOST;
use hyper::header::HeaderMap;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use ipnet::IpNet;
// Takes bounces apart elsewhere; here, only the decoder.
use mail_parser::decoders::base64::base64_decode;
use subtle::ConstantTimeEq as _;

use crate::config;
use crate::config::Diagnostic;
use crate::server::notify::secret::locate;

/// What there is to show in order to be let in.
pub(in crate::server) struct Gate {
    has_page: bool,
    token: Option<Vec<u8>>,
    header: Option<HeaderName>,
    proxies: Vec<IpNet>,
    /// Why the token cannot be had.
    problem: Option<String>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Denied {
    /// A browser was made to ask for this address under a strange name.
    Host,
    /// Through the proxy only.
    Proxy,
    /// The configuration wants no page.
    NoPage,
    /// Anybody could see it here.
    Open,
    /// With the token only; whether a wrong one came.
    Token { wrong: bool },
}

/// Guessing takes longer than anybody lives.
const SHORTEST_TOKEN: usize = 16;

/// More is another file.
const LONGEST_TOKEN: u64 = 1024;

impl Gate {
    /// For nobody.
    pub(in crate::server) const fn closed() -> Self {
        Self { has_page: false, token: None, header: None, proxies: Vec::new(), problem: None }
    }

    /// As the configuration has it. A token that cannot be had keeps the page shut, and no mail waiting.
    pub(in crate::server) fn new(http: &config::Http) -> Self {
        let header = http.trusted_header.as_ref().and_then(|header| HeaderName::try_from(&header.value).ok());
        let gate = Self { has_page: http.status_page, header, proxies: http.trusted_proxies.clone(), ..Self::closed() };
        let Some(path) = http.token_file.as_ref().filter(|_| http.has_page()) else {
            return gate;
        };
        match read_token(&path.value) {
            Ok(token) => Self { token: Some(token), ..gate },
            Err(error) => {
                let problem = format!("http.token_file: cannot use {}: {error}", path.value.display());
                Self { has_page: false, problem: Some(format!("{problem}; the status page stays shut")), ..gate }
            }
        }
    }

    /// Why the page stays shut, if it should not.
    pub(in crate::server) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether a request from `peer` to the listener may see the page.
    pub(super) fn admits(&self, headers: &HeaderMap, peer: IpAddr, listener: SocketAddr) -> Result<(), Denied> {
        if !self.has_page {
            return Err(Denied::NoPage);
        }
        if self.is_vouched_for(headers, peer) {
            return Ok(());
        }
        match (&self.token, &self.header) {
            (Some(token), _) => match given_token(headers) {
                Some(given) if bool::from(given.as_slice().ct_eq(token)) => Ok(()),
                given => Err(Denied::Token { wrong: given.is_some() }),
            },
            (None, Some(_)) => Err(Denied::Proxy),
            (None, None) if !listener.ip().to_canonical().is_loopback() => Err(Denied::Open),
            (None, None) if !is_named_by_address(headers) || is_passed_on(headers) => Err(Denied::Host),
            (None, None) => Ok(()),
        }
    }

    /// A proxy that is believed says that somebody has logged in.
    fn is_vouched_for(&self, headers: &HeaderMap, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let says_who = |header: &HeaderName| headers.get(header).is_some_and(|value| !value.as_bytes().is_empty());
        self.header.as_ref().is_some_and(says_who) && self.proxies.iter().any(|proxy| proxy.contains(&peer))
    }
}

/// A token file that is not there, or that everybody may read. Not whether it may be read here: that is for the daemon's user.
pub(in crate::server) fn unusable_token(http: &config::Http) -> Option<Diagnostic> {
    let path = http.token_file.as_ref()?;
    let error = locate(&path.value).and_then(|path| open_to_few(&path)).err()?;
    let message = format!("http.token_file: cannot use {} here: {error}", path.value.display());
    Some(Diagnostic::warning(path.place.clone(), message))
}

fn open_to_few(path: &Path) -> io::Result<()> {
    let file = fs::metadata(path)?;
    let message = "everybody on this host may read it; chmod 0640, or 0600";
    if file.permissions().mode() & 0o004 == 0 { Ok(()) } else { Err(io::Error::other(message)) }
}

/// `Bearer TOKEN`, or `Basic` with any name and the token for a password: every browser can ask for that.
fn given_token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.as_bytes().to_vec());
    }
    let decoded = base64_decode(value.as_bytes()).filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    decoded.get(colon + 1..).map(<[u8]>::to_vec)
}

/// A page on the web may have its own name lead here (DNS rebinding), and then read what the browser gets. The browser tells
/// that name; who means this host says `localhost` or an address.
fn is_named_by_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).map(HeaderValue::to_str) else {
        // Browsers always tell.
        return true;
    };
    let host = host.unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
}

/// A proxy on this host may tell its own name for us and still serve the whole world; most of them say for whom they ask.
fn is_passed_on(headers: &HeaderMap) -> bool {
    ["forwarded", "via", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name))
}

/// What stands in the file, which must not be everybody's to read.
fn read_token(path: &Path) -> io::Result<Vec<u8>> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    let path = &locate(path)?;
    open_to_few(path)?;
    let found = fs::metadata(path)?;
    // Of a pipe the end may never come.
    if !found.is_file() {
        return Err(invalid("it is no regular file".to_owned()));
    }
    if found.len() > LONGEST_TOKEN {
        return Err(invalid(format!("it is longer than {LONGEST_TOKEN} octets")));
    }
    let text = fs::read_to_string(path)?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let how = "such as `openssl rand -hex 24` makes";
        return Err(invalid(format!("expected a token of at least {SHORTEST_TOKEN} letters and digits, {how}")));
    }
    Ok(token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn gate(token: Option<&str>, header: Option<&'static str>) -> Gate {
        Gate {
            has_page: true,
            token: token.map(|token| token.as_bytes().to_vec()),
            header: header.map(HeaderName::from_static),
            proxies: vec!["127.0.0.1/32".parse().unwrap(), "192.0.2.0/24".parse().unwrap()],
            problem: None,
        }
    }

    fn admits(gate: &Gate, headers: &[(&'static str, &str)], peer: &str, listener: &str) -> Result<(), Denied> {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        gate.admits(&headers.collect(), peer.parse().unwrap(), listener.parse().unwrap())
    }

    #[test]
    fn without_a_login_it_is_for_this_host_alone() {
        let gate = gate(None, None);
        for host in ["localhost:9891", "127.0.0.1:9891", "[::1]:9891", "LOCALHOST"] {
            assert_eq!(admits(&gate, &[("host", host)], "127.0.0.1", "127.0.0.1:9891"), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:9891", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert_eq!(admits(&gate, &[("host", host)], "::1", "[::1]:9891"), Err(Denied::Host), "{host}");
        }
        for proxys in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
            let headers = [("host", "127.0.0.1:9891"), (proxys, "for")];
            assert_eq!(admits(&gate, &headers, "127.0.0.1", "127.0.0.1:9891"), Err(Denied::Host), "{proxys}");
        }
        for listener in ["0.0.0.0:9891", "[::]:9891", "192.0.2.1:9891"] {
            assert_eq!(admits(&gate, &[], "127.0.0.1", listener), Err(Denied::Open), "{listener}");
        }
        assert_eq!(admits(&Gate::closed(), &[], "127.0.0.1", "127.0.0.1:9891"), Err(Denied::NoPage));
    }

    #[test]
    fn a_token_is_asked_for_everywhere() {
        let gate = gate(Some(TOKEN), None);
        // any:0123456789abcdef and any:0123456789abcdeg
        for right in [&format!("Bearer {TOKEN}"), "bearer  0123456789abcdef", "Basic YW55OjAxMjM0NTY3ODlhYmNkZWY="] {
            assert_eq!(admits(&gate, &[("authorization", right)], "203.0.113.1", "0.0.0.0:9891"), Ok(()), "{right}");
        }
        for wrong in
            ["Bearer 0123456789abcdeg", "Bearer 0123456789abcde", "Bearer ", "Basic YW55OjAxMjM0NTY3ODlhYmNkZWc="]
        {
            let denied = admits(&gate, &[("authorization", wrong)], "127.0.0.1", "127.0.0.1:9891");
            assert_eq!(denied, Err(Denied::Token { wrong: true }), "{wrong}");
        }
        for none in
            [&[][..], &[("authorization", "Digest x")], &[("authorization", "Basic ????")], &[("cookie", TOKEN)]]
        {
            let denied = admits(&gate, none, "127.0.0.1", "127.0.0.1:9891");
            assert_eq!(denied, Err(Denied::Token { wrong: false }), "{none:?}");
        }
    }

    #[test]
    fn a_header_field_is_believed_from_proxies_alone() {
        let gate = gate(None, Some("x-remote-user"));
        let named = [("x-remote-user", "alice"), ("host", "status.example")];
        for peer in ["127.0.0.1", "192.0.2.9", "::ffff:192.0.2.9"] {
            assert_eq!(admits(&gate, &named, peer, "0.0.0.0:9891"), Ok(()), "{peer}");
        }
        assert_eq!(admits(&gate, &named, "203.0.113.1", "0.0.0.0:9891"), Err(Denied::Proxy));
        assert_eq!(admits(&gate, &[("x-remote-user", "")], "127.0.0.1", "127.0.0.1:9891"), Err(Denied::Proxy));
        assert_eq!(admits(&gate, &[], "127.0.0.1", "127.0.0.1:9891"), Err(Denied::Proxy));
    }

    #[test]
    fn a_token_file_is_for_the_daemon_alone() {
        let path = std::env::temp_dir().join(format!("postward-token-{}", std::process::id()));
        for (text, mode, error) in [
            (format!("{TOKEN}\n"), 0o640, ""),
            (format!("{TOKEN}\n"), 0o644, "everybody"),
            ("short\n".to_owned(), 0o600, "at least 16"),
            ("0123456789 abcdef".to_owned(), 0o600, "at least 16"),
            ("x".repeat(2000), 0o600, "longer than 1024"),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_token(&path) {
                Ok(token) => assert!(error.is_empty() && token == TOKEN.as_bytes(), "{text}"),
                Err(found) => assert!(!error.is_empty() && found.to_string().contains(error), "{text}: {found}"),
            }
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read_token(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Nobody writes into it: reading would wait for ever.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read_token(&path).unwrap_err().to_string(), "it is no regular file");
        fs::remove_file(&path).unwrap();
    }
}
