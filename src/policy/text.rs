//! Texts filled in: what a client sent is reduced to printable ASCII and bounded before it enters one.

use std::fmt::Write as _;

use super::index::Hit;
use super::limit::Counter;
use super::list::List;
use super::plan::Refuse;
use crate::config::Part;
use crate::config::Size;
use crate::config::Span;
use crate::config::Template;
use crate::config::Variable;
use crate::facts::Bound;
use crate::facts::DecisionId;
use crate::facts::Exceeded;
use crate::facts::Facts;
use crate::reply;
use crate::reply::Reply;

/// The longest piece of a stranger's text in a reply, in characters.
const MAX_VALUE: usize = 100;

/// What stands for a value that is not known.
const UNKNOWN: &str = "unknown";

/// Everything a text may speak of.
pub(crate) struct Subject<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) id: DecisionId,
    pub(crate) rule: &'a str,
    pub(crate) lists: &'a [List],
    pub(crate) hit: Option<Hit>,
    pub(crate) exceeded: Option<(&'a Counter, Exceeded)>,
    /// The bound of the rule's condition on the size.
    pub(crate) size_bound: Option<u64>,
}

impl Subject<'_> {
    /// The template with everything filled in. Only the template itself can start a new line.
    pub(crate) fn render(&self, template: &Template) -> String {
        let mut text = String::new();
        for part in template.parts() {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Variable(variable) => self.push(&mut text, *variable),
            }
        }
        text
    }

    /// The reply with its text filled in.
    pub(crate) fn reply(&self, refuse: &Refuse) -> Reply {
        let block = self.exceeded.map(|(_, exceeded)| exceeded).filter(|exceeded| exceeded.bound == Bound::Block);
        match block.filter(|_| refuse.is_default) {
            // A block is no bound that was reached.
            Some(block) => Reply::new(refuse.status, &blocked(&block)),
            None => Reply::new(refuse.status, &self.render(&refuse.text)),
        }
    }

    /// How the limit was passed.
    pub(crate) const fn exceeded(&self) -> Option<&Exceeded> {
        match &self.exceeded {
            Some((_, exceeded)) => Some(exceeded),
            None => None,
        }
    }

    /// The step of the limit, in percent.
    pub(crate) fn step(&self) -> Option<u32> {
        self.exceeded.and_then(|(counter, exceeded)| counter.levels.percent(exceeded.step))
    }

    /// What made the rule hold, for logs: the list and its entry, or the limit that was passed.
    pub(crate) fn detail(&self) -> Option<String> {
        if let Some((counter, exceeded)) = self.exceeded {
            let (measure, bound) = (counter.measure.name(), counter.bound(&exceeded));
            return Some(match exceeded.bound {
                Bound::Block => format!("{measure} {bound}"),
                Bound::Concurrent | Bound::Rate(_) | Bound::Share(_) => {
                    format!("{measure} {bound} used {}{}", used(&exceeded), shut_out(counter, &exceeded))
                }
            });
        }
        let hit = self.hit?;
        let list = self.lists.get(hit.list)?;
        let (entry, comment) = list.entry(hit.entry);
        let name = if list.name.is_empty() { String::new() } else { format!("@{} ", list.name) };
        let comment = if comment.is_empty() { String::new() } else { format!(" # {comment}") };
        Some(format!("{name}{entry}{comment}"))
    }

    fn push(&self, text: &mut String, variable: Variable) {
        let Facts { connection, message, recipient } = self.facts;
        let exceeded = self.exceeded.map(|(_, exceeded)| exceeded);
        let entry = self.hit.and_then(|hit| Some(self.lists.get(hit.list)?.entry(hit.entry)));
        let stranger: Option<&str> = match variable {
            Variable::ClientName => Some(connection.client_name.as_written()),
            Variable::Helo => connection.helo.as_ref().map(|helo| helo.as_written()),
            Variable::List => self.hit.and_then(|hit| self.lists.get(hit.list)).map(|list| list.name.as_str()),
            Variable::ListComment => entry.map(|(_, comment)| comment),
            Variable::ListEntry => entry.map(|(entry, _)| entry),
            Variable::Listener => connection.listener.as_deref(),
            Variable::Login => message.and_then(|message| message.login.as_deref()),
            Variable::QueueId => message.and_then(|message| message.queue_id.as_deref()),
            Variable::Recipient => recipient.map(|recipient| recipient.address.as_written()),
            Variable::RecipientDomain => recipient.and_then(|recipient| recipient.address.domain()),
            Variable::Rule => Some(self.rule),
            Variable::Sender => message.map(|message| message.sender.or_null()),
            Variable::SenderDomain => message.and_then(|message| message.sender.domain()),
            Variable::Client => return push_shown(text, connection.client),
            Variable::Id => return push_shown(text, Some(self.id)),
            Variable::Limit => return push_shown(text, self.bound()),
            Variable::Port => return push_shown(text, connection.port),
            Variable::Recipients => return push_shown(text, recipient.map(|recipient| recipient.position)),
            Variable::RetryAfter => {
                return push_shown(text, exceeded.and_then(|e| e.retry_after).map(Span::rounded_up));
            }
            Variable::RetryAt => {
                let at = exceeded.and_then(|exceeded| exceeded.retry_at);
                return push_shown(text, at.map(humantime::format_rfc3339_seconds));
            }
            Variable::Size => return push_shown(text, self.facts.size().map(Size)),
            Variable::Used => return push_shown(text, exceeded.as_ref().map(used)),
        };
        text.push_str(&reply::printable(stranger.unwrap_or(UNKNOWN), MAX_VALUE));
    }

    fn bound(&self) -> Option<String> {
        match self.exceeded {
            Some((counter, exceeded)) => Some(counter.bound(&exceeded)),
            None => self.size_bound.map(|bound| Size(bound).to_string()),
        }
    }
}

/// `12`, and of a share `57%`.
fn used(exceeded: &Exceeded) -> String {
    match exceeded.bound {
        Bound::Share(_) => format!("{}%", exceeded.used),
        Bound::Block | Bound::Concurrent | Bound::Rate(_) => exceeded.used.to_string(),
    }
}

/// What is said to who is blocked, where the rule says nothing of its own.
fn blocked(block: &Exceeded) -> String {
    match block.retry_at {
        Some(end) => format!("Blocked for now, try again after {}", humantime::format_rfc3339_seconds(end)),
        None => "Blocked by the administrator".to_owned(),
    }
}

fn push_shown(text: &mut String, value: Option<impl std::fmt::Display>) {
    match value {
        Some(value) => _ = write!(text, "{value}"),
        None => text.push_str(UNKNOWN),
    }
}

/// Until when the limit shuts out who has passed it.
fn shut_out(counter: &Counter, exceeded: &Exceeded) -> String {
    let end = exceeded.retry_at.filter(|_| counter.block_for.is_some() && !counter.levels.passes(exceeded.step));
    end.map_or_else(String::new, |end| format!("; blocked until {}", humantime::format_rfc3339_seconds(end)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::facts::Connection;
    use crate::facts::Name;

    fn rendered(template: &str, connection: &Connection) -> String {
        let subject = Subject {
            facts: Facts { connection, message: None, recipient: None },
            id: DecisionId { session: 33, number: 1 },
            rule: "r",
            lists: &[],
            hit: None,
            exceeded: None,
            size_bound: Some(25 << 20),
        };
        subject.render(&template.parse().unwrap())
    }

    #[test]
    fn variables_are_filled_in() {
        let connection = Connection { client: "192.0.2.1".parse().ok(), port: Some(25), ..Connection::default() };
        let text = rendered("{client} {port} {rule} {id} {limit}", &connection);
        assert_eq!(text, "192.0.2.1 25 r 11.1 25 MiB");
    }

    #[test]
    fn what_is_not_known_says_so() {
        let text = rendered("{client} {helo} {login} {sender} {recipient} {size}", &Connection::default());
        assert_eq!(text, ["unknown"; 6].join(" "));
    }

    /// A hostile HELO name cannot start a second reply, nor fill the line.
    #[test]
    fn a_strangers_text_cannot_break_out() {
        let helo = Name::new(&format!("x\r\n250 ok {{client}} %s \u{fc}{}", "y".repeat(500)));
        let connection = Connection { helo: Some(helo), ..Connection::default() };
        let text = rendered("HELO {helo} refused", &connection);
        assert!(text.starts_with("HELO x??250 ok {client} %s ?yyy"), "{text}");
        assert!(text.ends_with("... refused") && text.len() < 130, "{text}");
    }

    #[test]
    fn waiting_is_rounded_up() {
        let shown = |ms| Span::rounded_up(Duration::from_millis(ms)).to_string();
        assert_eq!(shown(1), "1 second");
        assert_eq!(shown(59_001), "1 minute");
        assert_eq!([119_500, 120_001, 599_000].map(shown), ["2 minutes", "3 minutes", "10 minutes"]);
        assert_eq!([601_000, 14_400_000].map(shown), ["11 minutes", "4 hours"]);
        assert_eq!([14_401_000, 345_601_000].map(shown), ["5 hours", "5 days"]);
    }
}
