//! A line to what is asked.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use super::VERSION;
use super::answer::Refusal;
use crate::facts::DecisionId;

/// What a client asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Request {
    pub(super) command: Command,
    /// Of which rule only.
    pub(super) rule: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Command {
    Block { key: String, span: Option<Duration> },
    Explain { id: DecisionId },
    List { limited: bool },
    Reload,
    Reset { key: String },
    Show { key: String },
    Top { most: usize },
    Unblock { key: String },
}

impl Request {
    /// Reads a line without its end.
    pub(super) fn parse(line: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(line) {
            Ok(Value::Object(fields)) => Self::read(Fields { fields }).map_err(Refusal::request),
            Ok(_) | Err(_) => Err(Refusal::request("the request is no JSON object".to_owned())),
        }
    }

    fn read(mut fields: Fields) -> Result<Self, String> {
        match fields.fields.remove("version") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            found => {
                let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
                return Err(format!("expected version {VERSION}, found {found}"));
            }
        }
        let name = fields.required("command")?;
        let rule = fields.string("rule")?;
        let command = match name.as_str() {
            "block" => {
                let seconds = fields.number("seconds", LONGEST_BLOCK)?;
                Command::Block { key: fields.required("key")?, span: seconds.map(Duration::from_secs) }
            }
            "explain" => {
                let id = fields.required("id")?;
                Command::Explain { id: id.parse().map_err(|error| format!("{error}, not like {id:?}"))? }
            }
            "list" => Command::List { limited: fields.flag("limited")? },
            "reload" => Command::Reload,
            "reset" => Command::Reset { key: fields.required("key")? },
            "show" => Command::Show { key: fields.required("key")? },
            "top" => {
                let most = fields.number("most", MOST)?.unwrap_or(DEFAULT_MOST);
                Command::Top { most: usize::try_from(most).unwrap_or(usize::MAX) }
            }
            "unblock" => Command::Unblock { key: fields.required("key")? },
            _ => return Err(format!("there is no command `{name}`")),
        };
        match fields.fields.keys().next() {
            Some(unknown) => Err(format!("`{unknown}` is unknown to `{name}`")),
            None => Ok(Self { command, rule }),
        }
    }
}

/// What has not been read yet.
struct Fields {
    fields: Map<String, Value>,
}

impl Fields {
    fn string(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.fields.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(found) => Err(format!("expected a string in `{key}`, found {found}")),
        }
    }

    fn required(&mut self, key: &str) -> Result<String, String> {
        self.string(key)?.ok_or_else(|| format!("`{key}` is missing"))
    }

    fn number(&mut self, key: &str, most: u64) -> Result<Option<u64>, String> {
        let Some(found) = self.fields.remove(key) else {
            return Ok(None);
        };
        let number = found.as_u64().filter(|number| (1..=most).contains(number));
        number.map(Some).ok_or_else(|| format!("expected a number from 1 to {most} in `{key}`, found {found}"))
    }

    fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.fields.remove(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(found) => Err(format!("expected true or false in `{key}`, found {found}")),
        }
    }
}

/// The most keys of a limit that `top` tells.
const MOST: u64 = 1000;
const DEFAULT_MOST: u64 = 10;
/// Ten years, in seconds. Who means longer means without an end.
const LONGEST_BLOCK: u64 = 10 * 365 * 86_400;
