//! How often each reply stands in a log.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use serde_json::json;

use super::Explanation;
use super::Found;
use super::Origins;
use super::Speaker;
use super::explanation::WIDTH;
use super::explanation::shown;
use crate::codes;
use crate::codes::EnhancedCode;

/// Counts of replies, by who said them and by their codes. Its `Display` is for people.
#[derive(Debug, Default)]
pub struct Summary {
    counts: BTreeMap<Key, Count>,
    total: u64,
    /// Those that came when there were too many different ones already.
    others: u64,
}

/// What to do first about replies most of which limits gave.
const OVER_LIMITS: &str = "See who is over the limits: `postward limits list --limited`, `postward limits show KEY`";

/// More different replies are not told apart.
const MOST_DIFFERENT: usize = 1000;

/// Who said it, the codes, and the name of what its text is known by.
type Key = (Speaker, Option<u16>, Option<EnhancedCode>, Option<&'static str>);

#[derive(Debug, Default)]
struct Count {
    times: u64,
    /// The first of them: its text is needed for what it is known by.
    text: String,
    /// How often each rule's text was met.
    rules: BTreeMap<String, u64>,
    /// How often it was that of a rule with a limit.
    of_limits: u64,
}

/// A line of the summary.
struct Row<'a> {
    key: &'a Key,
    count: &'a Count,
    explanation: Explanation,
}

impl Row<'_> {
    const fn is_success(&self) -> bool {
        matches!((self.key.1, self.key.2), (Some(200..400), _) | (None, Some(EnhancedCode { class: 2, .. })))
    }

    /// What to do first: of what this server said, what its administrator does.
    fn advice(&self) -> Option<String> {
        match self.key.0 {
            _ if self.is_success() => None,
            _ if self.count.of_limits * 2 > self.count.times => Some(OVER_LIMITS.to_owned()),
            Speaker::Milter | Speaker::Mta | Speaker::Postward => self.explanation.receiver(),
            Speaker::Nobody | Speaker::Remote | Speaker::Unknown => self.explanation.first(),
        }
    }
}

impl Summary {
    /// Counts one more, and the rules that may have said it. Who is refused may choose the codes that others say, so that there
    /// is an end to how many are told apart.
    pub fn add(&mut self, found: &Found, origins: &Origins) {
        self.total += 1;
        let known = codes::known_text(&shown(found.code, found.enhanced), &found.text).map(|known| known.name);
        let key = (found.speaker, found.code, found.enhanced, known);
        if self.counts.len() >= MOST_DIFFERENT && !self.counts.contains_key(&key) {
            self.others += 1;
            return;
        }
        let count = self.counts.entry(key).or_default();
        if count.times == 0 {
            count.text.clone_from(&found.text);
        }
        count.times += 1;
        let rules = origins.rules(found.code, &found.text);
        let is_of_limit = found.speaker.may_be_ours() && rules.first().is_some_and(|rule| origins.is_limit(rule));
        count.of_limits += u64::from(is_of_limit);
        for rule in rules {
            *count.rules.entry(rule.to_owned()).or_default() += 1;
        }
    }

    /// How many different replies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The same for programs: what `explain --format json` has in `summary`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let row = |row: &Row<'_>| {
            let (speaker, code, enhanced, _) = row.key;
            json!({
                "count": row.count.times,
                "share": self.share(row.count),
                "code": code,
                "enhanced_code": enhanced.map(|enhanced| enhanced.to_string()),
                "said_by": speaker.name(),
                "meaning": row.explanation.name(),
                "first": row.advice(),
                "rules": row.count.rules,
            })
        };
        let others = (self.others > 0).then(|| json!({"count": self.others, "meaning": "others, not told apart"}));
        self.rows().iter().map(row).chain(others).collect()
    }

    /// By who said it, refusals before successes, the most frequent first.
    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = self
            .counts
            .iter()
            .map(|(key, count)| {
                let (speaker, code, enhanced, _) = *key;
                let found = Found { code, enhanced, speaker, text: count.text.clone(), line: 0 };
                Row { key, count, explanation: Explanation::of_found(&found, &Origins::default()) }
            })
            .collect();
        rows.sort_by_key(|row| (row.key.0, row.is_success(), std::cmp::Reverse(row.count.times)));
        rows
    }

    fn share(&self, count: &Count) -> f64 {
        // Exact up to 2^53 replies.
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = count.times as f64 / self.total as f64;
        (share * 10000.0).round() / 10000.0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = None;
        for row in self.rows() {
            let (speaker, code, enhanced, _) = row.key;
            if before != Some(*speaker) {
                let blank = if before.is_some() { "\n" } else { "" };
                let heading = if *speaker == Speaker::Unknown {
                    "The text does not tell by whom:".to_owned()
                } else {
                    format!("Said by {}:", speaker.description())
                };
                writeln!(f, "{blank}{heading}\n")?;
                writeln!(f, "  {:>7}  {:>6}  {:11}  meaning, and what to do first", "count", "share", "code")?;
            }
            let share = format!("{:.1} %", self.share(row.count) * 100.0);
            let codes = shown(*code, *enhanced);
            let first = format!("  {:>7}  {share:>6}  {codes:11}  ", row.count.times);
            let indent = " ".repeat(first.len());
            writeln!(f, "{}", folded(&row.explanation.name(), &first, &indent))?;
            if let Some(advice) = row.advice() {
                writeln!(f, "{}", folded(&advice, &indent, &indent))?;
            }
            for (rule, times) in &row.count.rules {
                writeln!(f, "{indent}rule `{rule}`: {times}")?;
            }
            before = Some(*speaker);
        }
        if self.others > 0 {
            writeln!(f, "\n  {:>7}  others, when {MOST_DIFFERENT} different replies had been counted", self.others)?;
        }
        Ok(())
    }
}

fn folded(text: &str, first: &str, indent: &str) -> String {
    textwrap::fill(text, textwrap::Options::new(WIDTH).initial_indent(first).subsequent_indent(indent))
}
