//! How often each reply stands in a log.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use serde_json::json;

use super::Explanation;
use super::Found;
use super::Origins;
use super::Speaker;
use super::explanation::shown;
use crate::codes::EnhancedCode;

/// Counts of replies, by who said them and by their codes. Its `Display` is for people.
#[derive(Debug, Default)]
pub struct Summary {
    counts: BTreeMap<Key, Count>,
    total: u64,
}

type Key = (Speaker, Option<u16>, Option<EnhancedCode>);

#[derive(Debug, Default)]
struct Count {
    times: u64,
    /// How often each rule's text was met.
    rules: BTreeMap<String, u64>,
}

/// A line of the summary.
struct Row<'a> {
    key: &'a Key,
    count: &'a Count,
    explanation: Explanation,
}

impl Summary {
    /// Counts one more.
    pub fn add(&mut self, found: &Found, origins: &Origins) {
        let count = self.counts.entry((found.speaker, found.code, found.enhanced)).or_default();
        count.times += 1;
        self.total += 1;
        for rule in origins.rules(found.code, &found.text) {
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
            let (speaker, code, enhanced) = row.key;
            json!({
                "count": row.count.times,
                "share": self.share(row.count),
                "code": code,
                "enhanced_code": enhanced.map(|enhanced| enhanced.to_string()),
                "said_by": speaker.name(),
                "meaning": row.explanation.name(),
                "first": row.explanation.first(),
                "rules": row.count.rules,
            })
        };
        self.rows().iter().map(row).collect()
    }

    /// By who said it, and the most frequent first.
    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = self
            .counts
            .iter()
            .map(|(key, count)| {
                let (speaker, code, enhanced) = *key;
                let found = Found { code, enhanced, speaker, ..Found::default() };
                Row { key, count, explanation: Explanation::of_found(&found, &Origins::default()) }
            })
            .collect();
        rows.sort_by_key(|row| (row.key.0, std::cmp::Reverse(row.count.times)));
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
            let (speaker, code, enhanced) = row.key;
            if before != Some(*speaker) {
                let blank = if before.is_some() { "\n" } else { "" };
                writeln!(f, "{blank}Said by {}:\n", speaker.description())?;
                writeln!(f, "  {:>7}  {:>6}  {:11}  meaning, and the first thing to do", "count", "share", "code")?;
            }
            let share = format!("{:.1} %", self.share(row.count) * 100.0);
            let codes = shown(*code, *enhanced);
            writeln!(f, "  {:>7}  {share:>6}  {codes:11}  {}", row.count.times, row.explanation.name())?;
            let indent = " ".repeat(32);
            if let Some(first) = row.explanation.first() {
                writeln!(f, "{indent}{first}")?;
            }
            for (rule, times) in &row.count.rules {
                writeln!(f, "{indent}rule `{rule}`: {times}")?;
            }
            before = Some(*speaker);
        }
        Ok(())
    }
}
