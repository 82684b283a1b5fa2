//! What a rule asks, looked at as a whole.

use crate::config;
use crate::config::At;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::policy::defaults::Topic;

/// What a rule asks: each question, and whether it stands under no `not` or `unless`.
pub(super) struct Questions<'a> {
    pub(super) list: Vec<(&'a config::Question, bool)>,
    has_alternatives: bool,
}

impl<'a> Questions<'a> {
    pub(super) fn of(rule: &'a config::Rule) -> Self {
        let mut list = Vec::new();
        let mut add = |question: &'a At<config::Question>, positive| list.push((&question.value, positive));
        rule.when.for_each(true, &mut add);
        if let Some(unless) = &rule.unless {
            unless.for_each(false, &mut add);
        }
        Self { list, has_alternatives: rule.when.has_alternatives() }
    }

    pub(super) fn facts(&self) -> Vec<Fact> {
        let mut facts: Vec<Fact> = self.list.iter().map(|(question, _)| question.fact()).collect();
        facts.sort_unstable();
        facts.dedup();
        facts
    }

    pub(super) fn asks(&self, fact: Fact) -> bool {
        self.list.iter().any(|(question, _)| question.fact() == fact)
    }

    pub(super) fn stage(&self) -> Stage {
        self.list.iter().map(|(question, _)| question.fact().stage()).max().unwrap_or(Stage::Connect)
    }

    pub(super) fn stage_without_size(&self) -> Stage {
        let facts = self.list.iter().map(|(question, _)| question.fact());
        facts.filter(|fact| *fact != Fact::Size).map(Fact::stage).max().unwrap_or(Stage::Connect)
    }

    pub(super) fn of_recipient(&self) -> bool {
        self.list.iter().any(|(question, _)| question.fact().is_of_recipient())
    }

    /// Whether a size too large for the rule stays so however it grows: then the declared size settles it.
    pub(super) fn size_is_lower_bound(&self) -> bool {
        self.asks(Fact::Size) && self.sizes().all(|(comparison, positive)| positive && comparison.is_lower_bound())
    }

    pub(super) fn size_bound(&self) -> Option<u64> {
        self.sizes().next().map(|(comparison, _)| comparison.bound)
    }

    pub(super) fn sizes(&self) -> impl Iterator<Item = (config::Comparison, bool)> {
        self.list.iter().filter_map(|(question, positive)| {
            if let config::Question::Size(comparison) = question { Some((*comparison, *positive)) } else { None }
        })
    }

    /// Whether it names values or lists, one of which then has matched.
    pub(super) fn names_values(&self) -> bool {
        self.list.iter().any(|(question, positive)| *positive && question.names_values())
    }

    pub(super) fn topic(&self) -> Topic {
        // What is too small, or too few, is no question of room.
        let is_too_few = |question: &config::Question| {
            matches!(
                question,
                config::Question::Recipients(comparison) | config::Question::Size(comparison)
                    if !comparison.is_lower_bound()
            )
        };
        let positive = || {
            self.list
                .iter()
                .filter(|(_, positive)| *positive)
                .map(|(question, _)| *question)
                .filter(|question| !is_too_few(question))
        };
        Topic {
            facts: positive().map(config::Question::fact).collect(),
            must_authenticate: positive().any(|question| matches!(question, config::Question::Authenticated(false))),
            has_alternatives: self.has_alternatives,
            must_encrypt: positive().any(|question| matches!(question, config::Question::Tls(false))),
        }
    }
}
