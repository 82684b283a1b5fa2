//! How a rule came to its stages: `postward check` prints it, for people and for programs.

use std::fmt;

use serde_json::Value;
use serde_json::json;

use crate::config::Mode;
use crate::facts::Fact;
use crate::facts::Stage;
use crate::reply::Status;

/// One judgement of one rule.
#[derive(Clone, Debug, Eq, PartialEq)]
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
    /// What follows at each step of its limit, the lowest first.
    pub steps: Vec<StepOutline>,
    /// Why a stage is later than the one before it, and what else is worth knowing.
    pub notes: Vec<String>,
}

/// What follows above a part of a limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepOutline {
    /// In percent of the limit.
    pub percent: u32,
    /// `monitor`, `quarantine`, `defer` or `refuse`.
    pub action: &'static str,
    /// What it says.
    pub reply: Option<(Status, String)>,
}

impl fmt::Display for StepOutline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "above {}%: ", self.percent)?;
        match (&self.reply, self.action) {
            (Some((status, text)), _) => write!(f, "{status} {}", text.replace('\n', "\n            ")),
            (None, "quarantine") => f.write_str("it passes, and the message is put on hold at its end"),
            (None, _) => f.write_str("it passes, counted and logged"),
        }
    }
}

/// The judgements of one rule, for people: what they share once, then a line for each.
pub struct Outlines<'a>(pub &'a [Outline]);

impl fmt::Display for Outlines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else {
            return Ok(());
        };
        let monitor = if first.mode == Mode::Monitor { " (monitor: never answered)" } else { "" };
        writeln!(f, "{}: {}{monitor}", first.rule, first.action)?;
        let facts: Vec<&str> = first.facts.iter().map(|fact| fact.name()).collect();
        writeln!(f, "    asks    {}", if facts.is_empty() { "nothing".to_owned() } else { facts.join(", ") })?;
        let mut before: Option<&Outline> = None;
        for outline in self.0 {
            outline.write(f, before)?;
            before = Some(outline);
        }
        Ok(())
    }
}

/// One judgement by itself.
impl fmt::Display for Outline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Outlines(std::slice::from_ref(self)).fmt(f)
    }
}

impl Outline {
    /// What it says, in one line.
    #[must_use]
    pub fn reply_text(&self) -> Option<String> {
        self.reply.as_ref().map(|(status, text)| format!("{status} {}", text.replace('\n', " / ")))
    }

    /// For programs: what `check --format json` has in its plan.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "rule": self.rule,
            "action": self.action,
            "mode": self.mode.name(),
            "facts": self.facts.iter().map(|fact| fact.name()).collect::<Vec<_>>(),
            "counts": self.counts,
            "known_at": self.natural.name(),
            "judged_at": self.judged.name(),
            "answered_at": self.answered.name(),
            "reply": shown(self.reply.as_ref()),
            "steps": self.steps.iter().map(StepOutline::to_json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// What is the same as before is not said again.
    fn write(&self, f: &mut fmt::Formatter<'_>, before: Option<&Self>) -> fmt::Result {
        if let Some(counts) = self.counts.as_ref().filter(|_| before.is_none_or(|before| before.counts != self.counts))
        {
            writeln!(f, "    counts  {counts}")?;
        }
        if let Some((status, text)) =
            self.reply.as_ref().filter(|_| before.is_none_or(|before| before.reply != self.reply))
        {
            writeln!(f, "    says    {status} {}", text.replace('\n', "\n            "))?;
        }
        if before.is_none_or(|before| before.steps != self.steps) {
            for (number, step) in self.steps.iter().enumerate() {
                writeln!(f, "    {:5}   {step}", if number == 0 { "steps" } else { "" })?;
            }
        }
        let speaks = self.reply.is_some() || self.steps.iter().any(|step| step.reply.is_some());
        let answered = if speaks { "spoken" } else { "seen" };
        let (natural, judged) = (self.natural.name(), self.judged.name());
        writeln!(f, "    at      known {natural:14}  judged {judged:14}  {answered} {}", self.answered)?;
        for note in &self.notes {
            writeln!(f, "            {note}")?;
        }
        Ok(())
    }
}

impl StepOutline {
    fn to_json(&self) -> Value {
        json!({ "over": format!("{}%", self.percent), "action": self.action, "reply": shown(self.reply.as_ref()) })
    }
}

fn shown(reply: Option<&(Status, String)>) -> Option<String> {
    reply.map(|(status, text)| format!("{status} {text}"))
}
