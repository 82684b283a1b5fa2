//! Which rule of a configuration a text came from.

use std::collections::BTreeSet;

use crate::config::Part;
use crate::config::Template;
use crate::policy::Outline;

/// The replies of the rules of a policy.
#[derive(Debug, Default)]
pub struct Origins {
    replies: Vec<(String, u16, Template)>,
    /// The rules that have a limit.
    limits: BTreeSet<String>,
}

impl Origins {
    /// Those of a policy's [`crate::policy::Policy::outlines`].
    pub fn of<'a>(outlines: impl IntoIterator<Item = &'a Outline>) -> Self {
        let mut replies: Vec<(String, u16, Template)> = Vec::new();
        let mut limits = BTreeSet::new();
        let spoken = |outline: &'a Outline| {
            let steps = outline.steps.iter().filter_map(|step| step.reply.as_ref());
            outline.reply.iter().chain(steps).map(move |reply| (outline, reply))
        };
        for (outline, (status, text)) in outlines.into_iter().flat_map(spoken) {
            let template: Template = text.parse().unwrap_or_default();
            if outline.counts.is_some() {
                limits.insert(outline.rule.clone());
            }
            if !replies
                .iter()
                .any(|(rule, code, other)| (rule, *code, other) == (&outline.rule, status.code(), &template))
            {
                replies.push((outline.rule.clone(), status.code(), template));
            }
        }
        Self { replies, limits }
    }

    /// Whether this rule refuses by a limit.
    #[must_use]
    pub fn is_limit(&self, rule: &str) -> bool {
        self.limits.contains(rule)
    }

    /// The rules that may have said this; `code` is not always known.
    #[must_use]
    pub fn rules(&self, code: Option<u16>, text: &str) -> Vec<&str> {
        let text = without_address(text);
        let mut rules: Vec<&str> = self
            .replies
            .iter()
            .filter(|(_, of_rule, template)| code.is_none_or(|code| code == *of_rule) && matches(template, text))
            .map(|(rule, _, _)| rule.as_str())
            .collect();
        rules.dedup();
        rules
    }
}

/// Sendmail puts `<address>... ` before the text of some replies.
fn without_address(text: &str) -> &str {
    match text.split_once(">... ") {
        Some((address, rest)) if address.starts_with('<') => rest,
        _ => text,
    }
}

/// Fewer letters say nothing about where a text comes from.
const FEWEST_LETTERS: usize = 8;

/// Whether the text is this template filled in: its words stand there in order, from the beginning to the end.
fn matches(template: &Template, text: &str) -> bool {
    let literals = template.parts().iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Variable(_) => None,
    });
    let letters: usize = literals.map(|literal| literal.chars().filter(char::is_ascii_alphabetic).count()).sum();
    if letters < FEWEST_LETTERS {
        return false;
    }
    let mut rest = text.trim_end();
    let parts = template.parts();
    let mut follows_variable = false;
    for (number, part) in parts.iter().enumerate() {
        let Part::Text(literal) = part else {
            follows_variable = true;
            continue;
        };
        let is_last = number + 1 == parts.len();
        let literal = if is_last { literal.trim_end() } else { literal.as_str() };
        // The first place is as good as any but for the last literal, which ends the text.
        let found = match (follows_variable, is_last) {
            (false, _) => rest.starts_with(literal).then_some(0),
            (true, true) => rest.ends_with(literal).then(|| rest.len() - literal.len()),
            (true, false) => rest.find(literal),
        };
        let Some(after) = found.and_then(|at| rest.get(at + literal.len()..)) else {
            return false;
        };
        rest = after;
        follows_variable = false;
    }
    follows_variable || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(template: &str, text: &str) -> bool {
        matches(&template.parse().unwrap(), without_address(text))
    }

    #[test]
    fn a_text_is_told_by_the_words_around_its_variables() {
        assert!(is_of("Client {client} is blocked", "Client 192.0.2.1 is blocked"));
        assert!(is_of("Client {client} is blocked", "<a@b.example>... Client 192.0.2.1 is blocked"));
        assert!(is_of(
            "Limit of {limit} reached, try again in {retry_after}",
            "Limit of 5/hour reached, try again in 4m"
        ));
        assert!(is_of("Refused client {client}.", "Refused client 192.0.2.7."));
        assert!(is_of("Refused sender {sender}, {client}.", "Refused sender a.b@c.example, 192.0.2.7."));
        assert!(is_of("one of two\nsecond line", "one of two\nsecond line"));
        assert!(!is_of("Client {client} is blocked", "Client 192.0.2.1 is not welcome"));
        assert!(!is_of("Client {client} is blocked", "The Client 192.0.2.1 is blocked"));
        assert!(!is_of("Refused by local policy", "Refused by local policy, see example.com"));
        assert!(!is_of("{client} no", "whatever it says no"));
    }
}
