//! The dashboard and the rules as files: the rules are valid, every alert is tested to fire and to be silent and has its
//! paragraph, and every panel can be read by somebody who sees it for the first time. That their queries have data is tested
//! end to end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use support::promtool;

const RULES: &str = "conf/prometheus/postward.rules.yml";

#[test]
fn the_rules_are_valid_and_every_test_of_them_passes() {
    let run = |arguments: &[&str]| {
        let output = promtool(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    run(&["check", "rules", RULES]);
    let files = tests_of_rules();
    run(&[&["test", "rules"], &files.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
}

#[test]
fn every_alert_is_tested_to_fire_and_to_be_silent_and_has_its_paragraph() {
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for file in tests_of_rules() {
        let text = read(&file);
        for test in text.split("alertname: ").skip(1) {
            let name = test.split([',', '\n', '}']).next().unwrap().to_owned();
            if test.contains("exp_alerts") {
                firing.insert(name)
            } else {
                silent.insert(name)
            };
        }
    }
    let page = read("docs/alerts.md");
    let rules = read(RULES);
    let mut alerts = BTreeSet::new();
    for alert in rules.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        assert!(page.contains(&format!("\n## {name}\n")), "docs/alerts.md has no paragraph on {name}");
        let runbook = format!("runbook: docs/alerts.md#{}\n", name.to_lowercase());
        assert!(alert.contains(&runbook) && alert.contains("summary: "), "{name}");
        let severity = alert.split("severity: ").nth(1).unwrap().lines().next().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        alerts.insert(name.to_owned());
    }
    assert!(alerts.len() > 15, "{alerts:?}");
    assert_eq!(firing, alerts, "each fires in a test");
    assert_eq!(silent, alerts, "each is silent in a test");
    assert_eq!(page.matches("\n## Postward").count(), alerts.len(), "no paragraph is about nothing");
}

#[test]
fn every_panel_can_be_read_by_who_sees_it_first() {
    let dashboard = dashboard();
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(titles.insert(title), "two panels are called {title}");
        let defaults = &panel["fieldConfig"]["defaults"];
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(description.len() > 10 && description.ends_with('.'), "{title}: {description:?}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let unit = if panel["type"] == "heatmap" { &panel["options"]["yAxis"]["unit"] } else { &defaults["unit"] };
        assert!(unit.as_str().is_some_and(|unit| !unit.is_empty()), "{title} has no unit");
        if panel["type"] != "heatmap" {
            assert!(!defaults["thresholds"]["steps"].as_array().unwrap().is_empty(), "{title} has no thresholds");
            assert!(defaults["noValue"].is_string(), "{title} does not say what no data means");
        }
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("instance=~\"$instance\""), "{title} shows all hosts: {expression}");
            let is_table = panel["type"] == "table";
            assert_eq!(target["legendFormat"].as_str().unwrap().is_empty(), is_table, "{title}: {target}");
            let per_rule = ["rule_matches", "limit_fullness", "limit_checks", "limit_evictions"];
            let is_per_rule = per_rule.iter().any(|metric| expression.contains(metric));
            assert!(!is_per_rule || expression.contains("rule=~\"$rule\""), "{title} shows all rules: {expression}");
        }
    }
    assert!(titles.len() > 40);
    panels_do_not_overlap(panels);
}

fn panels_do_not_overlap(panels: &[Value]) {
    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies upon another panel", panel["title"]);
        }
    }
}

/// What an administrator looks at first comes first.
#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    let rows = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<&str> = rows.map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows[..4], ["At a glance", "What becomes of mail", "Rules", "Limits"]);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "rule"]);
    assert!(dashboard["id"].is_null(), "an id is the installation's");
}

/// What nobody can see is of no use.
#[test]
fn the_dashboard_shows_every_metric() {
    let (dashboard, rules) = (read("conf/grafana/postward.json"), read(RULES));
    let page = read("docs/metrics.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `postward_")?.split('`').next());
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let is_shown = [&dashboard, &rules].iter().any(|text| text.contains(&format!("postward_{name}")));
        // The alert on saves that fail says more than when the last one was: nothing is saved while nothing changes.
        assert!(is_shown || name == "state_last_save_timestamp_seconds", "nothing shows postward_{name}");
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&read("conf/grafana/postward.json")).unwrap()
}

fn tests_of_rules() -> Vec<String> {
    let entries = fs::read_dir(project("tests/prometheus")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: Vec<String> = names.map(|name| format!("tests/prometheus/{name}")).collect();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn project(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
