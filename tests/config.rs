//! Configurations and what must be said of them: every diagnostic has a bad configuration beside its exact text.
//!
//! `tests/config/bad/NAME.toml`, or the directory `NAME` with a `postward.toml` and a `conf.d`, gives the text in
//! `NAME.txt`; those in `good` give none. `UPDATE_EXPECT=1 cargo test --test config` writes the texts anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use postward::config::Config;
use postward::config::Diagnostics;
use postward::config::Source;
use postward::policy::Policy;
use postward::server;
use serde_json::Value;
use serde_json::json;

use support::TempDir;
use support::postward;

/// Reads and compiles `path`, a file or a directory, and says whether it gave a policy.
fn compile(path: &Path) -> (Diagnostics, bool) {
    let files = if path.is_dir() {
        let drop_ins = sorted(&path.join("conf.d"));
        [path.join("postward.toml")].into_iter().chain(drop_ins).collect()
    } else {
        vec![path.to_owned()]
    };
    let (config, mut diagnostics) = Config::read(files.iter().map(|file| source(file)).collect());
    let policy = Policy::compile(&config, &mut diagnostics);
    assert_eq!(policy.is_none(), diagnostics.has_errors(), "{}", path.display());
    (diagnostics, policy.is_some())
}

/// The file under its path below `tests/config`, so that the texts are the same wherever the tests run.
fn source(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    Source { path: path.strip_prefix(directory("")).unwrap_or(path).to_owned(), text }
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let paths: BTreeSet<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.into_iter().filter(|path| path.extension().is_none_or(|extension| extension == "toml")).collect()
}

#[test]
fn every_bad_configuration_gives_its_text() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut failures = Vec::new();
    for path in sorted(&directory("bad")) {
        let (diagnostics, _) = compile(&path);
        let text = diagnostics.render(false);
        let expected = path.with_extension("txt");
        if update {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            failures.push(format!("{}: not as in {}:\n{text}", path.display(), expected.display()));
        }
        assert!(!text.is_empty(), "{} is fine", path.display());
        assert!(!text.contains("... and"), "{}: not all is shown", path.display());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_good_configuration_gives_no_text() {
    for path in sorted(&directory("good")) {
        let (diagnostics, has_policy) = compile(&path);
        assert!(has_policy && diagnostics.list.is_empty(), "{diagnostics}");
    }
}

/// What `check --format json` gives as numbers is what people read.
#[test]
fn lines_and_columns_are_those_shown() {
    for path in sorted(&directory("bad")) {
        let (diagnostics, _) = compile(&path);
        let text = diagnostics.render(false);
        let shown = text.lines().filter_map(|line| line.trim_start().strip_prefix("--> "));
        let places = diagnostics.sorted().into_iter().map(|diagnostic| {
            let (line, column) = diagnostics.line_and_column(&diagnostic.place);
            format!("{}:{line}:{column}", diagnostics.sources[diagnostic.place.source].path.display())
        });
        assert!(shown.eq(places), "{text}");
    }
}

/// A warning is no reason to stand still.
#[test]
fn only_errors_prevent_a_policy() {
    for name in ["bad/empty-lists.toml", "bad/refuses-everything.toml", "bad/warnings.toml"] {
        let (diagnostics, has_policy) = compile(&directory(name));
        assert!(has_policy && !diagnostics.list.is_empty(), "{name}");
    }
}

/// Whatever an editor leaves half-written is answered, not met by a panic.
#[test]
fn a_configuration_cut_short_anywhere_is_answered() {
    for path in sorted(&directory("bad")).iter().chain(&sorted(&directory("good"))).filter(|path| path.is_file()) {
        let whole = source(path);
        for (end, _) in whole.text.char_indices().step_by(7) {
            let text = whole.text[..end].to_owned();
            let (config, mut diagnostics) = Config::read(vec![Source { path: whole.path.clone(), text }]);
            let policy = Policy::compile(&config, &mut diagnostics);
            assert_eq!(policy.is_none(), diagnostics.has_errors());
            assert_eq!(diagnostics.render(false).is_empty(), diagnostics.list.is_empty());
        }
    }
}

/// A list of thousands, each line wrong in the same way, neither takes forever nor fills the screen.
#[test]
fn no_more_is_shown_than_anybody_reads() {
    let text = format!("[lists.a]\nnetworks = [\n{}]\n", "    \"192.0.2.1/24\",\n".repeat(5000));
    let (_, diagnostics) = Config::read(vec![Source { path: "a.toml".into(), text }]);
    let text = diagnostics.render(false);
    assert_eq!(text.matches("error: ").count(), 100);
    assert!(text.ends_with("\n... and 4900 more\n"), "{text}");
}

// The program

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_shows_everything_wrong_at_once_and_fails() {
    for (name, command) in [
        ("bad/rules.toml", "check"),
        ("bad/syntax.toml", "check"),
        ("bad/byte-order-mark.toml", "check"),
        ("bad/drop-ins/postward.toml", "check"),
        ("bad/server.toml", "serve"),
    ] {
        let path = directory(name);
        let output = postward(&[command, "--config", path.to_str().unwrap()]);
        let loaded = server::load(Some(&path)).unwrap_or_else(|_| panic!("{name} is there"));
        let errors = loaded.diagnostics.render(false).matches("error: ").count();
        let plural = if errors == 1 { "" } else { "s" };
        let consequence = if command == "serve" { "; nothing was started" } else { "" };
        let last = format!("postward: {errors} error{plural} in {}{consequence}\n", path.display());
        assert_eq!(text(&output.stderr), loaded.diagnostics.render(false) + &last);
        assert_eq!((text(&output.stdout), output.status.code()), ("", Some(2)), "{name}");
    }
}

#[test]
fn check_warns_and_succeeds() {
    let path = directory("bad/warnings.toml");
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    assert!(text(&output.stderr).starts_with("warning: "), "{output:?}");
    let usable = format!("{} can be used, with 7 warnings. Its rules, from top to bottom:\n", path.display());
    assert!(text(&output.stdout).starts_with(&usable) && output.status.success(), "{output:?}");
}

/// The configuration may be for another machine.
#[test]
fn check_warns_of_a_state_directory_that_is_not_here() {
    let directory = TempDir::new("c");
    let missing = directory.path().join("state");
    let path = directory.write("postward.toml", &format!("state.path = \"{}\"\n", missing.display()));
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    let warning = "warning: state.path: cannot keep counters in";
    let warning = format!("{warning} {} here: No such file or directory (os error 2)\n", missing.display());
    assert!(text(&output.stderr).starts_with(&warning) && output.status.success(), "{output:?}");
    fs::create_dir(&missing).unwrap();
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)));
    assert_eq!(fs::read_dir(&missing).unwrap().count(), 0, "it only looks");
}

/// The same: where sockets are to be made.
#[test]
fn check_warns_of_directories_of_sockets_that_are_not_here() {
    let directory = TempDir::new("c");
    let missing = directory.path().join("run");
    let config = format!(
        "[server]\nlisten = [\"inet:127.0.0.1:0\", \"unix:{0}/s\"]\ncontrol = \"{0}/control\"\n",
        missing.display()
    );
    let path = directory.write("postward.toml", &config);
    let check = || {
        let output = postward(&["check", "--config", path.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr).to_owned()
    };
    let warnings = check();
    for key in ["server.listen", "server.control"] {
        let warning = format!(
            "warning: {key}: cannot make a socket in {} here: No such file or directory (os error 2)\n",
            missing.display()
        );
        assert!(warnings.contains(&warning), "{warnings}");
    }
    assert_eq!(warnings.matches("warning: ").count(), 2, "{warnings}");
    fs::create_dir(&missing).unwrap();
    assert_eq!(check(), "");
}

/// What is no path is not looked for: that it is none has been said.
#[test]
fn check_does_not_look_for_what_it_could_not_read() {
    let directory = TempDir::new("c");
    let config = "state.path = \"rel\"\nserver.control = \"rel\"\nserver.listen = \"unix:rel\"\n\
                  [notify.ftp]\nurl = \"ftp://x/\"\n[notify.rel]\ncommand = \"tell\"\n[notify.none]\n\
                  [notify.both]\ncommand = \"/nowhere/tell\"\nurl = \"https://a.example/\"\n\
                  [[rule]]\nname = \"r\"\nlimit.messages = \"1000/hour\"\nnotify = [\"ftp\", \"rel\", \"none\", \"both\"]\n";
    let path = directory.write("postward.toml", config);
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    let errors = text(&output.stderr);
    assert!(!errors.contains("warning") && !errors.contains(" here: "), "{errors}");
    assert!(errors.ends_with(&format!("postward: 7 errors in {}\n", path.display())), "{errors}");
}

/// The same.
#[test]
fn check_warns_of_programs_and_files_of_notifications_that_are_not_here() {
    let directory = TempDir::new("c");
    let [program, secret] = ["tell", "secret"].map(|name| directory.path().join(name));
    let config = format!(
        "[notify.one]\ncommand = \"{}\"\n[notify.two]\nurl = \"https://a.example\"\nauthorization_file = \"{}\"\n\
         [[rule]]\nname = \"r\"\nlimit.messages = \"1000/hour\"\nnotify = [\"one\", \"two\"]\n",
        program.display(),
        secret.display()
    );
    let path = directory.write("postward.toml", &config);
    let warnings = || {
        let output = postward(&["check", "--config", path.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let warnings =
            text(&output.stderr).lines().filter_map(|line| line.strip_prefix("warning: ")).map(str::to_owned);
        warnings.collect::<Vec<_>>()
    };
    let missing = "here: No such file or directory (os error 2)";
    let cannot_run = format!("notify.one.command: cannot run {} ", program.display());
    let cannot_read = format!("notify.two.authorization_file: cannot read {} ", secret.display());
    assert_eq!(warnings(), [format!("{cannot_run}{missing}"), format!("{cannot_read}{missing}")]);
    fs::write(&program, "").unwrap();
    fs::write(&secret, "Bearer x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let not_executable = format!("{cannot_run}here: it is not executable; chmod +x");
    let exposed =
        format!("notify.two.authorization_file: every user may read {}; chmod 0640, or 0600", secret.display());
    assert_eq!(warnings(), [not_executable.clone(), exposed]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(warnings(), [not_executable]);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(warnings(), Vec::<String>::new());
}

#[test]
fn check_says_what_no_rules_mean() {
    let path = directory("good/empty.toml");
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    let fine = format!("{} is fine. It has no rules: everything is accepted.\n", path.display());
    assert_eq!((text(&output.stdout), output.status.code()), (&*fine, Some(0)));
}

#[test]
fn check_shows_how_rules_are_judged() {
    let path = directory("good/plan.toml");
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)));
    let shown = text(&output.stdout).replace(path.to_str().unwrap(), "plan.toml");
    let expected = path.with_extension("txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&expected, &shown).unwrap();
    }
    assert_eq!(fs::read_to_string(&expected).unwrap_or_default(), shown);
}

/// Every series costs Prometheus memory, so nobody makes thousands of them by accident.
#[test]
fn a_policy_with_too_many_series_is_refused_unless_that_is_meant() {
    let directory = TempDir::new("c");
    let check = |http: &str| {
        let rule = |number| {
            format!("[[rule]]\nname = \"r{number}\"\nlimit = {{ key = \"login\", messages = \"{number}/hour\" }}\n")
        };
        let rules: String = (1..=100).map(rule).collect();
        let path = directory.write("postward.toml", &format!("[http]\n{http}\n{rules}"));
        let output = postward(&["check", "--config", path.to_str().unwrap()]);
        let number = |text: &str, before: &str, after: &str| {
            let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
            rest.split_once(after).unwrap().0.parse::<usize>().unwrap()
        };
        match output.status.code() {
            Some(0) => Ok(number(text(&output.stdout), "Its metrics are ", " series; max_series in [http] allows ")),
            _ => {
                let complaint = text(&output.stderr).to_owned();
                assert!(complaint.contains("postward.toml:2:10") && complaint.contains("100 rules"), "{complaint}");
                Err(number(&complaint, "the metrics of this policy are ", " series, more than max_series"))
            }
        }
    };
    let series = check("listen = \"127.0.0.1:9891\"").unwrap_err();
    assert!((2000..3000).contains(&series), "{series}");
    assert_eq!(check(&format!("listen = \"127.0.0.1:9891\"\nmax_series = {series}")), Ok(series));
    assert_eq!(check(&format!("listen = \"127.0.0.1:9891\"\nmax_series = {}", series - 1)), Err(series));
}

/// What `--help` promises of `--format json`.
#[test]
fn check_writes_json_for_programs() {
    let check = |name: &str| {
        let path = directory(name);
        let output = postward(&["check", "--format", "json", "--config", path.to_str().unwrap()]);
        assert_eq!(text(&output.stderr), "");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["configuration"], path.to_str().unwrap());
        (object, output.status.code())
    };
    let (fine, code) = check("good/plan.toml");
    assert_eq!((&fine["valid"], &fine["diagnostics"], code), (&json!(true), &json!([]), Some(0)));
    assert!(fine["series"].as_u64().is_some_and(|series| series > 200), "{fine}");
    let late = fine["plan"].as_array().unwrap().iter().find(|entry| entry["rule"] == "late").unwrap();
    let mut late = late.clone();
    assert!(late["notes"].as_array_mut().unwrap().iter().all(Value::is_string));
    late.as_object_mut().unwrap().remove("notes");
    let expected = json!({
        "rule": "late", "action": "refuse", "mode": "monitor", "facts": ["client"], "counts": null, "known_at": "connect",
        "judged_at": "data", "answered_at": "data", "reply": "550 5.7.1 one\ntwo", "steps": [],
    });
    assert_eq!(late, expected);
    let steps = fine["plan"].as_array().unwrap().iter().find(|entry| entry["rule"] == "steps-of-connections").unwrap();
    let expected = json!([
        { "over": "100%", "action": "monitor", "reply": null },
        { "over": "200%", "action": "defer", "reply": "421 4.7.0 Too many" },
    ]);
    assert_eq!((&steps["steps"], &steps["action"], &steps["reply"]), (&expected, &json!("steps"), &Value::Null));

    let (bad, code) = check("bad/drop-ins/postward.toml");
    assert_eq!((&bad["valid"], &bad["plan"], code), (&json!(false), &json!([]), Some(2)));
    assert_eq!(bad["series"], Value::Null);
    let file = directory("bad/drop-ins/conf.d/20-more.toml");
    let expected = json!({
        "severity": "error", "notice": null, "file": file.to_str().unwrap(), "line": 9, "column": 15,
        "message": "there is no list `more`", "hint": "lists: trusted",
    });
    assert_eq!(bad["diagnostics"].as_array().unwrap().last(), Some(&expected));

    let (missing, code) = check("nowhere.toml");
    assert_eq!((&missing["valid"], code), (&json!(false), Some(2)));
    assert_eq!(missing["diagnostics"][0]["line"], Value::Null);
}

/// Editors leave their own files beside the administrator's.
#[test]
fn only_toml_files_without_a_leading_dot_are_drop_ins() {
    let directory = TempDir::new("c");
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    let path = directory.write("postward.toml", "");
    for name in ["conf.d/.#a.toml", "conf.d/a.toml~", "conf.d/a.toml.dpkg-dist", "conf.d/.toml"] {
        directory.write(name, "nonsense");
    }
    directory.write("conf.d/b.toml", "[[rule]]\nname = \"b\"\n");
    let output = postward(&["check", "--config", path.to_str().unwrap()]);
    assert!(output.status.success() && text(&output.stdout).contains("\nb: refuse\n"), "{output:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = TempDir::new("c");
    fs::create_dir_all(directory.path().join("conf.d/b.toml")).unwrap();
    fs::write(directory.path().join("latin1.toml"), b"# one\n# gr\xfcn\n").unwrap();
    directory.write("postward.toml", "");
    for (name, complaint) in [
        ("missing.toml", "missing.toml: No such file or directory (os error 2)"),
        ("latin1.toml", "latin1.toml: line 2 is not UTF-8 text"),
        ("postward.toml", "conf.d/b.toml: Is a directory (os error 21)"),
    ] {
        for command in ["check", "serve"] {
            let output = postward(&[command, "--config", directory.path().join(name).to_str().unwrap()]);
            let expected = format!("postward: cannot read {}/{complaint}\n", directory.path().display());
            assert_eq!((text(&output.stderr), output.status.code()), (&*expected, Some(2)));
        }
    }
}
