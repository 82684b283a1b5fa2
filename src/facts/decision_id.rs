//! What a decision is called in replies and logs.

use std::fmt;

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
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut started = false;
        for shift in (0..=60).rev().step_by(5) {
            let digit = usize::try_from(self.session >> shift & 31).unwrap_or_default();
            started |= digit > 0 || shift == 0;
            if let Some(&letter) = DIGITS.get(digit).filter(|_| started) {
                write!(f, "{}", char::from(letter))?;
            }
        }
        if self.number > 0 {
            write!(f, ".{}", self.number)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_has_no_letters_that_look_alike() {
        let id = |session, number| DecisionId { session, number }.to_string();
        assert_eq!(id(0, 0), "0");
        assert_eq!(id(33, 2), "11.2");
        assert_eq!(id(u64::MAX, 0), "fzzzzzzzzzzzz");
    }
}
