//! TOML text to checked values that know their place in the file.
//!
//! A [`Config`] is what was written; what is built from it is a [`crate::policy::Policy`]. Everything that is wrong is
//! reported at once, and a configuration with an error is never used. Reads no files: the texts are handed in.

mod condition;
mod contradiction;
mod diagnostic;
mod document;
mod endpoint;
mod http;
mod key_part;
mod limit;
mod list;
mod log;
mod notice;
mod notify;
mod pattern;
mod rule;
mod settings;
mod share;
mod step;
mod template;
mod units;

pub use condition::Condition;
pub use condition::Question;
pub use condition::Values;
pub use diagnostic::At;
pub use diagnostic::Diagnostic;
pub use diagnostic::Diagnostics;
pub use diagnostic::Place;
pub use diagnostic::Severity;
pub use diagnostic::Source;
pub use endpoint::Endpoint;
pub use endpoint::EndpointError;
pub use http::Http;
pub use http::PersonalData;
pub use key_part::KeyPart;
pub use limit::Allowance;
pub use limit::Allowances;
pub use limit::Charge;
pub use limit::Limit;
pub use limit::Override;
pub use list::Entry;
pub use list::List;
pub use list::network as parse_network;
pub use log::Log;
pub use log::LogFormat;
pub use log::LogLevel;
pub use notice::Notice;
pub use notify::CREDENTIAL;
pub use notify::Notify;
pub use notify::Via;
pub use pattern::AddressPattern;
pub use pattern::DomainPattern;
pub use pattern::PatternError;
pub use rule::Action;
pub use rule::Dropped;
pub use rule::HeaderField;
pub use rule::Mode;
pub use rule::ReplyTemplate;
pub use rule::Rule;
pub use settings::Listen;
pub use settings::OnError;
pub use settings::PolicySettings;
pub use settings::Server;
pub use settings::State;
pub use share::MOST_APART;
pub use share::Share;
pub use step::Step;
pub use step::StepAction;
pub use template::Part;
pub use template::Template;
pub use template::TemplateError;
pub use template::Variable;
pub use units::Comparison;
pub use units::Operator;
pub use units::Rate;
pub use units::Size;
pub use units::Span;
pub use units::UnitError;
pub use units::scaled;

use std::collections::BTreeSet;
use std::collections::HashMap;

use document::Fields;
use document::Node;

/// The default configuration, `conf/postward.toml`.
pub const DEFAULT: &str = include_str!("../../conf/postward.toml");

/// A whole configuration as written.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Eight hexadecimal digits that tell one configuration from another: of all its texts together.
    pub hash: String,
    /// `[server]`
    pub server: Server,
    /// `[http]`
    pub http: Http,
    /// `[log]`
    pub log: Log,
    /// `[policy]`
    pub policy: PolicySettings,
    /// `[state]`
    pub state: State,
    /// `[lists.*]`
    pub lists: Vec<List>,
    /// `[notify.*]`
    pub notify: Vec<Notify>,
    /// Names of those of which nobody knows how they are told.
    pub unread_notify: Vec<At<String>>,
    /// `[[rule]]`, in order: the main file's first, then those of `conf.d` by name.
    pub rules: Vec<Rule>,
    /// What is left of rules that have a mistake.
    pub dropped: Vec<Dropped>,
}

impl Config {
    /// How many of the last decisions to keep: none where nobody could look at them.
    #[must_use]
    pub const fn decisions(&self) -> usize {
        let can_be_seen = self.http.listen.is_some() || self.server.control.is_some();
        if can_be_seen { self.http.decisions } else { 0 }
    }

    /// Reads the main file and those of `conf.d`, in that order.
    ///
    /// What is wrong goes into the diagnostics; the configuration is fit for use only if they have no errors.
    #[must_use]
    pub fn read(sources: Vec<Source>) -> (Self, Diagnostics) {
        let mut config = Self { hash: hash(&sources), ..Self::default() };
        let mut diagnostics = Diagnostics { sources, ..Diagnostics::default() };
        let mut seen = Seen::default();
        let files = 0..diagnostics.sources.len();
        let files: Vec<_> = files.filter_map(|index| document::read(index, &mut diagnostics)).collect();
        // What a file that cannot be read would have defined is not to be missed in the others.
        let is_whole = files.len() == diagnostics.sources.len();
        let mut rules = Vec::new();
        for fields in files {
            rules.extend(config.read_file(fields, &mut seen, &mut diagnostics));
        }
        config.read_rules(rules, &mut diagnostics);
        if !is_whole {
            config.lists.clear();
            config.notify.clear();
            config.unread_notify.clear();
            config.rules.clear();
            config.dropped.clear();
        }
        (config, diagnostics)
    }

    /// Reads all but the rules, and hands those back.
    fn read_file(&mut self, mut fields: Fields, seen: &mut Seen, diagnostics: &mut Diagnostics) -> Vec<Node> {
        if let Some(node) = seen.section(&mut fields, "server", diagnostics) {
            self.server = settings::server(node, diagnostics);
        }
        if let Some(node) = seen.section(&mut fields, "http", diagnostics) {
            self.http = http::http(node, diagnostics);
        }
        if let Some(node) = seen.section(&mut fields, "log", diagnostics) {
            self.log = log::log(node, diagnostics);
        }
        if let Some(node) = seen.section(&mut fields, "policy", diagnostics) {
            self.policy = settings::policy(node, diagnostics);
        }
        if let Some(node) = seen.section(&mut fields, "state", diagnostics) {
            self.state = settings::state(node, diagnostics);
        }
        let lists = fields.take("lists").and_then(|node| Fields::of(node, "tables [lists.NAME]", diagnostics));
        for (name, node) in lists.into_iter().flat_map(Fields::rest) {
            if seen.is_new(format!("lists.{}", name.value), &name.place, diagnostics) {
                self.lists.push(list::read(name, node, diagnostics));
            }
        }
        let notify = fields.take("notify").and_then(|node| Fields::of(node, "tables [notify.NAME]", diagnostics));
        for (name, node) in notify.into_iter().flat_map(Fields::rest) {
            if seen.is_new(format!("notify.{}", name.value), &name.place, diagnostics) {
                match notify::read(name, node, diagnostics) {
                    Ok(notify) => self.notify.push(notify),
                    Err(name) => self.unread_notify.push(name),
                }
            }
        }
        let rules = fields.take("rule").map(Node::one_or_more).unwrap_or_default();
        report_misplaced(&mut fields, diagnostics);
        fields.finish(diagnostics);
        rules
    }

    /// Reads the rules of all files, once all lists are known.
    fn read_rules(&mut self, rules: Vec<Node>, diagnostics: &mut Diagnostics) {
        let lists: BTreeSet<String> = self.lists.iter().map(|list| list.name.value.clone()).collect();
        let mut names = HashMap::new();
        for node in rules {
            let rule = rule::read(node, &lists, diagnostics);
            let name = rule.as_ref().map_or_else(|dropped| dropped.name.as_ref(), |rule| Some(&rule.name));
            if let Some(name) = name {
                report_twin(&mut names, name, diagnostics);
            }
            match rule {
                Ok(rule) => self.rules.push(rule),
                Err(dropped) => self.dropped.push(*dropped),
            }
        }
    }
}

/// Reports a rule whose name another has.
fn report_twin(names: &mut HashMap<String, Place>, name: &At<String>, diagnostics: &mut Diagnostics) {
    let Some(before) = names.get(&name.value) else {
        names.insert(name.value.clone(), name.place.clone());
        return;
    };
    let place = if before.source == name.place.source {
        "above".to_owned()
    } else {
        format!("in {}", diagnostics.file_and_line(before))
    };
    let message = format!("there is another rule `{}` {place}", name.value);
    diagnostics.push(Diagnostic::error(name.place.clone(), message));
}

fn hash(sources: &[Source]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for source in sources {
        hasher.update(source.text.as_bytes());
        // So that a line moved from the end of one file to the start of the next is a change.
        hasher.update(&[0]);
    }
    format!("{:08x}", hasher.finalize())
}

/// `listen = …` above all sections, where `[server]` was meant.
fn report_misplaced(fields: &mut Fields, diagnostics: &mut Diagnostics) {
    for (key, section) in settings::KEYS {
        if let Some((place, _)) = fields.take_misplaced(key) {
            let message = format!("unknown key `{key}`");
            let hint = format!("`{key}` belongs below {section}");
            diagnostics.push(Diagnostic::error(place, message).hint(hint));
        }
    }
}

/// What may be written once in all the files together, and where it was.
#[derive(Default)]
struct Seen {
    places: HashMap<String, Place>,
}

impl Seen {
    fn section(&mut self, fields: &mut Fields, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Node> {
        let (place, node) = fields.take_with_key(name)?;
        self.is_new(name.to_owned(), &place, diagnostics).then_some(node)
    }

    /// Whether it is written for the first time; if not, that is an error.
    fn is_new(&mut self, name: String, place: &Place, diagnostics: &mut Diagnostics) -> bool {
        let Some(before) = self.places.get(&name) else {
            self.places.insert(name, place.clone());
            return true;
        };
        let message = format!("[{name}] stands in {} already", diagnostics.file_and_line(before));
        diagnostics
            .push(Diagnostic::error(place.clone(), message).hint("write each section and each list in one file"));
        false
    }
}
