//! A code by itself, as a person types it, be it malformed.

use super::Found;
use crate::codes;
use crate::codes::EnhancedCode;
use crate::codes::Kind;

/// What was typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Typed {
    /// A code, an enhanced code, or both.
    Code {
        /// What is meant.
        found: Found,
        /// What is wrong with how it was written.
        remark: Option<String>,
    },
    /// A part of a code: `4xx`, `x7x`, `5.7.x`, `X.7.1`.
    Part(Part),
}

/// A part of a code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// `4xx`: the first digit.
    Class(u16),
    /// `X.7.1`: an enhanced code of any class.
    Detail {
        /// The second number.
        subject: u16,
        /// The third number.
        detail: u16,
    },
    /// `x7x`: the second digit.
    SecondDigit(u16),
    /// `5.7.x`: class, if any, and subject of an enhanced code.
    Subject {
        /// The first number.
        class: Option<u16>,
        /// The second number.
        subject: u16,
    },
}

/// Ports of mail that look like codes.
const PORTS: [u16; 2] = [465, 587];

/// Reads a text that is a code, or several, or a code and what was said with it. Empty: it is something else, and may have
/// codes in it.
#[must_use]
pub fn typed(text: &str) -> Vec<Typed> {
    let word = bare(text);
    if let Some(typed) = part(word).map(Typed::Part).or_else(|| whole(word)) {
        return vec![typed];
    }
    let several = several(word);
    if !several.is_empty() {
        return several;
    }
    malformed(word).or_else(|| with_text(text.trim())).or_else(|| question(text)).into_iter().collect()
}

/// Without what people put around a code.
fn bare(text: &str) -> &str {
    let word = text.trim().trim_matches(|c: char| "\"'`<>()[]{},;:!?".contains(c));
    word.trim_start_matches('#').trim_end_matches('.').trim()
}

/// What stands before and between codes.
const BETWEEN: [&str; 8] = ["", "and", "code", "codes", "or", "smtp", "versus", "vs"];

/// `421 450 451`, `550 5.1.1, 421 4.7.0`: codes and nothing else.
fn several(text: &str) -> Vec<Typed> {
    let words = text.split([' ', ',', '/', '|', '\t']).map(bare);
    let words: Vec<&str> = words.filter(|word| !BETWEEN.contains(&word.to_ascii_lowercase().as_str())).collect();
    // `550 571` is one code, whose second part has lost its dots.
    if let [first, second] = words.as_slice()
        && let (Some(_), Some(second)) = (basic(first), basic(second))
        && codes::basic(second).is_none_or(|second| second.kind == Kind::Dotless)
    {
        return Vec::new();
    }
    let mut several = Vec::new();
    let mut rest = words.as_slice();
    while let [first, after @ ..] = rest {
        let pair = after.first().and_then(|second| whole(&format!("{first} {second}")));
        let (typed, taken) = match pair {
            Some(pair) => (Some(pair), 2),
            None => (whole(first), 1),
        };
        let Some(typed) = typed else {
            return Vec::new();
        };
        several.push(typed);
        rest = rest.get(taken..).unwrap_or_default();
    }
    several
}

/// `5.1.1 User unknown`
fn with_text(text: &str) -> Option<Typed> {
    let (first, rest) = text.split_once(' ')?;
    let enhanced = first.trim_start_matches('#').parse().ok()?;
    let text = rest.trim();
    text.starts_with(|c: char| c.is_ascii_alphabetic() || "<[(".contains(c)).then(|| Typed::Code {
        found: Found { enhanced: Some(enhanced), text: text.to_owned(), ..Found::default() },
        remark: None,
    })
}

/// `what does 550 mean?`
fn question(text: &str) -> Option<Typed> {
    let text = text.to_ascii_lowercase();
    let asks = ["what", "mean", "explain", "why"].iter().any(|cue| text.contains(cue));
    let mut codes = text.split(' ').map(bare).filter_map(basic).filter(|code| codes::basic(*code).is_some());
    let code = codes.next().filter(|_| asks && text.len() < 60)?;
    codes.next().is_none().then(|| Typed::Code { found: Found { code: Some(code), ..Found::default() }, remark: None })
}

/// Whether it is a number that people take for a code.
#[must_use]
pub fn is_port(text: &str) -> bool {
    text.trim().parse().is_ok_and(|number: u16| PORTS.contains(&number))
}

/// `550`, `5.7.1`, `550 5.7.1`, `550-5.7.1`.
fn whole(word: &str) -> Option<Typed> {
    let code = |found, remark| Some(Typed::Code { found, remark });
    if let Some(basic) = basic(word) {
        return code(Found { code: Some(basic), ..Found::default() }, None);
    }
    if let Ok(enhanced) = word.parse::<EnhancedCode>() {
        // With a subject that RFC 3463 does not have it is rather a version.
        let is_plausible = enhanced.subject <= 7
            && (enhanced.class != 2 || codes::enhanced(enhanced).any(|entry| entry.seen.contains(&2)));
        return code(Found { enhanced: Some(enhanced), ..Found::default() }, None).filter(|_| is_plausible);
    }
    let (first, second) = word.split_once([' ', '-', '#'])?;
    let basic = basic(first)?;
    let enhanced: EnhancedCode = second.trim_start_matches([' ', '#']).parse().ok()?;
    let remark = word.contains('-').then(|| {
        format!(
            "The hyphen says that more lines follow; the reply is {basic} {enhanced}, its last line has a blank there."
        )
    });
    code(Found { code: Some(basic), enhanced: Some(enhanced), ..Found::default() }, remark)
}

/// Three digits that may be a code.
fn basic(word: &str) -> Option<u16> {
    let code = word.parse().ok().filter(|_| word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit()))?;
    (!PORTS.contains(&code)).then_some(code)
}

/// `5.71`, `5,7,1`, `550.5.7.1`, `5505.7.1`, `550 571`, `5.07.1`: what was likely meant.
fn malformed(word: &str) -> Option<Typed> {
    let is_separator = |c: char| " .,-_#".contains(c);
    if word.is_empty() || word.len() > 20 || !word.chars().all(|c| c.is_ascii_digit() || is_separator(c)) {
        return None;
    }
    let mut numbers: Vec<&str> = word.split(is_separator).filter(|number| !number.is_empty()).collect();
    let mut code = None;
    match numbers.first() {
        Some(first) if first.len() == 3 && numbers.len() > 1 => {
            code = Some(basic(numbers.remove(0))?);
        }
        // `5505.7.1`
        Some(first) if first.len() == 4 && numbers.len() == 3 => {
            let (three, class) = first.split_at_checked(3)?;
            code = Some(basic(three)?);
            numbers = [&[class], numbers.get(1..).unwrap_or_default()].concat();
        }
        _ => {}
    }
    let digits = numbers.concat();
    let has_dots_only = word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let meant = match numbers.as_slice() {
        [class, subject, detail] => enhanced(class, subject, detail),
        // `571`, `5.71`, `57.1`: one digit is for each of the first two numbers.
        _ if (3..=5).contains(&digits.len()) && (code.is_some() || (numbers.len() == 2 && has_dots_only)) => {
            let detail = digits.get(2..).filter(|detail| !detail.starts_with('0'))?;
            enhanced(digits.get(..1)?, digits.get(1..2)?, detail)
        }
        _ => None,
    }?;
    // Dates, versions and sums of money look alike.
    let is_known = codes::enhanced(meant).any(|entry| entry.seen.contains(&meant.class));
    if code.is_some_and(|code| !(200..600).contains(&code)) || !is_known {
        return None;
    }
    let found = Found { code, enhanced: Some(meant), ..Found::default() };
    let reply = code.map(|code| format!("{code} ")).unwrap_or_default();
    let remark = format!("Written {word}, which is no code; likely meant is {reply}{meant}.");
    Some(Typed::Code { found, remark: Some(remark) })
}

/// An enhanced code whose numbers may have leading zeros.
fn enhanced(class: &str, subject: &str, detail: &str) -> Option<EnhancedCode> {
    let number = |text: &str| text.parse().ok().filter(|number| *number <= 999);
    let class = number(class).filter(|class| [2, 4, 5].contains(class))?;
    Some(EnhancedCode { class, subject: number(subject)?, detail: number(detail)? })
}

/// `4xx`, `5yz`, `4**`, `x7x`, `X.7.1`, `5.7.x`, `5.7`, `5.x.x`.
fn part(word: &str) -> Option<Part> {
    let wild = |c: char| "xyzXYZ*?".contains(c);
    let digit = |c: char| c.to_digit(10).and_then(|digit| u16::try_from(digit).ok());
    let letters: Vec<char> = word.chars().collect();
    match letters.as_slice() {
        [first, second, third] if wild(*second) && wild(*third) => return digit(*first).map(Part::Class),
        [first, second, third] if wild(*first) && wild(*third) => return digit(*second).map(Part::SecondDigit),
        _ => {}
    }
    let is_wild = |number: &str| number.len() == 1 && number.chars().all(wild);
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() <= 3);
    let numbers: Vec<&str> = word.split('.').collect();
    match numbers.as_slice() {
        [class, subject, detail] if is_wild(class) && is_wild(detail) => {
            Some(Part::Subject { class: None, subject: number(subject)? })
        }
        [class, subject, detail] if is_wild(class) => {
            Some(Part::Detail { subject: number(subject)?, detail: number(detail)? })
        }
        [class, subject, detail] if is_wild(subject) && is_wild(detail) => number(class).map(Part::Class),
        [class, subject, detail] if is_wild(detail) => subject_of(number(class)?, number(subject)?),
        [class, subject] if subject.len() == 1 => subject_of(number(class)?, number(subject)?),
        _ => None,
    }
}

fn subject_of(class: u16, subject: u16) -> Option<Part> {
    [2, 4, 5].contains(&class).then_some(Part::Subject { class: Some(class), subject })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        let show = |typed: Typed| match typed {
            Typed::Code { found, remark } => {
                let code = found.code.map(|code| code.to_string());
                let enhanced = found.enhanced.map(|enhanced| enhanced.to_string());
                let codes: Vec<String> = code.into_iter().chain(enhanced).collect();
                format!("{}{}", codes.join(" "), if remark.is_some() { "!" } else { "" })
            }
            other => format!("{other:?}"),
        };
        typed(text).into_iter().map(show).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn codes_are_taken_as_people_write_them() {
        for (text, expected) in [
            ("550", "550"),
            (" 5.7.1 ", "5.7.1"),
            ("550 5.7.1", "550 5.7.1"),
            ("550-5.7.1", "550 5.7.1!"),
            ("#5.1.1", "5.1.1"),
            ("<#5.1.1>", "5.1.1"),
            ("550 #5.1.1", "550 5.1.1"),
            ("(550)", "550"),
            ("'421 4.7.0'", "421 4.7.0"),
            ("5.7.509.", "5.7.509"),
            ("101", "101"),
            ("999", "999"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn what_was_likely_meant_is_found() {
        for (text, expected) in [
            ("5.71", "5.7.1!"),
            ("57.1", "5.7.1!"),
            ("5.726", "5.7.26!"),
            ("421-4.7.0", "421 4.7.0!"),
            ("550 571", "550 5.7.1!"),
            ("550 5.71", "550 5.7.1!"),
            ("550.5.7.1", "550 5.7.1!"),
            ("5505.7.1", "550 5.7.1!"),
            ("5,7,1", "5.7.1!"),
            ("5-7-1", "5.7.1!"),
            ("5 7 1", "5.7.1!"),
            ("5.07.1", "5.7.1!"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn several_codes_are_several() {
        for (text, expected) in [
            ("421 450 451", "421, 450, 451"),
            ("550 550", "550, 550"),
            ("450 550", "450, 550"),
            ("550 5.1.1, 421 4.7.0", "550 5.1.1, 421 4.7.0"),
            ("550 5.1.1 421 4.7.0", "550 5.1.1, 421 4.7.0"),
            ("5.1.1 4.4.7", "5.1.1, 4.4.7"),
            ("5.7.1 or 5.7.26", "5.7.1, 5.7.26"),
            ("codes: 550, 551, 552", "550, 551, 552"),
            ("550/554", "550, 554"),
            ("| 550 | 5.7.1 |", "550 5.7.1"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn what_was_said_with_a_code_is_its_text() {
        for (text, expected) in [
            ("5.1.1 User unknown", "5.1.1"),
            ("#5.7.1 <bob@example.com> denied", "5.7.1"),
            ("what does 550 mean?", "550"),
            ("why 421", "421"),
            ("5.7.1 2 3", ""),
            ("I have 550 messages", ""),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn parts_of_codes_are_told_apart() {
        for (text, expected) in [
            ("4xx", Part::Class(4)),
            ("5yz", Part::Class(5)),
            ("5.X.X", Part::Class(5)),
            ("x7z", Part::SecondDigit(7)),
            ("X.7.1", Part::Detail { subject: 7, detail: 1 }),
            ("5.7", Part::Subject { class: Some(5), subject: 7 }),
            ("4.7.x", Part::Subject { class: Some(4), subject: 7 }),
            ("X.3.X", Part::Subject { class: None, subject: 3 }),
        ] {
            assert_eq!(typed(text), [Typed::Part(expected)], "{text}");
        }
    }

    #[test]
    fn other_numbers_are_not_codes() {
        for text in [
            "",
            "25",
            "587",
            "465",
            "8891",
            "2026",
            "192.0.2.1",
            "10.0.0.1",
            "2026-11-21",
            "13:18",
            "1.2.3",
            "3.7.11",
            "9.9",
            "hello",
            "550 is bad",
            "550 5.7.1 Go away",
            "5/4/20",
            "2-5-26",
            "5:30",
            "5,000",
            "4.000",
            "4.99",
            "5.10",
            "2,554",
            "2.7.18",
            "4.19.0",
            "12345678901234567890123",
            "5",
            "55",
        ] {
            assert_eq!(typed(text), [], "{text}");
        }
    }
}
