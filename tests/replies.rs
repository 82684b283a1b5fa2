//! Replies, good and bad, and what the linter says of each: `tests/replies/*.txt`, and what has to be true of all of them.
//!
//! A case is some comment, a rule without its name (and whatever else the configuration needs), and the whole verdict:
//! `=> fine`, or each diagnostic with its hint. `<<32 x>>` stands for 32 times that letter or text. Cases are parted by empty
//! lines. `UPDATE_EXPECT=1 cargo test --test replies` writes the verdicts anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postward::config::Config;
use postward::config::Diagnostic;
use postward::config::Diagnostics;
use postward::config::Notice;
use postward::config::Severity;
use postward::config::Source;
use postward::facts::Stage;
use postward::policy::Policy;
use postward::reply::Status;
use serde_json::Value;

use support::TempDir;
use support::postward;

// The fixtures

/// A case of a fixture.
struct Case {
    comment: Vec<String>,
    rule: Vec<String>,
    expected: String,
}

impl Case {
    fn parse(block: &str) -> Self {
        let mut case = Self { comment: Vec::new(), rule: Vec::new(), expected: String::new() };
        for line in block.lines() {
            if line.starts_with("=> ") || !case.expected.is_empty() {
                case.expected.push_str(&format!("{line}\n"));
            } else if line.starts_with("# ") && case.rule.is_empty() {
                case.comment.push(line.to_owned());
            } else {
                case.rule.push(line.to_owned());
            }
        }
        case
    }

    /// Words for the reader of a file, and no rule.
    fn is_prose(&self) -> bool {
        self.rule.is_empty()
    }

    fn diagnostics(&self) -> Diagnostics {
        let rule: String = self.rule.iter().map(|line| format!("{}\n", repeat(line))).collect();
        let (diagnostics, _) = compile(format!("[[rule]]\nname = \"reply\"\n{rule}"));
        diagnostics
    }

    fn with_verdict(&self, verdict: &str) -> String {
        let lines: String = self.comment.iter().chain(&self.rule).map(|line| format!("{line}\n")).collect();
        lines + verdict
    }
}

/// Every case of every file, with the file's name.
fn cases() -> Vec<(String, Vec<Case>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replies");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &Path| fs::read_to_string(path).unwrap().split("\n\n").map(Case::parse).collect();
    files.iter().map(|path| (path.to_str().unwrap().to_owned(), read(path))).collect()
}

/// Puts in what `<<3 text>>` stands for, the innermost first.
fn repeat(line: &str) -> String {
    let Some((before, after)) = line.split_once(">>") else {
        return line.to_owned();
    };
    let (before, inner) = before.rsplit_once("<<").unwrap();
    let (times, text) = inner.split_once(' ').unwrap();
    repeat(&format!("{before}{}{after}", text.repeat(times.parse().unwrap())))
}

/// A policy of this text, and all that is said of it.
fn compile(text: String) -> (Diagnostics, Option<Policy>) {
    let (config, mut diagnostics) = Config::read(vec![Source { path: "reply.toml".into(), text }]);
    let policy = Policy::compile(&config, &mut diagnostics);
    (diagnostics, policy)
}

/// As it stands in the fixtures.
fn verdict(diagnostics: &[&Diagnostic]) -> String {
    if diagnostics.is_empty() {
        return "=> fine\n".to_owned();
    }
    let shown = diagnostics.iter().map(|diagnostic| {
        let notice = diagnostic.notice.map(|notice| format!("[{}]", notice.name())).unwrap_or_default();
        let hint = diagnostic.hint.as_ref().map(|hint| format!("   help: {hint}\n")).unwrap_or_default();
        format!("=> {}{notice}: {}\n{hint}", diagnostic.severity.name(), diagnostic.message)
    });
    shown.collect()
}

#[test]
fn every_reply_is_judged_as_its_fixture_says() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut failures = String::new();
    for (path, cases) in cases() {
        let mut text = Vec::new();
        for case in cases {
            if case.is_prose() {
                text.push(case.with_verdict(""));
                continue;
            }
            let said = verdict(&case.diagnostics().sorted());
            if said != case.expected {
                failures.push_str(&format!("{path}: not as expected:\n{}\n", case.with_verdict(&said)));
            }
            text.push(case.with_verdict(&said));
        }
        if update {
            fs::write(&path, text.join("\n")).unwrap();
        }
    }
    assert!(failures.is_empty() || update, "{failures}");
}

/// Each kind of notice is met twice, and each case says what it is about.
#[test]
fn the_fixtures_leave_no_notice_out() {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = 0;
    for (path, cases) in cases() {
        for case in cases.iter().filter(|case| !case.is_prose()) {
            assert!(!case.comment.is_empty(), "{path}: {:?} says nothing about itself", case.rule);
            count += 1;
            for diagnostic in case.diagnostics().sorted() {
                if let Some(notice) = diagnostic.notice {
                    *met.entry(notice.name()).or_default() += 1;
                }
            }
        }
    }
    let rare: Vec<&str> =
        Notice::ALL.map(Notice::name).into_iter().filter(|name| met.get(name).is_none_or(|met| *met < 2)).collect();
    assert!(rare.is_empty() && count >= 90, "{count} cases; met less than twice: {rare:?}");
}

#[test]
fn every_error_and_every_notice_has_a_hint() {
    for (path, cases) in cases() {
        // What is no rule at all has not come before the linter.
        let linted = cases.iter().map(Case::diagnostics).filter(|diagnostics| !diagnostics.partial);
        for diagnostic in linted.flat_map(|diagnostics| diagnostics.list) {
            assert!(diagnostic.hint.is_some_and(|hint| !hint.is_empty()), "{path}: {}", diagnostic.message);
        }
    }
}

// What is true of every reply

/// One rule of each kind that has a reply of its own by default, with what it takes to be that kind.
const KINDS: [&str; 23] = [
    "when.authenticated = false",
    "when.client = \"192.0.2.0/24\"",
    "when.client_name = \"unknown\"",
    "when.disk_free = { path = \"/\", below = \"1 GiB\" }",
    "when.helo = \"localhost\"",
    "when.over_quota = \"@example\"",
    "when.port = 2525",
    "when.recipient = \"bob@example.com\"",
    "when.recipients = \"> 100\"",
    "when.sender = \"<>\"",
    "when.sender_domain = \"example.com\"",
    "when.sender_login_mismatch = \"@example\"",
    "when.size = \"> 25 MiB\"",
    "when = { size = \"> 25 MiB\", disk_free = { path = \"/\", below = \"1 GiB\" } }",
    "when = { size = \"> 25 MiB\", recipient = \"bob@example.com\" }",
    "when = { tls = false, port = 587 }",
    "limit = { key = \"client\", bytes = \"1 GiB/day\" }",
    "limit = { key = \"client\", concurrent = 10 }",
    "limit = { key = \"client\", connections = \"100/hour\" }",
    "limit = { key = \"client\", bad_recipients = \"30% of 20/hour\" }",
    "limit = { key = \"login\", distinct = \"5/hour\", of = \"client/24\" }",
    "limit = { key = \"client\", messages = \"100/hour\" }",
    "limit = { key = \"client\", recipients = \"100/hour\" }",
];

const LISTS: &str = "
    [lists.example]
    addresses = [\"bob@example.com\"]
    senders = { crm = \"example.com\" }
";

const STAGES: [Stage; 5] = [Stage::Connect, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfMessage];

/// Enhanced codes of every fate, without their class: for some codes, about recipients, a success, of the other class,
/// deprecated, for all codes, a vendor's.
const DETAILS: [&str; 9] = ["1.1", "1.2", "1.5", "2.2", "3.1", "6.10", "7.1", "7.28", "7.500"];

fn codes() -> impl Iterator<Item = u16> {
    (400..=459).chain(500..=559)
}

/// What is said of each of these rules.
fn judge(rules: &[String]) -> Vec<Vec<Diagnostic>> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        starts.push(text.len());
        text.push_str(&format!("[[rule]]\nname = \"rule-{number}\"\n{rule}\n"));
    }
    let end = text.len();
    let (diagnostics, _) = compile(text + LISTS);
    assert!(!diagnostics.partial, "{diagnostics}");
    assert!(diagnostics.list.is_empty() || !diagnostics.render(false).is_empty());
    let mut of_rules = vec![Vec::new(); rules.len()];
    // Behind the end stands what is said of the lists.
    for diagnostic in diagnostics.sorted().into_iter().filter(|diagnostic| diagnostic.place.span.start < end) {
        let rule = starts.partition_point(|start| *start <= diagnostic.place.span.start) - 1;
        of_rules[rule].push(diagnostic.clone());
    }
    of_rules
}

/// The stages at which a rule of this kind can be told to answer.
fn stages(kind: &str) -> impl Iterator<Item = Stage> {
    STAGES.into_iter().filter(move |stage| {
        let said = judge(&[format!("{kind}\nat = \"{stage}\"")]);
        !said[0].iter().any(|diagnostic| diagnostic.message.contains("cannot answer at"))
    })
}

/// `at` and `disconnect` as well as `reply`, as somebody would write it who wants just that.
fn rule(kind: &str, at: Stage, status: &str) -> String {
    let disconnect = if status.starts_with("421") || status.starts_with("521") { "disconnect = true\n" } else { "" };
    format!("{kind}\nat = \"{at}\"\n{disconnect}reply = \"{status} Not this way\"")
}

/// Somebody who writes out what happens anyway has done nothing unusual.
#[test]
fn a_default_reply_written_out_gives_neither_error_nor_notice() {
    let mut written = 0;
    for kind in KINDS {
        for at in stages(kind).map(|stage| format!("at = \"{stage}\"\n")).chain([String::new()]) {
            let (_, policy) = compile(format!("[[rule]]\nname = \"default\"\n{kind}\n{at}{LISTS}"));
            // 550 at CONNECT: that it does not get there is said of the default, too.
            for outline in policy.iter().flat_map(Policy::outlines) {
                let (status, text) = outline.reply.as_ref().unwrap();
                let disconnect = if status.code() == 421 { "disconnect = true\n" } else { "" };
                let said = judge(&[format!("{kind}\n{at}{disconnect}reply = \"{status} {text}\"")]);
                assert!(
                    said[0].is_empty(),
                    "{kind}\n{at}{status} {text}: {}",
                    verdict(&said[0].iter().collect::<Vec<_>>())
                );
                written += 1;
            }
        }
    }
    assert!(written > 80, "only {written} defaults");
}

/// Advice that leads to the next complaint is none.
#[test]
fn what_a_hint_says_to_use_passes_in_silence() {
    let mut failures = String::new();
    for kind in KINDS {
        for stage in stages(kind) {
            let can_wait = stage < Stage::Rcpt && stages(kind).any(|stage| stage == Stage::Rcpt);
            let mut said = Vec::new();
            for code in codes() {
                let status = |detail: &&str| format!("{code} {}.{detail}", code / 100);
                said.extend(DETAILS.iter().map(status).map(|status| (rule(kind, stage, &status), status)));
            }
            let rules: Vec<String> = said.iter().map(|(rule, _)| rule.clone()).collect();
            let mut followed: BTreeMap<String, String> = BTreeMap::new();
            for ((_, status), diagnostics) in said.iter().zip(judge(&rules)) {
                if diagnostics.iter().any(|diagnostic| diagnostic.message.contains("would not see")) {
                    // It is judged as at MAIL, which has its turn.
                    continue;
                }
                for diagnostic in diagnostics {
                    let hint = diagnostic.hint.unwrap();
                    assert!(can_wait || !hint.contains("at = \"rcpt\""), "{status} at {stage}: {hint}");
                    let at = if hint.contains("with at = \"rcpt\"") { Stage::Rcpt } else { stage };
                    for advised in advised(&hint) {
                        let disconnects = rule(kind, at, &advised).contains("disconnect");
                        let had = rule(kind, at, status).contains("disconnect");
                        assert_eq!(disconnects && !had, hint.contains("with `disconnect = true`"), "{status}: {hint}");
                        followed.insert(rule(kind, at, &advised), format!("{status}: {hint}"));
                    }
                }
            }
            let rules: Vec<String> = followed.keys().cloned().collect();
            for ((rule, hint), diagnostics) in followed.iter().zip(judge(&rules)) {
                let complaints: Vec<&Diagnostic> = diagnostics.iter().collect();
                if !complaints.is_empty() {
                    failures.push_str(&format!("{hint}\nleads to\n{rule}\n{}\n", verdict(&complaints)));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Every `use 550 5.7.1` in a hint.
fn advised(hint: &str) -> Vec<String> {
    let after_use = hint.match_indices("use ").map(|(at, word)| &hint[at + word.len()..]);
    let statuses = after_use.filter_map(|rest| {
        let words: Vec<&str> = rest.splitn(3, ' ').collect();
        let enhanced = words.get(1)?.trim_end_matches([',', '.', ';', ':']);
        format!("{} {enhanced}", words[0]).parse::<Status>().ok()
    });
    statuses.map(|status| status.to_string()).collect()
}

#[test]
fn whatever_a_rule_says_is_answered_and_with_a_hint() {
    // All that are registered, and one more of each subject.
    let lasts = [0, 10, 4, 6, 9, 6, 10, 30];
    let registered = lasts.iter().enumerate().flat_map(|(subject, last)| (0..=last + 1).map(move |at| (subject, at)));
    let details: Vec<String> = registered
        .chain([(4, 14), (7, 57), (7, 500), (7, 699), (8, 0), (9, 9), (999, 999)])
        .map(|(subject, detail)| format!("{subject}.{detail}"))
        .collect();
    let mut names = BTreeSet::new();
    for stage in STAGES {
        for code in codes() {
            let status = |detail: &String| format!("{code} {}.{detail}", code / 100);
            let rules: Vec<String> =
                details.iter().map(|detail| rule("when.client = \"192.0.2.0/24\"", stage, &status(detail))).collect();
            for diagnostic in judge(&rules).into_iter().flatten() {
                assert!(
                    diagnostic.hint.is_some_and(|hint| !hint.is_empty()),
                    "{code} at {stage}: {}",
                    diagnostic.message
                );
                assert_ne!(diagnostic.severity, Severity::Warning, "{code} at {stage}: {}", diagnostic.message);
                names.extend(diagnostic.notice.map(Notice::name));
            }
        }
    }
    assert!(names.len() >= 8, "{names:?}");
}

// The program

const UNUSUAL: &str = "[[rule]]\nname = \"late\"\nwhen.client = \"192.0.2.0/24\"\nreply = \"554 5.7.1 Go away\"\n";

#[test]
fn a_notice_is_an_error_only_where_somebody_is_strict() {
    let directory = TempDir::new("r");
    let path = directory.write("postward.toml", UNUSUAL);
    let check = |arguments: &[&str]| {
        let output = postward(&[&["check"], arguments, &[path.to_str().unwrap()]].concat());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code())
    };
    let (plan, notice, code) = check(&[]);
    assert!(notice.starts_with("notice[unusual-stage]: 554 is not usual at mail\n"), "{notice}");
    assert!(plan.contains("can be used, with 1 notice.") && code == Some(0), "{plan}");

    let (plan, error, code) = check(&["--strict"]);
    assert!(error.starts_with("error[unusual-stage]: 554 is not usual at mail\n"), "{error}");
    assert!(error.ends_with(&format!("postward: 1 error in {}\n", path.display())), "{error}");
    assert_eq!((&*plan, code), ("", Some(2)));
}

#[test]
fn programs_read_the_name_of_a_notice() {
    let directory = TempDir::new("r");
    let path = directory.write("postward.toml", UNUSUAL);
    for (strict, severity, valid, expected) in [(false, "notice", true, 0), (true, "error", false, 2)] {
        let mut arguments = vec!["check", "--format", "json"];
        arguments.extend(strict.then_some("--strict"));
        arguments.push(path.to_str().unwrap());
        let output = postward(&arguments);
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        let diagnostic = &object["diagnostics"][0];
        assert_eq!((&diagnostic["notice"], &diagnostic["severity"]), (&"unusual-stage".into(), &severity.into()));
        assert_eq!((&diagnostic["line"], &diagnostic["column"]), (&4.into(), &10.into()));
        assert_eq!((&object["valid"], output.status.code()), (&valid.into(), Some(expected)));
    }
}

/// What is allowed is not even an error for the strict.
#[test]
fn what_is_allowed_passes_however_strict() {
    let directory = TempDir::new("r");
    let path = directory.write("postward.toml", &format!("{UNUSUAL}allow = \"unusual-stage\"\n"));
    let output = postward(&["check", "--strict", path.to_str().unwrap()]);
    assert_eq!((output.stderr.len(), output.status.code()), (0, Some(0)), "{output:?}");
}
