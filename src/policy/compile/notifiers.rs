//! Whether each `notify` that a rule names is there, and each that is there is named.

use std::collections::BTreeSet;

use crate::config::At;
use crate::config::Config;
use crate::config::Diagnostic;
use crate::config::Diagnostics;

/// Those that can be named, and those that were.
pub(super) struct Notifiers<'a> {
    /// Also those that have a mistake.
    defined: Vec<&'a At<String>>,
    used: BTreeSet<&'a str>,
}

impl<'a> Notifiers<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let defined = config.notify.iter().map(|notify| &notify.name).chain(&config.unread_notify).collect();
        Self { defined, used: BTreeSet::new() }
    }

    /// Reports those that a rule names and that are missing.
    pub(super) fn look_for(&mut self, names: &'a [At<String>], diagnostics: &mut Diagnostics) {
        for name in names {
            if self.defined.iter().any(|defined| defined.value == name.value) {
                self.used.insert(&name.value);
                continue;
            }
            let message = format!("there is no notify `{}`", name.value);
            let mut known: Vec<&str> = self.defined.iter().map(|defined| defined.value.as_str()).collect();
            known.sort_unstable();
            let hint = if known.is_empty() {
                format!("define it: [notify.{}]", name.value)
            } else {
                format!("known: {}", known.join(", "))
            };
            diagnostics.push(Diagnostic::error(name.place.clone(), message).hint(hint));
        }
    }

    pub(super) fn report_unused(&self, diagnostics: &mut Diagnostics) {
        for name in self.defined.iter().filter(|name| !self.used.contains(name.value.as_str())) {
            let message = format!("notify `{}` is not used by any rule", name.value);
            let hint = format!("add notify = \"{}\" to a rule with a limit", name.value);
            diagnostics.push(Diagnostic::warning(name.place.clone(), message).hint(hint));
        }
    }
}
