//! Numbers and times, for people.

use std::time::Duration;
use std::time::SystemTime;

use maud::Markup;
use maud::html;

/// 12345 as `12,345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it is of: `1 rule`, `2 rules`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", number(count), if count == 1 { "" } else { "s" })
}

/// How long a time is, in its largest unit.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (amount, unit) = match seconds {
        0..=119 => (seconds, "s"),
        120..=7199 => (seconds / 60, "min"),
        7200..=172_799 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{amount} {unit}")
}

/// Octets, rounded: `11.1 GiB`.
pub(super) fn size(octets: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = "octets";
    let (mut whole, mut rest) = (octets, 0);
    for larger in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, rest, unit) = (whole / 1024, whole % 1024, larger);
    }
    if whole >= 100 || rest * 10 < 1024 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{} {unit}", rest * 10 / 1024)
    }
}

/// `5 min ago`, with the moment itself for who wants to know.
pub(super) fn ago(moment: SystemTime, now: SystemTime) -> Markup {
    let text = now.duration_since(moment).map_or_else(|_| "just now".to_owned(), |past| format!("{} ago", span(past)));
    let exact = humantime::format_rfc3339_seconds(moment);
    html! { time datetime=(exact) title=(exact) { (text) } }
}

/// `2026-11-21 17:12:03`, in UTC.
pub(super) fn moment(moment: SystemTime) -> Markup {
    let exact = humantime::format_rfc3339_seconds(moment).to_string();
    let text = exact.trim_end_matches('Z').replace('T', " ");
    html! { time datetime=(exact) { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_times_one_unit() {
        let numbers = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        assert!(numbers.iter().all(|(value, text)| number(*value) == *text));
        let spans = [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")];
        assert!(spans.iter().all(|(seconds, text)| span(Duration::from_secs(*seconds)) == *text));
        let sizes =
            [(0, "0 octets"), (1024, "1 KiB"), (1536, "1.5 KiB"), (200 << 20, "200 MiB"), (11_919_425_536, "11.1 GiB")];
        assert!(sizes.iter().all(|(octets, text)| size(*octets) == *text));
        assert_eq!((counted(1, "rule"), counted(2, "rule")), ("1 rule".to_owned(), "2 rules".to_owned()));
    }
}
