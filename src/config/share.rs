//! A share of so many in so long: `30% of 20/hour`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::units::Rate;
use super::units::Span;
use super::units::UnitError;

/// So many times as long as another one's the span of a share of the same limit may be: all are judged from one log, which
/// would be too long, or too coarse for the shortest.
pub const MOST_APART: u64 = 2048;

/// More than so many hundredths of at least so many in any span of this length.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Share {
    /// What may be, in hundredths of all: 0 to 99.
    pub percent: u64,
    /// Of fewer there is no share.
    pub least: u64,
    /// In any span of this length.
    pub per: Duration,
}

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let share = || {
            let (percent, rate) = text.split_once(" of ")?;
            let percent = percent.trim().strip_suffix('%')?.trim_end().parse().ok()?;
            let Rate { amount: least, per } = Rate::parse_count(rate.trim()).ok()?;
            (percent < 100).then_some(Self { percent, least, per })
        };
        let expected = "a share such as \"30% of 20/hour\": less than 100%, of how many at least";
        share().ok_or_else(|| UnitError::new(expected, text, []))
    }
}

/// As it is written.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = Rate { amount: self.least, per: self.per };
        write!(f, "{}% of {rate}", self.percent)
    }
}

impl Share {
    /// Its span, as it stands behind the slash of a rate: `hour`, `10 minutes`.
    #[must_use]
    pub fn span(&self) -> String {
        let per = Span(self.per).to_string();
        per.strip_prefix("1 ").unwrap_or(&per).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_people_write_them() {
        let hour = Duration::from_secs(3600);
        assert_eq!("30% of 20/hour".parse(), Ok(Share { percent: 30, least: 20, per: hour }));
        assert_eq!(" 0 %  of  1 / 60 min ".parse(), Ok(Share { percent: 0, least: 1, per: hour }));
        for text in [
            "",
            "30%",
            "30 of 20/hour",
            "100% of 20/hour",
            "-1% of 2/hour",
            "30% of 0/hour",
            "30% of 20",
            "1.5% of 20/h",
        ] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_shown_as_they_are_read() {
        for text in ["30% of 20/hour", "0% of 1/10 minutes"] {
            let share: Share = text.parse().unwrap();
            assert_eq!(share.to_string(), text);
        }
    }
}
