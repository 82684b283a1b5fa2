//! Conditions compiled: lists by number, what is cheap first; and whether each list is what its condition needs.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config;
use crate::config::At;
use crate::config::Config;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::DomainPattern;
use crate::facts::Fact;
use crate::policy::compile::aspect::measures;
use crate::policy::condition::Condition;
use crate::policy::condition::Question;
use crate::policy::found::Asked;
use crate::policy::index::Pattern;
use crate::policy::limit::Measure;
use crate::policy::list::Lists;
use crate::policy::overrides::Overrides;

/// What conditions refer to by number.
pub(super) struct References<'a> {
    config: &'a Config,
    /// The named lists first, then one for each set of values written into conditions.
    pub(super) lists: Lists<'a>,
    /// Paths whose free space is asked.
    pub(super) paths: Vec<PathBuf>,
    /// Index and use of each named list.
    named: HashMap<&'a str, (usize, bool)>,
    /// By what the limits that named a list tell their keys apart.
    overridden: HashMap<usize, Uses>,
    /// Those lists that limits named, made ready.
    overrides: HashMap<usize, Arc<Overrides>>,
}

/// What is counted for the keys that entries of a list of overrides can be; nothing where they can be none.
#[derive(Debug, Default)]
struct Uses {
    by_client: BTreeSet<&'static str>,
    by_name: BTreeSet<&'static str>,
}

impl<'a> References<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let mut named: HashMap<&str, (usize, bool)> = HashMap::new();
        named.extend(config.lists.iter().enumerate().map(|(index, list)| (list.name.value.as_str(), (index, false))));
        let mut lists = Lists::default();
        config.lists.iter().for_each(|list| lists.add_named(list));
        Self { config, lists, paths: Vec::new(), named, overridden: HashMap::new(), overrides: HashMap::new() }
    }

    /// `when` and not `unless`, what is cheap first.
    pub(super) fn condition(&mut self, rule: &'a config::Rule, diagnostics: &mut Diagnostics) -> Condition {
        let mut parts = vec![self.compile(&rule.when, diagnostics)];
        if let Some(unless) = &rule.unless {
            parts.push(Condition::Not(Box::new(self.compile(unless, diagnostics))));
        }
        sorted(parts)
    }

    /// Reports lists that are named and missing, in a condition that is of no other use.
    pub(super) fn look_for_lists(&mut self, condition: &'a config::Condition, diagnostics: &mut Diagnostics) {
        self.compile(condition, diagnostics);
    }

    fn compile(&mut self, condition: &'a config::Condition, diagnostics: &mut Diagnostics) -> Condition {
        match condition {
            config::Condition::All(parts) => sorted(parts.iter().map(|part| self.compile(part, diagnostics)).collect()),
            config::Condition::Any(parts) => {
                let mut parts: Vec<_> = parts.iter().map(|part| self.compile(part, diagnostics)).collect();
                parts.sort_by_key(Condition::cost);
                Condition::Any(parts)
            }
            config::Condition::Not(part) => Condition::Not(Box::new(self.compile(part, diagnostics))),
            config::Condition::Fact(question) => Condition::Question(self.question(&question.value, diagnostics)),
        }
    }

    fn question(&mut self, question: &'a config::Question, diagnostics: &mut Diagnostics) -> Question {
        let fact = question.fact();
        match question {
            config::Question::Authenticated(wanted) => Question::Authenticated(*wanted),
            config::Question::Client(values) => {
                self.in_lists((fact, Asked::Client), values, diagnostics, |network| Pattern::Network(*network))
            }
            config::Question::ClientName(values) => {
                self.in_lists((fact, Asked::ClientName), values, diagnostics, Pattern::Domain)
            }
            config::Question::DiskFree { path, below } => Question::DiskFree { path: self.path(path), below: *below },
            config::Question::Helo(values) => self.in_lists((fact, Asked::Helo), values, diagnostics, Pattern::Domain),
            config::Question::Listener(names) => Question::Listener(names.clone()),
            config::Question::Login(values) => {
                self.in_lists((fact, Asked::Login), values, diagnostics, |login| Pattern::Login(login))
            }
            config::Question::OverQuota(values) | config::Question::Recipient(values) => {
                self.in_lists((fact, Asked::Recipient), values, diagnostics, Pattern::Address)
            }
            config::Question::Port(ports) => Question::Port(ports.clone()),
            config::Question::Recipients(comparison) => Question::Recipients(*comparison),
            config::Question::Sender(values) => {
                self.in_lists((fact, Asked::Sender), values, diagnostics, Pattern::Address)
            }
            config::Question::SenderDomain(values) => {
                self.in_lists((fact, Asked::SenderDomain), values, diagnostics, Pattern::Domain)
            }
            config::Question::SenderLoginMismatch(lists) => {
                let index = lists.iter().filter_map(|name| self.named_list(fact, name, diagnostics)).next();
                Question::SenderLoginMismatch(index.unwrap_or_default())
            }
            config::Question::Size(comparison) => Question::Size(*comparison),
            config::Question::Tls(wanted) => Question::Tls(*wanted),
        }
    }

    /// The number of a path whose free space is asked.
    fn path(&mut self, path: &PathBuf) -> usize {
        let known = self.paths.iter().position(|known| known == path);
        known.unwrap_or_else(|| {
            self.paths.push(path.clone());
            self.paths.len() - 1
        })
    }

    /// The lists named, and one without a name for what is written in place.
    fn in_lists<T>(
        &mut self,
        (fact, asked): (Fact, Asked),
        values: &'a config::Values<T>,
        diagnostics: &mut Diagnostics,
        pattern: impl Fn(&'a T) -> Pattern<'a>,
    ) -> Question {
        let mut lists: Vec<usize> =
            values.lists.iter().filter_map(|name| self.named_list(fact, name, diagnostics)).collect();
        if !values.inline.is_empty() {
            lists.push(self.lists.inline(values.inline.iter().map(pattern).collect()));
        }
        Question::InLists(asked, lists)
    }

    fn named_list(&mut self, fact: Fact, name: &At<String>, diagnostics: &mut Diagnostics) -> Option<usize> {
        let Some((index, used)) = self.named.get_mut(name.value.as_str()) else {
            let mut names: Vec<&str> = self.named.keys().copied().collect();
            names.sort_unstable();
            let is_domain = name.value.parse::<DomainPattern>().is_ok() && name.value.contains('.');
            let hint = if is_domain {
                format!("for all addresses of a domain write \"{}\", without @", name.value)
            } else if name.value.is_empty() {
                "a list is named as in \"@trusted\"".to_owned()
            } else if names.is_empty() {
                format!("define it: [lists.{}]", name.value)
            } else {
                format!("lists: {}", names.join(", "))
            };
            let message = format!("there is no list `{}`", name.value);
            diagnostics.push(Diagnostic::error(name.place.clone(), message).hint(hint));
            return None;
        };
        *used = true;
        let list = self.config.lists.get(*index)?;
        let (keys, fits): (&[&str], _) = match fact {
            Fact::Client => (&["networks"], !list.networks.is_empty()),
            Fact::ClientName | Fact::Helo | Fact::SenderDomain => (&["domains"], !list.domains.is_empty()),
            Fact::Login => (&["logins"], !list.logins.is_empty()),
            Fact::SenderLoginMismatch => (&["senders"], !list.senders.is_empty()),
            Fact::OverQuota | Fact::Recipient | Fact::Sender => {
                (&["addresses", "domains"], !list.addresses.is_empty() || !list.domains.is_empty())
            }
            Fact::Authenticated
            | Fact::DiskFree
            | Fact::Listener
            | Fact::Port
            | Fact::Recipients
            | Fact::Size
            | Fact::Tls => (&[], true),
        };
        let kind = keys.join(" or ");
        let is_written = keys.iter().any(|key| list.keys.contains(key));
        if !fits && is_written {
            // Of a list without any entry that is said where it stands.
            if !list.is_empty() {
                let consequence = if fact == Fact::SenderLoginMismatch {
                    "every login may send only as `<>`"
                } else {
                    "this never holds"
                };
                let message = format!("list `{}` has no {kind}, so {consequence}", name.value);
                diagnostics.push(Diagnostic::warning(name.place.clone(), message));
            }
        } else if !fits {
            let message = format!("list `{}` has no {kind}, which `{}` needs", name.value, fact.name());
            let hint = format!("add {kind} to [lists.{}], or name another list", name.value);
            diagnostics.push(Diagnostic::error(name.place.clone(), message).hint(hint));
        }
        Some(*index)
    }

    /// Marks the list of a limit as used, and reports what in it can never count.
    pub(super) fn check_overrides(&mut self, limit: &config::Limit, diagnostics: &mut Diagnostics) {
        let Some(index) = limit.overrides.as_ref().and_then(|name| self.look_for_overrides(name, diagnostics)) else {
            return;
        };
        let counted = || measures(limit).into_iter().map(Measure::name);
        let uses = self.overridden.entry(index).or_default();
        for part in &limit.key {
            match part {
                config::KeyPart::Client { .. } => uses.by_client.extend(counted()),
                config::KeyPart::Helo
                | config::KeyPart::Listener
                | config::KeyPart::Login
                | config::KeyPart::Recipient
                | config::KeyPart::RecipientDomain
                | config::KeyPart::Sender
                | config::KeyPart::SenderDomain => uses.by_name.extend(counted()),
            }
        }
    }

    /// Marks the list that a limit names as used, and reports one that is missing or of no use to limits.
    pub(super) fn look_for_overrides(&mut self, name: &At<String>, diagnostics: &mut Diagnostics) -> Option<usize> {
        let Some((index, used)) = self.named.get_mut(name.value.as_str()) else {
            let message = format!("there is no list `{}`", name.value);
            let hint = format!("define it: [lists.{}.limits]", name.value);
            diagnostics.push(Diagnostic::error(name.place.clone(), message).hint(hint));
            return None;
        };
        *used = true;
        let list = self.config.lists.get(*index)?;
        if list.limits.is_empty() {
            let message = format!("list `{}` has no limits, which `overrides` needs", name.value);
            let hint = format!(
                "add [lists.{}.limits], with entries such as \"alice@example.com\" = \"unlimited\"",
                name.value
            );
            diagnostics.push(Diagnostic::error(name.place.clone(), message).hint(hint));
        }
        Some(*index)
    }

    /// Reports entries of lists of overrides that no limit which names them can use.
    pub(super) fn report_useless_overrides(&self, diagnostics: &mut Diagnostics) {
        for (index, list) in self.config.lists.iter().enumerate() {
            let Some(uses) = self.overridden.get(&index) else {
                continue;
            };
            // A key that is empty stands in for those of a list with an error.
            for entry in list.limits.iter().filter(|entry| !entry.key.value.is_empty()) {
                let is_network = config::parse_network(&entry.key.value).is_ok();
                let counted = if is_network { &uses.by_client } else { &uses.by_name };
                if !counted.is_empty() {
                    report_bounds_of_nothing(entry, counted, diagnostics);
                    continue;
                }
                let message = format!("\"{}\" is nobody's key in a limit that names this list", entry.key.value);
                let hint = if is_network { "their keys have no client" } else { "their key is the client's address" };
                diagnostics.push(Diagnostic::warning(entry.key.place.clone(), message).hint(hint));
            }
        }
    }

    /// What stands in the list of a limit.
    pub(super) fn allowances(&self, name: &At<String>) -> &'a [config::Override] {
        let index = self.named.get(name.value.as_str()).map(|(index, _)| *index);
        index.and_then(|index| self.config.lists.get(index)).map(|list| list.limits.as_slice()).unwrap_or_default()
    }

    /// The list of a limit, made ready once.
    pub(super) fn overrides(&mut self, name: &At<String>) -> Option<Arc<Overrides>> {
        let (index, _) = *self.named.get(name.value.as_str())?;
        let written = self.allowances(name);
        let ready = self.overrides.entry(index).or_insert_with(|| Arc::new(Overrides::new(written)));
        Some(Arc::clone(ready))
    }

    pub(super) fn report_unused_lists(&self, diagnostics: &mut Diagnostics) {
        for list in &self.config.lists {
            if self.named.get(list.name.value.as_str()).is_some_and(|(_, used)| !used) {
                let message = format!("list `{}` is not used by any rule", list.name.value);
                diagnostics.push(Diagnostic::warning(list.name.place.clone(), message));
            }
        }
    }
}

/// Reports what an override says of things that no limit on its key counts: there it has the bounds of all others.
fn report_bounds_of_nothing(entry: &config::Override, counted: &BTreeSet<&'static str>, diagnostics: &mut Diagnostics) {
    let is_idle = |name: &At<&'static str>| !counted.contains(name.value);
    let key = &entry.key.value;
    let known: Vec<&str> = counted.iter().copied().collect();
    let mut hint = format!("those count {}", known.join(" and "));
    if entry.named.iter().all(is_idle) {
        hint.push_str(&format!("; there \"{key}\" has the bounds of all others"));
    }
    for name in entry.named.iter().filter(|name| is_idle(name)) {
        let message = format!(
            "\"{key}\" has a bound on `{}`, which no limit counts that names this list and has such keys",
            name.value
        );
        diagnostics.push(Diagnostic::warning(name.place.clone(), message).hint(hint.clone()));
    }
}

fn sorted(mut parts: Vec<Condition>) -> Condition {
    parts.sort_by_key(Condition::cost);
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            Condition::All(parts)
        }
    }
}
