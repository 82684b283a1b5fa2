//! What a policy needs of the MTA: nothing else is negotiated.

use super::limit::Measure;
use super::plan::Outcome;
use super::plan::Purpose;
use super::plan::Test;
use crate::config::Mode;
use crate::facts::Stage;

/// The steps and powers that the policy in force needs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Whether something may be refused at CONNECT, or is counted there.
    pub answers_connect: bool,
    /// Whether something may be refused at RCPT.
    pub answers_rcpt: bool,
    /// Whether something is judged at DATA, be it only watched: without DATA nobody would look.
    pub answers_data: bool,
    /// Whether the true size is asked for, so that header and body have to be counted.
    pub content: bool,
    /// Whether header fields are added.
    pub add_headers: bool,
    /// Whether messages are put on hold.
    pub quarantine: bool,
    /// Whether recipients are counted that the MTA refuses, so that it has to show them.
    pub refused_recipients: bool,
    /// Whether messages are discarded for some of their recipients only.
    pub delete_recipients: bool,
}

impl Needs {
    pub(super) fn of(plans: &[Vec<Test>], asks_true_size: bool, mode: Mode, monitored: impl Fn(usize) -> bool) -> Self {
        let answers = |stage: Stage| {
            mode == Mode::Enforce
                && plans.get(stage as usize).is_some_and(|plan| {
                    plan.iter().any(|test| {
                        test.outcomes().any(|outcome| matches!(outcome, Outcome::Refuse(_)))
                            && test.purpose == Purpose::Decide
                            && !monitored(test.rule)
                    })
                })
        };
        let tests = || plans.iter().flatten();
        // Postfix keeps a CONNECT that wants no reply to itself until the client says MAIL: nobody would count the idle.
        let at_connect = plans.get(Stage::Connect as usize).into_iter().flatten();
        let counts_connections = at_connect.into_iter().any(|test| test.limit.is_some());
        // What exempts one recipient, exempts it alone from a discard of the whole message below.
        let exempts = |test: &&Test| {
            test.purpose != Purpose::Count
                && matches!(test.outcome, Outcome::Accept | Outcome::Discard | Outcome::Quarantine)
        };
        let first_of_recipient = tests().filter(|test| test.of_recipient).filter(exempts).map(|test| test.rule).min();
        let differs = |test: &Test| first_of_recipient.is_some_and(|first| first <= test.rule);
        let is_tried = |limit: &super::limit::Limit| limit.tries;
        let refused_recipients = tests().any(|test| test.limit.as_ref().is_some_and(is_tried));
        let counts_octets = |limit: &super::limit::Limit| limit.measure == Measure::Bytes;
        Self {
            answers_connect: answers(Stage::Connect) || counts_connections,
            // Without a reply Postfix would keep them to itself until something has one: a client that only tries addresses
            // would be counted when it has gone.
            answers_rcpt: answers(Stage::Rcpt) || refused_recipients,
            refused_recipients,
            answers_data: plans.get(Stage::Data as usize).is_some_and(|plan| !plan.is_empty()),
            content: asks_true_size || tests().any(|test| test.limit.as_ref().is_some_and(counts_octets)),
            add_headers: tests().any(|test| matches!(test.outcome, Outcome::AddHeader(_))),
            quarantine: tests().flat_map(Test::outcomes).any(Outcome::holds_message),
            delete_recipients: tests().any(|test| matches!(test.outcome, Outcome::Discard) && differs(test)),
        }
    }
}
