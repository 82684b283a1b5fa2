//! The catalogue of reply codes held to the tables of codes, to what references say of them, and to the page made of it.
//!
//! `tests/catalogue` has the codes of the standards and vendors with the facts that can be compared (`basic.tsv`,
//! `enhanced.tsv`), and the claims of four references on the web, code by code (`references.tsv`) and on codes as such
//! (`principles.tsv`), each with the catalogue's claim that answers it. `UPDATE_DOCS=1 cargo test --test catalogue` writes
//! docs/codes.md.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a broken fixture fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use postward::codes;
use postward::codes::Basic;
use postward::codes::Claim;
use postward::codes::Enhanced;
use postward::codes::EnhancedCode;
use postward::codes::Kind;
use postward::codes::Registration;
use postward::codes::Verdict;
use postward::config::Config;
use postward::config::Source;
use postward::explain::for_class;
use postward::policy::Policy;
use postward::reply::Status;
use serde_json::Value;

use support::postward;

/// The lines of a table, each as its columns, without the heading.
fn table(name: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalogue").join(name);
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// What the program says, on one line, and whether it recognised anything.
fn explain(text: &str) -> (String, bool) {
    let output = postward(&["explain", "--config", "conf/postward.toml", text]);
    let said = String::from_utf8(output.stdout).unwrap();
    (said.split_whitespace().collect::<Vec<_>>().join(" "), output.status.success())
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// The tables

#[test]
fn every_basic_code_is_there_and_no_other() {
    let rows = table("basic.tsv");
    assert_eq!(rows.len(), 71);
    let expected: Vec<u16> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    let found: Vec<u16> = codes::all_basic().iter().map(|basic| basic.code).collect();
    assert_eq!(found, expected);
    for row in rows {
        let basic = codes::basic(row[0].parse().unwrap()).unwrap();
        let may_say = row[2].strip_prefix("yes: ").map(|stages| stages.split(" (").next().unwrap());
        let stages: Vec<&str> = may_say.into_iter().flat_map(|stages| stages.split(';')).collect();
        for stage in stages.iter().filter(|stage| **stage != "helo") {
            let stage = if *stage == "eom" { "end-of-message" } else { stage };
            assert!(basic.milter.contains(&stage), "{}: a milter may say it at {stage}", basic.code);
        }
        if row[2].starts_with("no") {
            assert!(basic.milter_unusual.is_empty(), "{}: no milter says it", basic.code);
        }
        match row[2].as_str() {
            // With the new address in the text.
            "stage-limited: rcpt with a new address in the text" => assert_eq!(basic.milter, ["rcpt"]),
            _ if stages.is_empty() => assert!(basic.milter.is_empty(), "{}: no milter says it", basic.code),
            _ => {
                let lenient =
                    |stage: &&&str| !stages.contains(&if **stage == "end-of-message" { "eom" } else { **stage });
                let surplus: Vec<&&str> = basic.milter.iter().filter(lenient).collect();
                // 554 is the greeting of a refusal.
                let allowed: &[&&str] = if basic.code == 554 { &[&"connect"] } else { &[] };
                assert_eq!(surplus, allowed, "{}", basic.code);
            }
        }
    }
}

#[test]
fn every_enhanced_code_is_there_and_no_other() {
    let rows = table("enhanced.tsv");
    assert_eq!(rows.len(), 125);
    let mut expected = Vec::new();
    for row in rows {
        let [kind, code, classes, basic] = &row[..] else { panic!("{row:?}") };
        let number = |index: usize| code.split('.').nth(index).unwrap().parse::<u16>().unwrap();
        match kind.as_str() {
            "class" => assert!(codes::class(number(0)).is_some(), "{code}"),
            "subject" => assert!(codes::subject(number(1)).is_some(), "{code}"),
            _ => {
                let code = code.replace('x', "X");
                let entry = codes::all_enhanced().iter().find(|entry| entry.code == code);
                let entry = entry.unwrap_or_else(|| panic!("{code} is missing"));
                let classes: Vec<u16> = classes.split(',').filter_map(|class| class.parse().ok()).collect();
                assert_eq!(entry.classes, classes, "{code}");
                let of_registry: BTreeSet<u16> = basic
                    .split(" (")
                    .next()
                    .unwrap()
                    .split(|c: char| !(c.is_ascii_alphanumeric()))
                    .filter_map(|word| word.replace("5XX", "550").parse().ok())
                    .filter(|code| (200..600).contains(code))
                    .collect();
                assert_eq!(entry.basic.iter().copied().collect::<BTreeSet<_>>(), of_registry, "{code}");
                expected.push(code);
            }
        }
    }
    let found: Vec<&str> = codes::all_enhanced().iter().map(|entry| entry.code).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_code_is_explained() {
    for basic in codes::all_basic() {
        let (text, found) = explain(&basic.code.to_string());
        assert!(found && text.starts_with(&format!("{}: {}", basic.code, basic.name)), "{text}");
        for part in [basic.meaning, basic.defined_by].into_iter().chain(basic.milter_why) {
            assert!(text.contains(part), "{}: {part}\n{text}", basic.code);
        }
    }
    for entry in codes::all_enhanced() {
        for code in of_any_class(entry) {
            let (text, found) = explain(&code);
            assert!(found && text.contains(entry.meaning) && text.contains(entry.defined_by), "{code}: {text}");
        }
    }
}

/// The codes of an entry as they are written: in each class that is met, and at both ends of a range.
fn of_any_class(entry: &Enhanced) -> Vec<String> {
    match entry.code.strip_prefix("X.") {
        Some(rest) => entry.seen.iter().map(|class| format!("{class}.{rest}")).collect(),
        None => entry.code.split('-').map(str::to_owned).collect(),
    }
}

// What it says of itself

#[test]
fn what_an_entry_names_exists() {
    for basic in codes::all_basic() {
        if let Some(dotted) = basic.dotted {
            let dotted: EnhancedCode = dotted.parse().unwrap();
            assert!(codes::enhanced(dotted).next().is_some(), "{}: {dotted}", basic.code);
        }
        for pair in basic.usual {
            let (code, enhanced) = pair.split_once(' ').unwrap();
            let enhanced: EnhancedCode = enhanced.parse().unwrap();
            assert_eq!(code, basic.code.to_string());
            assert_eq!(enhanced.class, basic.code / 100, "{pair}");
            assert!(codes::enhanced(enhanced).next().is_some(), "{pair}");
        }
        if let Some(instead) = basic.instead {
            let code: u16 = instead[..3].parse().unwrap();
            assert!(code != basic.code && codes::basic(code).is_some(), "{}: {instead}", basic.code);
        }
    }
    for entry in codes::all_enhanced() {
        assert!(entry.classes.iter().all(|class| entry.seen.contains(class)), "{}", entry.code);
        assert_eq!(entry.vendor.is_some(), entry.status == Registration::Vendor, "{}", entry.code);
        for pair in entry.usual {
            let (code, enhanced) = pair.split_once(' ').unwrap();
            assert!(code.parse().is_ok_and(|code| codes::basic(code).is_some()), "{}: {pair}", entry.code);
            assert!(entry.covers(enhanced.parse().unwrap()), "{}: {pair}", entry.code);
        }
    }
}

/// What an entry recommends to a server has to pass where it is recommended: at RCPT, for a rule that is about something else
/// than the number of recipients.
#[test]
fn what_is_recommended_in_place_of_a_code_passes_the_linter() {
    let mut tried = 0;
    let is_said = |basic: &&Basic| basic.code >= 400 && basic.milter.is_empty() && basic.kind != Kind::Local;
    for basic in codes::all_basic().iter().filter(is_said) {
        let Some(status) = basic.instead.and_then(|reply| reply.parse::<Status>().ok()) else { continue };
        let Some(instead) = codes::basic(status.code()).filter(|instead| instead.milter.contains(&"rcpt")) else {
            continue;
        };
        // Of these, 452 4.3.1 is for MAIL and 421 ends the session.
        if matches!(instead.code, 421 | 452 | 503) {
            continue;
        }
        let rule = format!("[[rule]]\nname = \"r\"\nwhen.recipient = \"a@b.example\"\nreply = \"{status} No\"\n");
        let (config, mut diagnostics) = Config::read(vec![Source { path: "r.toml".into(), text: rule }]);
        let policy = Policy::compile(&config, &mut diagnostics);
        assert!(policy.is_some() && diagnostics.list.is_empty(), "{}: {diagnostics}", basic.code);
        tried += 1;
    }
    assert!(tried >= 8, "only {tried} were tried");
}

#[test]
fn claims_are_told_apart_and_answered() {
    let mut seen = BTreeSet::new();
    for claim in codes::claims() {
        assert!(seen.insert(claim.id), "{} twice", claim.id);
        assert!(claim.verdict == Verdict::Right || claim.truth.is_some(), "{} is not answered", claim.id);
        assert!(!claim.about.is_empty());
    }
}

// The references

#[test]
fn every_row_of_the_references_is_answered() {
    let rows = table("references.tsv");
    // 98 rows, one of them with two codes.
    assert_eq!(rows.len(), 99);
    let mut corrections = 0;
    for row in rows {
        let [_, _, code, enhanced, claim, _] = &row[..] else { panic!("{row:?}") };
        let basic: &Basic = codes::basic(code.parse().unwrap()).unwrap_or_else(|| panic!("{row:?}"));
        let mut ways = vec![code.clone()];
        if enhanced != "-" {
            let enhanced: EnhancedCode = enhanced.parse().unwrap();
            assert!(codes::registered(enhanced).is_some(), "{row:?}");
            ways = vec![format!("{code} {enhanced}")];
        }
        let claim = claim_named(claim);
        assert!(claim.about.iter().any(|about| ways.contains(&(*about).to_owned()) || about == code), "{row:?}");
        for way in &ways {
            let (text, found) = explain(way);
            assert!(found && text.contains(basic.name), "{row:?}: {text}");
            assert_known(claim, way);
        }
        assert_corrected(claim);
        corrections += usize::from(claim.verdict != Verdict::Right);
    }
    assert!(corrections >= 30, "only {corrections} corrections");
}

#[test]
fn every_principle_of_the_references_is_answered() {
    let rows = table("principles.tsv");
    assert_eq!(rows.len(), 76);
    for row in rows {
        let claim = claim_named(&row[2]);
        claim.about.iter().for_each(|about| assert_known(claim, about));
        assert_corrected(claim);
    }
}

fn claim_named(id: &str) -> &'static Claim {
    codes::claims().iter().find(|claim| claim.id == id).unwrap_or_else(|| panic!("there is no claim {id}"))
}

/// A claim that is not right is shown with its correction, at the first code that it is about.
fn assert_corrected(claim: &Claim) {
    if claim.verdict == Verdict::Right {
        return;
    }
    let (text, found) = explain(claim.about[0]);
    let truth = on_one_line(claim.truth.unwrap());
    let shown = on_one_line(&format!("\"{}\": {}. {truth}", claim.says, claim.verdict.name()));
    assert!(found && text.contains(&shown), "{} does not say {shown}\n{text}", claim.about[0]);
}

/// Programs get all claims, right ones too.
fn assert_known(claim: &Claim, asked: &str) {
    let output = postward(&["explain", "--config", "conf/postward.toml", "--format", "json", asked]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let claims = object["explanations"][0]["claims"].as_array().unwrap();
    assert!(claims.iter().any(|other| other["says"] == claim.says), "{asked}: {}", claim.id);
}

// The page

#[test]
fn the_page_of_codes_is_what_the_catalogue_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/codes.md");
    let expected = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/codes.md is out of date: UPDATE_DOCS=1 cargo test --test catalogue");
}

fn page() -> String {
    let mut page = String::from(
        "# Reply codes\n\n\
         What SMTP servers say when they take or refuse mail, what it means and what to do about it. `postward explain 550 5.7.1`\n\
         shows the same for one code, `postward codes rcpt` searches. This page is generated from the catalogue in\n\
         `src/codes/catalogue.toml`: `UPDATE_DOCS=1 cargo test --test catalogue`.\n\n\
         - [How to read a code](#how-to-read-a-code)\n\
         - [Codes](#codes): three digits, RFC 5321 and its extensions, and what is taken for such\n\
         - [Enhanced status codes](#enhanced-status-codes): `5.7.1`, RFC 3463 and IANA's registry\n\
         - [Vendors' own](#vendors-own)\n\
         - [What is often said](#what-is-often-said)\n\n\
         ## How to read a code\n\n\
         `550 5.7.1`: the first digit of both is the class and says whether to try again. The second digit of the code, and the\n\
         second number of the enhanced code, say what it is about; they do not mean the same.\n\n\
         | first digit | is | means | the sending side |\n| --- | --- | --- | --- |\n",
    );
    for class in codes::all_classes() {
        _ = writeln!(page, "| {} | {} | {} | {} |", class.digit, class.name, class.meaning, class.sender);
    }
    page += "\n| second digit | is | means |\n| --- | --- | --- |\n";
    for second in codes::all_second_digits() {
        _ = writeln!(page, "| {} | {} | {} |", second.digit, second.name, second.meaning);
    }
    page += "\n| second number of an enhanced code | is | means |\n| --- | --- | --- |\n";
    for subject in codes::all_subjects() {
        _ = writeln!(page, "| {} | {} | {} |", subject.number, subject.name, subject.meaning);
    }
    page += "\n## Codes\n\n| code | is | a milter says it at |\n| --- | --- | --- |\n";
    for basic in codes::all_basic() {
        let milter = if basic.milter.is_empty() { "-".to_owned() } else { basic.milter.join(", ") };
        _ = writeln!(page, "| [{0}](#{0}) | {1} | {milter} |", basic.code, basic.name);
    }
    codes::all_basic().iter().for_each(|basic| page += &basic_section(basic));
    let (vendors, registered): (Vec<_>, Vec<_>) =
        codes::all_enhanced().iter().partition(|entry| entry.status == Registration::Vendor);
    for (heading, entries) in [("Enhanced status codes", registered), ("Vendors' own", vendors)] {
        _ = write!(page, "\n## {heading}\n\n| code | is | with |\n| --- | --- | --- |\n");
        for entry in &entries {
            let anchor = entry.code.to_lowercase().replace('.', "");
            _ = writeln!(page, "| [{}](#{anchor}) | {} | {} |", entry.code, entry.name, with(entry));
        }
        entries.iter().for_each(|entry| page += &enhanced_section(entry));
    }
    page +=
        "\n## What is often said\n\nAnd what is true of it.\n\n| about | claim | is it so? |\n| --- | --- | --- |\n";
    for claim in codes::claims() {
        let truth = claim.truth.map(|truth| format!(". {truth}")).unwrap_or_default();
        _ = writeln!(page, "| {} | {} | {}{truth} |", claim.about.join(", "), claim.says, claim.verdict.name());
    }
    page
}

/// The codes that go with an enhanced one.
fn with(entry: &Enhanced) -> String {
    let mut codes: BTreeSet<String> = entry.basic.iter().map(u16::to_string).collect();
    codes.extend(entry.usual.iter().map(|pair| pair[..3].to_owned()));
    if codes.is_empty() { "-".to_owned() } else { codes.into_iter().collect::<Vec<_>>().join(", ") }
}

fn basic_section(basic: &Basic) -> String {
    let mut text = format!("\n### {}\n\n**{}.** {}\n\n", basic.code, capitalised(basic.name), basic.meaning);
    let mut line = |label: &str, value: &str| _ = writeln!(text, "- {label}: {value}");
    line("Likely causes", &basic.causes.join("; "));
    line("If you said it", basic.receiver);
    line("If you got it", basic.sender);
    if let Some(advice) = basic.suppress.advice() {
        line("The address", advice);
    }
    if !basic.stages.is_empty() {
        line("Said at", &basic.stages.join(", "));
    }
    let unusual = basic.milter_unusual.join(", ");
    let milter = match (basic.milter.is_empty(), unusual.is_empty()) {
        (true, true) => "never".to_owned(),
        (true, false) => format!("unusual, at {unusual}"),
        (false, true) => format!("at {}", basic.milter.join(", ")),
        (false, false) => format!("at {}; unusual at {unusual}", basic.milter.join(", ")),
    };
    line("A milter says it", format!("{milter}. {}", basic.milter_why.unwrap_or_default()).trim_end());
    if !basic.usual.is_empty() {
        line("Common", &basic.usual.join(", "));
    }
    if let Some(instead) = basic.instead {
        line("Better", instead);
    }
    line("Defined by", basic.defined_by);
    text
}

fn enhanced_section(entry: &Enhanced) -> String {
    let mut text = format!("\n### {}\n\n**{}.** {}\n\n", entry.code, capitalised(entry.name), entry.meaning);
    let mut line = |label: &str, value: &str| _ = writeln!(text, "- {label}: {value}");
    let causes: Vec<String> = entry.causes.iter().map(|cause| for_class(cause, None)).collect();
    line("Likely causes", &causes.join("; "));
    line("If you said it", &for_class(entry.receiver, None));
    line("If you got it", &for_class(entry.sender, None));
    if let Some(advice) = entry.suppress.advice() {
        line("The address", advice);
    }
    let milter = format!("{}. {}", entry.milter.name(), entry.milter_why.unwrap_or_default());
    line("A milter says it", milter.trim_end());
    if !entry.usual.is_empty() {
        line("Common, though not registered together", &entry.usual.join(", "));
    }
    line("Defined by", entry.defined_by);
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
