//! `[notify.NAME]`: whom rules tell that somebody is over a limit, and how.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::diagnostic::At;
use super::diagnostic::Diagnostic;
use super::diagnostic::Diagnostics;
use super::diagnostic::Place;
use super::document::Fields;
use super::document::Node;
use super::document::Value;
use super::rule;
use super::units::Span;

/// Somebody who is told.
#[derive(Clone, Debug)]
pub struct Notify {
    /// What rules call him.
    pub name: At<String>,
    /// How he is told.
    pub via: Via,
    /// How long a key must not have been over the limit before he is told of it again.
    pub cool_down: Duration,
    /// How long telling him may take.
    pub timeout: Duration,
}

/// A way to tell.
#[derive(Clone, Debug)]
pub enum Via {
    /// A program is run, with these arguments.
    Command {
        /// Its path.
        program: At<PathBuf>,
        /// What it is given.
        arguments: Vec<String>,
    },
    /// JSON is sent to a web server.
    Post {
        /// Where to.
        url: At<Uri>,
        /// The file with the value of the header `Authorization`.
        authorization_file: Option<At<PathBuf>>,
    },
}

const COOL_DOWN: Duration = Duration::from_secs(3600);
const COOL_DOWNS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2_592_000);
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// What stands before the name of a credential where a path could be.
pub const CREDENTIAL: &str = "credential:";

/// Reads one.
///
/// # Errors
///
/// The name, where nobody knows how he is told: that is reported, and rules may name him all the same.
pub(super) fn read(name: At<String>, node: Node, diagnostics: &mut Diagnostics) -> Result<Notify, At<String>> {
    let place = name.place.clone();
    if !rule::is_name(&name.value) {
        diagnostics.push(Diagnostic::error(place.clone(), rule::EXPECTED_NAME));
    }
    let Some(mut fields) = Fields::of(node, "a table such as { command = [\"/usr/local/bin/tell\"] }", diagnostics)
    else {
        return Err(name);
    };
    let via = via(&mut fields, &place, diagnostics);
    let mut span = |key, range, what| fields.take(key).and_then(|node| time(node, range, what, diagnostics));
    let cool_down = span("cool_down", COOL_DOWNS, "a time from 1 second to 30 days").unwrap_or(COOL_DOWN);
    let timeout = span("timeout", TIMEOUTS, "a time from 1 to 60 seconds").unwrap_or(TIMEOUT);
    fields.finish(diagnostics);
    match via {
        Some(via) => Ok(Notify { name, via, cool_down, timeout }),
        None => Err(name),
    }
}

/// `command` or `url`, and what belongs to it.
fn via(fields: &mut Fields, place: &Place, diagnostics: &mut Diagnostics) -> Option<Via> {
    let (command, url) = (fields.take_with_key("command"), fields.take_with_key("url"));
    let authorization = fields.take_with_key("authorization_file");
    let via = match (command, url) {
        (Some((_, node)), None) => command_of(node, diagnostics),
        (None, Some((_, node))) => return post(node, authorization.map(|(_, node)| node), diagnostics),
        (Some(_), Some((place, _))) => {
            let message = "either a `command` is run or a `url` is sent to";
            let hint = "make two of it: a rule may name several, notify = [\"one\", \"other\"]";
            diagnostics.push(Diagnostic::error(place, message).hint(hint));
            None
        }
        (None, None) => {
            let hint = "add command = [\"/usr/local/bin/tell\"] or url = \"https://...\"";
            diagnostics.push(Diagnostic::error(place.clone(), "this tells nobody").hint(hint));
            None
        }
    };
    if let Some((place, _)) = authorization {
        let message = "`authorization_file` goes with a `url`; a command finds its secrets itself";
        diagnostics.push(Diagnostic::error(place, message));
    }
    via
}

/// A program and its arguments. No shell is asked, so a line with blanks in it is no program.
fn command_of(node: Node, diagnostics: &mut Diagnostics) -> Option<Via> {
    const EXPECTED: &str = "a list of a program and its arguments such as [\"/usr/local/bin/tell\", \"admin\"]";
    if matches!(&node.value, Value::Array(nodes) if nodes.is_empty()) {
        diagnostics.push(node.expected(EXPECTED));
    }
    let mut words = node.one_or_more().into_iter().map(|node| node.string(EXPECTED, diagnostics)).collect::<Vec<_>>();
    let nul = |word: &&At<String>| word.value.contains('\0');
    if let Some(word) = words.iter().flatten().find(nul) {
        diagnostics.push(Diagnostic::error(word.place.clone(), "no argument can contain NUL"));
        return None;
    }
    let program = (!words.is_empty()).then(|| words.remove(0)).flatten()?;
    if !program.value.starts_with('/') {
        let message = format!("expected the path of a program, which starts with /, found \"{}\"", program.value);
        diagnostics.push(Diagnostic::error(program.place, message).hint("the daemon looks in no PATH for it"));
        return None;
    }
    if let Some((path, _)) = program.value.split_once(' ') {
        let message = "no shell takes this apart: it is the name of one file, blanks included";
        let hint = format!("write the arguments for themselves: [\"{path}\", \"...\"]");
        diagnostics.push(Diagnostic::warning(program.place.clone(), message).hint(hint));
    }
    let arguments = words.into_iter().flatten().map(|word| word.value).collect();
    Some(Via::Command { program: At { value: program.value.into(), place: program.place }, arguments })
}

fn post(node: Node, authorization: Option<Node>, diagnostics: &mut Diagnostics) -> Option<Via> {
    let authorization_file = authorization.and_then(|node| file(node, diagnostics));
    let text = node.string("a URL such as \"https://alerts.example.com/postward\"", diagnostics)?;
    let url = match web_address(&text.value) {
        Ok(value) => At { value, place: text.place },
        Err((message, hint)) => {
            diagnostics.push(Diagnostic::error(text.place, message).hint(hint));
            return None;
        }
    };
    let is_here = url.value.host().is_some_and(is_loopback);
    if authorization_file.is_some() && url.value.scheme_str() == Some("http") && !is_here {
        let message = "the secret of `authorization_file` goes over the network for all to read";
        diagnostics.push(Diagnostic::warning(url.place.clone(), message).hint("use https"));
    }
    Some(Via::Post { url, authorization_file })
}

fn file(node: Node, diagnostics: &mut Diagnostics) -> Option<At<PathBuf>> {
    let path = node.string("a path such as \"/etc/postward/notify.secret\"", diagnostics)?;
    let credential = path.value.strip_prefix(CREDENTIAL);
    let is_name = |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && ![".", ".."].contains(&name);
    if !path.value.starts_with('/') && !credential.is_some_and(is_name) {
        // It is not quoted: it may be the secret itself, and this may be told to the log.
        let message = "expected a path that starts with /, or credential:NAME for systemd's LoadCredential=";
        let hint = "the secret itself stands in the file, as in: Bearer 0123456789abcdef";
        diagnostics.push(Diagnostic::error(path.place, message).hint(hint));
        return None;
    }
    Some(At { value: path.value.into(), place: path.place })
}

/// An http or https URL without a password in it; else what is wrong with it, and what to do.
fn web_address(text: &str) -> Result<Uri, (String, &'static str)> {
    const FORM: &str = "as in \"https://alerts.example.com/postward\"";
    let found = || format!("expected an http or https URL, found \"{}\"", text.escape_debug());
    let Ok(uri) = text.parse::<Uri>() else {
        return Err((found(), FORM));
    };
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err((found(), FORM));
    };
    if authority.as_str().contains('@') {
        let message = "a URL with a password in it ends up in logs";
        return Err((message.to_owned(), "write the header in a file: authorization_file = \"/...\""));
    }
    // A port that is none shows only here.
    let is_port = authority.port_u16().map_or_else(|| authority.as_str() == authority.host(), |port| port > 0);
    if authority.host().is_empty() || !is_port {
        return Err((found(), FORM));
    }
    Ok(uri)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn time(
    node: Node,
    range: RangeInclusive<Duration>,
    expected: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let span = node.parse::<Span>("a time such as \"1h\"", diagnostics)?;
    if !range.contains(&span.value.0) {
        let message = format!("expected {expected}, found {}", span.value);
        diagnostics.push(Diagnostic::error(span.place, message));
        return None;
    }
    Some(span.value.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_of_the_web_and_has_no_secret() {
        for fine in ["https://a.example/x?y=z", "http://127.0.0.1:8080", "http://[::1]:1/", "https://a.example:8443/"] {
            assert!(web_address(fine).is_ok(), "{fine}");
        }
        let bad =
            ["", "/x", "a.example/x", "ftp://a.example/", "https://", "https:///x", "http://a:b@c/", "http://a b/"];
        for bad in bad.into_iter().chain(["http://a:0/", "http://a:99999/", "mailto:a@b"]) {
            assert!(web_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_this_host() {
        assert!(["localhost", "127.9.0.1", "[::1]"].into_iter().all(is_loopback));
        assert!(!["example.com", "192.0.2.1", "[2001:db8::1]"].into_iter().any(is_loopback));
    }
}
