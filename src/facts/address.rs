//! Addresses and domain names as they arrive from clients, made comparable.

use std::borrow::Cow;

use memchr::memrchr;

use super::mailbox;

/// An address of the envelope: the argument of MAIL or RCPT as the MTA understands it.
///
/// Both MTAs read the argument as an RFC 822 address, so that many spellings are one mailbox: comments, blanks, quotes and
/// backslashes that mean nothing, source routes, doubled brackets. All of them become one form here; a rule about
/// `a@b.example` must not be passed by writing `a@b.example(x)`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Address {
    name: Name,
    /// Where the `@` is in the folded form.
    at: Option<usize>,
    malformed: bool,
}

impl Address {
    /// Reads what the MTA sent, however odd: bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = lossy(bytes.trim_ascii());
        match mailbox::read(&text) {
            Some(mailbox) => {
                let name = Name::new(&mailbox);
                let at = if name.folded().ends_with('"') { None } else { memrchr(b'@', name.folded().as_bytes()) };
                Self { name, at, malformed: false }
            }
            None => {
                let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
                Self { name: Name::new(inner.unwrap_or(&text)), at: None, malformed: true }
            }
        }
    }

    /// The same, with the MTA's own reading (`{mail_addr}`, `{rcpt_addr}`) where the argument says too little: it has no
    /// domain, or routes through one (`user%host@relay`, `host!user@relay`). Nowhere else: MTAs rewrite these macros, each in
    /// its own way.
    #[must_use]
    pub fn parse_with(bytes: &[u8], read_by_mta: Option<&[u8]>) -> Self {
        let address = Self::parse(bytes);
        let local = address.at.and_then(|at| address.folded().get(..at)).unwrap_or_default();
        let routes = local.contains(['%', '!']) && !local.starts_with('"');
        if address.malformed || address.is_null() || (address.at.is_some() && !routes) {
            return address;
        }
        let read = read_by_mta.map(Self::parse).filter(|read| read.at.is_some());
        let address = read.unwrap_or(address);
        // Sendmail does not tell which of its domains it is; but everybody's postmaster is known (RFC 5321 §4.5.1).
        let is_nobodys = address.at.is_none() && address.folded() != "postmaster";
        Self { malformed: address.malformed || is_nobodys, ..address }
    }

    /// Whether it is none that two programs would read alike: no rule about addresses can be judged by it.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        self.malformed
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
        let text = lossy(bytes.trim_ascii());
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

/// As `String::from_utf8_lossy`, which goes through all of what is fine, too.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
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
            "<<a@example.test>>",
            "<a@example.test(x)>",
            "<a@example.test (y)>",
            "<a@(c)example.test>",
            "<(\\))a@example.test>",
            "<a@example.test>(c)",
            "<a@example\\.test>",
            "<\\a@example.test>",
            "<a@\"example.test\">",
            "<a@ example.test>",
            "<a @example.test>",
            "<a@example . test>",
            "<g:a@example.test;>",
            "Some One <a@example.test>",
            "<example.test!a>",
            "<a%example.test>",
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
        assert_eq!(folded("<\"a\\\"b\"@example.test>"), "\"a\\\"b\"@example.test");
        assert_eq!(Address::parse(b"<postmaster>").domain(), None);
    }

    /// Postfix delivers the first as mail from ceo@evil.example; others read otherwise.
    #[test]
    fn what_two_programs_would_read_differently_is_malformed() {
        let malformed = [
            "<ceo@evil.example(@example.test>",
            "<a b@example.test>",
            "<a@b@example.test>",
            "<a@example.test> x",
            "<a@example..test>",
            "<a@example.test..>",
            "<a@>",
            "<@example.test>",
            "<a\"@example.test>",
            "<a@example.test\\>",
            "<a@exam/ple.test>",
            "<a,b@example.test>",
            "<\"a@example.test\">",
            "<a@[192.0.2.1>",
        ];
        for form in malformed {
            let address = Address::parse(form.as_bytes());
            assert!(address.is_malformed() && address.domain().is_none(), "{form}: {address:?}");
        }
        assert!(!Address::parse(b"<a@[192.0.2.1]>").is_malformed());
        assert!(!Address::parse(b"<a..b.@example.test>").is_malformed());
    }

    #[test]
    fn the_null_sender_has_many_forms() {
        for form in ["<>", "", "< >", "<()>", "<\"\">"] {
            let address = Address::parse(form.as_bytes());
            assert!(address.is_null() && !address.is_malformed(), "{form}");
        }
    }

    /// Requirement 15: the macro is asked only where the argument says too little.
    #[test]
    fn the_mtas_reading_fills_in_what_is_missing_and_replaces_nothing() {
        let read = |argument: &[u8], by_mta: &[u8]| Address::parse_with(argument, Some(by_mta)).folded().to_owned();
        assert_eq!(read(b"<victim>", b"victim@example.test"), "victim@example.test");
        assert!(Address::parse_with(b"<victim>", Some(b"victim")).is_malformed());
        assert!(!Address::parse_with(b"<Postmaster>", Some(b"postmaster")).is_malformed());
        assert_eq!(read(b"<a%b.example@mx.example.test>", b"a@b.example"), "a@b.example");
        assert_eq!(read(b"<Gr\xc3\xbc@example.test>", b"gruess@example.test"), "grü@example.test");
        assert_eq!(read(b"<>", b"mailer-daemon@example.test"), "");
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
