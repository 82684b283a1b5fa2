//! Texts with variables: `Client {client} is blocked`.

use std::fmt;
use std::str::FromStr;

use super::document::closest;

/// A text whose variables are known to exist; what they stand for is put in when it is spoken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// As written.
    Text(String),
    /// Filled in.
    Variable(Variable),
}

macro_rules! variables {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a text may name in braces.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Variable {
            $($(#[$doc])* $name,)*
        }

        impl Variable {
            /// Every variable.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What stands between the braces.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

variables! {
    /// The client's address.
    Client = "client",
    /// The client's host name.
    ClientName = "client_name",
    /// The client's HELO name.
    Helo = "helo",
    /// The decision's short id.
    Id = "id",
    /// The bound that was passed: a rate, or a size.
    Limit = "limit",
    /// The list that matched.
    List = "list",
    /// What stands behind `#` in the line that matched.
    ListComment = "list.comment",
    /// The entry that matched.
    ListEntry = "list.entry",
    /// The MTA's name for the port.
    Listener = "listener",
    /// The name used with AUTH.
    Login = "login",
    /// The MTA's port.
    Port = "port",
    /// The MTA's queue id.
    QueueId = "queue_id",
    /// The recipient.
    Recipient = "recipient",
    /// The recipient's domain.
    RecipientDomain = "recipient_domain",
    /// How many recipients.
    Recipients = "recipients",
    /// How long until a limit has room again.
    RetryAfter = "retry_after",
    /// When a limit has room again.
    RetryAt = "retry_at",
    /// The rule's name.
    Rule = "rule",
    /// The sender.
    Sender = "sender",
    /// The sender's domain.
    SenderDomain = "sender_domain",
    /// The message's size.
    Size = "size",
    /// How much of a limit is used.
    Used = "used",
}

impl Template {
    /// The pieces, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The variables named.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable(variable) => Some(*variable),
        })
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// As it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Variable(variable) => write!(f, "{{{}}}", variable.name()),
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    /// `{{` and `}}` stand for the braces themselves.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if let Some(found) = text.chars().find(|&c| c != '\n' && c != '\t' && !matches!(c, ' '..='~')) {
            return Err(TemplateError::Character { found });
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(brace);
            plain.push_str(before);
            if let Some(after) = from_brace.strip_prefix("{{").or_else(|| from_brace.strip_prefix("}}")) {
                plain.extend(from_brace.chars().next());
                rest = after;
                continue;
            }
            let inner = from_brace.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let (name, after) = inner.split_once('}').ok_or(TemplateError::Brace)?;
            let variable = Variable::ALL.iter().find(|variable| variable.name() == name);
            let variable = variable.ok_or_else(|| TemplateError::Unknown { name: name.to_owned() })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(*variable));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }
}

impl TemplateError {
    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        let names: Vec<&str> = Variable::ALL.iter().map(|variable| variable.name()).collect();
        match self {
            Self::Brace => "write {{ or }} for the character itself".to_owned(),
            Self::Character { .. } => "RFC 5321 allows printable ASCII in replies and header fields".to_owned(),
            Self::Unknown { name } => match closest(&names, name) {
                Some(closest) => format!("did you mean {{{closest}}}?"),
                None => format!("there are {}; write {{{{ for a brace itself", names.join(", ")),
            },
        }
    }

    /// The part of the text that is wrong; empty where it is not known.
    pub(super) fn part(&self) -> String {
        match self {
            Self::Brace => String::new(),
            Self::Character { found } => found.to_string(),
            Self::Unknown { name } => format!("{{{name}}}"),
        }
    }
}

/// Why a text is no template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TemplateError {
    /// A brace without its partner.
    Brace,
    /// Not printable ASCII: SMTP replies and header fields cannot carry it (RFC 5321 §4.2).
    Character {
        /// The first such character.
        found: char,
    },
    /// No such variable.
    Unknown {
        /// What stands between the braces.
        name: String,
    },
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brace => f.write_str("a brace without its partner"),
            Self::Character { found } if found.is_control() => {
                write!(f, "a control character ({}) cannot be sent", found.escape_default())
            }
            Self::Character { found } => write!(f, "`{found}` cannot be sent: only ASCII can"),
            Self::Unknown { name } => write!(f, "there is no variable {{{name}}}"),
        }
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_variables_are_told_apart() {
        let template: Template = "Client {client} {{is}} blocked".parse().unwrap();
        let expected =
            [Part::Text("Client ".into()), Part::Variable(Variable::Client), Part::Text(" {is} blocked".into())];
        assert_eq!(template.parts(), expected);
    }

    #[test]
    fn what_cannot_be_filled_in_or_sent_is_refused() {
        assert_eq!("{clinet}".parse::<Template>(), Err(TemplateError::Unknown { name: "clinet".into() }));
        assert_eq!("{client".parse::<Template>(), Err(TemplateError::Brace));
        assert_eq!("client}".parse::<Template>(), Err(TemplateError::Brace));
        assert_eq!("gr\u{fc}n".parse::<Template>(), Err(TemplateError::Character { found: '\u{fc}' }));
    }
}
