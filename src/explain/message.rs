//! A whole message, such as a bounce: which of its parts a server wrote.

use mail_parser::Message;
use mail_parser::MessageParser;
use mail_parser::MessagePart;
use mail_parser::MimeHeaders as _;
use mail_parser::PartType;

/// Fields that a message has and a pasted delivery report has not.
const FIELDS: [&str; 7] = ["content-type", "date", "from", "mime-version", "received", "return-path", "subject"];

/// Whether a text begins as a message does: header fields, at least two of those that every message has, an empty line.
#[must_use]
pub fn is_message(start: &str) -> bool {
    let mut known = 0;
    for (number, line) in start.lines().enumerate() {
        if line.is_empty() {
            return known >= 2;
        }
        let is_folded = line.starts_with([' ', '\t']) && number > 0;
        let is_envelope = number == 0 && line.starts_with("From ");
        let name = line.split_once(':').map(|(name, _)| name);
        let is_field = name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| matches!(b, 33..=126)));
        if !is_folded && !is_envelope && !is_field {
            return false;
        }
        known += usize::from(name.is_some_and(|name| FIELDS.contains(&name.to_ascii_lowercase().as_str())));
    }
    false
}

/// The texts and delivery reports of a message, decoded; not its header, nor the message that it returns, in which anything
/// may stand. `None` if it cannot be read.
#[must_use]
pub fn texts(message: &[u8]) -> Option<Vec<String>> {
    let message = MessageParser::default().parse(message)?;
    let has_plain = message.parts.iter().any(|part| is(&message, part, "text", "plain"));
    let written = |part: &&MessagePart<'_>| {
        is(&message, part, "message", "delivery-status")
            || is(&message, part, "text", "plain")
            || (!has_plain && is(&message, part, "text", "html"))
    };
    Some(message.parts.iter().filter(written).map(text).collect())
}

/// A part without a type is plain text (RFC 2045 §5.2).
fn is(message: &Message<'_>, part: &MessagePart<'_>, kind: &str, subtype: &str) -> bool {
    let typed = part.content_type();
    let is_only = message.parts.len() == 1;
    match typed {
        Some(typed) => {
            typed.ctype().eq_ignore_ascii_case(kind)
                && typed.subtype().is_some_and(|is| is.eq_ignore_ascii_case(subtype))
        }
        None => (kind, subtype) == ("text", "plain") && (is_only || matches!(part.body, PartType::Text(_))),
    }
}

fn text(part: &MessagePart<'_>) -> String {
    match &part.body {
        PartType::Text(text) | PartType::Html(text) => text.to_string(),
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        PartType::Message(_) | PartType::Multipart(_) => String::new(),
    }
}
