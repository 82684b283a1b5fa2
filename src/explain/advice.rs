//! What to do about a reply: causes, and what either side does.

use crate::codes::Basic;
use crate::codes::Enhanced;
use crate::codes::Suppress;

/// Where both codes are known, the enhanced one says more, unless it says that nothing is known.
pub(super) struct Advice {
    causes: &'static [&'static str],
    pub(super) receiver: Option<&'static str>,
    sender: Option<&'static str>,
    suppress: Option<Suppress>,
}

impl Advice {
    /// None.
    pub(super) const NONE: Self = Self { causes: &[], receiver: None, sender: None, suppress: None };

    /// The lines of the text about it.
    pub(super) fn lines(&self, class: Option<u16>, line: &mut impl FnMut(&str, &str)) {
        let causes = self.causes.iter().map(|cause| for_class(cause, class));
        causes.filter(|cause| !cause.is_empty()).for_each(|cause| line("cause", &cause));
        if let Some(receiver) = self.receiver {
            line("you said it", &for_class(receiver, class));
        }
        if let Some(sender) = self.sender {
            line("you got it", &for_class(sender, class));
        }
        if let Some(suppress) = self.suppress.and_then(Suppress::advice) {
            line("address", suppress);
        }
    }

    /// Of a code, an enhanced code, or both.
    pub(super) fn of(basic: Option<&'static Basic>, enhanced: Option<&'static Enhanced>) -> Self {
        match (basic, enhanced) {
            (Some(basic), None) => Self::of_basic(basic),
            (Some(basic), Some(enhanced)) if is_vague(enhanced) => Self::of_basic(basic),
            (_, Some(enhanced)) => Self {
                causes: enhanced.causes,
                receiver: Some(enhanced.receiver),
                sender: Some(enhanced.sender),
                suppress: Some(enhanced.suppress),
            },
            (None, None) => Self::NONE,
        }
    }

    const fn of_basic(basic: &Basic) -> Self {
        Self {
            causes: basic.causes,
            receiver: Some(basic.receiver),
            sender: Some(basic.sender),
            suppress: Some(basic.suppress),
        }
    }
}

/// Whether an enhanced code says no more than what it is about.
pub(super) fn is_vague(enhanced: &Enhanced) -> bool {
    enhanced.code.ends_with(".0")
}

/// What of a text of the catalogue holds for this class. `4: ` and `5: ` begin what holds for one of them, ` | ` ends it.
#[must_use]
pub fn for_class(text: &str, class: Option<u16>) -> String {
    let mut of = None;
    let mut words: Vec<&str> = Vec::new();
    for word in text.split(' ') {
        of = match word {
            "4:" => Some(4),
            "5:" => Some(5),
            "|" => None,
            _ => {
                if of.is_none() || class.is_none() || of == class {
                    words.push(word);
                }
                continue;
            }
        };
        match (of, class) {
            (Some(4), None) => words.push("4yz:"),
            (Some(_), None) => words.push("5yz:"),
            _ => {}
        }
    }
    words.join(" ")
}
