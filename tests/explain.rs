//! `postward explain` and `postward codes`, as people and programs call them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a call that fails fails the test")]

mod support;

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use support::TempDir;
use support::postward;

const RULES: &str =
    "[[rule]]\nname = \"no-entry\"\nwhen.port = 25\nreply = \"550 5.7.1 Client {client} may not enter\"\n";

/// Standard output, the exit code and standard error of `explain` with these rules.
fn explain(arguments: &[&str], input: &str) -> (String, i32, String) {
    let directory = TempDir::new("x");
    let config = directory.write("postward.toml", RULES);
    let arguments = [&["explain", "--config", config.to_str().unwrap()], arguments].concat();
    let output = with_input(&arguments, input.as_bytes());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), output.status.code().unwrap(), text(output.stderr))
}

fn with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postward"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Who needs no input may have gone already.
    _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn json(arguments: &[&str], input: &str) -> Value {
    let (text, _, errors) = explain(&[&["--format", "json"], arguments].concat(), input);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"))
}

fn codes_of(object: &Value) -> Vec<(Option<u64>, Option<&str>)> {
    let explanations = object["explanations"].as_array().unwrap();
    explanations.iter().map(|one| (one["code"].as_u64(), one["enhanced_code"].as_str())).collect()
}

#[test]
fn whatever_a_person_pastes_is_recognised() {
    for (text, code, enhanced) in [
        ("550", Some(550), None),
        ("5.7.1", None, Some("5.7.1")),
        ("550 5.7.1", Some(550), Some("5.7.1")),
        ("550-5.7.1", Some(550), Some("5.7.1")),
        ("#5.1.1", None, Some("5.1.1")),
        ("571", Some(571), None),
        ("5.71", None, Some("5.7.1")),
        ("421-4.7.0", Some(421), Some("4.7.0")),
        ("499", Some(499), None),
        ("5.7.777", None, Some("5.7.777")),
        ("552 5.2.2 <bob@example.com>: mailbox is full", Some(552), Some("5.2.2")),
        ("Diagnostic-Code: smtp; 550 5.1.1 <bob@example.com>: User unknown", Some(550), Some("5.1.1")),
        ("Status: 4.4.7", None, Some("4.4.7")),
        ("dsn=4.4.1", None, Some("4.4.1")),
        (
            "Nov 21 10:00:00 mx postfix/smtpd[550]: NOQUEUE: reject: RCPT from h.example[192.0.2.5]:587: 450 4.2.0 \
             <bob@example.com>: Recipient address rejected: Greylisted; from=<a@example.net> proto=ESMTP helo=<h>",
            Some(450),
            Some("4.2.0"),
        ),
        (
            "Nov 21 10:00:00 mx sm-mta[550]: 6AL550abc: ruleset=check_rcpt, arg1=<bob@example.com>, relay=h.example \
             [192.0.2.5], reject=550 5.7.1 <bob@example.com>... Relaying denied",
            Some(550),
            Some("5.7.1"),
        ),
    ] {
        let object = json(&[text], "");
        assert_eq!(codes_of(&object), [(code, enhanced)], "{text}");
        assert_eq!(object["replies"], 1, "{text}");
        assert_eq!(explain(&["--", text], "").1, 0, "{text}");
        assert_eq!(codes_of(&json(&["-"], text)), [(code, enhanced)], "{text} on standard input");
    }
}

#[test]
fn several_words_are_one_text() {
    assert_eq!(codes_of(&json(&["550", "5.7.1", "Go", "away"], "")), [(Some(550), Some("5.7.1"))]);
}

#[test]
fn nothing_recognised_is_exit_code_1_and_a_hint() {
    for text in ["hello", "587", "465", "25", "2026-11-21", "192.0.2.5", "postfix 3.7.11", "4Dx550abc"] {
        let (output, code, errors) = explain(&[text], "");
        assert_eq!((output.as_str(), code), ("", 1), "{text}");
        assert!(errors.starts_with("postward: "), "{errors}");
    }
    let (_, code, errors) = explain(&["587"], "");
    assert_eq!((code, errors.as_str()), (1, "postward: 587 is a port for mail, no reply code\n"));
    let object = json(&["hello"], "");
    assert_eq!((&object["replies"], &object["explanations"]), (&0.into(), &Value::Array(Vec::new())));
}

#[test]
fn an_unknown_code_is_explained_digit_by_digit() {
    let (text, code, _) = explain(&["457"], "");
    assert_eq!(code, 0);
    for part in ["457: temporary refusal", "4..", ".5.", "mail system", "..7", "no standard defines this code"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (text, _, _) = explain(&["473"], "");
    assert!(text.contains("Second digit 7 does not exist in SMTP"), "{text}");
}

#[test]
fn what_is_malformed_is_said_with_what_was_likely_meant() {
    for (text, remark) in [
        ("571", "Looks like enhanced status 5.7.1 written without dots. A server would say 550 5.7.1."),
        ("5.71", "Written 5.71, which is no code; likely meant is 5.7.1."),
        ("421-4.7.0", "The hyphen says that more lines follow; the reply is 421 4.7.0,"),
        ("550 4.7.1", "550 and 4.7.1 contradict each other"),
        ("101", "Not an SMTP reply: the sending program made it up"),
    ] {
        let (output, _, _) = explain(&[text], "");
        let output = output.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.contains(remark), "{text}: {output}");
    }
}

#[test]
fn the_rule_that_said_it_is_named() {
    let object = json(&["550 5.7.1 Client 192.0.2.9 may not enter"], "");
    assert_eq!(object["explanations"][0]["rules"][0], "no-entry");
    let sendmails = "550 5.7.1 <bob@example.com>... Client 192.0.2.9 may not enter";
    assert_eq!(json(&[sendmails], "")["explanations"][0]["rules"][0], "no-entry");
    assert_eq!(
        json(&["550 5.7.1 Client 192.0.2.9 may enter"], "")["explanations"][0]["rules"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_multi_line_reply_is_one() {
    let text = "550-5.7.26 This mail is unauthenticated\n550-5.7.26 and so refused\n550 5.7.26 gsmtp\n";
    let object = json(&[], text);
    assert_eq!((&object["lines"], &object["replies"]), (&3.into(), &1.into()));
    assert_eq!(object["explanations"][0]["text"], "This mail is unauthenticated\nand so refused\ngsmtp");
}

/// As a log with so many lines of refusals and one that a remote server said.
fn log(refusals: usize) -> String {
    let refusal = "Nov 21 10:00:00 mx postfix/smtpd[550]: NOQUEUE: milter-reject: RCPT from h.example[192.0.2.9]: 550 5.7.1 \
                   Client 192.0.2.9 may not enter; from=<a@example.net> to=<bob@example.com> proto=ESMTP helo=<h>\n";
    let bounce = "Nov 21 10:00:01 mx postfix/smtp[421]: 4Dx550abc: to=<eve@example.org>, relay=mx.example.org[192.0.2.1]:25, \
                  delay=1.2, delays=0.1/0/0.5/0.6, dsn=5.1.1, status=bounced (host mx.example.org[192.0.2.1] said: 550 5.1.1 \
                  <eve@example.org>: no such user (in reply to RCPT TO command))\n";
    refusal.repeat(refusals) + bounce
}

#[test]
fn a_log_gives_a_summary() {
    let directory = TempDir::new("log");
    let path = directory.write("mail.log", &log(19));
    let object = json(&[path.to_str().unwrap()], "");
    assert_eq!((&object["lines"], &object["replies"], &object["explanations"]), (&20.into(), &20.into(), &Value::Null));
    let rows = object["summary"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["count"], &rows[0]["share"]), (&19.into(), &0.95.into()));
    assert_eq!(
        (&rows[0]["code"], &rows[0]["enhanced_code"], &rows[0]["said_by"]),
        (&550.into(), &"5.7.1".into(), &"milter".into())
    );
    assert_eq!(rows[0]["rules"]["no-entry"], 19);
    assert_eq!((&rows[1]["said_by"], &rows[1]["first"]), (&"remote".into(), &"Correct the address or drop it".into()));
    let (text, code, _) = explain(&["--file", path.to_str().unwrap()], "");
    assert_eq!(code, 0);
    for part in
        ["20 replies in 20 lines", "95.0 %", "550 5.7.1", "rule `no-entry`: 19", "Correct the address or drop it"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn a_few_lines_of_a_log_are_explained_and_counted_only_on_demand() {
    let text = log(3);
    let object = json(&[], &text);
    assert_eq!(codes_of(&object), [(Some(550), Some("5.7.1")), (Some(550), Some("5.1.1"))]);
    assert_eq!(json(&["--summary"], &text)["summary"][0]["count"], 3);
}

#[test]
fn what_cannot_be_read_is_said() {
    let directory = TempDir::new("gz");
    let path = directory.path().join("mail.log.1.gz");
    fs::write(&path, b"\x1f\x8b\x08\x00rest").unwrap();
    let (_, code, errors) = explain(&[path.to_str().unwrap()], "");
    assert_eq!(code, 2);
    assert!(errors.contains("is compressed: zcat "), "{errors}");
    for arguments in [&["--file", "nowhere.log"][..], &["./nowhere.log"]] {
        let (_, code, errors) = explain(arguments, "");
        assert_eq!(code, 2);
        assert!(errors.contains("cannot read") && errors.contains("nowhere.log"), "{errors}");
    }
    let output = postward(&["explain", "--config", "nowhere.toml", "550"]);
    assert_eq!(output.status.code(), Some(2));
}

/// A log is not always text, and a line not always short.
#[test]
fn binary_junk_and_endless_lines_do_no_harm() {
    let mut junk: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    junk.extend_from_slice("\n550 5.7.1 Go away\n".as_bytes());
    junk.extend(std::iter::repeat_n(b'5', 3_000_000));
    let output = with_input(&["explain", "--config", "conf/postward.toml", "--format", "json"], &junk);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(codes_of(&object).contains(&(Some(550), Some("5.7.1"))), "{object}");
}

#[test]
fn the_catalogue_is_listed_and_searched() {
    let list = |pattern: &[&str]| {
        let output = postward(&[&["codes"], pattern].concat());
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    };
    let (all, code) = list(&[]);
    assert_eq!(code, Some(0));
    assert!(all.lines().count() > 180 && all.starts_with("101 "), "{all}");
    let (found, _) = list(&["RFC", "7504"]);
    assert!(found.starts_with("521 ") && found.contains("\n556 "), "{found}");
    assert_eq!(list(&["nonsense"]), (String::new(), Some(1)));
    let output = postward(&["codes", "--format", "json", "5.7.1"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(object["enhanced"].as_array().unwrap().iter().any(|entry| entry["code"] == "X.7.1"), "{object}");
}

#[test]
fn several_codes_are_each_explained() {
    let object = json(&["421", "450", "451"], "");
    assert_eq!(codes_of(&object), [(Some(421), None), (Some(450), None), (Some(451), None)]);
    assert_eq!(
        codes_of(&json(&["550 5.1.1", "421 4.7.0"], "")),
        [(Some(550), Some("5.1.1")), (Some(421), Some("4.7.0"))]
    );
    assert_eq!(codes_of(&json(&["5.1.1", "User", "unknown"], "")), [(None, Some("5.1.1"))]);
}

#[test]
fn a_well_known_text_is_recognised() {
    for (text, name, first) in [
        (
            "451 4.7.1 Service unavailable - try again later",
            "Postfix: a milter does not answer",
            "See whether the milter runs",
        ),
        ("454 4.7.1 <a@b.example>: Relay access denied", "Postfix: relaying denied", "Log in to send"),
        (
            "550 5.4.1 Recipient address rejected: Access denied",
            "Exchange Online: no such recipient",
            "Correct the address",
        ),
    ] {
        let (output, _, _) = explain(&[text], "");
        assert!(output.lines().next().unwrap().ends_with(name), "{output}");
        assert!(output.contains(&format!("do first      {first}")), "{output}");
    }
}

#[test]
fn advice_is_for_the_class_that_was_said() {
    let (temporary, _, _) = explain(&["450 4.7.1"], "");
    let (permanent, _, _) = explain(&["550 5.7.1"], "");
    assert!(temporary.contains("Greylisting or a rate limit") && temporary.contains("Retried"), "{temporary}");
    assert!(!permanent.contains("Greylisting or a rate limit") && permanent.contains("Final"), "{permanent}");
    for text in [temporary, permanent] {
        assert!(!text.contains(" 4: ") && !text.contains(" 5: ") && !text.contains(" | "), "{text}");
    }
}

/// A remote server chooses what stands in a log, and a terminal obeys it.
#[test]
fn nothing_that_a_terminal_obeys_gets_through() {
    let hidden = "\u{1b}[31mred\u{7}\u{9b}0m\u{202e}x\ry";
    let text = format!("550 5.7.1 {hidden}");
    let directory = TempDir::new("esc");
    let path = directory.write("mail.log", &format!("{text}\n"));
    for arguments in [
        &["explain", "--", &text][..],
        &["explain", path.to_str().unwrap()],
        &["explain", "--format", "json", path.to_str().unwrap()],
        &["explain", "--summary", path.to_str().unwrap()],
        &["explain", hidden],
        &["explain", "--file", hidden],
        &["explain", "--config", hidden, "550"],
        &["codes", hidden],
        &["check", hidden],
    ] {
        let output = postward(arguments);
        for bytes in [output.stdout, output.stderr] {
            let shown = String::from_utf8(bytes).unwrap();
            let obeyed = shown.chars().find(|c| *c != '\n' && (c.is_control() || *c == '\u{202e}'));
            assert_eq!(obeyed, None, "{arguments:?}: {shown:?}");
        }
    }
}

#[test]
fn of_a_bounce_only_what_a_server_wrote_is_read() {
    let bounce = "Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example.com\r\nTo: a@example.com\r\nSubject: Undelivered (554)\r\n\
        X-Filter: SFS:(13230001)(554)(550)\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
        --b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        <bob@example.org>: host mx.example.org[192.0.2.1] said: 550 5.1.1 no such=\r\n user =28bob=29 (in reply to RCPT TO command)\r\n\
        --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.com\r\n\r\n\
        Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\
        Diagnostic-Code: smtp; 550 5.1.1 no such user (bob)\r\n\r\n\
        --b\r\nContent-Type: message/rfc822\r\n\r\nFrom: a@example.com\r\nSubject: invoice\r\n\r\n\
        Part 450 4.7.1 is out of stock, I got 552 5.3.4 last time\r\n--b--\r\n";
    let directory = TempDir::new("eml");
    let path = directory.write("bounce.eml", bounce);
    let object = json(&[path.to_str().unwrap()], "");
    assert_eq!(codes_of(&object), [(Some(550), Some("5.1.1"))], "{object:#}");
    assert_eq!(object["explanations"][0]["text"], "no such user (bob)");
    assert_eq!(codes_of(&json(&["-"], bounce)), [(Some(550), Some("5.1.1"))]);
}

#[test]
fn several_files_are_read_and_a_missing_one_is_named() {
    let directory = TempDir::new("two");
    let one = directory.write("one.txt", "550 5.7.1 Go away\n");
    let two = directory.write("two.txt", "421 4.7.0 Not now\n");
    let object = json(&[one.to_str().unwrap(), two.to_str().unwrap()], "");
    assert_eq!(codes_of(&object), [(Some(550), Some("5.7.1")), (Some(421), Some("4.7.0"))]);
    let (_, code, errors) = explain(&["nosuchfile.eml"], "");
    assert_eq!(
        (code, errors.as_str()),
        (1, "postward: there is no file nosuchfile.eml, and no reply code in its name\n")
    );
}

/// Who is refused by a stranger's server cannot choose its codes.
#[test]
fn a_summary_has_an_end() {
    let line = |n: u32| {
        format!(
            "Nov 21 10:00:01 mx postfix/smtp[421]: 4dLk9Y2vRkz9vJ: to=<e@example.org>, relay=mx[192.0.2.1]:25, delay=1, \
             delays=0/0/1/0, dsn=5.{0}.{1}, status=bounced (host mx[192.0.2.1] said: 550 5.{0}.{1} no)\n",
            n / 1000,
            n % 1000
        )
    };
    let log: String = (0..3000).map(line).collect();
    let object = json(&["-"], &log);
    let rows = object["summary"].as_array().unwrap();
    assert_eq!(rows.len(), 1001);
    assert_eq!(rows.iter().map(|row| row["count"].as_u64().unwrap()).sum::<u64>(), 3000);
    assert!(explain(&["-"], &log).0.contains("2000  others"));
}

#[test]
fn what_postward_logged_itself_is_told_apart_from_the_mtas_log() {
    let ours = "Nov 21 10:00:00 mx postward[7]: 2026-11-21T10:00:00.000000Z  INFO refuse id=1.1 stage=\"rcpt\" rule=\"no-entry\" \
                reply=\"550 5.7.1 Client 192.0.2.9 may not enter\"\n";
    let trial = ours.replace("INFO refuse", "INFO would refuse");
    let object = json(&["--summary"], &format!("{}{ours}{trial}", log(1)));
    let said_by: Vec<&str> =
        object["summary"].as_array().unwrap().iter().map(|row| row["said_by"].as_str().unwrap()).collect();
    assert_eq!(said_by, ["milter", "postward", "remote"]);
    assert_eq!(object["replies"], 3);
}

/// The rules of `explain` and a limit, whose default reply has the code of a full disk.
fn with_limit(arguments: &[&str], input: &str) -> String {
    let directory = TempDir::new("x");
    let limits = "[[rule]]\nname = \"logins\"\nlimit = { key = \"login\", messages = \"100/hour\" }\n\
                  [[rule]]\nname = \"disk\"\nwhen.disk_free = { path = \"/\", below = \"1 GiB\" }\n";
    let config = directory.write("postward.toml", &format!("{RULES}{limits}"));
    let arguments = [&["explain", "--config", config.to_str().unwrap()], arguments].concat();
    String::from_utf8(with_input(&arguments, input.as_bytes()).stdout).unwrap()
}

#[test]
fn of_a_limit_the_limit_is_looked_at_first_and_not_the_disk() {
    let text = with_limit(&["452 4.3.1 Message rate limit of 100/hour reached, try again later"], "");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = "do first See who is over its limit: `postward limits list --limited --rule logins`, `postward limits show KEY`";
    assert!(words.contains(first) && words.contains("rule `logins` of the configuration"), "{text}");
    assert!(!words.contains("you said it"), "{text}");
    let disk = with_limit(&["452 4.3.1 Insufficient system storage, try again later"], "");
    assert!(!disk.contains("postward limits") && disk.contains("rule          `disk`"), "{disk}");
    // What another server said by a limit of its own is nothing that this one could show.
    let remote = "Nov 21 10:00:01 mx postfix/smtp[421]: 4Dx550abc: to=<e@example.org>, relay=mx[192.0.2.1]:25, delay=1, \
                  delays=0/0/1/0, dsn=4.3.1, status=deferred (host mx[192.0.2.1] said: 452 4.3.1 Message rate limit of \
                  100/hour reached, try again later (in reply to MAIL FROM command))\n";
    assert!(!with_limit(&["-"], remote).contains("--rule logins"), "{remote}");
}

#[test]
fn a_summary_has_the_limit_first_where_limits_refused() {
    let refusal = |text: &str| {
        format!(
            "Nov 21 10:00:00 mx postfix/smtpd[550]: NOQUEUE: milter-reject: MAIL from h.example[192.0.2.9]: 452 4.3.1 {text}; \
             from=<a@example.net> proto=ESMTP helo=<h>\n"
        )
    };
    let limit = refusal("Message rate limit of 100/hour reached, try again later");
    let disk = refusal("Insufficient system storage, try again later");
    let text = with_limit(&["--summary", "-"], &limit.repeat(3));
    assert!(text.contains("postward limits list --limited") && text.contains("rule `logins`: 3"), "{text}");
    assert!(!with_limit(&["--summary", "-"], &disk).contains("postward limits"));
}

#[test]
fn what_postward_says_by_itself_is_known() {
    for (text, name, first) in [
        (
            "452 4.3.1 Blocked by the administrator",
            "Postward: blocked by the administrator",
            "postward limits show KEY",
        ),
        (
            "550 5.7.1 Blocked for now, try again after 2026-11-21T10:20:00Z",
            "Postward: blocked for a time",
            "postward limits show KEY",
        ),
        ("421 4.3.2 Too many sessions, try again later", "Postward: no room for another session", "Raise max_sessions"),
        ("450 4.7.1 Recipient rate limit of 4/hour reached, try again later", "Postward: over a limit", "limits list"),
        ("451 4.3.0 Temporary local problem, try again later", "Postward: this could not be judged", "Postward's log"),
    ] {
        let object = json(&[text], "");
        let one = &object["explanations"][0];
        assert_eq!(one["name"], name, "{text}");
        assert!(one["first"].as_str().unwrap().contains(first), "{text}: {one}");
    }
}

/// Nobody replied, and nothing went wrong.
#[test]
fn a_summary_leaves_out_what_was_delivered_without_a_reply() {
    let delivered = "Nov 21 10:00:02 mx postfix/local[7]: 4Dx550abd: to=<bob@example.com>, relay=local, delay=0.1, \
                     delays=0/0/0/0.1, dsn=2.0.0, status=sent (delivered to mailbox)\n";
    let log = log(19) + &delivered.repeat(5);
    let object = json(&["-"], &log);
    assert_eq!((&object["lines"], &object["replies"]), (&25.into(), &20.into()));
    assert_eq!(object["summary"].as_array().unwrap().len(), 2);
    assert_eq!(object["summary"][0]["share"], 0.95);
    let (text, code, _) = explain(&["--summary", "-"], delivered);
    assert_eq!((text.trim_end(), code), ("0 replies in 1 line.", 0));
}
