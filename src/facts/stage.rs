//! The steps of an SMTP session as the milter protocol shows them, and which fact is known from which step on.

use std::fmt;

/// A step of the session, in the protocol's order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// The client connected.
    Connect,
    /// HELO or EHLO.
    Helo,
    /// MAIL.
    Mail,
    /// RCPT, once for each recipient.
    Rcpt,
    /// DATA, before the client sends anything.
    Data,
    /// A header field.
    Header,
    /// The end of the header.
    EndOfHeaders,
    /// A piece of the body.
    Body,
    /// The end of the message.
    EndOfMessage,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Helo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Header,
        Self::EndOfHeaders,
        Self::Body,
        Self::EndOfMessage,
    ];

    /// The name used in configurations, labels and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Header => "header",
            Self::EndOfHeaders => "end-of-headers",
            Self::Body => "body",
            Self::EndOfMessage => "end-of-message",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something a rule can ask about. `docs/facts.md` is this list.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fact {
    /// Whether the client authenticated.
    Authenticated,
    /// The client's address.
    Client,
    /// The client's verified host name.
    ClientName,
    /// Free space of a file system.
    DiskFree,
    /// The client's HELO name.
    Helo,
    /// The MTA's name for the port.
    Listener,
    /// The name used with AUTH.
    Login,
    /// Whether the recipient is over quota.
    OverQuota,
    /// The MTA's port.
    Port,
    /// The recipient being judged.
    Recipient,
    /// How many recipients.
    Recipients,
    /// The envelope sender.
    Sender,
    /// The sender's domain.
    SenderDomain,
    /// Whether the login may not use the sender.
    SenderLoginMismatch,
    /// The message's size.
    Size,
    /// Whether the session is encrypted.
    Tls,
}

impl Fact {
    /// Every fact, by name.
    pub const ALL: [Self; 16] = [
        Self::Authenticated,
        Self::Client,
        Self::ClientName,
        Self::DiskFree,
        Self::Helo,
        Self::Listener,
        Self::Login,
        Self::OverQuota,
        Self::Port,
        Self::Recipient,
        Self::Recipients,
        Self::Sender,
        Self::SenderDomain,
        Self::SenderLoginMismatch,
        Self::Size,
        Self::Tls,
    ];

    /// The key in `when` and `unless`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Client => "client",
            Self::ClientName => "client_name",
            Self::DiskFree => "disk_free",
            Self::Helo => "helo",
            Self::Listener => "listener",
            Self::Login => "login",
            Self::OverQuota => "over_quota",
            Self::Port => "port",
            Self::Recipient => "recipient",
            Self::Recipients => "recipients",
            Self::Sender => "sender",
            Self::SenderDomain => "sender_domain",
            Self::SenderLoginMismatch => "sender_login_mismatch",
            Self::Size => "size",
            Self::Tls => "tls",
        }
    }

    /// The first stage at which it is known. The size is known for sure at the end of the message only; rules that
    /// refuse large messages also look at the declared size, at MAIL.
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self {
            Self::Client | Self::ClientName | Self::Listener | Self::Port => Stage::Connect,
            Self::Helo => Stage::Helo,
            Self::Authenticated
            | Self::DiskFree
            | Self::Login
            | Self::Sender
            | Self::SenderDomain
            | Self::SenderLoginMismatch
            | Self::Tls => Stage::Mail,
            Self::OverQuota | Self::Recipient | Self::Recipients => Stage::Rcpt,
            Self::Size => Stage::EndOfMessage,
        }
    }

    /// Whether it differs between the recipients of one message.
    #[must_use]
    pub const fn is_of_recipient(self) -> bool {
        matches!(self, Self::OverQuota | Self::Recipient | Self::Recipients)
    }

    /// What may stand behind the key, for the documentation.
    #[must_use]
    pub const fn values(self) -> &'static str {
        match self {
            Self::Authenticated | Self::Tls => "`true` or `false`",
            Self::Client => "an address, a network (`192.0.2.0/24`), or `@list` with `networks`",
            Self::ClientName => "`unknown`, a domain, everything below one (`.example.net`), or `@list` with `domains`",
            Self::DiskFree => "`{ path = \"/var/spool/postfix\", below = \"1 GiB\" }`",
            Self::Helo => {
                "a domain, everything below one (`.example.net`), an address literal (`[192.0.2.1]`), or `@list` with `domains`"
            }
            Self::Listener => "the MTA's name for the port",
            Self::Login => "a login, or `@list` with `logins`",
            Self::Port => "a port number",
            Self::OverQuota | Self::Recipient => {
                "an address, a domain, everything below one (`.b.example`), or `@list` with `addresses` or `domains`"
            }
            Self::Recipients => "a comparison (`\"> 100\"`)",
            Self::Sender => {
                "an address, a domain, everything below one, `<>` for the null sender, or `@list` with `addresses` or `domains`"
            }
            Self::SenderDomain => "a domain, everything below one (`.example.net`), or `@list` with `domains`",
            Self::SenderLoginMismatch => "`@list` with `senders`",
            Self::Size => "a comparison (`\"> 25 MiB\"`)",
        }
    }

    /// What it is and where it comes from, for the documentation.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Authenticated => "whether the client used AUTH (`{auth_type}`, `{auth_authen}`)",
            Self::Client => "the client's IP address; IPv4-mapped IPv6 counts as IPv4",
            Self::ClientName => "the client's host name as the MTA verified it both ways; `unknown` without one",
            Self::DiskFree => {
                "whether less than `below` is free on the file system of `path`, for an unprivileged user"
            }
            Self::Helo => "the argument of the last HELO or EHLO; no condition on it holds when there was none",
            Self::Listener => {
                "`{daemon_name}`: Sendmail's `Name=`; Postfix sends its host name, or `milter_macro_daemon_name`"
            }
            Self::Login => "the name used with AUTH (`{auth_authen}`), compared without case",
            Self::OverQuota => {
                "whether the recipient is one of these full mailboxes, compared like `recipient`: `bob@…` does not cover `bob+tag@…`"
            }
            Self::Port => "the port of the MTA that the client connected to (`{daemon_port}`)",
            Self::Recipient => {
                "the address in RCPT, without brackets and source route, compared without case; `bob@…` does not cover `bob+tag@…`"
            }
            Self::Recipients => "how many recipients this message has: those accepted and the one being judged",
            Self::Sender => {
                "the address in MAIL as the MTA understands it: without comments, source route and needless quotes, compared without case"
            }
            Self::SenderDomain => "the domain of the sender",
            Self::SenderLoginMismatch => {
                "whether the login may not use this sender: the sender does not stand behind it in the list. A login that is not in the list may use none; everybody may use the null sender; it never holds without AUTH"
            }
            Self::Size => "`SIZE=` of MAIL, and again the octets really sent, at the end",
            Self::Tls => "whether the session is encrypted (`{tls_version}`)",
        }
    }
}
