//! The text of a reply: what a line of SMTP can carry, and what people and programs can tell from codes.

use super::Linter;
use super::Spoken;
use crate::config::Notice;
use crate::config::Part;
use crate::config::Variable;
use crate::facts::Stage;
use crate::reply::MAX_LINE_TEXT;
use crate::reply::MAX_LINES;
use crate::reply::Reply;

/// The longest line of a reply without its line end (RFC 5321 §4.5.3.1.5).
const LONGEST_LINE: usize = 510;

/// One line of a text, as far as it is known when it is written.
#[derive(Default)]
struct Line {
    text: String,
    first_variable: Option<Variable>,
}

pub(super) fn check(spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let lines = lines(spoken);
    let status = spoken.reply.value.status;
    let room = LONGEST_LINE - status.to_string().len() - 1;
    let folded: usize = lines.iter().map(|line| Reply::new(status, &line.text).lines().len()).sum();
    let is_one_too_many = folded > 1 && hangs_up_at_connect(spoken);
    for line in &lines {
        check_start(line, spoken, linter);
        if !is_one_too_many {
            check_length(line, room, spoken, linter);
        }
    }
    if is_one_too_many {
        let message = "at CONNECT Sendmail does not hang up after a 421 of several lines";
        let hint = "make it one short line; MTAs greet with a text of their own there";
        linter.error(spoken.reply.place.clone(), message, hint);
    } else if folded > MAX_LINES {
        let message = format!("a reply has at most {MAX_LINES} lines");
        linter.error(spoken.reply.place.clone(), message, "a text for people is short");
    }
}

/// Sendmail's `milter_connect` (milter.c) looks for `421 `; `421-` is to it any other 4yz, after which it greets with 220.
fn hangs_up_at_connect(spoken: &Spoken<'_>) -> bool {
    spoken.known.stage == Stage::Connect && spoken.reply.value.status.code() == 421
}

/// The lines, without the values of variables.
fn lines(spoken: &Spoken<'_>) -> Vec<Line> {
    let mut lines = vec![Line::default()];
    for part in spoken.reply.value.text.parts() {
        match part {
            Part::Text(text) => {
                let mut pieces = text.split('\n');
                let first = pieces.next().unwrap_or_default();
                if let Some(line) = lines.last_mut() {
                    line.text.push_str(first);
                }
                lines.extend(pieces.map(|piece| Line { text: piece.to_owned(), first_variable: None }));
            }
            Part::Variable(variable) => {
                if let Some(line) = lines.last_mut().filter(|line| line.text.trim().is_empty()) {
                    line.first_variable.get_or_insert(*variable);
                }
            }
        }
    }
    lines
}

fn check_start(line: &Line, spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = &spoken.reply.place;
    const HINT: &str = "put a word before it";
    match line.first_variable {
        Some(variable) if may_begin_with_digits(variable) => {
            let written = format!("{{{}}}", variable.name());
            let place = linter.diagnostics.narrow(place, &written);
            let message = format!("a line that begins with {written} may begin with digits, which look like a code");
            linter.notice(Notice::DigitsFirst, place, message, HINT);
        }
        Some(_) => {}
        None if line.text.trim_start().starts_with(|c: char| c.is_ascii_digit()) => {
            let text = line.text.trim();
            // A bare number may stand in the codes as well.
            let part = if text.contains(' ') { text } else { "" };
            let place = linter.diagnostics.narrow(place, part);
            linter.error(place, "a line of text must not begin with digits, which look like a code", HINT);
        }
        None => {}
    }
}

/// Whether what it stands for begins with digits, always or as often as not. Names that a client chose may, too.
const fn may_begin_with_digits(variable: Variable) -> bool {
    match variable {
        Variable::Client
        | Variable::Id
        | Variable::Limit
        | Variable::Port
        | Variable::QueueId
        | Variable::Recipients
        | Variable::RetryAfter
        | Variable::RetryAt
        | Variable::Size
        | Variable::Used => true,
        Variable::ClientName
        | Variable::Helo
        | Variable::List
        | Variable::ListComment
        | Variable::ListEntry
        | Variable::Listener
        | Variable::Login
        | Variable::Recipient
        | Variable::RecipientDomain
        | Variable::Rule
        | Variable::Sender
        | Variable::SenderDomain => false,
    }
}

fn check_length(line: &Line, room: usize, spoken: &Spoken<'_>, linter: &mut Linter<'_>) {
    let place = spoken.reply.place.clone();
    let length = line.text.len();
    let hint = "break it with \\n where it reads well";
    if length > room {
        let message =
            format!("a line of {length} characters is too long: RFC 5321 §4.5.3.1.5 leaves {room} for the text");
        linter.error(place, message, hint);
    } else if length > MAX_LINE_TEXT {
        let message = format!("a line of {length} characters is folded: Sendmail may need the room for an address");
        linter.notice(Notice::FoldedText, place, message, hint);
    }
}
