//! From a command to a decision: the walk through the policy, and what follows from where it ends.

use super::Action;
use super::Cause;
use super::Decision;
use super::Failure;
use super::MessageEnd;
use super::RecipientEnd;
use super::Session;
use super::Settlement;
use super::Verdict;
use crate::config::Mode;
use crate::config::OnError;
use crate::facts::Stage;
use crate::policy::Case;
use crate::policy::Judgement;
use crate::policy::Lookups;
use crate::policy::MessageStanding;
use crate::policy::Policy;
use crate::policy::Refusal;
use crate::policy::Step;
use crate::policy::Walk;
use crate::wire::Command;
use crate::wire::Steps;

impl Session {
    pub(super) fn judge(&mut self, stage: Stage) -> Action {
        let walk = Walk::new(stage, self.id);
        if self.standing.is_settled() {
            self.settle();
        }
        let is_settled = self.transaction.as_ref().is_some_and(|transaction| transaction.is_settled(stage));
        if is_settled || self.standing.is_settled() || !self.policy.judges(stage) {
            return self.pass(walk);
        }
        self.walk_on(walk)
    }

    /// A recipient that the MTA refuses is counted, if some limit counts such.
    pub(super) fn count_refused(&mut self) -> Action {
        let walk = Walk::refused_by_mta(self.id);
        let is_settled = self.transaction.as_ref().is_some_and(|transaction| transaction.is_settled(Stage::Rcpt));
        if is_settled || self.standing.is_settled() { self.pass(walk) } else { self.walk_on(walk) }
    }

    pub(super) fn walk_on(&mut self, mut walk: Walk) -> Action {
        let mut nothing = (MessageStanding::default(), Lookups::default());
        loop {
            let (message, standing, lookups) = match &mut self.transaction {
                Some(transaction) => (Some(&transaction.facts), &mut transaction.standing, &mut transaction.lookups),
                None => (None, &mut nothing.0, &mut nothing.1),
            };
            let case = Case { connection: &self.connection, message, candidate: self.candidate.as_ref() };
            match self.policy.judge(&mut walk, &case, &self.standing, standing, lookups) {
                Step::Ask(query) => {
                    self.pause(walk);
                    return Action::Ask(query);
                }
                Step::Failed { .. } if walk.is_refused_by_mta() => walk.skip(),
                // It would not answer either if it held.
                Step::Failed { rule, .. } if self.is_on_trial(rule) => walk.skip(),
                Step::Failed { rule, failure } => {
                    let malformed = Policy::malformed(failure);
                    if malformed.is_none() {
                        walk.fail();
                        if self.policy.on_error() == OnError::Accept {
                            walk.skip();
                            continue;
                        }
                    }
                    if let Some(reply) = malformed {
                        return self.refuse(walk, Refusal { rule: Some(rule), reply });
                    }
                    return self.refuse_unjudged(walk, rule);
                }
                Step::Passed => return self.pass(walk),
                Step::Refused(refusal) => return self.refuse(walk, refusal),
            }
        }
    }

    /// Nothing at this stage refuses.
    fn pass(&mut self, mut walk: Walk) -> Action {
        let stage = walk.stage();
        let mut decision = Decision::new(walk.id(), stage, self.owed);
        if walk.is_refused_by_mta() {
            self.candidate = None;
            decision.settlement = Settlement::RollBack;
            return Action::Decided(Box::new(decision));
        }
        if let Some(transaction) = &mut self.transaction {
            match (stage, &self.candidate) {
                (Stage::Rcpt, Some(candidate)) => {
                    decision.recipient = Some(RecipientEnd::Accepted);
                    transaction.standing.add_recipient(candidate.clone(), &mut walk);
                }
                (Stage::Data, _) => {
                    transaction.refused_data = None;
                    transaction.standing.keep(&mut walk);
                }
                _ => transaction.standing.keep(&mut walk),
            }
        }
        decision.failure = self.failure(&walk);
        decision.matches = walk.into_matches();
        if stage == Stage::EndOfMessage {
            self.conclude(&mut decision);
        }
        Action::Decided(Box::new(decision))
    }

    /// The message is over and nothing refused it.
    fn conclude(&mut self, decision: &mut Decision) {
        let Some(mut transaction) = self.transaction.take() else {
            return;
        };
        let enforced = self.policy.mode() == Mode::Enforce;
        let judgement = transaction.standing.conclude();
        // In monitor mode a message that would have been refused is not charged either.
        let is_settled = transaction.is_settled(Stage::EndOfMessage);
        decision.settlement = if is_settled { Settlement::Release } else { Settlement::Commit };
        match judgement {
            Judgement::Discard { rule } | Judgement::Pass { rule, .. } if !enforced => decision.accept(rule),
            Judgement::Discard { rule } => decision.discard(rule),
            Judgement::Pass { rule, headers, without, quarantine } => {
                decision.headers = headers.into_iter().map(|(name, value)| (name, self.spaced(value))).collect();
                let accepted = transaction.standing.accepted().enumerate();
                let discarding = accepted.filter(|(number, _)| without.binary_search(number).is_ok());
                decision.delete = discarding.map(|(_, recipient)| recipient.written.clone()).collect();
                match quarantine {
                    Some((rule, step)) => {
                        decision.quarantine(rule, self.policy.rule_name(rule));
                        decision.step = step;
                    }
                    None => decision.accept(rule),
                }
            }
        }
        if self.taken.is_some_and(|taken| !taken.actions.contains(decision.actions())) {
            decision.cannot_be_done(Policy::internal_error());
        }
        self.finished = Some(transaction);
    }

    /// With HDR_LEADSPC the MTA puts no blank after the colon: it is part of the value, in both directions.
    fn spaced(&self, value: String) -> String {
        let keeps_space = self.taken.is_some_and(|taken| taken.steps.contains(Steps::HEADER_LEADING_SPACE));
        if keeps_space { format!(" {value}") } else { value }
    }

    /// A rule, or a failure, refuses.
    pub(super) fn refuse(&mut self, walk: Walk, refusal: Refusal) -> Action {
        let stage = walk.stage();
        let mut decision = Decision::new(walk.id(), stage, self.owed);
        decision.failure = self.failure(&walk);
        decision.matches = walk.into_matches();
        decision.rule = refusal.rule;
        decision.settlement = match stage {
            Stage::Rcpt | Stage::Data => Settlement::RollBack,
            Stage::Connect | Stage::Helo | Stage::Mail => Settlement::Release,
            Stage::Header | Stage::EndOfHeaders | Stage::Body | Stage::EndOfMessage => Settlement::Release,
        };
        if self.policy.mode() == Mode::Monitor {
            self.watch(&mut decision, refusal);
        } else if decision.owed && !(stage == Stage::Rcpt && self.connection.local_submission) {
            self.speak(&mut decision, refusal);
        } else {
            self.hold_back(&mut decision, refusal);
        }
        Action::Decided(Box::new(decision))
    }

    /// A rule cannot be judged, which is not the client's doing.
    fn refuse_unjudged(&mut self, walk: Walk, rule: usize) -> Action {
        let action = self.refuse(walk, Refusal { rule: Some(rule), reply: Policy::internal_error() });
        let Action::Decided(mut decision) = action else {
            return action;
        };
        decision.settlement = decision.settlement.unjudged();
        Action::Decided(decision)
    }

    pub(super) fn speak(&mut self, decision: &mut Decision, refusal: Refusal) {
        let class = refusal.reply.status().class();
        decision.verdict = Verdict::Refuse(refusal.reply);
        match (decision.stage, &mut self.transaction) {
            (Stage::Rcpt, transaction) => {
                decision.recipient = Some(RecipientEnd::refused(class));
                if let Some(transaction) = transaction {
                    transaction.refused_recipient(class);
                }
            }
            (Stage::Data, Some(transaction)) => transaction.refused_data = Some(class),
            (Stage::Mail | Stage::EndOfMessage, transaction) => {
                self.finished = transaction.take();
                decision.message = Some(MessageEnd::refused(class));
            }
            (Stage::Connect | Stage::Helo | Stage::Data, _) => {}
            (Stage::Header | Stage::EndOfHeaders | Stage::Body, _) => {}
        }
    }

    /// In monitor mode the message passes, and counts as one that was refused: nothing later is judged. Before MAIL that
    /// is the whole session, for the client would have been sent away.
    fn watch(&mut self, decision: &mut Decision, refusal: Refusal) {
        decision.mode = Mode::Monitor;
        decision.watched = Some(refusal.reply);
        match decision.stage {
            Stage::Rcpt => decision.recipient = Some(RecipientEnd::Accepted),
            Stage::EndOfMessage => {
                self.finished = self.transaction.take();
                decision.accept(None);
            }
            Stage::Connect | Stage::Helo => self.standing.settle(),
            Stage::Mail | Stage::Data => self.settle(),
            Stage::Header | Stage::EndOfHeaders | Stage::Body => {}
        }
    }

    fn settle(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.settled = true;
        }
    }

    /// Nothing can be said now: Postfix calls a refusal at RCPT of mail that did not come by SMTP a configuration error and
    /// keeps it in the queue for ever, and a stage without a reply has none. It is said at the end of the message.
    fn hold_back(&mut self, decision: &mut Decision, refusal: Refusal) {
        decision.held_back = true;
        decision.recipient = (decision.stage == Stage::Rcpt).then_some(RecipientEnd::Accepted);
        if let Some(transaction) = &mut self.transaction {
            transaction.held_back.get_or_insert(refusal);
        }
    }

    /// Everything that wants a reply gets one, by `on_error`.
    pub(super) fn handle_broken(&mut self, command: Command<'_>) -> Action {
        let stage = match command {
            Command::Quit => return Action::Close,
            Command::Abort => return self.abandon().map_or(Action::Read, Action::Aborted),
            Command::QuitNewConnection => return self.restart(),
            Command::Mail(_) => Stage::Mail,
            Command::Recipient(_) => Stage::Rcpt,
            Command::Data => Stage::Data,
            Command::EndOfMessage(_) => Stage::EndOfMessage,
            Command::Body(_)
            | Command::Connect(_)
            | Command::EndOfHeaders
            | Command::Header { .. }
            | Command::Helo(_)
            | Command::Macros(_)
            | Command::Negotiate(_)
            | Command::Unknown(_) => return self.unjudged(),
        };
        let may_refuse = self.owed && !(stage == Stage::Rcpt && self.connection.local_submission);
        match self.on_error() {
            OnError::Accept if stage == Stage::EndOfMessage => return self.let_through(),
            OnError::Defer if may_refuse => {}
            OnError::Accept | OnError::Defer => return self.unjudged(),
        }
        let mut decision = Decision::new(self.id, stage, true);
        decision.failure = Some(Failure { cause: Cause::Bug, outcome: OnError::Defer });
        self.candidate = None;
        self.speak(&mut decision, Refusal { rule: None, reply: Policy::internal_error() });
        decision.settlement =
            if stage == Stage::Rcpt { Settlement::RollBackUnjudged } else { Settlement::ReleaseUnjudged };
        Action::Decided(Box::new(decision))
    }

    /// There is no room. An MTA that wants no answer here gets none: closed, it takes its default action.
    pub(super) fn send_away(&mut self, on_overload: OnError) -> Action {
        self.is_over = true;
        let mut decision = Decision::new(self.id, Stage::Connect, self.owed);
        match on_overload {
            OnError::Accept => decision.verdict = Verdict::Accept,
            OnError::Defer => self.speak(&mut decision, Refusal { rule: None, reply: Policy::overloaded() }),
        }
        Action::Decided(Box::new(decision))
    }

    /// What a walk could not judge, and what becomes of that.
    fn failure(&self, walk: &Walk) -> Option<Failure> {
        walk.has_failed().then(|| Failure { cause: Cause::LookUp, outcome: self.on_error() })
    }

    /// Whether a rule is only watched in a policy that is not.
    fn is_on_trial(&self, rule: usize) -> bool {
        self.policy.mode() == Mode::Enforce && self.policy.mode_of(rule) == Mode::Monitor
    }

    /// In monitor mode nothing is deferred.
    fn on_error(&self) -> OnError {
        if self.policy.mode() == Mode::Monitor { OnError::Accept } else { self.policy.on_error() }
    }

    /// The message passes unjudged; it is charged and counted as one that passed.
    fn let_through(&mut self) -> Action {
        let mut decision = Decision::new(self.id, Stage::EndOfMessage, true);
        decision.failure = Some(Failure { cause: Cause::Bug, outcome: OnError::Accept });
        self.candidate = None;
        self.finished = self.transaction.take();
        decision.settlement = Settlement::Commit;
        decision.accept(None);
        Action::Decided(Box::new(decision))
    }
}
