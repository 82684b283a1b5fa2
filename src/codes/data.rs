//! The catalogue's tables, as `build.rs` writes them.

use serde_json::Value;
use serde_json::json;

use super::EnhancedCode;

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// The first digit of a code.
#[derive(Debug)]
pub struct Class {
    /// 1 to 5.
    pub digit: u16,
    /// What it says, in a word or two.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// What the sending side does.
    pub sender: &'static str,
    /// Whether the sending side may drop the address.
    pub suppress: Suppress,
    /// Whether SMTP has it.
    pub in_smtp: bool,
}

/// The second digit of a three-digit code.
#[derive(Debug)]
pub struct SecondDigit {
    /// 0 to 9.
    pub digit: u16,
    /// What it is about.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub meaning: &'static str,
    /// Whether SMTP has it: RFC 5321 §4.2 knows 0 to 5.
    pub in_smtp: bool,
}

/// The second number of an enhanced code.
#[derive(Debug)]
pub struct Subject {
    /// 0 to 7.
    pub number: u16,
    /// What it is about.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub meaning: &'static str,
}

/// A three-digit code.
#[derive(Debug)]
pub struct Basic {
    /// 101 to 571.
    pub code: u16,
    /// What it says, in a few words.
    pub name: &'static str,
    /// Whose it is.
    pub kind: Kind,
    /// The standard or the vendor.
    pub defined_by: &'static str,
    /// Where in a session it has its place, by that definition; SMTP commands in lower case, `connect`, `end-of-message`, `any`.
    pub stages: &'static [&'static str],
    /// The stages, by [`crate::facts::Stage::name`], at which a milter may say it.
    pub milter: &'static [&'static str],
    /// Those at which it may, but better would not.
    pub milter_unusual: &'static [&'static str],
    /// Why not elsewhere, or at all.
    pub milter_why: Option<&'static str>,
    /// What it says, in a sentence or two.
    pub meaning: &'static str,
    /// Why it is said, the likeliest first.
    pub causes: &'static [&'static str],
    /// What the administrator of the server that says it does.
    pub receiver: &'static str,
    /// What the sending side does.
    pub sender: &'static str,
    /// Whether the sending side may drop the address.
    pub suppress: Suppress,
    /// The first thing to do.
    pub first: &'static str,
    /// The enhanced code that was meant, if it is one without its dots.
    pub dotted: Option<&'static str>,
    /// The reply that says it properly, where this one should not be sent.
    pub instead: Option<&'static str>,
    /// Replies with this code that servers use, the best known first.
    pub usual: &'static [&'static str],
}

impl Basic {
    /// Whether it has its place at this stage or command, be it that a milter says it there.
    #[must_use]
    pub fn is_said_at(&self, stage: &str) -> bool {
        let of_milter = self.milter.contains(&stage) || self.milter_unusual.contains(&stage);
        of_milter || self.stages.contains(&stage) || self.stages.contains(&"any")
    }

    /// For programs: `codes --format json` and `explain --format json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "name": self.name,
            "kind": self.kind.name(),
            "defined_by": self.defined_by,
            "stages": self.stages,
            "milter": self.milter,
            "milter_unusual": self.milter_unusual,
            "milter_why": self.milter_why,
            "meaning": self.meaning,
            "causes": self.causes,
            "receiver": self.receiver,
            "sender": self.sender,
            "suppress": self.suppress.name(),
            "first": self.first,
            "dotted": self.dotted,
            "instead": self.instead,
            "usual": self.usual,
        })
    }
}

/// An enhanced status code, or a range of them.
#[derive(Debug)]
pub struct Enhanced {
    /// `X.7.1` in any class, `4.7.32`, or `5.7.501-5.7.503`.
    pub code: &'static str,
    /// What it says, in a few words.
    pub name: &'static str,
    /// Whether it is in IANA's registry.
    pub status: Registration,
    /// Whose it is, if not.
    pub vendor: Option<&'static str>,
    /// The standard or the vendor.
    pub defined_by: &'static str,
    /// The classes with which it is registered.
    pub classes: &'static [u16],
    /// The classes with which it is met.
    pub seen: &'static [u16],
    /// The three-digit codes that the registry names with it.
    pub basic: &'static [u16],
    /// Replies that are common all the same.
    pub usual: &'static [&'static str],
    /// Whether a milter says it.
    pub milter: MilterUse,
    /// Why not.
    pub milter_why: Option<&'static str>,
    /// What it says, in a sentence or two.
    pub meaning: &'static str,
    /// Why it is said, the likeliest first.
    pub causes: &'static [&'static str],
    /// What the administrator of the server that says it does.
    pub receiver: &'static str,
    /// What the sending side does.
    pub sender: &'static str,
    /// Whether the sending side may drop the address.
    pub suppress: Suppress,
    /// The first thing to do.
    pub first: &'static str,
}

impl Enhanced {
    /// For programs: `codes --format json` and `explain --format json`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "name": self.name,
            "status": self.status.name(),
            "vendor": self.vendor,
            "defined_by": self.defined_by,
            "classes": self.classes,
            "basic": self.basic,
            "usual": self.usual,
            "milter": self.milter.name(),
            "milter_why": self.milter_why,
            "meaning": self.meaning,
            "causes": self.causes,
            "receiver": self.receiver,
            "sender": self.sender,
            "suppress": self.suppress.name(),
            "first": self.first,
        })
    }

    /// Whether it is this entry's code.
    #[must_use]
    pub fn covers(&self, code: EnhancedCode) -> bool {
        if let Some(detail) = self.code.strip_prefix("X.") {
            return detail.split_once('.').is_some_and(|(subject, detail)| {
                subject.parse() == Ok(code.subject) && detail.parse() == Ok(code.detail)
            });
        }
        let (first, last) = self.code.split_once('-').unwrap_or((self.code, self.code));
        match (first.parse::<EnhancedCode>(), last.parse::<EnhancedCode>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&code),
            _ => false,
        }
    }
}

/// A text by which an MTA or a service is known, and what it means there.
#[derive(Debug)]
pub struct KnownText {
    /// One of these stands in it.
    pub contains: &'static [&'static str],
    /// How its codes begin, if that matters.
    pub code: Option<&'static str>,
    /// What it is, in a few words.
    pub name: &'static str,
    /// What it means.
    pub means: &'static str,
    /// The first thing to do.
    pub first: &'static str,
}

/// What a reference says about codes.
#[derive(Debug)]
pub struct Claim {
    /// Its name.
    pub id: &'static str,
    /// What it is about: `503`, `5.2.2`, `552 5.2.2`, `4yz`, `x7z`.
    pub about: &'static [&'static str],
    /// The claim.
    pub says: &'static str,
    /// Whether it is so.
    pub verdict: Verdict,
    /// What is so, and why; only a claim that is right may lack it.
    pub truth: Option<&'static str>,
}

impl Claim {
    /// Whether the text for this code corrects it: at the first code that it is about, so that it is not said everywhere.
    #[must_use]
    pub fn is_shown_at(&self, code: &str) -> bool {
        self.verdict != Verdict::Right && self.about.first() == Some(&code)
    }
}

/// Whose a three-digit code is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An enhanced code without its dots; servers do not say it.
    Dotless,
    /// Made up by a sending program; never on the wire.
    Local,
    /// Servers say it; no standard defines it.
    NonStandard,
    /// An RFC or IANA's registry has it.
    Standard,
}

impl Kind {
    /// The word for it in the catalogue.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dotless => "dotless",
            Self::Local => "local",
            Self::NonStandard => "non-standard",
            Self::Standard => "standard",
        }
    }
}

/// Whether an enhanced code is in IANA's registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registration {
    /// It is, but shall not be used any more.
    Deprecated,
    /// It is.
    Registered,
    /// It is not; a vendor uses it.
    Vendor,
}

impl Registration {
    /// The word for it in the catalogue.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deprecated => "deprecated",
            Self::Registered => "registered",
            Self::Vendor => "vendor",
        }
    }
}

/// Whether a milter says an enhanced code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MilterUse {
    /// Never.
    No,
    /// Seldom.
    Rarely,
    /// Yes.
    Yes,
}

impl MilterUse {
    /// The word for it in the catalogue.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Rarely => "rarely",
            Self::Yes => "yes",
        }
    }
}

/// Whether the sending side may drop an address for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Suppress {
    /// It may, at once: the address is dead.
    Address,
    /// It should not: the address is not the trouble.
    Never,
    /// That is no question here.
    NotApplicable,
    /// After repeated failures.
    Repeated,
}

impl Suppress {
    /// The word for it in the catalogue.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Never => "never",
            Self::NotApplicable => "-",
            Self::Repeated => "repeated",
        }
    }

    /// What follows for the address; `None` where that is no question.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Address => Some("may be dropped: it is dead"),
            Self::Never => Some("keep it: the address is not the trouble"),
            Self::NotApplicable => None,
            Self::Repeated => Some("may be dropped after repeated failures, not after the first"),
        }
    }
}

/// Whether a claim is so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// In part.
    Partly,
    /// It is.
    Right,
    /// Nobody found a source.
    Unverified,
    /// It is not.
    Wrong,
}

impl Verdict {
    /// The word for it in the catalogue.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partly => "partly",
            Self::Right => "right",
            Self::Unverified => "unverified",
            Self::Wrong => "wrong",
        }
    }
}
