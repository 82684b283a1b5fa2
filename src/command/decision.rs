//! `postward explain ID`: what the running daemon knows of a decision, by the id in a reply or in the log.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use postward::config::Size;
use postward::explain;
use postward::explain::Explanation;
use postward::explain::Origins;
use postward::explain::visible;
use postward::facts::DecisionId;
use serde_json::Value;
use serde_json::json;

use super::FAILED;
use super::control;
use super::object_to;
use super::print;
use super::print_json;
use crate::args::Format;

/// The shortest session in an id, in letters, half a minute after ids began anew.
const SHORTEST: usize = 6;

/// The id of a decision, if that is all that the text is. `id=` may stand before it, as in the log.
pub(super) fn id(text: &str) -> Option<DecisionId> {
    let word = text.trim();
    let word = word.strip_prefix("id=").unwrap_or(word);
    let (session, number) = word.split_once('.').map_or((word, None), |(session, number)| (session, Some(number)));
    let is_mixed =
        session.contains(|c: char| c.is_ascii_digit()) && session.contains(|c: char| c.is_ascii_alphabetic());
    // Alone, a word with capitals is rather the queue id of an MTA.
    let is_foreign = number.is_none() && session.contains(|c: char| c.is_ascii_uppercase());
    if is_foreign || session.len() < SHORTEST || (number.is_none() && !is_mixed) || Path::new(text).is_file() {
        return None;
    }
    word.parse().ok()
}

/// Asks the daemon and shows what it says.
pub(super) fn explain(id: DecisionId, control: Option<PathBuf>, config: Option<PathBuf>, format: Format) -> ExitCode {
    let address = match control::address(control, config) {
        Ok(address) => address,
        Err(code) => return code,
    };
    let mut decisions = Vec::new();
    let asked = control::ask(&address, json!({"command": "explain", "id": id.to_string()}), |answer| {
        decisions.extend(answer.get("decision").cloned());
        Ok(())
    });
    match (asked, format) {
        (Err(problem), _) => {
            object_to(&problem);
            ExitCode::from(FAILED)
        }
        (Ok(()), Format::Json) => print_json(&json!({"decisions": decisions}), ExitCode::SUCCESS),
        (Ok(()), Format::Text) => print(&to_text(&decisions), ExitCode::SUCCESS),
    }
}

/// Each decision, and then what the codes in them mean.
fn to_text(decisions: &[Value]) -> String {
    let mut text: String = decisions.iter().map(decision).collect();
    let mut codes: Vec<String> = Vec::new();
    for reply in decisions.iter().filter_map(|decision| decision.get("reply").and_then(Value::as_str)) {
        let code: Vec<&str> = reply.split(' ').take(2).collect();
        let code = code.join(" ");
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    for code in codes {
        for typed in explain::typed(&code) {
            _ = write!(text, "\n{}", Explanation::of_typed(&typed, &Origins::default()));
        }
    }
    text
}

fn decision(decision: &Value) -> String {
    let text = |key: &str| decision.get(key).and_then(Value::as_str).unwrap_or_default();
    let count = |key: &str| decision.get(key).and_then(Value::as_u64);
    let mut lines = Lines(format!("{}  {}  at {}: {}\n", text("id"), text("time"), text("stage"), text("outcome")));
    lines.add("reply", text("reply"));
    lines.add("rule", text("rule"));
    for matched in decision.get("matches").and_then(Value::as_array).into_iter().flatten() {
        lines.add("because", &because(matched));
    }
    let via = match (count("port"), text("listener")) {
        (Some(port), "") => format!(", port {port}"),
        (Some(port), listener) => format!(", port {port} ({listener})"),
        (None, _) => String::new(),
    };
    let helo =
        Some(text("helo")).filter(|helo| !helo.is_empty()).map_or_else(String::new, |helo| format!(", HELO {helo}"));
    let client = Some(text("client")).filter(|client| !client.is_empty()).unwrap_or("unknown address");
    lines.add("client", &format!("{client} ({}){helo}{via}", text("client_name")));
    let is = |key: &str| decision.get(key).and_then(Value::as_bool) == Some(true);
    let login = if text("login").is_empty() && is("authenticated") { "yes, without a name" } else { text("login") };
    lines.add("login", login);
    lines.add("TLS", if is("tls") { "yes" } else { "no" });
    lines.add("sender", text("sender"));
    let recipients = decision.get("recipients").and_then(Value::as_array);
    let recipients: Vec<&str> = recipients.into_iter().flatten().filter_map(Value::as_str).collect();
    let accepted = usize::try_from(count("recipients_accepted").unwrap_or_default()).unwrap_or(usize::MAX);
    let is_one = text("stage") == "rcpt";
    let more = if is_one { 0 } else { accepted.saturating_sub(recipients.len()) };
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    lines.add("recipients", &format!("{}{more}", recipients.join(", ")));
    lines.add("size", &count("size").map(|size| Size(size).to_string()).unwrap_or_default());
    lines.add("queue id", text("queue_id"));
    lines.add("under", &format!("configuration {}", text("configuration")));
    lines.0
}

/// A rule that held, and why.
fn because(matched: &Value) -> String {
    let text = |key: &str| matched.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut because = format!("{} ({}, {})", text("rule"), text("action"), text("mode"));
    if !text("matched").is_empty() {
        _ = write!(because, ": {}", text("matched"));
    }
    if !text("recipient").is_empty() {
        _ = write!(because, ", for {}", text("recipient"));
    }
    if !text("would_reply").is_empty() {
        _ = write!(because, ", would have said {}", text("would_reply"));
    }
    let asked = matched.get("asked").and_then(Value::as_array);
    let asked: Vec<&str> = asked.into_iter().flatten().filter_map(Value::as_str).collect();
    if !asked.is_empty() {
        _ = write!(because, "; it asks about {}", asked.join(", "));
    }
    because
}

/// Labels and values below a heading; what is not known is left out.
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            _ = writeln!(self.0, "    {label:12}{}", visible(&value.replace('\n', " / ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_from_a_code_and_from_a_word() {
        for text in ["5pjg000.1", "5PJG000.12", "id=5pjg000.1", "5pjg000", " 5pjg000.1 "] {
            assert!(id(text).is_some(), "{text}");
        }
        for text in
            ["550", "5.7.1", "5.71", "550 5.7.1", "postfix", "mailbox.1x", "", "192.0.2.1", "Cargo.toml", "1234567"]
        {
            assert!(id(text).is_none(), "{text}");
        }
    }
}
