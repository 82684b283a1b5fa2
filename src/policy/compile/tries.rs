//! Where recipients are counted that clients try: at RCPT, whatever comes of them and whenever the rule speaks.

use std::sync::Arc;

use super::Compiler;
use super::questions::Questions;
use crate::config;
use crate::config::Diagnostic;
use crate::facts::Stage;
use crate::policy::condition::Condition;
use crate::policy::limit::Limit;
use crate::policy::limit::Measure;
use crate::policy::plan::Outcome;
use crate::policy::plan::Purpose;
use crate::policy::plan::Test;

impl Compiler<'_> {
    /// Puts the counting behind what the rule decides at RCPT: what the limit itself refuses is not counted.
    pub(super) fn count_tries(
        &mut self,
        index: usize,
        rule: &config::Rule,
        condition: &Arc<Condition>,
        questions: &Questions<'_>,
    ) {
        let Some(limit) = rule.limit.as_ref().filter(|limit| !limit.bad_recipients.is_empty()) else {
            return;
        };
        let counts_too_late = self.counts_too_late(rule, questions.stage());
        if let Some((message, hint)) = counts_too_late {
            self.diagnostics.push(Diagnostic::error(limit.place.clone(), message).hint(hint));
            return;
        }
        let limit = Limit { tries: true, ..self.limit(rule, limit, Measure::BadRecipients) };
        self.put(
            Stage::Rcpt,
            Test {
                rule: index,
                condition: Arc::clone(condition),
                limit: Some(limit),
                of_recipient: true,
                outcome: Outcome::Accept,
                steps: Arc::default(),
                purpose: Purpose::Count,
                size_bound: None,
            },
        );
    }

    /// Why not every recipient could be counted when it comes, and what to do.
    fn counts_too_late(&self, rule: &config::Rule, known: Stage) -> Option<(String, String)> {
        let name = &rule.name.value;
        let (barrier, above) = &self.barrier;
        if known > Stage::Rcpt {
            let message = format!("`{name}` counts recipients at rcpt, and what it asks is known at {known}");
            return Some((message, "ask only for what is known when recipients come".to_owned()));
        }
        (*barrier > Stage::Rcpt).then(|| {
            let message = format!(
                "`{name}` counts recipients at rcpt; `{above}` above it may exempt, and is judged at {barrier}"
            );
            (message, format!("put `{name}` above `{above}`"))
        })
    }
}
