//! What a decision is called in replies and logs.

use std::fmt;
use std::str::FromStr;

/// A session and the message in it that the decision is about: `2k9fq0.3`. All decisions about one message share it, so
/// that one search finds its whole story, be the id from a reply, a header field or a log line. Short enough to be read out over the telephone; digits and
/// letters that look alike (i, l, o, u) are left out, as in Crockford's base 32.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct DecisionId {
    /// The session's number, given by whoever runs the sessions.
    pub session: u64,
    /// The message, counted from one within the session; zero: the session itself.
    pub number: u32,
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut letters = [0; LONGEST];
        let (mut rest, mut start) = (self.session, letters.len());
        for letter in letters.iter_mut().rev() {
            *letter = usize::try_from(rest & 31).ok().and_then(|digit| DIGITS.get(digit)).copied().unwrap_or_default();
            (rest, start) = (rest >> 5, start - 1);
            if rest == 0 {
                break;
            }
        }
        let letters = letters.get(start..).and_then(|letters| std::str::from_utf8(letters).ok());
        f.write_str(letters.unwrap_or_default())?;
        if self.number > 0 {
            write!(f, ".{}", self.number)?;
        }
        Ok(())
    }
}

/// As it is shown, in either case, and with the letters that are left out for the digits that they look like.
impl FromStr for DecisionId {
    type Err = NoDecisionId;

    fn from_str(text: &str) -> Result<Self, NoDecisionId> {
        let (session, number) = match text.split_once('.') {
            Some((session, number)) => (session, Some(number)),
            None => (text, None),
        };
        let is_number = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number = match number {
            None => 0,
            Some(number) if is_number(number) => number.parse().map_err(|_| NoDecisionId)?,
            Some(_) => return Err(NoDecisionId),
        };
        if session.is_empty() || session.len() > LONGEST {
            return Err(NoDecisionId);
        }
        let value = session.bytes().try_fold(0_u64, |value, byte| {
            let letter = match byte.to_ascii_lowercase() {
                b'i' | b'l' => b'1',
                b'o' => b'0',
                letter => letter,
            };
            let digit = DIGITS.iter().position(|known| *known == letter)? as u64;
            value.checked_mul(32)?.checked_add(digit)
        });
        value.map(|session| Self { session, number }).ok_or(NoDecisionId)
    }
}

/// A text is no decision's id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoDecisionId;

impl fmt::Display for NoDecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decision's id looks like 5pjg000.1")
    }
}

impl std::error::Error for NoDecisionId {}

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The digits of the largest number.
const LONGEST: usize = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        for (session, number) in [(0, 0), (33, 2), (u64::MAX, u32::MAX)] {
            let id = DecisionId { session, number };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("5PJGOOO.1".parse(), "5pjg000.1".parse::<DecisionId>());
        for text in
            ["", ".1", "5pjg.", "5pjg.0", "5pjg.01", "5pjg.+1", "5.7.1", "5pju", "zzzzzzzzzzzzz", "1.4294967296"]
        {
            assert_eq!(text.parse::<DecisionId>(), Err(NoDecisionId), "{text}");
        }
    }

    #[test]
    fn an_id_is_short_and_has_no_letters_that_look_alike() {
        let id = |session, number| DecisionId { session, number }.to_string();
        assert_eq!(id(0, 0), "0");
        assert_eq!(id(33, 2), "11.2");
        assert_eq!(id(u64::MAX, 0), "fzzzzzzzzzzzz");
    }
}
