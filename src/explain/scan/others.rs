//! Where Exim's log, and our own, have replies.

use super::Speaker;
use super::slot::Head;
use super::slot::Slot;

/// `SMTP error from remote mail server after RCPT TO:<a@b>: host mx [address]: 550 5.1.1 text`, or `C="250 2.0.0 Ok"`
pub(super) fn exim(message: &str) -> Option<Slot> {
    if let Some(at) = message.find("MTP error from ") {
        let after = message.get(at..)?;
        let head = after.match_indices(": ").find_map(|(at, _)| Head::parse(after.get(at + 2..)?));
        return head.map(|head| Slot::new(&head, Speaker::Remote));
    }
    let after = message.get(message.find(" C=\"")? + 4..)?;
    let head = Head::parse(after.get(..after.find('"')?)?)?;
    Some(Slot::new(&head, Speaker::Remote))
}

/// `reply="550 5.7.1 text"` or `"reply":"550 5.7.1 text"`, unless a rule on trial only would have said it.
pub(super) fn postward(message: &str) -> Option<Slot> {
    // What stands between quotes, strangers chose.
    let plain = message.split('"').next().unwrap_or_default();
    let words = plain.split_once("INFO ").map_or(plain, |(_, words)| words).trim_start();
    if words.starts_with("would ") || message.contains(":\"would refuse\"") {
        return None;
    }
    let starts = [" reply=\"", "\"reply\":\""];
    let after = starts.iter().find_map(|start| message.get(message.find(start)? + start.len()..))?;
    let text = unescaped(after);
    Head::parse(&text).map(|head| Slot::new(&head, Speaker::Postward))
}

/// A string's content up to its closing quote.
fn unescaped(quoted: &str) -> String {
    let mut text = String::new();
    let mut rest = quoted.chars();
    while let Some(c) = rest.next().filter(|c| *c != '"') {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('n' | 'r') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some(c) => text.push(c),
            None => {}
        }
    }
    text
}
