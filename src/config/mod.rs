//! TOML text to checked values that know their place in the file.
//!
//! A [`Config`] is what was written; what is built from it is a [`crate::policy::Policy`]. Everything that is wrong is
//! reported at once, and a configuration with an error is never used. Reads no files: the texts are handed in.

mod condition;
mod diagnostic;
mod document;
mod endpoint;
mod list;
mod pattern;
mod rule;
mod settings;
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
pub use list::Entry;
pub use list::List;
pub use pattern::AddressPattern;
pub use pattern::DomainPattern;
pub use pattern::PatternError;
pub use rule::Action;
pub use rule::HeaderField;
pub use rule::KeyPart;
pub use rule::Limit;
pub use rule::Mode;
pub use rule::ReplyTemplate;
pub use rule::Rule;
pub use settings::Http;
pub use settings::Log;
pub use settings::LogFormat;
pub use settings::OnError;
pub use settings::PolicySettings;
pub use settings::Server;
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

use document::Fields;
use document::Node;

/// The default configuration, `conf/postward.toml`.
pub const DEFAULT: &str = include_str!("../../conf/postward.toml");

/// A whole configuration as written.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[http]`
    pub http: Http,
    /// `[log]`
    pub log: Log,
    /// `[policy]`
    pub policy: PolicySettings,
    /// `[lists.*]`
    pub lists: Vec<List>,
    /// `[[rule]]`, in order: the main file's first, then those of `conf.d` by name.
    pub rules: Vec<Rule>,
}

impl Config {
    /// Reads the main file and those of `conf.d`, in that order.
    ///
    /// What is wrong goes into the diagnostics; the configuration is fit for use only if they have no errors.
    #[must_use]
    pub fn read(sources: Vec<Source>) -> (Self, Diagnostics) {
        let mut config = Self::default();
        let mut diagnostics = Diagnostics::default();
        let mut sections = Sections::default();
        for (index, source) in sources.iter().enumerate() {
            let fields = document::read(&source.text, index, &mut diagnostics);
            config.read_file(fields, &mut sections, &mut diagnostics);
        }
        diagnostics.sources = sources;
        (config, diagnostics)
    }

    fn read_file(&mut self, mut fields: Fields, sections: &mut Sections, diagnostics: &mut Diagnostics) {
        if let Some(node) = sections.take(&mut fields, "server", diagnostics) {
            self.server = settings::server(node, diagnostics);
        }
        if let Some(node) = sections.take(&mut fields, "http", diagnostics) {
            self.http = settings::http(node, diagnostics);
        }
        if let Some(node) = sections.take(&mut fields, "log", diagnostics) {
            self.log = settings::log(node, diagnostics);
        }
        if let Some(node) = sections.take(&mut fields, "policy", diagnostics) {
            self.policy = settings::policy(node, diagnostics);
        }
        if let Some(lists) = fields.take("lists").and_then(|node| Fields::of(node, diagnostics)) {
            for (name, node) in lists.rest() {
                self.lists.extend(list::read(name, node, diagnostics));
            }
        }
        if let Some(node) = fields.take("rule") {
            self.rules.extend(node.one_or_more().into_iter().filter_map(|node| rule::read(node, diagnostics)));
        }
        fields.finish(diagnostics);
    }
}

/// The sections that may be written once in all the files together.
#[derive(Default)]
struct Sections {
    seen: Vec<&'static str>,
}

impl Sections {
    fn take(&mut self, fields: &mut Fields, name: &'static str, diagnostics: &mut Diagnostics) -> Option<Node> {
        let (place, node) = fields.take_with_key(name)?;
        if self.seen.contains(&name) {
            let message = format!("[{name}] stands in another file already");
            diagnostics.push(Diagnostic::error(place, message).hint("write each section in one file"));
            return None;
        }
        self.seen.push(name);
        Some(node)
    }
}
