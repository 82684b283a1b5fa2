//! What a domain or an address must look like: `b.example`, `.b.example`, `a@b.example`, `<>`.

use std::fmt;
use std::str::FromStr;

use crate::facts::Address;

/// A domain, or everything below one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DomainPattern {
    /// `.b.example`: everything below `b.example`, but not itself. Kept without the dot, in lower case.
    Below(String),
    /// `b.example`: that name alone. In lower case.
    Exact(String),
}

impl DomainPattern {
    /// Whether `name`, in lower case, is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Below(domain) => {
                name.strip_suffix(domain.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
            Self::Exact(domain) => name == domain,
        }
    }
}

impl FromStr for DomainPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = |expected| PatternError { expected, found: text.to_owned(), meant: meant(text) };
        let below = text.strip_prefix('.');
        let domain = below.unwrap_or(text);
        let is_literal = below.is_none() && domain.starts_with('[') && domain.ends_with(']');
        let bad = |c: char| c.is_whitespace() || c.is_control() || "@/*,;<>\"'()[]{}:#".contains(c);
        if domain.is_empty()
            || domain.starts_with(['.', '!'])
            || domain.contains("..")
            || (domain.contains(bad) && !is_literal)
        {
            return Err(error("a domain (\"b.example\") or everything below one (\".b.example\")"));
        }
        let folded = domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
        Ok(if below.is_some() { Self::Below(folded) } else { Self::Exact(folded) })
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(domain) => write!(f, ".{domain}"),
            Self::Exact(domain) => f.write_str(domain),
        }
    }
}

/// An address, a domain or the null sender.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressPattern {
    /// That address alone, in lower case.
    Address(String),
    /// Every address of a domain, or of those below one.
    Domain(DomainPattern),
    /// `<>`.
    Null,
}

impl AddressPattern {
    /// Whether `address` is meant.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        match self {
            Self::Address(wanted) => address.folded() == wanted,
            Self::Domain(pattern) => address.domain().is_some_and(|domain| pattern.matches(domain)),
            Self::Null => address.is_null(),
        }
    }
}

impl FromStr for AddressPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "<>" {
            return Ok(Self::Null);
        }
        let error = || PatternError {
            expected: "an address (\"a@b.example\"), a domain (\"b.example\"), everything below one (\".b.example\") or \"<>\"",
            found: text.to_owned(),
            meant: meant(text).or_else(|| without_scheme(text)),
        };
        if !text.contains('@') {
            return text.parse().map(Self::Domain).map_err(|_: PatternError| error());
        }
        let address = Address::parse(text.as_bytes());
        let domain_is_exact = matches!(address.domain().map(str::parse), Some(Ok(DomainPattern::Exact(_))));
        let is_several = !text.starts_with('"') && text.contains([',', ';', ' ']);
        if !domain_is_exact
            || is_several
            || address.folded().starts_with('@')
            || text.contains(is_in_no_address)
            || without_scheme(text).is_some()
        {
            return Err(error());
        }
        Ok(Self::Address(address.folded().to_owned()))
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Domain(pattern) => write!(f, "{pattern}"),
            Self::Null => f.write_str("<>"),
        }
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PatternError {
    expected: &'static str,
    found: String,
    meant: Option<String>,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found \"{}\"", self.expected, self.found)?;
        match &self.meant {
            Some(meant) => write!(f, "; did you mean \"{meant}\"?"),
            None if self.found.contains('*') => f.write_str("; there are no wildcards"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PatternError {}

/// `*.b.example` and `@b.example`, as other programs write `.b.example` and `b.example`.
fn meant(text: &str) -> Option<String> {
    let meant = text.strip_prefix("*@").or_else(|| text.strip_prefix(['*', '@']))?;
    meant.parse::<DomainPattern>().is_ok().then(|| meant.to_owned())
}

/// `mailto:a@b.example`, as copied from a page.
fn without_scheme(text: &str) -> Option<String> {
    let (scheme, address) = text.split_at_checked("mailto:".len())?;
    let is_address = scheme.eq_ignore_ascii_case("mailto:") && address.parse::<AddressPattern>().is_ok();
    is_address.then(|| address.to_owned())
}

/// A `*` could stand in a local part, but whoever writes one means a wildcard, and there are none.
fn is_in_no_address(c: char) -> bool {
    c == '*' || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> DomainPattern {
        text.parse().unwrap()
    }

    /// milter-greylist's `domain gle.com` matches google.com; ours does not.
    #[test]
    fn a_domain_matches_whole_labels_only() {
        assert!(domain("Example.NET").matches("example.net"));
        assert!(!domain("example.net").matches("a.example.net"));
        assert!(domain(".example.net").matches("a.b.example.net"));
        assert!(!domain(".example.net").matches("example.net"));
        assert!(!domain(".gle.com").matches("google.com"));
        assert!(!domain(".example.net").matches(".example.net"));
    }

    #[test]
    fn an_address_matches_without_case() {
        let address = |text: &str| Address::parse(text.as_bytes());
        let matches = |pattern: &str, text| pattern.parse::<AddressPattern>().unwrap().matches(&address(text));
        assert!(matches("A@B.example", "<a@b.EXAMPLE>"));
        assert!(!matches("a@b.example", "<a@c.b.example>"));
        assert!(matches("b.example", "<a@b.example>"));
        assert!(matches(".b.example", "<a@c.b.example>"));
        assert!(matches("<>", "<>"));
        assert!(!matches("<>", "<a@b.example>"));
        assert!(!matches("b.example", "<postmaster>"));
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        for text in [
            "",
            ".",
            "..b.example",
            "b..example",
            "b example",
            "*.example",
            "@b.example",
            "a@",
            "a@.b.example",
            "*@b.example",
            "a*@b.example",
            "a@b.example#c",
            "a@b.example, c@b.example",
            "mailto:a@b.example",
            "!b.example",
            "192.0.2.0/24",
        ] {
            assert!(text.parse::<AddressPattern>().is_err(), "{text}");
        }
        assert_eq!(domain("[192.0.2.1]").to_string(), "[192.0.2.1]");
    }
}
