//! Addresses and domain names as they arrive from clients, made comparable.

use std::borrow::Cow;

/// An address of the envelope: the argument of MAIL or RCPT without brackets, source route, trailing dot and blanks.
///
/// Never taken from the MTA's macros, which each MTA rewrites in its own way.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Address {
    name: Name,
    /// Where the `@` is in the folded form.
    at: Option<usize>,
}

impl Address {
    /// Reads what the MTA sent, however odd: bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes.trim_ascii());
        let mut address = text.trim();
        if let Some(inner) = address.strip_prefix('<') {
            address = inner.strip_suffix('>').unwrap_or(inner).trim();
        }
        if address.starts_with('@') {
            address = address.split_once(':').map_or(address, |(_route, address)| address);
        }
        let Some((local, domain)) = split(address) else {
            return Self { name: Name::new(address), at: None };
        };
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let local = unquoted(local);
        let name = match local {
            Cow::Borrowed(local) if local.len() + 1 + domain.len() == address.len() => Name::new(address),
            Cow::Borrowed(_) | Cow::Owned(_) => Name::new(&format!("{local}@{domain}")),
        };
        let at = name.folded().rfind('@');
        Self { name, at }
    }

    /// As written, for texts and logs; empty for the null sender.
    #[must_use]
    pub fn as_written(&self) -> &str {
        self.name.as_written()
    }

    /// As written, `<>` for the null sender.
    #[must_use]
    pub fn or_null(&self) -> &str {
        if self.is_null() { "<>" } else { self.as_written() }
    }

    /// In lower case.
    #[must_use]
    pub fn folded(&self) -> &str {
        self.name.folded()
    }

    /// The domain, in lower case; `None` for the null sender and for a bare local part.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.folded().get(self.at? + 1..)
    }

    /// Whether it is `<>`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.as_written().is_empty()
    }
}

/// A text from outside with its lower-case form, which is stored only where it differs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Name {
    written: Box<str>,
    folded: Option<Box<str>>,
}

impl Name {
    /// Keeps the text and folds its case.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let lower = text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase());
        Self { written: text.into(), folded: (!lower).then(|| text.to_lowercase().into()) }
    }

    /// A host or HELO name: a trailing dot and blanks around it are dropped.
    #[must_use]
    pub fn of_host(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes.trim_ascii());
        Self::new(text.strip_suffix('.').unwrap_or(&text))
    }

    /// As it came.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// In lower case.
    #[must_use]
    pub fn folded(&self) -> &str {
        self.folded.as_ref().unwrap_or(&self.written)
    }
}

/// The local part and the domain; `None` without a domain. An `@` inside quotes separates nothing.
fn split(address: &str) -> Option<(&str, &str)> {
    if address.ends_with('"') {
        return None;
    }
    address.rsplit_once('@')
}

/// `"a.b"` and `a.b` are one mailbox (RFC 5321 §4.1.2); quotes that are needed stay.
fn unquoted(local: &str) -> Cow<'_, str> {
    let Some(quoted) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(local);
    };
    let mut plain = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        plain.push(if c == '\\' { characters.next().unwrap_or(c) } else { c });
    }
    let is_dot_string =
        !plain.is_empty() && !plain.starts_with('.') && !plain.ends_with('.') && plain.chars().all(is_atext_or_dot);
    if is_dot_string { Cow::Owned(plain) } else { Cow::Borrowed(local) }
}

fn is_atext_or_dot(c: char) -> bool {
    c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~.".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        Address::parse(text.as_bytes()).folded().to_owned()
    }

    /// Requirement 9 and 15: every form that the recordings show, from the argument and not from a macro.
    #[test]
    fn every_way_to_write_an_address_is_one_address() {
        let forms = [
            "<a@example.test>",
            "a@example.test",
            "< a@example.test >",
            "<A@Example.TEST>",
            "<a@example.test.>",
            "<@r.example.org:a@example.test>",
            "<@r.example.org,@s.example.org:a@example.test>",
            "<\"a\"@example.test>",
            "<\"\\a\"@example.test>",
            "<a@example.test",
        ];
        for form in forms {
            assert_eq!(folded(form), "a@example.test", "{form}");
            assert_eq!(Address::parse(form.as_bytes()).domain(), Some("example.test"), "{form}");
        }
    }

    #[test]
    fn the_null_sender_is_empty_with_and_without_brackets() {
        assert!(Address::parse(b"<>").is_null());
        assert!(Address::parse(b"").is_null());
        assert!(!Address::parse(b"<a@example.test>").is_null());
    }

    #[test]
    fn quotes_that_are_needed_stay() {
        assert_eq!(folded("<\"a b\"@example.test>"), "\"a b\"@example.test");
        assert_eq!(folded("<\"a@b\"@example.test>"), "\"a@b\"@example.test");
        assert_eq!(Address::parse(b"<\"a@b\">").domain(), None);
        assert_eq!(Address::parse(b"<postmaster>").domain(), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_do_not_stop_anything() {
        assert_eq!(Address::parse(b"<a\xff@example.test>").domain(), Some("example.test"));
    }

    #[test]
    fn other_scripts_are_folded_too() {
        assert_eq!(folded("<GRÜN@EXAMPLE.test>"), "grün@example.test");
    }

    #[test]
    fn a_host_name_loses_its_trailing_dot() {
        let name = Name::of_host(b" Mail.Example.NET. ");
        assert_eq!((name.as_written(), name.folded()), ("Mail.Example.NET", "mail.example.net"));
    }
}
