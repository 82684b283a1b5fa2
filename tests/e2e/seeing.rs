//! A real Prometheus that scrapes the daemon while a real Postfix feeds it: every query that we ship has data, and the sums are
//! what the clients saw.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::site::Counts;
use crate::site::Site;
use crate::support::Mta;
use crate::support::Prometheus;
use crate::support::Sample;
use crate::support::wait_for;
use crate::truth;

/// Two more limits: Postfix knows who logs in, and how many.
const MORE: &str = r#"
[notify.nobody]
command = "/bin/true"

[lists.friends]
networks = "192.0.2.0/24"

[[rule]]
name = "friends"
when.client = "@friends"
then = "accept"

[[rule]]
name = "login-rate"
when.authenticated = true
limit = { key = "login", messages = "5/hour" }
notify = "nobody"

[[rule]]
name = "client-rate"
limit = { key = "client", messages = "10000/hour", concurrent = 1000 }
"#;

/// What is usual takes a day, or a week, to be known.
const TAKES_DAYS: &str = ":usual";

#[test]
fn every_query_that_is_shipped_has_data_and_the_sums_are_what_clients_saw() {
    let rules = format!("{MORE}{}", truth::RULES);
    let site = Site::start(Mta::Postfix, &["--auth"], &rules);
    let prometheus = Prometheus::start(site.daemon.http_address(), &project("conf/prometheus/postward.rules.yml"));
    wait_for("a scrape", || (prometheus.query("up{job=\"postward\"} == 1").len() == 1).then_some(()));
    let mut dice = truth::Dice(7);
    for batch in 0..4 {
        for _ in 0..12 {
            truth::session(&site, &mut dice);
        }
        let mut client = site.client();
        client.log_in();
        client.delivers();
        client.quit();
        match batch {
            1 => site.reload(&format!("{rules}\n")),
            2 => fail_to_reload(&site),
            _ => {}
        }
        wait_for_a_scrape(&prometheus, &site);
    }
    site.check_counters();
    wait_for_a_scrape(&prometheus, &site);
    the_sums_are_what_clients_saw(&prometheus, &site);
    every_panel_has_data(&prometheus);
    every_rule_has_data(&prometheus);
    exemplars_are_decisions_of_the_log(&prometheus, &site);
    assert_eq!(prometheus.log(), "");
}

fn fail_to_reload(site: &Site) {
    let failed = || site.daemon.metrics().get("postward_config_reloads_total", &[("result", "failed")]);
    site.daemon.rewrite("nonsense");
    site.daemon.signal("HUP");
    wait_for("a reload that fails", || (failed() > 0.0).then_some(()));
}

/// Until Prometheus knows all that the daemon counted.
fn wait_for_a_scrape(prometheus: &Prometheus, site: &Site) {
    let scrapes = || prometheus.query("count_over_time(up[10m])").first().map_or(0.0, |sample| sample.value);
    let before = scrapes();
    wait_for("two more scrapes", || (scrapes() >= before + 2.0).then_some(()));
    let counted = site.daemon.metrics().get("postward_connections_total", &[]);
    let known = || prometheus.query("sum(postward_connections_total)").first().map(|sample| sample.value);
    wait_for("the last numbers", || (known() == Some(counted)).then_some(()));
}

fn the_sums_are_what_clients_saw(prometheus: &Prometheus, site: &Site) {
    let by = |expression: &str, labels: &[&str]| -> Counts {
        let key = |sample: &Sample| labels.iter().map(|label| sample.label(label).to_owned()).collect();
        prometheus.query(expression).iter().map(|sample| (key(sample), sample.value)).collect()
    };
    let labels = ["stage", "code", "enhanced_code", "mode"];
    let replies = by("sum by (stage, code, enhanced_code, mode) (postward_replies_total) > 0", &labels);
    assert_eq!(replies, site.replies_seen());
    assert!(replies.len() >= 7, "of every kind: {replies:?}");
    let messages = by("sum by (result) (postward_messages_total) > 0", &["result"]);
    assert_eq!(messages, site.messages_seen());
    assert_eq!(messages.len(), 6, "of every end: {messages:?}");
}

fn every_panel_has_data(prometheus: &Prometheus) {
    let dashboard: Value = serde_json::from_str(&read("conf/grafana/postward.json")).unwrap();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (expression, legend) = (filled_in(&target["expr"]), target["legendFormat"].as_str().unwrap());
            let samples = prometheus.query(&expression);
            assert!(
                samples.iter().any(|sample| sample.value.is_finite()),
                "{title}: no data: {expression}\n{samples:?}"
            );
            let renamed = panel["transformations"][0]["options"]["renameByName"].as_object();
            let columns = renamed.into_iter().flatten().map(|(column, _)| column.as_str());
            let columns = columns.filter(|column| *column != "Value");
            for label in labels_of(legend).into_iter().chain(columns) {
                let has_it = samples.iter().all(|sample| !sample.label(label).is_empty());
                assert!(has_it, "{title}: no label {label}: {expression}\n{samples:?}");
            }
            let is_share = panel["fieldConfig"]["defaults"]["unit"] == "percentunit";
            let fits = |sample: &Sample| !sample.value.is_finite() || (0.0..=1.0).contains(&sample.value);
            assert!(!is_share || samples.iter().all(fits), "{title}: not a share: {samples:?}");
            queries += 1;
        }
    }
    assert!(queries > 50, "{queries}");
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if annotation["builtIn"].is_null() {
            let samples = prometheus.query(&filled_in(&annotation["expr"]));
            assert!(!samples.is_empty() && !samples[0].label("instance").is_empty(), "{annotation}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(values) = variable["query"]["query"].as_str().and_then(|query| query.strip_prefix("label_values("))
        else {
            continue;
        };
        let (selector, label) = values.trim_end_matches(')').rsplit_once(", ").unwrap();
        let samples = prometheus.query(&filled_in(&Value::from(selector)));
        assert!(samples.iter().any(|sample| !sample.label(label).is_empty()), "{variable}");
    }
}

/// A query as Grafana sends it.
fn filled_in(expression: &Value) -> String {
    let expression = expression.as_str().unwrap();
    let filled = expression.replace("$__rate_interval", "1m").replace("$__range", "5m");
    let filled = filled.replace("$instance", ".*").replace("$rule", ".*");
    assert!(!filled.contains('$'), "{expression}");
    filled
}

/// `rule` and `action` of `{{rule}}: {{action}}`.
fn labels_of(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()).collect()
}

/// What is recorded is there, and whatever an alert looks at exists; `tests/prometheus` has when they fire.
fn every_rule_has_data(prometheus: &Prometheus) {
    let groups = wait_for("all rules to be evaluated", || {
        let groups = prometheus.api("/api/v1/rules")["groups"].take();
        let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.into_iter().all(|rule| rule["health"] != "unknown").then_some(groups)
    });
    let rules = groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let mut selectors = BTreeSet::new();
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" && !name.ends_with(TAKES_DAYS) {
            assert!(!prometheus.query(name).is_empty(), "{name} has no data");
        }
        selectors.extend(selectors_of(rule["query"].as_str().unwrap()));
    }
    assert!(selectors.len() > 20, "{selectors:?}");
    for selector in selectors.iter().filter(|selector| !selector.ends_with(TAKES_DAYS)) {
        assert!(!prometheus.query(selector).is_empty(), "there is no {selector}");
    }
}

/// The metrics in an expression, with their labels.
fn selectors_of(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c))).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let is_metric = name.contains(':') || ["postward_", "process_"].iter().any(|start| name.starts_with(start));
        let labels = if after.starts_with('{') { &after[..=after.find('}').unwrap()] } else { "" };
        if is_metric {
            found.push(format!("{name}{labels}"));
        }
        rest = &after[labels.len()..];
    }
    found
}

fn exemplars_are_decisions_of_the_log(prometheus: &Prometheus, site: &Site) {
    let log = site.daemon.log();
    for (family, most) in [("postward_replies_total", 20), ("postward_stage_duration_seconds_bucket", 1)] {
        let found = prometheus.api(&format!("/api/v1/query_exemplars?query={family}&start=0&end=9999999999"));
        let series = found.as_array().unwrap();
        let ids = series.iter().flat_map(|series| series["exemplars"].as_array().unwrap());
        let ids: BTreeSet<&str> = ids.map(|exemplar| exemplar["labels"]["decision_id"].as_str().unwrap()).collect();
        let told = ids.iter().filter(|id| log.contains(&format!("id={id} "))).count();
        assert!(!ids.is_empty() && told >= most.min(ids.len()), "{family}: {told} of {ids:?} are in the log");
    }
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap()
}
