//! Keys of limits: their octets, and how people write them. Each is made of the other here, and they are inverses.
//!
//! As octets the parts are told apart by NUL, which no part can contain; an address has its family before it, so that its
//! length is known and NUL in it separates nothing.
//!
//! As text the parts are told apart by blanks: `192.0.2.7 alice`. A network is written with its prefix length, `192.0.2.0/24`,
//! unless that is of one address. A part that is empty, has blanks or hidden characters, begins with `"`, or would be read as
//! another one (capitals, where case does not matter) stands in double quotes, in which `\"`, `\\` and `\u{…}` are one character
//! each. Of a key with one part the text may be that part as it is, blanks included. The key of a limit without parts is `-`.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnet::IpNet;

use super::limit::Counter;
use crate::config::KeyPart;
use crate::facts::Address;
use crate::facts::Key;
use crate::facts::Name;

impl Counter {
    /// A key of this counter as people write it. Octets that are none of its keys are shown all the same.
    #[must_use]
    pub fn written(&self, key: &[u8]) -> String {
        written(&self.key, key).unwrap_or_else(|| quoted(&String::from_utf8_lossy(key)))
    }

    /// The key that somebody means: names fold, as those of clients do; an address stands for its network.
    ///
    /// # Errors
    ///
    /// The text is no key of this counter.
    pub fn meant(&self, text: &str) -> Result<Key, KeyError> {
        let mut key = Key::new();
        for (index, (part, word)) in self.key.iter().zip(self.words(text)?).enumerate() {
            if index > 0 {
                key.push(0);
            }
            word.push_to(&mut key, *part)?;
        }
        Ok(key)
    }

    /// As many words as the key has parts.
    fn words(&self, text: &str) -> Result<Vec<Word>, KeyError> {
        let words = words(text);
        match (&self.key[..], words) {
            ([], _) if text.trim() == NO_PARTS => Ok(Vec::new()),
            ([], _) => Err(KeyError::HasNoParts),
            (parts, Some(words)) if words.len() == parts.len() => Ok(words),
            ([_], _) if !text.trim().is_empty() => Ok(vec![Word { text: text.to_owned(), is_exact: false }]),
            (parts, words) => {
                let found = words.map(|words| words.len());
                Err(KeyError::Parts { expected: parts.iter().copied().map(name).collect(), found })
            }
        }
    }
}

/// Why a text is no key of a counter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyError {
    /// The counter counts everything together.
    HasNoParts,
    /// No address or network stands where one must.
    NoAddress {
        /// What stands there.
        found: String,
    },
    /// A part contains NUL.
    Nul,
    /// Other parts are needed.
    Parts {
        /// Their names.
        expected: Vec<&'static str>,
        /// How many there are; `None`: quotes do not end where a part does.
        found: Option<usize>,
    },
    /// The counter has networks of another size.
    Prefix {
        /// Its prefix length.
        expected: u8,
        /// The network in question.
        found: IpNet,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasNoParts => write!(f, "it counts everything together; its only key is {NO_PARTS}"),
            Self::NoAddress { found } => write!(f, "expected an address such as 192.0.2.7, found \"{found}\""),
            Self::Nul => write!(f, "a key has no NUL"),
            Self::Parts { expected, found: None } => {
                write!(f, "expected {}; a quote does not end where a part does", expected.join(" and "))
            }
            Self::Parts { expected, found: Some(1) } => {
                write!(f, "expected {}, found one part", expected.join(" and "))
            }
            Self::Parts { expected, found: Some(found) } => {
                write!(f, "expected {}, found {found} parts", expected.join(" and "))
            }
            Self::Prefix { expected, found } => {
                write!(f, "its networks have /{expected}, {found} is another; an address alone will do")
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// A part as somebody wrote it.
struct Word {
    text: String,
    /// It stood in quotes.
    is_exact: bool,
}

impl Word {
    fn push_to(&self, key: &mut Key, part: KeyPart) -> Result<(), KeyError> {
        if let KeyPart::Client { v4, v6 } = part {
            push_network(key, client(&self.text, v4, v6)?, v4, v6);
            return Ok(());
        }
        if self.text.contains('\0') {
            return Err(KeyError::Nul);
        }
        let text = if self.is_exact { self.text.clone() } else { folded(part, &self.text) };
        key.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// An address, or a network of the size that is counted.
fn client(text: &str, v4: u8, v6: u8) -> Result<IpAddr, KeyError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical());
    }
    let network: IpNet = text.parse().map_err(|_| KeyError::NoAddress { found: text.to_owned() })?;
    let expected = match network {
        IpNet::V4(_) => v4,
        IpNet::V6(_) => v6,
    };
    if network.prefix_len() == expected {
        Ok(network.addr())
    } else {
        Err(KeyError::Prefix { expected, found: network })
    }
}

/// As `facts` has what a client writes.
fn folded(part: KeyPart, text: &str) -> String {
    match part {
        KeyPart::Client { .. } | KeyPart::Listener => text.to_owned(),
        KeyPart::Login => text.to_lowercase(),
        KeyPart::Helo | KeyPart::RecipientDomain | KeyPart::SenderDomain => {
            Name::of_host(text.as_bytes()).folded().to_owned()
        }
        KeyPart::Recipient | KeyPart::Sender => Address::parse(text.as_bytes()).folded().to_owned(),
    }
}

/// `None`: the parts make no such key.
fn written(parts: &[KeyPart], key: &[u8]) -> Option<String> {
    if parts.is_empty() {
        return key.is_empty().then(|| NO_PARTS.to_owned());
    }
    let mut rest = key;
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(&[0])?;
        }
        let text = match part {
            KeyPart::Client { v4, v6 } => network(&mut rest, *v4, *v6)?,
            KeyPart::Helo
            | KeyPart::Listener
            | KeyPart::Login
            | KeyPart::Recipient
            | KeyPart::RecipientDomain
            | KeyPart::Sender
            | KeyPart::SenderDomain => {
                let (text, behind) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len()));
                rest = behind;
                word(*part, std::str::from_utf8(text).ok()?)
            }
        };
        texts.push(text);
    }
    rest.is_empty().then(|| texts.join(" "))
}

fn network(rest: &mut &[u8], v4: u8, v6: u8) -> Option<String> {
    let (family, behind) = rest.split_first()?;
    let (address, prefix, longest) = match family {
        4 => {
            let (address, behind) = behind.split_first_chunk::<4>()?;
            *rest = behind;
            (IpAddr::from(Ipv4Addr::from(*address)), v4, 32)
        }
        6 => {
            let (address, behind) = behind.split_first_chunk::<16>()?;
            *rest = behind;
            (IpAddr::from(Ipv6Addr::from(*address)), v6, 128)
        }
        _ => return None,
    };
    Some(if prefix == longest { address.to_string() } else { format!("{address}/{prefix}") })
}

pub(super) fn push_network(key: &mut Key, address: IpAddr, v4: u8, v6: u8) {
    match address {
        IpAddr::V4(address) => {
            key.push(4);
            let mask = u32::MAX.checked_shl(32 - u32::from(v4)).unwrap_or_default();
            key.extend_from_slice(&(u32::from(address) & mask).to_be_bytes());
        }
        IpAddr::V6(address) => {
            key.push(6);
            let mask = u128::MAX.checked_shl(128 - u32::from(v6)).unwrap_or_default();
            key.extend_from_slice(&(u128::from(address) & mask).to_be_bytes());
        }
    }
}

fn word(part: KeyPart, text: &str) -> String {
    let is_plain =
        !text.is_empty() && !text.starts_with('"') && text.chars().all(is_shown) && folded(part, text) == text;
    if is_plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' ' => quoted.push(c),
            c if is_shown(c) => quoted.push(c),
            c => quoted.extend(c.escape_unicode()),
        }
    }
    quoted.push('"');
    quoted
}

/// Nothing that separates, that a terminal obeys, or that cannot be seen.
fn is_shown(c: char) -> bool {
    c.is_ascii_graphic() || c.is_alphanumeric()
}

/// `None` where something follows a closing quote, or there is none.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (text, is_exact, behind) = match rest.strip_prefix('"') {
            Some(inside) => {
                let (text, behind) = unquoted(inside)?;
                (text, true, behind)
            }
            None => {
                let (text, behind) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
                (text.to_owned(), false, behind)
            }
        };
        if !behind.is_empty() && !behind.starts_with(char::is_whitespace) {
            return None;
        }
        words.push(Word { text, is_exact });
        rest = behind.trim_start();
    }
    Some(words)
}

/// What stands before the closing quote, and what behind it.
fn unquoted(inside: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = inside.chars();
    loop {
        match characters.next()? {
            '"' => return Some((text, characters.as_str())),
            '\\' => match characters.next()? {
                'u' => {
                    let (code, behind) = characters.as_str().strip_prefix('{')?.split_once('}')?;
                    text.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?);
                    characters = behind.chars();
                }
                c => text.push(c),
            },
            c => text.push(c),
        }
    }
}

/// As the configuration calls it.
const fn name(part: KeyPart) -> &'static str {
    match part {
        KeyPart::Client { .. } => "client",
        KeyPart::Helo => "helo",
        KeyPart::Listener => "listener",
        KeyPart::Login => "login",
        KeyPart::Recipient => "recipient",
        KeyPart::RecipientDomain => "recipient_domain",
        KeyPart::Sender => "sender",
        KeyPart::SenderDomain => "sender_domain",
    }
}

/// The key of a counter without parts.
const NO_PARTS: &str = "-";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::limit::Measure;
    use super::super::step::Levels;
    use super::*;
    use crate::config::Charge;

    const HOST: KeyPart = KeyPart::Client { v4: 32, v6: 64 };
    const NETWORK: KeyPart = KeyPart::Client { v4: 24, v6: 56 };

    fn counter(key: &[KeyPart]) -> Counter {
        let (measure, rule) = (Measure::Messages, "r".to_owned());
        Counter {
            measure,
            rows: Vec::new(),
            block_for: None,
            max_keys: None,
            of: Vec::new(),
            charge: Charge::Accepted,
            key: key.to_vec(),
            rule,
            levels: Levels::default(),
        }
    }

    /// The text as it is written again.
    fn again(parts: &[KeyPart], text: &str) -> String {
        let counter = counter(parts);
        let key = counter.meant(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let written = counter.written(&key);
        assert_eq!(counter.meant(&written), Ok(key), "{written}");
        written
    }

    #[test]
    fn what_is_read_is_written_again() {
        for (parts, text) in [
            (&[KeyPart::Login][..], "alice@example.com"),
            (&[KeyPart::Login], "alice"),
            (&[KeyPart::Login], r#""two words""#),
            (&[KeyPart::Login], r#""""#),
            (&[KeyPart::Login], r#""a\"b\\c\u{7}\u{202e}""#),
            (&[KeyPart::Sender], r#""\"john doe\"@example.com""#),
            (&[HOST], "192.0.2.7"),
            (&[HOST], "2001:db8::/64"),
            (&[NETWORK], "192.0.2.0/24"),
            (&[NETWORK, KeyPart::Login], "2001:db8:0:ff00::/56 alice"),
            (&[KeyPart::Login, HOST, KeyPart::Helo], "alice 0.0.0.0 mx.example"),
            (&[KeyPart::Helo], r#""MX.example""#),
            (&[], "-"),
        ] {
            assert_eq!(again(parts, text), text);
        }
    }

    #[test]
    fn what_people_type_means_what_clients_send() {
        for (parts, typed, meant) in [
            (&[HOST][..], "2001:db8::7", "2001:db8::/64"),
            (&[NETWORK], "192.0.2.7", "192.0.2.0/24"),
            (&[HOST], "::ffff:192.0.2.7", "192.0.2.7"),
            (&[KeyPart::Sender], "<Alice@Example.COM>", "alice@example.com"),
            (&[KeyPart::SenderDomain], "Example.COM.", "example.com"),
            (&[KeyPart::Login], "two words", r#""two words""#),
            (&[KeyPart::Recipient], r#""john doe"@example.com"#, r#""\"john doe\"@example.com""#),
            (&[HOST, KeyPart::Login], "  192.0.2.7\talice ", "192.0.2.7 alice"),
        ] {
            assert_eq!(again(parts, typed), meant);
        }
    }

    #[test]
    fn what_is_no_key_is_told() {
        for (parts, text, message) in [
            (&[HOST][..], "alice", "expected an address such as 192.0.2.7, found \"alice\""),
            (&[HOST], "192.0.2.0/24", "its networks have /32, 192.0.2.0/24 is another; an address alone will do"),
            (&[HOST, KeyPart::Login], "192.0.2.7", "expected client and login, found one part"),
            (&[HOST, KeyPart::Login], "192.0.2.7 a b", "expected client and login, found 3 parts"),
            (
                &[HOST, KeyPart::Login],
                "192.0.2.7 \"a",
                "expected client and login; a quote does not end where a part does",
            ),
            (&[KeyPart::Login], " ", "expected login, found 0 parts"),
            (&[KeyPart::Login], "a\0b", "a key has no NUL"),
            (&[], "alice", "it counts everything together; its only key is -"),
        ] {
            assert_eq!(counter(parts).meant(text).unwrap_err().to_string(), message, "{text}");
        }
    }

    /// Another version, or another configuration, may have left such.
    #[test]
    fn octets_that_are_no_key_are_shown() {
        assert_eq!(counter(&[HOST]).written(b"\x04ab"), r#""\u{4}ab""#);
        assert_eq!(counter(&[KeyPart::Login]).written(b"a\0b"), r#""a\u{0}b""#);
    }

    fn parts() -> impl Strategy<Value = Vec<KeyPart>> {
        let part = prop_oneof![
            (0..=32u8, 0..=128u8).prop_map(|(v4, v6)| KeyPart::Client { v4, v6 }),
            Just(KeyPart::Helo),
            Just(KeyPart::Login),
            Just(KeyPart::Sender),
        ];
        prop::collection::vec(part, 0..4)
    }

    proptest! {
        #[test]
        fn whatever_is_meant_is_written_so_that_it_is_meant_again(
            parts in parts(),
            text in r#"([a-zA-Z0-9@."\\ \t\u{e9}/:-]|\PC){0,16}"#,
        ) {
            let counter = counter(&parts);
            if let Ok(key) = counter.meant(&text) {
                let written = counter.written(&key);
                prop_assert_eq!(counter.meant(&written), Ok(key), "{}", written);
            }
        }

        /// With octets as `limit.rs` makes them.
        #[test]
        fn every_key_is_meant_by_what_is_written(
            parts in parts(),
            texts in prop::collection::vec(r#"([a-zA-Z@."\\ \t\u{e9}\u{202e}-]|\PC){0,8}"#, 4),
            address: u128,
            is_v4: bool,
        ) {
            let mut key = Key::new();
            for (index, (part, text)) in parts.iter().zip(&texts).enumerate() {
                if index > 0 {
                    key.push(0);
                }
                let KeyPart::Client { v4, v6 } = *part else {
                    key.extend_from_slice(text.as_bytes());
                    continue;
                };
                let short = Ipv4Addr::from(u32::try_from(address >> 96).unwrap());
                let address = if is_v4 { IpAddr::from(short) } else { Ipv6Addr::from(address).into() };
                push_network(&mut key, address, v4, v6);
            }
            let counter = counter(&parts);
            let written = counter.written(&key);
            prop_assert_eq!(counter.meant(&written), Ok(key), "{}", written);
        }
    }
}
