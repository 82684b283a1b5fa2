//! What the MTA says of a client, in all the forms in which MTAs say it.

use std::net::IpAddr;

use crate::facts::Name;
use crate::wire::Connect;
use crate::wire::Envelope;

/// The address in whatever form the MTA writes it: `IPv6:` before it (Sendmail), expanded or short, or `unknown` although
/// the family says IPv4 (Postfix with XCLIENT).
pub(super) fn client_address(connect: Connect<'_>) -> Option<IpAddr> {
    let text = std::str::from_utf8(connect.address).ok()?.trim();
    let prefix_length = "IPv6:".len();
    let address = match text.split_at_checked(prefix_length) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPv6:") => rest,
        _ => text,
    };
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The verified name; a bracketed address stands for "none".
pub(super) fn client_name(hostname: &[u8]) -> Name {
    if hostname.is_empty() || hostname.starts_with(b"[") { Name::new("unknown") } else { Name::of_host(hostname) }
}

/// `SIZE=` in any case; what is no number is left to the MTA, which has checked it first.
pub(super) fn declared_size(envelope: Envelope<'_>) -> Option<u64> {
    let mut arguments = envelope.arguments;
    arguments.find_map(|argument| {
        let (name, value) = argument.split_at_checked("SIZE=".len())?;
        if name.eq_ignore_ascii_case(b"SIZE=") { parse(value) } else { None }
    })
}

pub(super) fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
