//! Whether a condition holds, word by word as `design.md` section 3 says, and whose count a limit's key names.

use std::net::IpAddr;

use crate::model::Ask;
use crate::model::Auth;
use crate::model::LISTS;
use crate::model::Limit;
use crate::model::Message;
use crate::model::SENDERS;
use crate::model::SmtpSession;
use crate::model::Stage;
use crate::model::Table;
use crate::model::Tls;
use crate::model::is_malformed;

/// What is known when a rule is judged.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) session: &'a SmtpSession,
    pub(crate) free: [u64; 2],
    pub(crate) helo: Option<&'a str>,
    pub(crate) message: Option<&'a Message>,
    /// With its number among the accepted ones.
    pub(crate) recipient: Option<(&'static str, u64)>,
}

impl View<'_> {
    /// Before the end nobody knows more than what the client declared.
    pub(crate) fn size_at(&self, stage: Stage) -> Option<u64> {
        let message = self.message?;
        if stage == Stage::End { Some(message.true_size()) } else { message.declared_size }
    }

    fn login(&self) -> Option<&str> {
        match self.message?.auth {
            Auth::Login(login) => Some(login),
            Auth::No | Auth::Nameless => None,
        }
    }
}

/// Whether every part of a condition holds; `None` where that hangs on an address of which nobody can be sure.
pub(crate) fn holds(table: &Table, view: View<'_>, size: Option<u64>) -> Option<bool> {
    let asks =
        table.asks.iter().map(|ask| if is_about_malformed(ask, view) { None } else { Some(is_so(ask, view, size)) });
    let any = (!table.any.is_empty()).then(|| {
        let none_holds = all(table.any.iter().map(|table| holds(table, view, size).map(|holds| !holds)));
        none_holds.map(|none| !none)
    });
    let not = table.not.as_ref().map(|table| holds(table, view, size).map(|holds| !holds));
    all(asks.chain(any).chain(not))
}

/// One No is enough, whatever the others are.
pub(crate) fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let parts: Vec<Option<bool>> = parts.collect();
    if parts.contains(&Some(false)) { Some(false) } else { parts.iter().all(Option::is_some).then_some(true) }
}

fn is_about_malformed(ask: &Ask, view: View<'_>) -> bool {
    match ask {
        Ask::OverQuota(_) | Ask::Recipient(_) => view.recipient.is_some_and(|(recipient, _)| is_malformed(recipient)),
        Ask::Sender(_) | Ask::SenderDomain(_) | Ask::SenderLoginMismatch(_) => {
            view.message.is_some_and(|message| is_malformed(message.sender))
        }
        Ask::Authenticated(_)
        | Ask::Client(_)
        | Ask::ClientName(_)
        | Ask::DiskFree(..)
        | Ask::Helo(_)
        | Ask::Listener(_)
        | Ask::Login(_)
        | Ask::Port(_)
        | Ask::Recipients(..)
        | Ask::Size(..)
        | Ask::Tls(_) => false,
    }
}

/// A question about what is not known, or not there, has no for an answer.
fn is_so(ask: &Ask, view: View<'_>, size: Option<u64>) -> bool {
    let session = view.session;
    match ask {
        Ask::Authenticated(wanted) => view.message.is_some_and(|message| (message.auth != Auth::No) == *wanted),
        Ask::Client(values) => {
            address(session).is_some_and(|client| entries(values, &["networks"]).any(|entry| is_in(client, entry)))
        }
        Ask::ClientName(values) => {
            let name = if session.client_name.starts_with('[') { "unknown" } else { session.client_name };
            entries(values, &["domains"]).any(|pattern| is_domain(name, pattern))
        }
        Ask::DiskFree(path, below) => view.free[*path] < *below,
        Ask::Helo(values) => {
            view.helo.is_some_and(|helo| entries(values, &["domains"]).any(|pattern| is_domain(helo, pattern)))
        }
        Ask::Listener(names) => session.listener.is_some_and(|listener| names.contains(&listener)),
        Ask::Login(values) => view
            .login()
            .is_some_and(|login| entries(values, &["logins"]).any(|entry| entry.eq_ignore_ascii_case(login))),
        Ask::OverQuota(values) | Ask::Recipient(values) => {
            view.recipient.is_some_and(|(recipient, _)| is_among(recipient, values))
        }
        Ask::Port(ports) => session.port.is_some_and(|port| ports.contains(&port)),
        Ask::Recipients(operator, bound) => {
            view.recipient.is_some_and(|(_, position)| compare(position, operator, *bound))
        }
        Ask::Sender(values) => view.message.is_some_and(|message| is_among(message.sender, values)),
        Ask::SenderDomain(values) => view
            .message
            .and_then(|message| domain(message.sender))
            .is_some_and(|domain| entries(values, &["domains"]).any(|pattern| is_domain(domain, pattern))),
        Ask::SenderLoginMismatch(list) => view.message.is_some_and(|message| {
            view.login().is_some_and(|login| !bare(message.sender).is_empty() && !may_use(login, message.sender, list))
        }),
        Ask::Size(operator, bound) => size.is_some_and(|size| compare(size, operator, *bound)),
        Ask::Tls(wanted) => view.message.is_some() && (session.tls != Tls::No) == *wanted,
    }
}

/// The values themselves, and for `@name` the entries of that list that are of these kinds.
fn entries<'a>(values: &'a [&'static str], kinds: &'a [&'a str]) -> impl Iterator<Item = &'static str> + 'a {
    values.iter().flat_map(move |value| match value.strip_prefix('@') {
        None => vec![*value],
        Some(name) => {
            let lists = LISTS.into_iter().filter(|(list, kind, _)| *list == name && kinds.contains(kind));
            lists.flat_map(|(_, _, entries)| entries.iter().copied()).collect()
        }
    })
}

/// IPv4-mapped IPv6 is IPv4.
pub(crate) fn address(session: &SmtpSession) -> Option<IpAddr> {
    let text = session.client?;
    let address: IpAddr = text.strip_prefix("IPv6:").unwrap_or(text).parse().unwrap();
    Some(address.to_canonical())
}

fn is_in(address: IpAddr, network: &str) -> bool {
    let (base, length) = network.split_once('/').unwrap_or((network, "128"));
    let base: IpAddr = base.parse().unwrap();
    let length: u32 = length.parse().unwrap();
    let is_short = base.is_ipv4() && network.contains('/');
    let shift = 128 - if is_short { 96 + length } else { length };
    bits(address) >> shift == bits(base) >> shift
}

/// IPv4 as the IPv6 that it is mapped to.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// `b.example` is that name, `.b.example` everything below it.
fn is_domain(name: &str, pattern: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
    let pattern = pattern.to_lowercase();
    if pattern.starts_with('.') { name.ends_with(&pattern) && name != pattern } else { name == pattern }
}

fn is_among(address: &str, values: &[&'static str]) -> bool {
    entries(values, &["addresses", "domains"]).any(|pattern| is_address(address, pattern))
}

fn is_address(address: &str, pattern: &str) -> bool {
    match pattern {
        "<>" => bare(address).is_empty(),
        pattern if pattern.contains('@') => bare(address).eq_ignore_ascii_case(pattern),
        pattern => domain(address).is_some_and(|domain| is_domain(domain, pattern)),
    }
}

/// An address without its brackets.
pub(crate) fn bare(address: &str) -> &str {
    address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(address)
}

fn domain(address: &str) -> Option<&str> {
    bare(address).split_once('@').map(|(_, domain)| domain)
}

fn may_use(login: &str, sender: &str, list: &str) -> bool {
    let lists = SENDERS.iter().filter(|(name, _)| *name == list).flat_map(|(_, logins)| *logins);
    let own = lists.filter(|(owner, _)| owner.eq_ignore_ascii_case(login)).flat_map(|(_, senders)| *senders);
    own.into_iter().any(|pattern| is_address(sender, pattern))
}

fn compare(number: u64, operator: &str, bound: u64) -> bool {
    match operator {
        "=" => number == bound,
        ">" => number > bound,
        ">=" => number >= bound,
        "<" => number < bound,
        "<=" => number <= bound,
        _ => unreachable!("{operator}"),
    }
}

/// Whose count, in the form in which the program names it; nobody's if a part is missing.
pub(crate) fn key(limit: &Limit, view: View<'_>) -> Option<Vec<u8>> {
    let parts: Option<Vec<Vec<u8>>> = limit.key.iter().map(|part| key_part(part, view)).collect();
    Some(parts?.join(&0))
}

/// Whether a part of the key is an address of which nobody can be sure.
pub(crate) fn has_malformed_key(limit: &Limit, view: View<'_>) -> bool {
    limit.key.iter().any(|part| match *part {
        "recipient" | "recipient_domain" => view.recipient.is_some_and(|(recipient, _)| is_malformed(recipient)),
        "sender" | "sender_domain" => view.message.is_some_and(|message| is_malformed(message.sender)),
        _ => false,
    })
}

fn key_part(part: &str, view: View<'_>) -> Option<Vec<u8>> {
    let message = || view.message;
    let text = match part {
        "client" | "client/24/32" => {
            let (v4, v6) = if part == "client" { (32, 64) } else { (24, 32) };
            return Some(network_key(address(view.session)?, v4, v6));
        }
        "helo" => view.helo?,
        "listener" => return Some(view.session.listener?.as_bytes().to_vec()),
        "login" => view.login()?,
        "recipient" => bare(view.recipient?.0),
        "recipient_domain" => domain(view.recipient?.0)?,
        "sender" => Some(bare(message()?.sender)).filter(|sender| !sender.is_empty())?,
        "sender_domain" => domain(message()?.sender)?,
        _ => unreachable!("{part}"),
    };
    Some(text.to_lowercase().into_bytes())
}

fn network_key(address: IpAddr, v4: u32, v6: u32) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let shift = 32 - v4;
            [&[4][..], &(u32::from(address) >> shift << shift).to_be_bytes()].concat()
        }
        IpAddr::V6(address) => {
            let shift = 128 - v6;
            [&[6][..], &(u128::from(address) >> shift << shift).to_be_bytes()].concat()
        }
    }
}
