//! Policies and SMTP sessions as plain data: what the generator makes, the naive judge reads and the MTA plays.
//!
//! Nothing here comes from the crate under test. A policy is handed to it as TOML, a session as milter commands.

use std::fmt::Write as _;

/// When something can be said, in the order of the SMTP session.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    Connect,
    Helo,
    Mail,
    Rcpt,
    Data,
    End,
}

/// A policy file.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// `mode = "monitor"` for all of it.
    pub(crate) monitor: bool,
    pub(crate) answer_at: Stage,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) when: Table,
    pub(crate) unless: Option<Table>,
    pub(crate) limit: Option<Limit>,
    pub(crate) action: Action,
    pub(crate) monitor: bool,
    pub(crate) at: Option<Stage>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Accept,
    /// A name and a value.
    AddHeader(&'static str, &'static str),
    Discard,
    Quarantine,
    /// With these codes, or those that the program thinks fit.
    Refuse(Option<&'static str>),
}

/// Holds if every part of it holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) asks: Vec<Ask>,
    /// If there are any: at least one of them holds.
    pub(crate) any: Vec<Self>,
    /// Does not hold.
    pub(crate) not: Option<Box<Self>>,
}

/// Values, one of which must match; `@name` stands for those of a list.
pub(crate) type Values = Vec<&'static str>;

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Authenticated(bool),
    Client(Values),
    ClientName(Values),
    /// Which of [`PATHS`], and a number of octets.
    DiskFree(usize, u64),
    Helo(Values),
    Listener(Values),
    Login(Values),
    OverQuota(Values),
    Port(Vec<u16>),
    Recipient(Values),
    Recipients(&'static str, u64),
    Sender(Values),
    SenderDomain(Values),
    SenderLoginMismatch(&'static str),
    Size(&'static str, u64),
    Tls(bool),
}

/// No more than so many a day, for each value of the key.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) key: Vec<&'static str>,
    pub(crate) messages: Vec<u64>,
    pub(crate) recipients: Vec<u64>,
    pub(crate) bytes: Vec<u64>,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Measure {
    Bytes,
    Messages,
    Recipients,
}

/// The lists of every policy: name, kind, entries.
pub(crate) const LISTS: [(&str, &str, &[&str]); 10] = [
    ("nets", "networks", &["192.0.2.2", "2001:db8::/64", "::ffff:198.51.100.0/120"]),
    ("wide", "networks", &["192.0.2.0/30", "192.0.0.0/16", "2001:db8::/48", "0.0.0.0/0", "192.0.2.1"]),
    ("office", "networks", &["192.0.2.0/25", "127.0.0.1", "198.51.100.0/28", "2001:db8::/64"]),
    ("names", "domains", &["mail.example.org", ".Example.net", "[192.0.2.1]"]),
    ("zones", "domains", &[".example", "x.example", "example.net", ".example.org"]),
    ("people", "addresses", &["b@y.example", "R@x.example", "<>"]),
    ("people", "domains", &[".y.example"]),
    ("guests", "addresses", &["a@x.example", "T@Y.example", "s@y.example"]),
    ("guests", "domains", &[".example", "x.example"]),
    ("logins", "logins", &["ALICE"]),
];

/// A login and what it may send as.
type Allowed = (&'static str, &'static [&'static str]);

/// What each login may send as, by list.
pub(crate) const SENDERS: [(&str, &[Allowed]); 2] = [
    ("own", &[("Alice", &["a@x.example", "<>"]), ("bob", &[".x.example"])]),
    ("shared", &[("alice", &["x.example", "y.example"])]),
];

pub(crate) const PATHS: [&str; 2] = ["/var/spool", "/var/mail"];

/// One connection of an MTA, and the world around it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) mta: Mta,
    /// What is free on each of [`PATHS`].
    pub(crate) free: [u64; 2],
    /// SMTP sessions, one after the other: all but the last end with QUIT_NC.
    pub(crate) sessions: Vec<SmtpSession>,
}

/// How the MTA speaks the protocol: none of it may change what becomes of mail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mta {
    pub(crate) version: u32,
    pub(crate) steps: u32,
    pub(crate) unix_socket: bool,
    /// ABORT after every message, also after its end, as Postfix does.
    pub(crate) aborts_always: bool,
    /// The client is the local host without a port: mail that did not come by SMTP.
    pub(crate) local_submission: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct SmtpSession {
    /// As the MTA writes it; `None` when it does not know.
    pub(crate) client: Option<&'static str>,
    /// A bracketed address if there is none.
    pub(crate) client_name: &'static str,
    pub(crate) port: Option<u16>,
    pub(crate) listener: Option<&'static str>,
    pub(crate) helo: Option<&'static str>,
    pub(crate) tls: Tls,
    pub(crate) messages: Vec<Message>,
}

/// Whether the session is encrypted, and with which commands the MTA says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tls {
    No,
    SaidAtHelo,
    SaidAtMail,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Another HELO before it.
    pub(crate) helo: Option<&'static str>,
    pub(crate) auth: Auth,
    pub(crate) sender: &'static str,
    pub(crate) declared_size: Option<u64>,
    pub(crate) recipients: Vec<&'static str>,
    /// Header fields, the blank after the colon included, folded with LF.
    pub(crate) header: Vec<(&'static str, &'static str)>,
    pub(crate) body: usize,
    pub(crate) gives_up: Option<GivesUp>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Auth {
    No,
    /// The MTA does not say who.
    Nameless,
    Login(&'static str),
}

/// How a client breaks a message off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivesUp {
    pub(crate) after: Moment,
    /// With an ABORT; else the next MAIL, or the end, simply comes.
    pub(crate) says_so: bool,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Moment {
    Mail,
    /// The first recipient.
    Recipient,
    Recipients,
    Data,
    Content,
}

impl Policy {
    /// The file.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::from("[policy]\n");
        if self.monitor {
            out += "mode = \"monitor\"\n";
        }
        if self.answer_at != Stage::Mail {
            writeln!(out, "answer_at = \"{}\"", self.answer_at.name()).unwrap();
        }
        let mut table = "";
        for (name, kind, entries) in LISTS {
            if name != table {
                writeln!(out, "[lists.{name}]").unwrap();
            }
            table = name;
            writeln!(out, "{kind} = {entries:?}").unwrap();
        }
        for (name, logins) in SENDERS {
            writeln!(out, "[lists.{name}.senders]").unwrap();
            for (login, senders) in logins {
                writeln!(out, "{login} = {senders:?}").unwrap();
            }
        }
        for (number, rule) in self.rules.iter().enumerate() {
            rule.write(number, &mut out);
        }
        out
    }
}

impl Rule {
    fn write(&self, number: usize, out: &mut String) {
        writeln!(out, "[[rule]]\nname = \"r{number}\"").unwrap();
        if !self.when.is_empty() {
            writeln!(out, "when = {}", self.when.to_toml()).unwrap();
        }
        if let Some(unless) = &self.unless {
            writeln!(out, "unless = {}", unless.to_toml()).unwrap();
        }
        if let Some(limit) = &self.limit {
            writeln!(out, "limit = {}", limit.to_toml()).unwrap();
        }
        match self.action {
            Action::Accept => out.push_str("then = \"accept\"\n"),
            Action::AddHeader(name, value) => writeln!(out, "add_header = \"{name}: {value}\"").unwrap(),
            Action::Discard => out.push_str("then = \"discard\"\n"),
            Action::Quarantine => out.push_str("then = \"quarantine\"\n"),
            Action::Refuse(Some(codes)) => writeln!(out, "reply = \"{codes} r{number}\"").unwrap(),
            Action::Refuse(None) => {}
        }
        if self.monitor {
            out.push_str("mode = \"monitor\"\n");
        }
        if let Some(at) = self.at {
            writeln!(out, "at = \"{}\"", at.name()).unwrap();
        }
    }
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::End => "end-of-message",
        }
    }
}

impl Table {
    pub(crate) fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.any.is_empty() && self.not.is_none()
    }

    /// Every question in it, and whether it stands under no `not`.
    pub(crate) fn for_each<'a>(&'a self, positive: bool, visit: &mut impl FnMut(&'a Ask, bool)) {
        self.asks.iter().for_each(|ask| visit(ask, positive));
        self.any.iter().for_each(|table| table.for_each(positive, visit));
        self.not.iter().for_each(|table| table.for_each(!positive, visit));
    }

    fn to_toml(&self) -> String {
        let mut parts: Vec<String> = self.asks.iter().map(Ask::to_toml).collect();
        if !self.any.is_empty() {
            let any: Vec<String> = self.any.iter().map(Self::to_toml).collect();
            parts.push(format!("any = [{}]", any.join(", ")));
        }
        parts.extend(self.not.iter().map(|not| format!("not = {}", not.to_toml())));
        format!("{{ {} }}", parts.join(", "))
    }
}

impl Ask {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Authenticated(_) => "authenticated",
            Self::Client(_) => "client",
            Self::ClientName(_) => "client_name",
            Self::DiskFree(..) => "disk_free",
            Self::Helo(_) => "helo",
            Self::Listener(_) => "listener",
            Self::Login(_) => "login",
            Self::OverQuota(_) => "over_quota",
            Self::Port(_) => "port",
            Self::Recipient(_) => "recipient",
            Self::Recipients(..) => "recipients",
            Self::Sender(_) => "sender",
            Self::SenderDomain(_) => "sender_domain",
            Self::SenderLoginMismatch(_) => "sender_login_mismatch",
            Self::Size(..) => "size",
            Self::Tls(_) => "tls",
        }
    }

    fn to_toml(&self) -> String {
        let value = match self {
            Self::Authenticated(wanted) | Self::Tls(wanted) => wanted.to_string(),
            Self::Client(values)
            | Self::ClientName(values)
            | Self::Helo(values)
            | Self::Listener(values)
            | Self::Login(values)
            | Self::OverQuota(values)
            | Self::Recipient(values)
            | Self::Sender(values)
            | Self::SenderDomain(values) => match values.as_slice() {
                [value] => format!("{value:?}"),
                values => format!("{values:?}"),
            },
            Self::DiskFree(path, below) => format!("{{ path = {:?}, below = \"{below} B\" }}", PATHS[*path]),
            Self::Port(ports) => format!("{ports:?}"),
            Self::Recipients(operator, bound) | Self::Size(operator, bound) => format!("\"{operator} {bound}\""),
            Self::SenderLoginMismatch(list) => format!("\"@{list}\""),
        };
        format!("{} = {value}", self.name())
    }
}

impl Limit {
    /// What it counts, with the tightest bound on each.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = (Measure, u64)> {
        let all = [
            (Measure::Messages, &self.messages),
            (Measure::Recipients, &self.recipients),
            (Measure::Bytes, &self.bytes),
        ];
        all.into_iter().filter_map(|(measure, rates)| Some((measure, *rates.iter().min()?)))
    }

    fn to_toml(&self) -> String {
        let mut parts = vec![format!("key = {:?}", self.key)];
        for (name, rates) in [("messages", &self.messages), ("recipients", &self.recipients), ("bytes", &self.bytes)] {
            let rates: Vec<String> = rates.iter().map(|rate| format!("\"{rate}/day\"")).collect();
            if !rates.is_empty() {
                parts.push(format!("{name} = [{}]", rates.join(", ")));
            }
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

impl Script {
    pub(crate) fn has_malformed_address(&self) -> bool {
        let messages = || self.sessions.iter().flat_map(|session| &session.messages);
        let addresses = messages().flat_map(|message| message.recipients.iter().chain([&message.sender]));
        addresses.into_iter().any(|address| is_malformed(address))
    }
}

/// Of the addresses here: two domains, which two programs would read differently.
pub(crate) fn is_malformed(address: &str) -> bool {
    address.matches('@').count() > 1
}

impl Mta {
    /// Below version 4 the protocol has no DATA.
    pub(crate) const fn has_data(&self) -> bool {
        self.version >= 4
    }
}

impl Message {
    /// The octets that the client sends: lines end with CR LF, also where the milter protocol says LF.
    pub(crate) fn true_size(&self) -> u64 {
        let line = |(name, value): &(&str, &str)| format!("{name}:{value}\n").replace('\n', "\r\n").len();
        (self.header.iter().map(line).sum::<usize>() + "\r\n".len() + self.body) as u64
    }
}
