//! An enhanced status code.

use std::fmt;
use std::str::FromStr;

/// An enhanced status code as RFC 3463 §2 writes it: class, subject, detail.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u16,
    /// The second number, up to 999: `7` is security or policy.
    pub subject: u16,
    /// The third number, up to 999.
    pub detail: u16,
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// What is not `class.subject.detail`: class 2, 4 or 5, the others one to three digits without a leading zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotEnhanced;

impl fmt::Display for NotEnhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an enhanced status code such as 5.7.1")
    }
}

impl std::error::Error for NotEnhanced {}

impl FromStr for EnhancedCode {
    type Err = NotEnhanced;

    fn from_str(text: &str) -> Result<Self, NotEnhanced> {
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(NotEnhanced),
        };
        let mut number = || {
            let part = parts.next().ok_or(NotEnhanced)?;
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            let leading_zero = part.len() > 1 && part.starts_with('0');
            if digits && !leading_zero { part.parse().map_err(|_| NotEnhanced) } else { Err(NotEnhanced) }
        };
        let (subject, detail) = (number()?, number()?);
        if parts.next().is_some() { Err(NotEnhanced) } else { Ok(Self { class, subject, detail }) }
    }
}
