//! The documentation held to the code: what it shows loads, what exists is mentioned, and what is generated is up to date.
//! `UPDATE_DOCS=1 cargo test --test docs` writes the generated page.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper that fails fails the test")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use postward::config::Config;
use postward::config::Diagnostics;
use postward::config::Notice;
use postward::config::Severity;
use postward::config::Source;
use postward::config::Variable;
use postward::facts::Fact;
use postward::facts::Stage;
use postward::metrics::Metrics;
use postward::policy::Policy;
use postward::server;

// What is generated

#[test]
fn the_page_of_facts_is_what_the_code_says() {
    let path = project("docs/facts.md");
    let expected = facts_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/facts.md is out of date: UPDATE_DOCS=1 cargo test --test docs");
}

#[test]
fn the_table_of_metrics_is_what_the_code_says() {
    const START: &str = "<!-- generated from the code: UPDATE_DOCS=1 cargo test --test docs -->\n";
    const END: &str = "<!-- end of what is generated -->\n";
    let path = project("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).expect("the start of the table is marked");
    let (_, after) = rest.split_once(END).expect("the end of the table is marked");
    let expected = format!("{before}{START}{}{END}{after}", metrics_table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(found == expected, "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test --test docs");
    for label in metrics().iter().flat_map(|metric| metric.labels.iter()) {
        assert!(after.contains(&format!("\n| `{label}` |")), "docs/metrics.md does not explain the label {label}");
    }
}

fn metrics_table() -> String {
    let mut table = String::from("| metric | type | labels | is |\n| --- | --- | --- | --- |\n");
    for Metric { name, kind, help, labels } in metrics() {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let help = help.replace('|', "\\|");
        table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    table
}

/// A metric as it is served.
struct Metric {
    name: String,
    kind: String,
    help: String,
    labels: Vec<String>,
}

/// All metrics of a policy that has all that metrics are about.
fn metrics() -> Vec<Metric> {
    let rules = "[notify.n]\ncommand = \"/bin/true\"\n\
                 [lists.l]\nnetworks = \"192.0.2.0/24\"\n\
                 [[rule]]\nname = \"r\"\nwhen.client = \"@l\"\nlimit.messages = \"1/hour\"\nnotify = \"n\"\n";
    let (policy, diagnostics) = compile(rules);
    let policy = policy.unwrap_or_else(|| panic!("{diagnostics}"));
    let (metrics, policy) = (Metrics::new().unwrap(), Arc::new(policy));
    let _series = metrics.adopt(&policy, "");
    let _traffic = metrics.listener("inet:127.0.0.1:8891");
    metrics.worker_busy(0, Duration::ZERO);
    let encoded = metrics.encode().unwrap();
    let mut found: Vec<Metric> = Vec::new();
    for line in encoded.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", name, help] => found.push(Metric {
                name: name.to_owned(),
                kind: String::new(),
                help: help.to_owned(),
                labels: Vec::new(),
            }),
            ["#", "TYPE", name, kind] => {
                let metric = found.last_mut().unwrap();
                assert_eq!(metric.name, name, "a metric has a help and a type");
                metric.kind = kind.to_owned();
            }
            _ => {
                let metric = found.last_mut().unwrap();
                let labels = line.split_once('{').map_or("", |(_, labels)| labels);
                for (name, _) in labels.split(',').filter_map(|label| label.split_once("=\"")) {
                    let is_new = name != "le" && !metric.labels.iter().any(|known| known == name);
                    metric.labels.extend(is_new.then(|| name.to_owned()));
                }
            }
        }
    }
    assert!(found.len() > 30, "{encoded}");
    found
}

fn facts_page() -> String {
    let mut page = String::from(
        "# Facts\n\n\
         What `when` and `unless` of a rule can ask, see [configuration.md](configuration.md#when-and-unless). A list of \
         values\nholds if one of them does. This page is generated from the code: `UPDATE_DOCS=1 cargo test --test docs`.\n\n\
         | fact | known at | asked with | is |\n| --- | --- | --- | --- |\n",
    );
    for fact in Fact::ALL {
        page += &format!("| `{}` | {} | {} | {} |\n", fact.name(), fact.stage(), fact.values(), fact.meaning());
    }
    page += "\nThe size is known for sure at the end of the message; a rule that refuses what is *larger* than something \
             also judges\nthe declared size, at MAIL or as soon as its other facts are known.\n";
    page
}

// What is shown

#[test]
fn every_toml_block_loads() {
    let blocks: Vec<Block> = pages().iter().flat_map(|page| blocks(page)).collect();
    assert!(blocks.len() >= 10, "only {} blocks were found", blocks.len());
    for block in blocks {
        let (_, diagnostics) = compile(&block.loadable());
        let bad = |severity| severity == Severity::Error || !block.is_fragment;
        assert!(!diagnostics.list.iter().any(|d| bad(d.severity)), "{}:{}\n{diagnostics}", block.page, block.line);
    }
}

#[test]
fn the_rules_that_people_want_are_at_least_ten_and_load_without_a_word() {
    let readme = read("README.md");
    let heading = readme.lines().position(|line| line == "## Rules that people want").unwrap() + 1;
    let block = blocks("README.md").into_iter().find(|block| block.line > heading).unwrap();
    assert!(!block.is_fragment);
    let (policy, diagnostics) = compile(&block.text);
    assert!(diagnostics.list.is_empty(), "{diagnostics}");
    let policy = policy.unwrap();
    assert!(policy.rules().len() >= 10);
    for rule in policy.rules() {
        assert!(readme.contains(&format!("| `{}` |", rule.name)), "the table does not explain rule {}", rule.name);
    }
}

#[test]
fn every_shipped_configuration_loads_without_a_word() {
    let mut paths = vec![project("conf/postward.toml")];
    for entry in fs::read_dir(project("conf/examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(read("README.md").contains(name), "README.md does not mention {name}");
        paths.push(path);
    }
    assert!(paths.len() >= 7);
    for path in paths {
        let loaded = server::load(Some(&path)).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(loaded.diagnostics.list.is_empty(), "{}", loaded.diagnostics);
        assert!(loaded.policy.is_some());
    }
}

#[test]
fn every_default_reply_is_the_one_in_the_table() {
    let lists = "[lists.l]\naddresses = \"a@b.example\"\nsenders.a = \"b.example\"\n";
    for (about, rule, stage) in [
        ("`over_quota`", "when.over_quota = \"@l\"", Stage::Rcpt),
        ("`size`", "when.size = \"> 1 MiB\"", Stage::Mail),
        ("`size` and `recipient`", "when = { size = \"> 1 MiB\", recipient = \"@l\" }", Stage::Rcpt),
        ("`disk_free`", "when.disk_free = { path = \"/\", below = \"1 GiB\" }", Stage::Mail),
        ("`disk_free`, at RCPT", "when.disk_free = { path = \"/\", below = \"1 GiB\" }\nat = \"rcpt\"", Stage::Rcpt),
        ("`recipients`", "when.recipients = \"> 10\"", Stage::Rcpt),
        ("`sender_login_mismatch`", "when.sender_login_mismatch = \"@l\"", Stage::Mail),
        ("`recipient`", "when.recipient = \"b.example\"", Stage::Rcpt),
        ("`sender`", "when.sender = \"b.example\"", Stage::Mail),
        ("`sender_domain`", "when.sender_domain = \"b.example\"", Stage::Mail),
        ("`helo`", "when.helo = \"b.example\"", Stage::Mail),
        ("`client`", "when.client = \"192.0.2.1\"", Stage::Mail),
        ("`client_name`", "when.client_name = \"unknown\"", Stage::Mail),
        ("`authenticated = false`", "when.authenticated = false", Stage::Mail),
        ("`tls = false`", "when.tls = false", Stage::Mail),
        ("anything else", "when.port = 25", Stage::Mail),
        ("a limit on `messages`, at MAIL", "limit.messages = \"1/hour\"", Stage::Mail),
        ("a limit on `messages`, at RCPT", "limit = { messages = \"1/hour\", key = \"recipient\" }", Stage::Rcpt),
        ("a limit on `recipients`", "limit.recipients = \"1/hour\"", Stage::Rcpt),
        ("a limit on `bytes`", "limit.bytes = \"1 MiB/hour\"", Stage::Mail),
        (
            "a limit on `distinct`, at MAIL",
            "limit = { key = \"login\", distinct = \"5/hour\", of = \"client\" }",
            Stage::Mail,
        ),
        (
            "a limit on `distinct`, at RCPT",
            "limit = { key = \"login\", distinct = \"5/hour\", of = \"recipient\" }",
            Stage::Rcpt,
        ),
        (
            "a limit on `bad_recipients`",
            "limit = { key = \"client\", bad_recipients = \"30% of 20/hour\" }",
            Stage::Rcpt,
        ),
        ("a limit on `connections`", "limit.connections = \"1/hour\"", Stage::Mail),
        ("a limit on `concurrent`", "limit.concurrent = 1", Stage::Mail),
    ] {
        let (policy, diagnostics) = compile(&format!("{lists}[[rule]]\nname = \"r\"\n{rule}\n"));
        let policy = policy.unwrap_or_else(|| panic!("{about}: {diagnostics}"));
        let spoken = policy.outlines().iter().find(|outline| outline.answered == stage);
        let (status, text) = spoken.and_then(|outline| outline.reply.clone()).unwrap_or_else(|| panic!("{about}"));
        expect_row("README.md", &format!("| {about} | `{status}` | {text} |"));
    }
    let failed = Policy::internal_error();
    let about = "mail that cannot be judged (`server.on_error`)";
    expect_row("README.md", &format!("| {about} | `{}` | {} |", failed.status(), failed.text()));
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let text = read(&page);
        let folder = project(&page).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if path.contains("://") {
                continue;
            }
            let target = if path.is_empty() { project(&page) } else { folder.join(path) };
            assert!(target.exists(), "{page}: {link}");
            let has_anchor = anchor.is_empty() || anchors(&fs::read_to_string(target).unwrap()).any(|a| a == anchor);
            assert!(has_anchor, "{page}: no heading for {link}");
        }
    }
}

// What must be mentioned

#[test]
fn every_key_is_explained() {
    let page = read("docs/configuration.md");
    for (section, text) in [
        ("## `[server]`", "[server]\nzzzzzz = 1"),
        ("## `[http]`", "[http]\nzzzzzz = 1"),
        ("## `[log]`", "[log]\nzzzzzz = 1"),
        ("## `[policy]`", "[policy]\nzzzzzz = 1"),
        ("## `[state]`", "[state]\nzzzzzz = 1"),
        ("## `[lists.NAME]`", "[lists.l]\nzzzzzz = 1"),
        ("## `[notify.NAME]`", "[notify.n]\nzzzzzz = 1"),
        ("## `[[rule]]`", "[[rule]]\nname = \"r\"\nzzzzzz = 1"),
        ("### `limit`", "[[rule]]\nname = \"r\"\nlimit.zzzzzz = 1"),
    ] {
        let section_text = section_of(&page, section);
        for key in known_keys(text) {
            assert!(section_text.contains(&format!("\n| `{key}` |")), "{section} does not explain `{key}`");
        }
    }
    for key in known_keys("[[rule]]\nname = \"r\"\nwhen.zzzzzz = 1") {
        let is_fact = Fact::ALL.iter().any(|fact| fact.name() == key);
        assert!(is_fact || page.contains(&format!("\n| `{key}` |")), "`{key}` of `when` is not explained");
    }
    for key in known_keys("[[rule]]\nname = \"r\"\nwhen.disk_free.zzzzzz = 1") {
        assert!(page.contains(&format!("`{key}`, ")), "`{key}` of `disk_free` is not explained");
    }
    for section in known_keys("zzzzzz = 1") {
        let summary = read("docs/man/postward.toml.5");
        assert!(summary.contains(&format!("[{section}")), "postward.toml(5) does not mention {section}");
    }
}

#[test]
fn every_variable_is_explained() {
    for variable in Variable::ALL {
        expect_row("docs/configuration.md", &format!("\n| `{{{}}}` |", variable.name()));
    }
}

#[test]
fn every_notice_is_explained() {
    for notice in Notice::ALL {
        expect_row("docs/configuration.md", &format!("\n| `{}` | {} |", notice.name(), notice.meaning()));
    }
}

#[test]
fn no_metric_is_named_that_there_is_not() {
    let names: Vec<String> = metrics().into_iter().map(|metric| metric.name).collect();
    let mut files = pages();
    files.extend(["conf/grafana/postward.json", "conf/prometheus/postward.rules.yml"].map(str::to_owned));
    for file in files {
        let text = read(&file);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:.-".contains(c)));
        let is_metric = |word: &&str| word.starts_with("postward_") && !word.contains([':', '.', '-']);
        for word in words.filter(is_metric) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
            assert!(names.iter().any(|name| name == base || name == word), "{file}: there is no metric {word}");
        }
    }
}

/// The README names those that people look at first.
#[test]
fn the_readme_leads_to_the_metrics() {
    let readme = read("README.md");
    let section = section_of(&readme, "## Metrics");
    assert!(section.contains("(docs/metrics.md)") && section.contains("`postward_replies_total`"));
}

#[test]
fn the_man_page_has_every_command_and_option() {
    let page = read("docs/man/postward.8").replace("\\-", "-");
    let help = help(&[]);
    let mut options = option_names(&help);
    let commands = lines_after(&help, "Commands:").filter_map(|line| line.split_whitespace().next());
    for command in commands.filter(|command| !command.is_empty()) {
        assert!(page.contains(&format!("\n.B {command}\n")), "the man page has no command {command}");
        if command != "help" {
            let help = self::help(&[command]);
            options.extend(option_names(&help));
            let below = lines_after(&help, "Commands:").filter_map(|line| line.split_whitespace().next());
            for below in below.filter(|below| *below != "help") {
                assert!(page.contains(&format!("\n.B {below}\n")), "the man page has no command {command} {below}");
                options.extend(option_names(&self::help(&[command, below])));
            }
        }
    }
    assert!(options.iter().any(|option| option == "--config"), "{options:?}");
    for option in options {
        assert!(page.contains(&option), "the man page has no option {option}");
    }
}

#[test]
fn every_page_is_about_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for page in ["docs/man/postward.8", "docs/man/postward.toml.5"] {
        let title = read(page).lines().next().unwrap_or_default().to_owned();
        assert!(title.contains(&format!("\"Postward {version}\"")), "{page}: {title}");
    }
    assert!(read("CHANGELOG.md").contains(&format!("\n## [{version}]")), "CHANGELOG.md has no {version}");
}

// Helpers

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages for users.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for entry in fs::read_dir(project("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    pages
}

fn compile(text: &str) -> (Option<Policy>, Diagnostics) {
    let source = Source { path: "text".into(), text: text.to_owned() };
    let (config, mut diagnostics) = Config::read(vec![source]);
    (Policy::compile(&config, &mut diagnostics), diagnostics)
}

/// A fenced block that starts with ```` ```toml ````, or with ```` ```toml fragment ````: a part of a configuration, or of a
/// rule if it does not begin with a table.
struct Block {
    page: String,
    line: usize,
    is_fragment: bool,
    text: String,
}

impl Block {
    /// With what a fragment lacks: the rule around it, and the lists that it names.
    fn loadable(&self) -> String {
        if !self.is_fragment {
            return self.text.clone();
        }
        let begins_with_a_table = self.text.lines().any(|line| line.starts_with('['));
        let rule = if begins_with_a_table { "" } else { "[[rule]]\nname = \"fragment\"\n" };
        let mut text = format!("{rule}{}\n", self.text);
        for name in self.text.split("\"@").skip(1).filter_map(|rest| rest.split('"').next()) {
            if !text.contains(&format!("[lists.{name}")) {
                text += &format!(
                    "[lists.{name}]\nnetworks = \"192.0.2.0/24\"\ndomains = \"b.example\"\naddresses = \"a@b.example\"\n\
                     logins = \"a\"\nsenders.a = \"b.example\"\n"
                );
            }
        }
        text
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in read(page).lines().enumerate() {
        let fence = line.strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, Some(info)) => {
                let is_fragment = info == "toml fragment";
                open = Some(Block { page: page.to_owned(), line: number + 1, is_fragment, text: String::new() });
                if !is_fragment && info != "toml" {
                    assert!(!info.starts_with("toml"), "{page}:{}: ```{info}", number + 1);
                    open = Some(Block { page: String::new(), line: 0, is_fragment, text: String::new() });
                }
            }
            (None, None) => {}
        }
    }
    found.retain(|block| !block.page.is_empty());
    found
}

fn expect_row(page: &str, row: &str) {
    assert!(read(page).contains(row), "{page} lacks: {row}");
}

/// The text from this heading to the next one of its level or above.
fn section_of<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let text = &page[start + 1 + heading.len()..];
    let level = heading.split(' ').next().unwrap_or_default();
    let end = (2..=level.len()).filter_map(|depth| text.find(&format!("\n{} ", "#".repeat(depth)))).min();
    &text[..end.unwrap_or(text.len())]
}

/// The keys that the configuration knows in a table, as it tells whoever writes an unknown one.
fn known_keys(text: &str) -> Vec<String> {
    let (_, diagnostics) = compile(text);
    let hint = diagnostics.list.iter().filter(|d| d.message.contains("zzzzzz")).find_map(|d| d.hint.clone());
    let keys = hint.as_deref().and_then(|hint| hint.strip_prefix("known here: "));
    keys.unwrap_or_else(|| panic!("{text}: {diagnostics}")).split(", ").map(str::to_owned).collect()
}

/// The anchors that a page's headings have on the web.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    })
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_postward")).args(command).arg("--help").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// `-c` and `--config` of `  -c, --config <FILE>`.
fn option_names(help: &str) -> Vec<String> {
    let lines = lines_after(help, "Options:").map(str::trim).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([',', ' ', '=']).take_while(|word| !word.starts_with('<')));
    words.filter(|word| word.starts_with('-')).map(str::to_owned).collect()
}

fn lines_after<'a>(text: &'a str, heading: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with(' '))
}
