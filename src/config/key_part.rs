//! What a limit's key is made of: `client/24`, `login`, ...

use std::fmt;
use std::str::FromStr;

/// A part of a limit's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyPart {
    /// `client`, `client/24`, `client/24/56`: the network of the client's address.
    Client {
        /// Prefix length for IPv4.
        v4: u8,
        /// Prefix length for IPv6.
        v6: u8,
    },
    /// The HELO name.
    Helo,
    /// The MTA's name for the port.
    Listener,
    /// The login.
    Login,
    /// The recipient.
    Recipient,
    /// The recipient's domain.
    RecipientDomain,
    /// The sender.
    Sender,
    /// The sender's domain.
    SenderDomain,
}

/// A host usually has a whole /64 to choose addresses from (RFC 6177).
const DEFAULT_V6_PREFIX: u8 = 64;

impl KeyPart {
    /// Whether who has one value of this part has one value of the other, too.
    pub(super) const fn settles(self, other: Self) -> bool {
        match (self, other) {
            (Self::Client { v4, v6 }, Self::Client { v4: other_v4, v6: other_v6 }) => other_v4 <= v4 && other_v6 <= v6,
            (Self::Helo, Self::Helo) | (Self::Listener, Self::Listener) | (Self::Login, Self::Login) => true,
            (Self::Recipient, Self::Recipient | Self::RecipientDomain) => true,
            (Self::RecipientDomain, Self::RecipientDomain) | (Self::SenderDomain, Self::SenderDomain) => true,
            (Self::Sender, Self::Sender | Self::SenderDomain) => true,
            (
                Self::Client { .. }
                | Self::Helo
                | Self::Listener
                | Self::Login
                | Self::Recipient
                | Self::RecipientDomain
                | Self::Sender
                | Self::SenderDomain,
                _,
            ) => false,
        }
    }
}

impl FromStr for KeyPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = match text {
            "helo" => Self::Helo,
            "listener" => Self::Listener,
            "login" => Self::Login,
            "recipient" => Self::Recipient,
            "recipient_domain" => Self::RecipientDomain,
            "sender" => Self::Sender,
            "sender_domain" => Self::SenderDomain,
            _ => return client_key(text),
        };
        Ok(part)
    }
}

/// In full: two spellings of one key are the same.
impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { v4, v6 } => write!(f, "client/{v4}/{v6}"),
            Self::Helo => f.write_str("helo"),
            Self::Listener => f.write_str("listener"),
            Self::Login => f.write_str("login"),
            Self::Recipient => f.write_str("recipient"),
            Self::RecipientDomain => f.write_str("recipient_domain"),
            Self::Sender => f.write_str("sender"),
            Self::SenderDomain => f.write_str("sender_domain"),
        }
    }
}

fn client_key(text: &str) -> Result<KeyPart, String> {
    let mut parts = text.split('/');
    let name = parts.next();
    let mut prefix = |default: u8, longest: u8| match parts.next() {
        None => Some(default),
        Some(digits) => digits.parse().ok().filter(|length| (1..=longest).contains(length)),
    };
    let (v4, v6) = (prefix(32, 32), prefix(DEFAULT_V6_PREFIX, 128));
    match (name, v4, v6, parts.next()) {
        (Some("client"), Some(v4), Some(v6), None) => Ok(KeyPart::Client { v4, v6 }),
        _ => Err(format!(
            "expected client, client/24 or client/24/56 (prefix lengths for IPv4 and IPv6), login, sender, \
             sender_domain, recipient, recipient_domain, helo or listener, found \"{text}\""
        )),
    }
}
