//! `postward limits`: what the running daemon's limits have counted, and changes to that, over its control socket.
//!
//! The protocol stands in `server/control`. However many keys there are, only a few hundred are in memory here.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use postward::config::Size;
use postward::config::Span;
use postward::explain::visible;
use serde_json::Value;
use serde_json::json;

use super::FAILED;
use super::control;
use super::escaped;
use super::object_to;
use super::print;
use crate::args::Format;
use crate::args::LimitsCommand;

/// What to do, to which rule, for whom.
pub(crate) struct Operation {
    pub(crate) command: LimitsCommand,
    pub(crate) rule: Option<String>,
    pub(crate) format: Format,
}

/// Asks the daemon and shows what it says.
pub(crate) fn limits(operation: &Operation, control: Option<PathBuf>, config: Option<PathBuf>) -> ExitCode {
    let address = match control::address(control, config) {
        Ok(address) => address,
        Err(code) => return code,
    };
    match ask(operation, &address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            object_to(&problem);
            ExitCode::from(FAILED)
        }
    }
}

fn ask(operation: &Operation, address: &control::Address) -> Result<(), String> {
    let mut shown = Shown::new(operation)?;
    control::ask(address, request(operation), |answer| match answer.get("limit") {
        Some(limit) => shown.add(limit, text(answer, "change")),
        None => Ok(()),
    })?;
    shown.finish()
}

fn request(operation: &Operation) -> Value {
    let mut request = match &operation.command {
        LimitsCommand::Block { key, span } => {
            let seconds = span.map(|Span(span)| span.as_secs() + u64::from(span.subsec_nanos() > 0));
            let mut request = json!({"command": "block", "key": key});
            add(&mut request, "seconds", seconds.map(Value::from));
            request
        }
        LimitsCommand::Export => json!({"command": "list"}),
        LimitsCommand::List { limited } => json!({"command": "list", "limited": limited}),
        LimitsCommand::Reset { key } => json!({"command": "reset", "key": key}),
        LimitsCommand::Show { key } => json!({"command": "show", "key": key}),
        LimitsCommand::Top { most } => json!({"command": "top", "most": most}),
        LimitsCommand::Unblock { key } => json!({"command": "unblock", "key": key}),
    };
    add(&mut request, "rule", operation.rule.clone().map(Value::from));
    request
}

fn add(request: &mut Value, key: &str, value: Option<Value>) {
    if let (Some(fields), Some(value)) = (request.as_object_mut(), value) {
        fields.insert(key.to_owned(), value);
    }
}

/// What is shown, in the form that was asked for.
enum Shown {
    /// One object a line.
    Lines,
    /// The elements of one object's list; whether there were any yet.
    Object { has_some: bool },
    /// For people; what to say when there is nothing to show.
    Table(Table, &'static str),
}

impl Shown {
    fn new(operation: &Operation) -> Result<Self, String> {
        match (&operation.command, operation.format) {
            (LimitsCommand::Export, Format::Json | Format::Text) => Ok(Self::Lines),
            (_, Format::Json) => Ok(Self::Object { has_some: false }),
            (command, Format::Text) => Ok(Self::Table(Table::default(), nothing(command, operation.rule.is_some()))),
        }
    }

    fn add(&mut self, limit: &Value, change: &str) -> Result<(), String> {
        match self {
            Self::Lines => out(&escaped(&format!("{limit}\n"))),
            Self::Object { has_some } => {
                // Nothing is begun that an error might cut short.
                let before = if std::mem::replace(has_some, true) { "," } else { "{\"limits\": [" };
                out(&escaped(&format!("{before}\n  {limit}")))
            }
            Self::Table(table, _) => table.add(row(limit, change)),
        }
    }

    fn finish(self) -> Result<(), String> {
        match self {
            Self::Lines => Ok(()),
            Self::Object { has_some } => out(if has_some { "\n]}\n" } else { "{\"limits\": []}\n" }),
            Self::Table(table, nothing) => table.finish(nothing),
        }
    }
}

/// What to say when there is nothing to show.
const fn nothing(command: &LimitsCommand, is_of_rule: bool) -> &'static str {
    match (command, is_of_rule) {
        (LimitsCommand::List { limited: true }, false) => "No key is limited or blocked.\n",
        (LimitsCommand::List { limited: true }, true) => "No key of this limit is limited or blocked.\n",
        (LimitsCommand::List { limited: false } | LimitsCommand::Top { .. }, false) => "No limit has any keys yet.\n",
        (LimitsCommand::List { limited: false } | LimitsCommand::Top { .. }, true) => "This limit has no keys yet.\n",
        (
            LimitsCommand::Block { .. }
            | LimitsCommand::Export
            | LimitsCommand::Reset { .. }
            | LimitsCommand::Show { .. }
            | LimitsCommand::Unblock { .. },
            _,
        ) => "There are no such keys.\n",
    }
}

type Cells = [String; COLUMNS];

/// Rows below one another. Columns are as wide as what was seen so far needs.
#[derive(Default)]
struct Table {
    rows: Vec<Cells>,
    widths: [usize; COLUMNS],
    has_heading: bool,
}

impl Table {
    fn add(&mut self, row: Cells) -> Result<(), String> {
        if !self.has_heading {
            self.has_heading = true;
            self.rows.push(HEADING.map(str::to_owned));
        }
        self.rows.push(row);
        if self.rows.len() < ROWS_AT_ONCE { Ok(()) } else { self.flush() }
    }

    fn finish(mut self, nothing: &str) -> Result<(), String> {
        if self.has_heading { self.flush() } else { out(nothing) }
    }

    fn flush(&mut self) -> Result<(), String> {
        for row in &self.rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for row in self.rows.drain(..) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(self.widths) {
                _ = write!(line, "{cell:width$}  ");
            }
            _ = writeln!(text, "{}", line.trim_end());
        }
        out(&text)
    }
}

fn row(limit: &Value, change: &str) -> Cells {
    let measure = text(limit, "measure");
    let bounds = limit.get("bounds").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let used: Vec<String> = bounds.iter().map(|bound| used(bound, measure)).collect();
    let used = if used.is_empty() { "unlimited".to_owned() } else { used.join(", ") };
    let used = match limit.get("override").and_then(Value::as_str) {
        Some(whose) => format!("{used} (override {})", visible(whose)),
        None => used,
    };
    let state = match (change, state(limit)) {
        ("reset", Some(state)) => format!("reset, {state}"),
        ("reset", None) => "reset".to_owned(),
        ("unblock", Some(state)) => format!("unblocked, {state}"),
        ("unblock", None) => "unblocked".to_owned(),
        (_, state) => state.unwrap_or_default(),
    };
    [text(limit, "rule"), measure, text(limit, "key"), &used, &state].map(|cell| visible(cell).to_string())
}

/// `42 of 60/10m`; of a share `12% of 40 (30% of 20/hour)`
fn used(bound: &Value, measure: &str) -> String {
    let number = |name: &str| bound.get(name).and_then(Value::as_u64);
    let used = number("used").unwrap_or_default();
    if let Some(tried) = number("tried") {
        return format!("{used}% of {tried} ({})", text(bound, "bound"));
    }
    let used = if measure == "bytes" { Size(used).to_string() } else { used.to_string() };
    format!("{used} of {}", text(bound, "bound"))
}

/// `limited until 2026-11-21T10:20:00Z, in 12 minutes`
fn state(limit: &Value) -> Option<String> {
    let is = |name: &str| limit.get(name).and_then(Value::as_bool).unwrap_or_default();
    let name = ["blocked", "limited"].into_iter().find(|name| is(name))?;
    let seconds = limit.get(format!("{name}_seconds")).and_then(Value::as_u64);
    Some(match seconds {
        Some(seconds) => {
            let left = Span::rounded_up(Duration::from_secs(seconds));
            format!("{name} until {}, in {left}", text(limit, &format!("{name}_until")))
        }
        None => format!("{name} until unblocked"),
    })
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Writes to standard output.
fn out(text: &str) -> Result<(), String> {
    if print(text, ExitCode::SUCCESS) == ExitCode::SUCCESS {
        Ok(())
    } else {
        Err("standard output is closed or full".to_owned())
    }
}

const COLUMNS: usize = 5;
const HEADING: [&str; COLUMNS] = ["RULE", "MEASURE", "KEY", "USED", "STATE"];

/// How many rows are aligned together.
const ROWS_AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(state: &str, seconds: Option<u64>) -> Value {
        let mut limit = json!({
            "rule": "r", "measure": "bytes", "key": "alice", "held": 0,
            "bounds": [{"bound": "1 GiB/day", "amount": 1 << 30, "seconds": 86400.0, "used": 3 << 20}],
        });
        limit[state] = true.into();
        limit[format!("{state}_seconds")] = seconds.into();
        limit[format!("{state}_until")] = seconds.map(|_| "2026-11-21T10:20:00Z").into();
        limit
    }

    #[test]
    fn times_are_told_in_both_ways() {
        let cells = row(&limit("limited", Some(720)), "");
        assert_eq!(
            cells,
            ["r", "bytes", "alice", "3 MiB of 1 GiB/day", "limited until 2026-11-21T10:20:00Z, in 12 minutes"]
        );
    }

    #[test]
    fn whose_bounds_they_are_is_told() {
        let mut limit = limit("", None);
        limit["override"] = "example.com".into();
        assert_eq!(row(&limit, "")[3], "3 MiB of 1 GiB/day (override example.com)");
        limit["bounds"] = json!([]);
        assert_eq!(row(&limit, "")[3], "unlimited (override example.com)");
    }

    #[test]
    fn of_a_share_it_is_told_of_how_many_it_is() {
        let mut limit = limit("", None);
        limit["measure"] = "bad_recipients".into();
        limit["bounds"] = json!([{"bound": "30% of 20/hour", "amount": 30, "used": 57, "tried": 21, "refused": 12}]);
        assert_eq!(row(&limit, "")[3], "57% of 21 (30% of 20/hour)");
    }

    #[test]
    fn a_block_without_an_end_says_how_it_ends() {
        assert_eq!(row(&limit("blocked", None), "block")[4], "blocked until unblocked");
        assert_eq!(
            row(&limit("blocked", Some(60)), "reset")[4],
            "reset, blocked until 2026-11-21T10:20:00Z, in 1 minute"
        );
        assert_eq!(row(&limit("", None), "unblock")[4], "unblocked");
    }
}
