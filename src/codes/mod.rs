//! The catalogue of SMTP reply codes: what each means, who says it when, and what to do about it.
//!
//! The data stands in `catalogue.toml` beside this file; `build.rs` makes constants of it, so that a mistake in it does not
//! compile and reading it costs nothing. Nothing here knows of rules or of texts in which codes are found.

mod data;
mod enhanced_code;
mod search;

pub use data::Basic;
pub use data::Claim;
pub use data::Class;
pub use data::Enhanced;
pub use data::Kind;
pub use data::KnownText;
pub use data::MilterUse;
pub use data::Registration;
pub use data::SecondDigit;
pub use data::Subject;
pub use data::Suppress;
pub use data::Verdict;
pub use enhanced_code::EnhancedCode;
pub use enhanced_code::NotEnhanced;
pub use search::Matches;
pub use search::search;

/// Every basic code of the catalogue, in order.
#[must_use]
pub const fn all_basic() -> &'static [Basic] {
    data::BASIC
}

/// Every first digit, in order.
#[must_use]
pub const fn all_classes() -> &'static [Class] {
    data::CLASSES
}

/// Every second digit, in order.
#[must_use]
pub const fn all_second_digits() -> &'static [SecondDigit] {
    data::SECOND_DIGITS
}

/// Every second number of enhanced codes, in order.
#[must_use]
pub const fn all_subjects() -> &'static [Subject] {
    data::SUBJECTS
}

/// Every enhanced code of the catalogue: the registered ones in order, then the vendors'.
#[must_use]
pub const fn all_enhanced() -> &'static [Enhanced] {
    data::ENHANCED
}

/// What is commonly said about codes, and whether it is so.
#[must_use]
pub const fn claims() -> &'static [Claim] {
    data::CLAIMS
}

/// The catalogue's entry for a three-digit code.
#[must_use]
pub fn basic(code: u16) -> Option<&'static Basic> {
    data::BASIC.iter().find(|basic| basic.code == code)
}

/// The entries for an enhanced code: the registered one first, then those of vendors who use it in a way of their own.
pub fn enhanced(code: EnhancedCode) -> impl Iterator<Item = &'static Enhanced> {
    data::ENHANCED.iter().filter(move |enhanced| enhanced.covers(code))
}

/// The registered meaning of an enhanced code.
#[must_use]
pub fn registered(code: EnhancedCode) -> Option<&'static Enhanced> {
    enhanced(code).find(|enhanced| enhanced.status != Registration::Vendor)
}

/// The meaning of the first digit of a code, or of the first number of an enhanced one.
#[must_use]
pub fn class(digit: u16) -> Option<&'static Class> {
    data::CLASSES.iter().find(|class| class.digit == digit)
}

/// The meaning of the second digit of a code.
#[must_use]
pub fn second_digit(digit: u16) -> Option<&'static SecondDigit> {
    data::SECOND_DIGITS.iter().find(|second| second.digit == digit)
}

/// The meaning of the second number of an enhanced code.
#[must_use]
pub fn subject(number: u16) -> Option<&'static Subject> {
    data::SUBJECTS.iter().find(|subject| subject.number == number)
}

/// Every text by which an MTA or a service is known.
#[must_use]
pub const fn known_texts() -> &'static [KnownText] {
    data::TEXTS
}

/// What a reply is known by: `codes` as in `451 4.7.1`, or the one that is there, and the text behind them.
#[must_use]
pub fn known_text(codes: &str, text: &str) -> Option<&'static KnownText> {
    data::TEXTS.iter().find(|known| {
        known.code.is_none_or(|code| codes.starts_with(code)) && known.contains.iter().any(|part| text.contains(part))
    })
}

/// What is commonly said about this: `503`, `5.2.2`, `552 5.2.2`, `4yz` (a class) or `x7z` (a second digit).
pub fn claims_about(about: &str) -> impl Iterator<Item = &'static Claim> {
    data::CLAIMS.iter().filter(move |claim| claim.about.contains(&about))
}

#[cfg(test)]
mod tests;
