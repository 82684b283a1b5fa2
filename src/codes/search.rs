//! Looks for codes by number, word, stage or standard.

use super::Basic;
use super::Enhanced;
use super::all_basic;
use super::all_enhanced;

/// What was found, in the order of the catalogue.
#[derive(Debug)]
pub struct Matches {
    /// Three-digit codes.
    pub basic: Vec<&'static Basic>,
    /// Enhanced codes.
    pub enhanced: Vec<&'static Enhanced>,
}

/// The entries that every word of the pattern fits; with an empty pattern all.
#[must_use]
pub fn search(pattern: &str) -> Matches {
    let words = words(pattern);
    let fits_basic = |basic: &&Basic| words.iter().all(|word| word.fits_basic(basic));
    let fits_enhanced = |enhanced: &&Enhanced| words.iter().all(|word| word.fits_enhanced(enhanced));
    Matches {
        basic: all_basic().iter().filter(fits_basic).collect(),
        enhanced: all_enhanced().iter().filter(fits_enhanced).collect(),
    }
}

/// A milter's stages, of which some are no SMTP commands.
const STAGES: [&str; 6] = ["connect", "helo", "mail", "rcpt", "data", "end-of-message"];

/// A word of a pattern.
#[derive(Debug)]
enum Word {
    /// `4yz`: a first digit.
    Class(u16),
    /// `5.7`: the beginning of an enhanced code, its first number apart; `None` for any.
    Dotted(Option<u16>, String),
    /// `55`: the first digits of a code.
    Digits(String),
    /// A stage or command.
    Stage(String),
    /// `RFC 7505`.
    Standard(String),
    /// Any other, in lower case.
    Text(String),
}

fn words(pattern: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let pattern = pattern.to_ascii_lowercase();
    // A section of a standard is not looked for, and a hyphen between two codes is none.
    let wanted = |word: &&str| !word.starts_with('\u{a7}');
    let mut rest = pattern.split([' ', ',', '\t', '\n']).filter(|word| !word.is_empty()).filter(wanted).peekable();
    while let Some(word) = rest.next() {
        let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        if word == "rfc"
            && let Some(number) = rest.next_if(is_number)
        {
            words.push(Word::Standard(format!("rfc {number}")));
        } else if let Some(number) = word.strip_prefix("rfc").filter(is_number) {
            words.push(Word::Standard(format!("rfc {number}")));
        } else {
            words.push(Word::of(word));
        }
    }
    words
}

impl Word {
    fn of(word: &str) -> Self {
        let text = || Self::Text(word.to_owned());
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if let Some(class) = word.strip_suffix("yz").or_else(|| word.strip_suffix("xx")) {
            return class.parse().map_or_else(|_| text(), Self::Class);
        }
        if is_number(word) {
            return if word.len() == 4 { Self::Standard(format!("rfc {word}")) } else { Self::Digits(word.to_owned()) };
        }
        if word == "eom" || all_basic().iter().any(|basic| basic.stages.contains(&word)) || STAGES.contains(&word) {
            return Self::Stage(if word == "eom" { "end-of-message".to_owned() } else { word.to_owned() });
        }
        let word = word.trim_start_matches('#').trim_end_matches(".x").trim_end_matches('.');
        match word.split_once('.') {
            Some(("x", rest)) => Self::Dotted(None, rest.to_owned()),
            Some((class, rest)) if is_number(class) && rest.split('.').all(is_number) => {
                class.parse().map_or_else(|_| text(), |class| Self::Dotted(Some(class), rest.to_owned()))
            }
            _ => text(),
        }
    }

    fn fits_basic(&self, basic: &Basic) -> bool {
        match self {
            Self::Class(class) => basic.code / 100 == *class,
            Self::Digits(digits) => basic.code.to_string().starts_with(digits),
            Self::Dotted(class, rest) => {
                let mut codes =
                    basic.usual.iter().filter_map(|pair| pair.split_once(' ')).map(|(_, enhanced)| enhanced);
                codes.any(|enhanced| begins(enhanced, *class, rest))
                    || basic.dotted.is_some_and(|dotted| begins(dotted, *class, rest))
            }
            Self::Standard(standard) => names(basic.defined_by, standard),
            Self::Stage(stage) => basic.is_said_at(stage),
            Self::Text(text) => {
                [basic.name, basic.meaning, basic.defined_by, basic.kind.name()].iter().any(|field| has(field, text))
                    || basic.causes.iter().any(|cause| has(cause, text))
            }
        }
    }

    fn fits_enhanced(&self, enhanced: &Enhanced) -> bool {
        match self {
            Self::Class(class) => enhanced.classes.contains(class),
            Self::Digits(digits) => {
                let usual = enhanced.usual.iter().any(|pair| digits.len() == 3 && pair.starts_with(digits.as_str()));
                usual || enhanced.basic.iter().any(|code| code.to_string() == *digits)
            }
            Self::Dotted(class, rest) => {
                let of_class =
                    class.is_none_or(|class| enhanced.classes.contains(&class) || enhanced.seen.contains(&class));
                let covers = |class: &u16| format!("{class}.{rest}").parse().is_ok_and(|code| enhanced.covers(code));
                of_class
                    && (enhanced.code.split('-').any(|code| begins(code, None, rest))
                        || enhanced.classes.iter().any(covers))
            }
            // They go with the code, whose stage it is.
            Self::Stage(_) => false,
            Self::Standard(standard) => names(enhanced.defined_by, standard),
            Self::Text(text) => {
                [enhanced.name, enhanced.meaning, enhanced.defined_by, enhanced.status.name()]
                    .iter()
                    .any(|field| has(field, text))
                    || enhanced.vendor.is_some_and(|vendor| has(vendor, text))
                    || enhanced.causes.iter().any(|cause| has(cause, text))
            }
        }
    }
}

/// Whether an enhanced code has this class, if one is asked for, and its other numbers begin with `rest`.
fn begins(code: &str, class: Option<u16>, rest: &str) -> bool {
    let Some((of_code, numbers)) = code.split_once('.') else {
        return false;
    };
    let same_class = class.is_none_or(|class| of_code == class.to_string());
    same_class && numbers.strip_prefix(rest).is_some_and(|after| after.is_empty() || after.starts_with('.'))
}

fn has(field: &str, text: &str) -> bool {
    field.to_ascii_lowercase().contains(text)
}

/// Whether `RFC 5321` stands there, and not as the beginning of a longer number.
fn names(field: &str, standard: &str) -> bool {
    let field = field.to_ascii_lowercase();
    field.match_indices(standard).any(|(at, found)| {
        field.get(at + found.len()..).is_none_or(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}
