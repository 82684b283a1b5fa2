//! What the digits of a code say, where nobody defined the whole.

use crate::codes;
use crate::codes::EnhancedCode;

/// A digit in its place, and its meaning.
pub(super) type Digit = (String, String);

/// Of a three-digit code.
pub(super) fn of_basic(code: u16) -> Vec<Digit> {
    let third = (format!("..{}", code % 10), "no standard defines this code".to_owned());
    vec![class(code / 100), second(code / 10 % 10), third]
}

/// Of an enhanced code.
pub(super) fn of_enhanced(code: EnhancedCode) -> Vec<Digit> {
    let detail = (format!(". . {}", code.detail), "not in IANA's registry".to_owned());
    vec![class(code.class), subject(code.subject), detail]
}

/// Of a first digit.
pub(super) fn class(digit: u16) -> Digit {
    let meaning = codes::class(digit).map_or_else(
        || "no such class in SMTP".to_owned(),
        |class| format!("{}: {} The sending side: {}", class.name, class.meaning, class.sender),
    );
    (format!("{digit}.."), meaning)
}

/// Of a second digit.
pub(super) fn second(digit: u16) -> Digit {
    let meaning = codes::second_digit(digit).map(|second| format!("{}: {}", second.name, second.meaning));
    (format!(".{digit}."), meaning.unwrap_or_default())
}

/// Of the second number of an enhanced code.
pub(super) fn subject(number: u16) -> Digit {
    let meaning = codes::subject(number).map(|subject| format!("{}: {}", subject.name, subject.meaning));
    (format!(". {number} ."), meaning.unwrap_or_else(|| "no such subject: RFC 3463 §3 has 0 to 7".to_owned()))
}
