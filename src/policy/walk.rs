//! Where a walk through a plan is, and what it has found out.

use smallvec::SmallVec;

use super::found::Found;
use super::gate::Admitted;
use super::matched::Match;
use super::standing::AddedHeader;
use super::standing::Exemption;
use super::standing::SessionStanding;
use super::step::HeldBy;
use super::step::Mark;
use crate::facts::Answer;
use crate::facts::DecisionId;
use crate::facts::Query;
use crate::facts::Stage;

/// Where a walk through a plan is.
#[derive(Debug)]
pub struct Walk {
    /// The stage at which what is found is spoken.
    pub(super) stage: Stage,
    /// The plan that is walked; an earlier one than the stage's where that stage never came.
    pub(super) plan: Stage,
    pub(super) id: DecisionId,
    /// Whether it is about a recipient that the MTA refuses: then nothing is decided, and only such are counted.
    pub(super) is_refused: bool,
    /// Whether something of the plan was judged; else the lookups are those of another walk.
    pub(super) has_begun: bool,
    /// The next test.
    pub(super) test: usize,
    /// The next recipient, where each is judged for itself.
    pub(super) recipient: usize,
    /// What was asked and answered for this test.
    pub(super) answers: SmallVec<[(Query, Answer); 1]>,
    /// What the tests of this walk have exempted; at the end of the message it is with the recipients.
    pub(super) exempt: Exemption,
    pub(super) headers: Vec<AddedHeader>,
    /// Up to RCPT, the rules that are only watched, or let pass, and held; later they are with the message and its recipients.
    pub(super) watched: Vec<Mark>,
    /// The step that puts the message on hold, if it is not refused after all.
    pub(super) held_by: Option<HeldBy>,
    /// The rules that held.
    pub(super) matches: Vec<Match>,
    /// A test could not be judged.
    failed: bool,
}

/// What a walk has looked up in the lists, and which tests can hold by that. The walks of one message have the room one after
/// the other; without a message, each time that a walk goes on it begins here anew.
#[derive(Debug, Default)]
pub struct Lookups {
    pub(super) is_made: bool,
    pub(super) found: Found,
    pub(super) admitted: Admitted,
}

impl Walk {
    /// A walk through the plan of `stage`.
    #[must_use]
    pub const fn new(stage: Stage, id: DecisionId) -> Self {
        Self {
            stage,
            plan: stage,
            id,
            is_refused: false,
            has_begun: false,
            test: 0,
            recipient: 0,
            answers: SmallVec::new_const(),
            exempt: Exemption { by: None },
            headers: Vec::new(),
            watched: Vec::new(),
            held_by: None,
            matches: Vec::new(),
            failed: false,
        }
    }

    /// A walk for a recipient that the MTA refuses, whatever we say of it.
    #[must_use]
    pub const fn refused_by_mta(id: DecisionId) -> Self {
        let mut walk = Self::new(Stage::Rcpt, id);
        walk.is_refused = true;
        walk
    }

    /// Whether it is one for a recipient that the MTA refuses.
    #[must_use]
    pub const fn is_refused_by_mta(&self) -> bool {
        self.is_refused
    }

    /// A walk at the end of the message that begins with the plan of an earlier stage, which the MTA did not show.
    #[must_use]
    pub const fn catching_up(plan: Stage, id: DecisionId) -> Self {
        let mut walk = Self::new(Stage::EndOfMessage, id);
        walk.plan = plan;
        walk
    }

    /// Goes on with the plan of the stage itself; false when that was it.
    pub(super) fn next_plan(&mut self) -> bool {
        let catches_up = self.plan < self.stage;
        self.plan = self.stage;
        self.has_begun = false;
        self.test = 0;
        catches_up
    }

    /// The stage that is judged.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// What the decision will be called.
    #[must_use]
    pub const fn id(&self) -> DecisionId {
        self.id
    }

    /// The rules that held, in order.
    #[must_use]
    pub fn into_matches(self) -> Vec<Match> {
        self.matches
    }

    /// Takes the answer to what was asked.
    pub fn answer(&mut self, query: Query, answer: Answer, session: &mut SessionStanding) {
        if let Query::Hold(hold) = &query
            && !matches!(
                hold.scope,
                crate::facts::Scope::Attempt | crate::facts::Scope::Message | crate::facts::Scope::Refused
            )
        {
            session.remember(hold.clone(), answer);
        }
        self.answers.push((query, answer));
    }

    /// A test could not be judged.
    pub const fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether there was one.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Passes over a test that could not be judged.
    pub fn skip(&mut self) {
        self.next_test();
    }

    pub(super) fn next_test(&mut self) {
        self.test += 1;
        self.recipient = 0;
        self.answers.clear();
    }

    pub(super) fn next_recipient(&mut self) {
        self.recipient += 1;
        self.answers.clear();
    }
}
