//! How a rule came to its stages, for people: `postward check` prints it.

use std::fmt;

use crate::config::Mode;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::reply::Status;

/// One judgement of one rule.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The rule's name.
    pub rule: String,
    /// What it does.
    pub action: &'static str,
    /// Whether it is enforced.
    pub mode: Mode,
    /// What it asks about.
    pub facts: Vec<Fact>,
    /// What it counts.
    pub counts: Option<String>,
    /// The first stage at which all of that is known.
    pub natural: Stage,
    /// The stage at which it is judged.
    pub judged: Stage,
    /// The stage at which its effect is seen by the client; the end of the message for all but refusals.
    pub answered: Stage,
    /// What it says.
    pub reply: Option<(Status, String)>,
    /// Why a stage is later than the one before it, and what else is worth knowing.
    pub notes: Vec<String>,
}

impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let monitor = if self.mode == Mode::Monitor { " (monitor: never answered)" } else { "" };
        writeln!(f, "{}: {}{monitor}", self.rule, self.action)?;
        if let Some((status, text)) = &self.reply {
            writeln!(f, "    reply     {status} {}", text.replace('\n', "\n              "))?;
        }
        let facts: Vec<&str> = self.facts.iter().map(|fact| fact.name()).collect();
        writeln!(f, "    asks      {}", if facts.is_empty() { "nothing".to_owned() } else { facts.join(", ") })?;
        if let Some(counts) = &self.counts {
            writeln!(f, "    counts    {counts}")?;
        }
        writeln!(f, "    known at  {}", self.natural)?;
        writeln!(f, "    judged at {}", self.judged)?;
        writeln!(f, "    {} {}", if self.reply.is_some() { "spoken at" } else { "shows at " }, self.answered)?;
        for note in &self.notes {
            writeln!(f, "    note      {note}")?;
        }
        Ok(())
    }
}
