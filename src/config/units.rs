//! Sizes, durations, rates and comparisons as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of octets: `25 MiB`, `1 GB`, `512`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Size(pub u64);

/// Largest first, so that a size is shown in the largest unit that fits.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || {
            let expected = "a size such as \"25 MiB\" or \"500 KB\"";
            UnitError::new(expected, text, with_unit(text).into_iter().filter(|meant| meant.parse::<Self>().is_ok()))
        };
        let (number, unit) = number_and_unit(text).ok_or_else(error)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(error)?;
        number.checked_mul(*factor).map(Self).ok_or_else(error)
    }
}

/// In the largest binary unit that leaves no fraction; with one decimal where none does.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = || SIZE_UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
        if let Some((name, factor)) = binary().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            return write!(f, "{} {name}", self.0 / factor);
        }
        match binary().find(|(_, factor)| self.0 >= 10 * factor) {
            Some((name, factor)) => write!(f, "{}.{} {name}", self.0 / factor, self.0 % factor * 10 / factor),
            None if self.0 == 1 => f.write_str("1 byte"),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// A span of time: `5s`, `10m`, `1h`, `2d`, `500ms`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(pub Duration);

const TIME_UNITS: [(&str, u64); 21] = [
    ("ms", 1),
    ("millisecond", 1),
    ("milliseconds", 1),
    ("s", 1000),
    ("sec", 1000),
    ("second", 1000),
    ("seconds", 1000),
    ("m", 60_000),
    ("min", 60_000),
    ("minute", 60_000),
    ("minutes", 60_000),
    ("h", 3_600_000),
    ("hr", 3_600_000),
    ("hour", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
    ("w", 604_800_000),
    ("week", 604_800_000),
    ("weeks", 604_800_000),
];

impl Span {
    /// Rounded up, so that whoever waits so long finds room: to seconds, past two minutes to minutes, past four hours to
    /// hours, past four days to days.
    #[must_use]
    pub fn rounded_up(duration: Duration) -> Self {
        let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
        let unit = match seconds {
            0..=120 => 1,
            121..=14_400 => 60,
            14_401..=345_600 => 3600,
            _ => 86_400,
        };
        Self(Duration::from_secs(seconds.max(1).div_ceil(unit) * unit))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::new("a duration such as \"5m\" or \"1 hour\"", text, []);
        let (number, unit) = number_and_unit(text).ok_or_else(error)?;
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        number.checked_mul(*factor).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(error)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let units =
            [("week", 604_800_000), ("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000)];
        match units.iter().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor)) {
            Some((name, factor)) if ms == *factor => write!(f, "1 {name}"),
            Some((name, factor)) => write!(f, "{} {name}s", ms / factor),
            None => write!(f, "{ms} ms"),
        }
    }
}

/// So much in so long: `100/hour`, `20/minute`, `1 GiB/day`, `10/5m`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rate {
    /// How much, in what is counted: messages, recipients, octets, connections.
    pub amount: u64,
    /// In any span of this length.
    pub per: Duration,
}

/// A part of an amount, in percent, rounded down.
#[must_use]
pub fn scaled(amount: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl Rate {
    /// A part of it in the same time, in percent, rounded down.
    #[must_use]
    pub fn scaled(self, percent: u32) -> Self {
        Self { amount: scaled(self.amount, percent), ..self }
    }

    /// Reads a rate whose amount is a plain number.
    ///
    /// # Errors
    ///
    /// What was expected and what was found.
    pub fn parse_count(text: &str) -> Result<Self, UnitError> {
        Self::parse(text, "a rate such as \"100/hour\" or \"20/5m\"", |amount| amount.parse().ok())
    }

    /// Reads a rate whose amount is a size.
    ///
    /// # Errors
    ///
    /// What was expected and what was found.
    pub fn parse_size(text: &str) -> Result<Self, UnitError> {
        let size = |amount: &str| amount.parse::<Size>().ok().map(|size| size.0);
        Self::parse(text, "a rate such as \"1 GiB/day\"", size)
    }

    fn parse(text: &str, expected: &'static str, amount: impl Fn(&str) -> Option<u64>) -> Result<Self, UnitError> {
        let parse = |text: &str| {
            let (left, right) = text.split_once('/')?;
            let right = right.trim();
            let counted = right.starts_with(|c: char| c.is_ascii_digit());
            let per: Span = if counted { right.parse() } else { format!("1 {right}").parse() }.ok()?;
            Some(Self { amount: amount(left.trim())?, per: per.0 })
        };
        let rate = parse(text).ok_or_else(|| {
            let meant = Self::meant(text).into_iter().filter(|meant| parse(meant).is_some());
            UnitError::new(expected, text, meant)
        })?;
        if rate.amount == 0 || rate.per.is_zero() {
            return Err(UnitError::new("a rate of more than nothing in more than no time", text, []));
        }
        Ok(rate)
    }

    /// Months and years, which have no fixed length, and sizes in `M`.
    fn meant(text: &str) -> Vec<String> {
        let Some((amount, per)) = text.split_once('/') else {
            return Vec::new();
        };
        let per = match per.trim() {
            "mo" | "month" => "30d",
            "y" | "year" => "365d",
            per => per,
        };
        let amounts = [amount.trim().to_owned()].into_iter().chain(with_unit(amount));
        amounts.map(|amount| format!("{amount}/{per}")).collect()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = Span(self.per).to_string();
        write!(f, "{}/{}", self.amount, per.strip_prefix("1 ").unwrap_or(&per))
    }
}

/// How a number must compare: `> 25 MiB`, `>= 3`, `< 2 GiB`, `= 1`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// With what.
    pub bound: u64,
}

/// The operators of [`Comparison`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Comparison {
    /// Reads an operator and a bound, the bound in the form that `bound` reads.
    ///
    /// # Errors
    ///
    /// What was expected and what was found.
    pub fn parse(text: &str, expected: &'static str, bound: impl Fn(&str) -> Option<u64>) -> Result<Self, UnitError> {
        let operators = [
            (">=", Operator::GreaterOrEqual),
            ("<=", Operator::LessOrEqual),
            (">", Operator::Greater),
            ("<", Operator::Less),
            ("=", Operator::Equal),
        ];
        let text = text.trim();
        let parse = |text: &str| {
            let (prefix, operator) = operators.iter().find(|(prefix, _)| text.starts_with(prefix))?;
            let bound = bound(text.get(prefix.len()..)?.trim())?;
            Some(Self { operator: *operator, bound })
        };
        parse(text).ok_or_else(|| {
            let meant = Self::meant(text).into_iter().filter(|meant| parse(meant).is_some());
            UnitError::new(expected, text, meant)
        })
    }

    /// The same with an operator, or with the one that other languages spell so.
    fn meant(text: &str) -> Vec<String> {
        let (operator, bound) = text.split_at(text.find(|c: char| c.is_ascii_digit()).unwrap_or_default());
        let operator = match operator.trim_end() {
            "" => ">",
            "==" => "=",
            "=>" => ">=",
            "=<" => "<=",
            operator => operator,
        };
        let units = with_unit(bound);
        let bounds = if units.is_empty() { vec![bound.to_owned()] } else { units };
        bounds.into_iter().map(|bound| format!("{operator} {bound}")).collect()
    }

    /// Whether `number` compares so.
    #[must_use]
    pub const fn holds(self, number: u64) -> bool {
        match self.operator {
            Operator::Equal => number == self.bound,
            Operator::Greater => number > self.bound,
            Operator::GreaterOrEqual => number >= self.bound,
            Operator::Less => number < self.bound,
            Operator::LessOrEqual => number <= self.bound,
        }
    }

    /// Whether a larger number than one that holds always holds, too.
    #[must_use]
    pub const fn is_lower_bound(self) -> bool {
        matches!(self.operator, Operator::Greater | Operator::GreaterOrEqual)
    }
}

/// Why a text is not the quantity that was expected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnitError {
    expected: &'static str,
    found: String,
    meant: Vec<String>,
}

impl UnitError {
    pub(super) fn new(expected: &'static str, found: &str, meant: impl IntoIterator<Item = String>) -> Self {
        Self { expected, found: found.to_owned(), meant: meant.into_iter().collect() }
    }
}

/// `25M` as `25 MB` and as `25 MiB`; nothing for what has no such unit.
fn with_unit(text: &str) -> Vec<String> {
    let Some((number, unit)) = number_and_unit(text).filter(|(_, unit)| unit.len() == 1) else {
        return Vec::new();
    };
    let unit = unit.to_uppercase();
    if unit == "B" { Vec::new() } else { vec![format!("{number} {unit}B"), format!("{number} {unit}iB")] }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found \"{}\"", self.expected, self.found)?;
        let meant: Vec<String> = self.meant.iter().map(|meant| format!("\"{meant}\"")).collect();
        if meant.is_empty() { Ok(()) } else { write!(f, "; did you mean {}?", meant.join(" or ")) }
    }
}

impl std::error::Error for UnitError {}

/// `25 MiB` and `25MiB` alike; the unit may be missing.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("25 MiB", 26_214_400, "25 MiB"),
            ("1GB", 1_000_000_000, "953.6 MiB"),
            ("512", 512, "512 bytes"),
            ("10 kib", 10_240, "10 KiB"),
            ("0", 0, "0 bytes"),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), shown, "{text}");
        }
        for text in ["", "MiB", "25 XB", "-1", "1.5 MiB", "99999999999 TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, seconds, shown) in [("5m", 300, "5 minutes"), ("1 hour", 3600, "1 hour"), ("90s", 90, "90 seconds")]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), shown);
        }
        for text in ["5", "m", "5 fortnights", ""] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    /// rspamd reads an odd rate as "no limit"; here it is an error.
    #[test]
    fn rates_are_read_or_refused_never_guessed() {
        let hour = Duration::from_secs(3600);
        assert_eq!(Rate::parse_count("100/hour"), Ok(Rate { amount: 100, per: hour }));
        assert_eq!(Rate::parse_count("10 / 5m"), Ok(Rate { amount: 10, per: Duration::from_secs(300) }));
        assert_eq!(Rate::parse_size("1 GiB/h"), Ok(Rate { amount: 1 << 30, per: hour }));
        assert_eq!(Rate::parse_count("100/hour").unwrap().to_string(), "100/hour");
        for text in ["100", "100/", "/hour", "0/hour", "2 / 15 / min", "1 GiB/day", "10/0s", "-1/hour"] {
            assert!(Rate::parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comparisons_compare() {
        let parse = |text| Comparison::parse(text, "x", |text| text.parse().ok());
        assert!(parse("> 3").unwrap().holds(4) && !parse("> 3").unwrap().holds(3));
        assert!(parse(">= 3").unwrap().holds(3) && !parse(">=3").unwrap().holds(2));
        assert!(parse("< 3").unwrap().holds(2) && !parse("< 3").unwrap().holds(3));
        assert!(parse("<= 3").unwrap().holds(3) && !parse("<= 3").unwrap().holds(4));
        assert!(parse("= 3").unwrap().holds(3) && !parse("= 3").unwrap().holds(4));
        for text in ["3", "", "> ", "=> 3", "> x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
