//! Files to a policy.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::User;

use super::http;
use super::identity;
use super::listener;
use super::notify;
use super::upkeep;
use super::workers::too_many_workers;
use super::workers::workers;
use crate::config;
use crate::config::At;
use crate::config::Config;
use crate::config::Diagnostic;
use crate::config::Diagnostics;
use crate::config::Endpoint;
use crate::config::Place;
use crate::config::Question;
use crate::config::Source;
use crate::metrics::Metrics;
use crate::policy::Policy;

/// What was read, and what is wrong with it.
pub struct Loaded {
    /// As written.
    pub config: Config,
    /// As compiled; `None` when the diagnostics have an error.
    pub policy: Option<Policy>,
    /// Everything that is wrong, or worth a look.
    pub diagnostics: Diagnostics,
}

impl Loaded {
    /// Takes whatever was found for an error.
    pub fn be_strict(&mut self) {
        self.diagnostics.be_strict();
        if self.diagnostics.has_errors() {
            self.policy = None;
        }
    }
}

/// Reads the configuration at `path` and, in order of their names, the `.toml` files of `conf.d` beside it; without a path
/// the built-in one. Names that start with a dot are left out, as editors keep their own files under such.
///
/// # Errors
///
/// A file that cannot be read, with its name.
pub fn load(path: Option<&Path>) -> Result<Loaded, (PathBuf, io::Error)> {
    let sources = match path {
        None => vec![Source { path: "built-in configuration".into(), text: config::DEFAULT.to_owned() }],
        Some(path) => read(path)?,
    };
    let (config, mut diagnostics) = Config::read(sources);
    let policy =
        Policy::compile(&config, &mut diagnostics).and_then(|policy| bounded(policy, &config, &mut diagnostics));
    Ok(Loaded { config, policy, diagnostics })
}

/// How many series of metrics a daemon has that begins with this policy.
#[must_use]
pub fn series(config: &Config, policy: Arc<Policy>) -> usize {
    let Ok(metrics) = Metrics::new() else {
        return 0;
    };
    let _series = metrics.adopt(&policy, &config.hash);
    for (number, listen) in config.server.listen.iter().enumerate() {
        // Ports that are not known yet are the same.
        let _traffic = metrics.listener(&format!("{number} {}", listen.value.endpoint));
    }
    (0..workers(&config.server)).for_each(|worker| metrics.worker_busy(worker, Duration::ZERO));
    metrics.series()
}

/// The policy, unless it has more series than Prometheus is to be given: each costs it memory for as long as it keeps data.
fn bounded(policy: Policy, config: &Config, diagnostics: &mut Diagnostics) -> Option<Policy> {
    let Some(listen) = &config.http.listen else {
        return Some(policy);
    };
    let policy = Arc::new(policy);
    let (series, most) = (series(config, Arc::clone(&policy)), config.http.max_series);
    if series > most {
        let limits = policy.counters().len();
        let message = format!(
            "the metrics of this policy are {series} series, more than max_series = {most}: {} rules, {limits} measures of limits",
            policy.rules().len(),
        );
        let hint =
            format!("if Prometheus can bear that, write max_series = {} in [http]", series.next_multiple_of(500));
        diagnostics.push(Diagnostic::error(listen.place.clone(), message).hint(hint));
        return None;
    }
    Arc::into_inner(policy)
}

/// As [`load()`], and warns of what is not there on this host: `serve` does not start without it, and then says so itself;
/// but a configuration may be checked elsewhere.
///
/// # Errors
///
/// As for [`load()`].
pub fn check(path: Option<&Path>) -> Result<Loaded, (PathBuf, io::Error)> {
    let mut loaded = load(path)?;
    look_around(&loaded.config, &mut loaded.diagnostics);
    Ok(loaded)
}

fn look_around(config: &Config, diagnostics: &mut Diagnostics) {
    let groups = [
        (&config.server.group, "server.group"),
        (&config.server.socket_group, listener::SOCKET_GROUP),
        (&config.server.control_group, listener::CONTROL_GROUP),
    ];
    for (group, key) in groups {
        if let Some(name) = group
            && let Err(error) = listener::group(&name.value, key)
        {
            diagnostics.push(Diagnostic::warning(name.place.clone(), error.to_string()));
        }
    }
    // Not whether it may be written or read: that is for another user.
    let is_directory = |path: &Path| match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(error) => Err(error),
    };
    let mut directory_of = |key: &str, path: &Path, place: &Place| {
        if let Some(directory) = path.parent()
            && let Err(error) = is_directory(directory)
        {
            let message = format!("{key}: cannot make a socket in {} here: {error}", directory.display());
            let hint =
                "make the directory; of one below /run, RuntimeDirectory= in a systemd unit does so at each start";
            diagnostics.push(Diagnostic::warning(place.clone(), message).hint(hint));
        }
    };
    for listen in &config.server.listen {
        if let Endpoint::Unix(path) = &listen.value.endpoint {
            directory_of("server.listen", path, &listen.place);
        }
    }
    if let Some(path) = &config.server.control {
        directory_of("server.control", &path.value, &path.place);
    }
    if let Some(path) = &config.state.path
        && let Err(error) = is_directory(&path.value)
    {
        let message = format!("state.path: cannot keep counters in {} here: {error}", path.value.display());
        diagnostics.push(Diagnostic::warning(path.place.clone(), message));
    }
    config.notify.iter().filter_map(notify::unusable).for_each(|problem| diagnostics.push(problem));
    config.notify.iter().filter_map(notify::exposed).for_each(|problem| diagnostics.push(problem));
    if let Some(path) = &config.state.path
        && let Some(problem) = upkeep::others(&path.value, identity::expected_uid(&config.server))
    {
        let message = format!("state.path: {}: {problem}", path.value.display());
        diagnostics.push(Diagnostic::warning(path.place.clone(), message));
    }
    let is_user = |user: &str| User::from_name(user).is_ok_and(|user| user.is_some());
    if let Some(user) = config.server.user.as_ref().filter(|user| !is_user(&user.value)) {
        let message = format!("server.user: there is no user `{}` on this system", user.value);
        diagnostics.push(Diagnostic::warning(user.place.clone(), message));
    }
    too_many_workers(&config.server).into_iter().for_each(|problem| diagnostics.push(problem));
    http::unusable_token(&config.http).into_iter().for_each(|problem| diagnostics.push(problem));
    let mut warn = |question: &At<Question>, _| {
        let Question::DiskFree { path, .. } = &question.value else {
            return;
        };
        if let Err(error) = fs::metadata(path) {
            let message = format!("disk_free: cannot look at {} here: {error}", path.display());
            diagnostics.push(Diagnostic::warning(question.place.clone(), message));
        }
    };
    for rule in &config.rules {
        rule.when.for_each(true, &mut warn);
        if let Some(unless) = &rule.unless {
            unless.for_each(true, &mut warn);
        }
    }
}

fn read(path: &Path) -> Result<Vec<Source>, (PathBuf, io::Error)> {
    let mut sources = vec![source(path)?];
    let drop_in = path.parent().unwrap_or_else(|| Path::new(".")).join("conf.d");
    let entries = match fs::read_dir(&drop_in) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sources),
        Err(error) => return Err((drop_in, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| (drop_in.clone(), error))?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        sources.push(source(&path)?);
    }
    Ok(sources)
}

fn source(path: &Path) -> Result<Source, (PathBuf, io::Error)> {
    let text = fs::read(path).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = valid.split(|byte| *byte == b'\n').count();
            io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
        })
    });
    match text {
        Ok(text) => Ok(Source { path: path.to_owned(), text }),
        Err(error) => Err((path.to_owned(), error)),
    }
}
