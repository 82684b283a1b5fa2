//! A reply is shown as `line speaker code enhanced text`, with `-` for what is not there and `|` between lines.

use super::*;
use proptest::prelude::*;

#[track_caller]
fn finds(text: &str, expected: &[&str]) {
    assert_eq!(shown(text), expected, "{text}");
}

fn shown(text: &str) -> Vec<String> {
    scan(text).0.iter().map(show).collect()
}

fn scan(text: &str) -> (Vec<Found>, usize) {
    let mut scanner = Scanner::new();
    let mut found: Vec<Found> = text.lines().flat_map(|line| scanner.line(line)).collect();
    found.extend(scanner.finish());
    (found, scanner.log_lines())
}

fn show(found: &Found) -> String {
    let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    let code = or_none(found.code.map(|code| code.to_string()));
    let enhanced = or_none(found.enhanced.map(|enhanced| enhanced.to_string()));
    let text = found.text.replace('\n', "|");
    format!("{} {:?} {code} {enhanced} {text}", found.line, found.speaker).trim_end().to_owned()
}

#[test]
fn reply_lines() {
    finds("550 5.7.1 Go away", &["1 Unknown 550 5.7.1 Go away"]);
    finds("550 Go away", &["1 Unknown 550 - Go away"]);
    finds("550", &["1 Unknown 550 -"]);
    finds("  550 5.7.1 Go away  ", &["1 Unknown 550 5.7.1 Go away"]);
    finds("354 End data with <CR><LF>.<CR><LF>", &["1 Unknown 354 - End data with <CR><LF>.<CR><LF>"]);
    finds("550 #5.1.0 Address rejected.", &["1 Unknown 550 5.1.0 Address rejected."]);
    finds("550 5.1.1\n450 4.2.0 b", &["1 Unknown 550 5.1.1", "2 Unknown 450 4.2.0 b"]);
    // As it stands, even if the classes differ.
    finds("550 4.7.1 odd", &["1 Unknown 550 4.7.1 odd"]);
    finds("> 550 5.7.1 quoted", &["1 Unknown 550 5.7.1 quoted"]);
}

#[test]
fn replies_of_several_lines() {
    finds("550-5.7.1 one\n550-5.7.1 two\n550 5.7.1 three", &["1 Unknown 550 5.7.1 one|two|three"]);
    finds("  550-5.7.1 one\n   550 5.7.1 two", &["1 Unknown 550 5.7.1 one|two"]);
    finds(
        "250-mx.example.net\n250-PIPELINING\n250 SIZE 1000",
        &["1 Unknown 250 - mx.example.net|PIPELINING|SIZE 1000"],
    );
    finds("550-5.7.1 one\n550 two", &["1 Unknown 550 5.7.1 one|two"]);
    finds("550-5.7.1 one\n  folded\n550 5.7.1 two", &["1 Unknown 550 5.7.1 one folded|two"]);
    finds("550 5.7.1 one\n  folded", &["1 Unknown 550 5.7.1 one folded"]);
    finds("550 5.7.1 a\n550 5.7.1 b", &["1 Unknown 550 5.7.1 a", "2 Unknown 550 5.7.1 b"]);
    // Not finished, interrupted, or going on with another code.
    finds("550-5.7.1 one", &["1 Unknown 550 5.7.1 one"]);
    finds("550-5.7.1 one\n\n550 5.7.1 two", &["1 Unknown 550 5.7.1 one", "3 Unknown 550 5.7.1 two"]);
    finds("550-5.7.1 one\n450 4.7.1 two", &["1 Unknown 550 5.7.1 one", "2 Unknown 450 4.7.1 two"]);
}

#[test]
fn transcripts() {
    let session = "S: 220 mx.example.net ESMTP\nC: EHLO client\nS: 250-mx.example.net\nS: 250 SIZE 550\n\
                   C: MAIL FROM:<a@b> SIZE=450\nS: 250 2.1.0 Ok";
    finds(
        session,
        &["1 Unknown 220 - mx.example.net ESMTP", "3 Unknown 250 - mx.example.net|SIZE 550", "6 Unknown 250 2.1.0 Ok"],
    );
    finds(
        "   ----- Transcript of session follows -----\n... while talking to mx.example.net.:\n>>> RCPT To:<a@b>\n\
         <<< 550-5.1.1 no\n<<< 550 5.1.1 such user\n550 5.1.1 <a@b>... User unknown",
        &["4 Remote 550 5.1.1 no|such user", "6 Unknown 550 5.1.1 <a@b>... User unknown"],
    );
    for prefix in ["<- ", "<-  ", "< ", "<** ", "<~ ", "[13:33:58] < ", "[13:33:58.123] <- ", "S:"] {
        let text = format!("{prefix}550-5.7.1 a\n{prefix}550 5.7.1 b");
        finds(&text, &["1 Unknown 550 5.7.1 a|b"]);
    }
    finds("--- 550 5.7.1 a", &["1 Mta 550 5.7.1 a"]);
    for line in ["-> MAIL FROM:<a@b> SIZE=450", ">>> RCPT TO:<550@b>", " -> EHLO 550", "> RCPT TO:<b@c>", "~> DATA"] {
        finds(line, &[]);
    }
}

#[test]
fn fields_of_delivery_reports() {
    let expected = "1 Remote 550 5.1.1 <a@b>: no such user here";
    finds("Diagnostic-Code: smtp; 550 5.1.1 <a@b>: no such\n    user here", &[expected]);
    finds("Diagnostic-Code: smtp; 550 5.1.1 <a@b>: no such user here\nStatus: 5.1.1", &[expected]);
    finds(
        "Action: failed\nStatus: 5.0.0\nRemote-MTA: dns; mx.example.net\nDiagnostic-Code: smtp; 550 5.1.1 no",
        &["4 Remote 550 5.1.1 no"],
    );
    finds(
        "Diagnostic-Code: smtp; 550-5.1.1 The email account 550-5.1.1 does not exist. 550 5.1.1 See x - gsmtp",
        &["1 Remote 550 5.1.1 The email account|does not exist.|See x - gsmtp"],
    );
    finds("Diagnostic-Code: smtp;550-5.1.1 a\n 550-5.1.1 b\n 550 5.1.1 c", &["1 Remote 550 5.1.1 a|b|c"]);
    finds("Diagnostic-Code: smtp; 550\n 5.1.1 a", &["1 Remote 550 5.1.1 a"]);
    finds("Status: 5.1.1", &["1 Unknown - 5.1.1"]);
    finds("Status: 5.1.1 (bad destination mailbox address)", &["1 Unknown - 5.1.1"]);
    finds("Status: 5.1.1\n\nDiagnostic-Code: smtp; 550 5.1.1 a", &["1 Unknown - 5.1.1", "3 Remote 550 5.1.1 a"]);
    finds("Status: 5.1.1\nStatus: 4.4.7", &["1 Unknown - 5.1.1", "2 Unknown - 4.4.7"]);
    finds("Status: 5.1.1\nDiagnostic-Code: X-Postfix; unknown user: \"x\"", &["1 Nobody - 5.1.1 unknown user: \"x\""]);
    finds(
        "Status: 5.1.1\nDiagnostic-Code: X-Postfix; host mx[192.0.2.5] said: 550 5.1.1 no\n    user (in reply to RCPT TO command)",
        &["2 Remote 550 5.1.1 no user"],
    );
    finds("Diagnostic-Code: X-Postfix; unknown user: \"x\"", &[]);
    finds("Diagnostic-Code: smtp; The user does not exist", &[]);
}

#[test]
fn prose_of_bounces() {
    finds(
        "<a@b>: host mx.example.net[192.0.2.5] said: 550 5.1.1 <a@b>: Recipient\n    rejected: no (in reply to RCPT TO command)",
        &["1 Remote 550 5.1.1 <a@b>: Recipient rejected: no"],
    );
    finds(
        "<a@b>: host mx[192.0.2.5] said: 550-5.1.1 one 550-5.1.1 two 550\n    5.1.1 three (in reply to RCPT TO command)",
        &["1 Remote 550 5.1.1 one|two|three"],
    );
    finds("<a@b>: host mx[192.0.2.5] said:\n    550 5.1.1 no", &["2 Remote 550 5.1.1 no"]);
    finds("The response was: 550 5.1.1 no such user", &["1 Remote 550 5.1.1 no such user"]);
    finds("The response from the remote server was:\n550 5.1.1 no", &["2 Remote 550 5.1.1 no"]);
    finds("The response was:\n\n550 5.1.1 no", &["3 Remote 550 5.1.1 no"]);
    finds(
        "Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; can't find it'",
        &["1 Remote 550 5.1.10 RESOLVER.ADR.RecipientNotFound; can't find it"],
    );
    finds(
        "#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##rfc822;a@b",
        &["1 Unknown 550 5.1.1 RESOLVER.ADR.RecipNotFound; not found"],
    );
    finds("There was a problem: #5.1.1", &["1 Unknown - 5.1.1"]);
    finds("<mx.example.net #5.1.1 smtp;550 5.1.1 <a@b> unknown>", &["1 Remote 550 5.1.1 <a@b> unknown>"]);
    finds("550 5.7.1 (delivery not authorized)", &["1 Unknown 550 5.7.1 (delivery not authorized)"]);
    finds(
        "SMTP error from remote mail server after RCPT TO:<a@b>:\n    host mx.example.net [192.0.2.5]: 550 5.1.1 no",
        &["2 Remote 550 5.1.1 no"],
    );
}

#[test]
fn prose_of_people() {
    finds("they answered 550 5.7.1 today", &["1 Unknown 550 5.7.1 today"]);
    finds("what does 550-5.7.1 mean", &["1 Unknown 550 5.7.1 mean"]);
    finds("error 550 from their server", &["1 Unknown 550 - from their server"]);
    finds("first 450 4.7.1 a, then 550 5.7.1 b", &["1 Unknown 450 4.7.1 a, then", "1 Unknown 550 5.7.1 b"]);
    for (text, expected) in [
        ("SMTP error code: 554", "1 Unknown 554 -"),
        ("we got a 421", "1 Unknown 421 -"),
        ("refused (550)", "1 Unknown 550 -"),
        ("they say '550'", "1 Unknown 550 -"),
        ("they say \"550\"", "1 Unknown 550 -"),
        ("they say “550”", "1 Unknown 550 -"),
        ("SMTP 550", "1 Unknown 550 -"),
        ("the status was 450", "1 Unknown 450 -"),
        ("bounced with 550.", "1 Unknown 550 -"),
        ("{'a@b': (550, b'5.1.1 no such user')}", "1 Unknown 550 5.1.1 no such user"),
        ("(451) 4.7.1 later", "1 Unknown 451 4.7.1 later"),
        ("550/5.7.1, then", "1 Unknown 550 5.7.1 then"),
        ("NDR 5.7.1", "1 Unknown - 5.7.1"),
        ("code 5.7.1", "1 Unknown - 5.7.1"),
        ("blocked #5.7.1", "1 Unknown - 5.7.1"),
        ("blocked (5.7.1)", "1 Unknown - 5.7.1"),
        ("status 4.4.7", "1 Unknown - 4.4.7"),
        ("error: 5.7.606", "1 Unknown - 5.7.606"),
    ] {
        let found: Vec<String> = shown(text)
            .iter()
            .map(|shown| shown.trim_end_matches([')', '\'', '"', '”']).trim_end().to_owned())
            .collect();
        assert_eq!(found, [expected], "{text}");
    }
}

const POSTFIX: &str = "Nov 21 13:33:58 mx postfix/";

#[track_caller]
fn postfix_finds(entry: &str, expected: &[&str]) {
    finds(&format!("{POSTFIX}{entry}"), expected);
    let (_, message) = entry.split_once(": ").unwrap();
    finds(message, expected);
}

#[test]
fn refusals_in_postfixs_log() {
    let details = "from=<a@example.net> to=<b@example.test> proto=ESMTP helo=<c>";
    let found = "1 Mta 550 5.1.1 <b@example.test>: Recipient address rejected: User unknown; sorry";
    for (name, id) in [
        ("smtpd", "NOQUEUE"),
        ("submission/smtpd", "NOQUEUE"),
        ("smtps/smtpd", "4F1A2B3C4D"),
        ("smtpd", "4dLk9Y2vRkz9vJ"),
    ] {
        let text = "550 5.1.1 <b@example.test>: Recipient address rejected: User unknown; sorry";
        postfix_finds(&format!("{name}[7]: {id}: reject: RCPT from x[192.0.2.5]: {text}; {details}"), &[found]);
    }
    postfix_finds(&format!("smtpd[7]: NOQUEUE: reject_warning: RCPT from x[192.0.2.5]: 450 4.1.8 no; {details}"), &[]);
    postfix_finds(
        "smtpd[7]: NOQUEUE: reject: CONNECT from x[192.0.2.5]: 554 5.7.1 no; proto=SMTP",
        &["1 Mta 554 5.7.1 no"],
    );
    postfix_finds(
        &format!("smtpd[7]: NOQUEUE: milter-reject: RCPT from x[192.0.2.5]: 550-5.7.1 one??550 5.7.1 two; {details}"),
        &["1 Milter 550 5.7.1 one|two"],
    );
    postfix_finds(
        &format!("cleanup[7]: 4F1A2B3C4D: milter-reject: END-OF-MESSAGE from x[192.0.2.5]: 5.7.1 no; {details}"),
        &["1 Milter - 5.7.1 no"],
    );
    postfix_finds(
        &format!(
            "cleanup[7]: 4F1A2B3C4D: milter-reject: END-OF-MESSAGE from x[192.0.2.5]: 5.7.1 one??554 5.7.1 two; {details}"
        ),
        &["1 Milter 554 5.7.1 one|two"],
    );
    postfix_finds(
        "cleanup[7]: 4F1A2B3C4D: reject: header Subject: said: 550 5.1.1 x from x[192.0.2.5]; from=<a@b> proto=ESMTP helo=<c>: 5.7.1 message content rejected",
        &["1 Mta - 5.7.1 message content rejected"],
    );
    postfix_finds(
        "postscreen[7]: NOQUEUE: reject: RCPT from [192.0.2.5]:550: 550 5.7.1 Service unavailable; client [192.0.2.5] blocked using bl.example; from=<>, to=<b@c>, proto=ESMTP, helo=<c>",
        &["1 Mta 550 5.7.1 Service unavailable; client [192.0.2.5] blocked using bl.example"],
    );
    postfix_finds(
        "smtpd[7]: NOQUEUE: proxy-reject: END-OF-MESSAGE: 554 5.7.1 spam; from=<a@b>",
        &["1 Remote 554 5.7.1 spam"],
    );
    finds(
        &format!(
            "Nov 21 13:33:58 mx postfix-in/smtpd[7]: NOQUEUE: reject: RCPT from x[192.0.2.5]: 550 5.1.1 a; {details}"
        ),
        &["1 Mta 550 5.1.1 a"],
    );
    // What another server said belongs to the refusal.
    postfix_finds(
        &format!(
            "smtpd[7]: NOQUEUE: reject: RCPT from x[192.0.2.5]: 450 4.1.1 <b>: undeliverable: host mx[192.0.2.6] said: 550 5.1.1 no; {details}"
        ),
        &["1 Mta 450 4.1.1 <b>: undeliverable: host mx[192.0.2.6] said: 550 5.1.1 no"],
    );
}

#[test]
fn deliveries_in_postfixs_log() {
    let to = "4F1A2B3C4D: to=<a@b>, relay=mx[192.0.2.5]:25, delay=550, delays=0/0/450/0, dsn";
    for (status, expected) in [
        (
            "5.1.1, status=bounced (host mx[192.0.2.5] said: 550 5.1.1 <a@b> no (in reply to RCPT TO command))",
            "1 Remote 550 5.1.1 <a@b> no",
        ),
        (
            "5.7.1, status=bounced (host mx[192.0.2.5] said: 550-5.7.1 one 550-5.7.1 two 550 5.7.1 three (in reply to RCPT TO command))",
            "1 Remote 550 5.7.1 one|two|three",
        ),
        (
            "5.0.0, status=bounced (host mx[192.0.2.5] said: 553 sorry (in reply to MAIL FROM command))",
            "1 Remote 553 - sorry",
        ),
        ("5.0.0, status=bounced (host mx[192.0.2.5] said: 550 (in reply to RCPT TO command))", "1 Remote 550 -"),
        (
            "4.7.0, status=deferred (host mx[192.0.2.5] refused to talk to me: 421 4.7.0 busy)",
            "1 Remote 421 4.7.0 busy",
        ),
        (
            "4.7.0, status=deferred (delivery temporarily suspended: host mx[192.0.2.5] refused to talk to me: 421 4.7.0 busy)",
            "1 Remote 421 4.7.0 busy",
        ),
        ("2.0.0, status=sent (250 2.0.0 Ok: queued as X)", "1 Remote 250 2.0.0 Ok: queued as X"),
        ("2.0.0, status=sent (250 ok)", "1 Remote 250 - ok"),
        ("2.0.0, status=sent (delivered to mailbox)", "1 Nobody - 2.0.0 delivered to mailbox"),
        (
            "4.4.1, status=deferred (connect to mx[192.0.2.5]:25: Connection refused)",
            "1 Nobody - 4.4.1 connect to mx[192.0.2.5]:25: Connection refused",
        ),
        ("5.1.1, status=bounced (unknown user: \"x\")", "1 Nobody - 5.1.1 unknown user: \"x\""),
        (
            "5.3.0, status=bounced (Command died with status 1: \"/bin/false\")",
            "1 Nobody - 5.3.0 Command died with status 1: \"/bin/false\"",
        ),
    ] {
        postfix_finds(&format!("smtp[7]: {to}={status}"), &[expected]);
    }
    postfix_finds(
        "smtp[7]: 4F1A2B3C4D: host mx[192.0.2.5] said: 450 4.2.0 later (in reply to RCPT TO command)",
        &["1 Remote 450 4.2.0 later"],
    );
    postfix_finds(
        "smtp[7]: 4F1A2B3C4D: SASL authentication failed; server mx[192.0.2.5] said: 535 5.7.8 no",
        &["1 Remote 535 5.7.8 no"],
    );
}

#[test]
fn sendmails_log() {
    let delivery = "to=<a@b>, delay=00:00:00, xdelay=00:00:00, mailer=relay, pri=30450, relay=mx. [192.0.2.5], dsn";
    for (message, expected) in [
        (
            "ruleset=check_rcpt, arg1=<a@b>, relay=x [192.0.2.5], reject=550 5.7.1 <a@b>... Relaying denied",
            "1 Mta 550 5.7.1 <a@b>... Relaying denied",
        ),
        ("Milter: to=<a@b>, reject=550 5.7.1 no", "1 Milter 550 5.7.1 no"),
        ("Milter: cmd=data, reject=554 5.7.1 no", "1 Milter 554 5.7.1 no"),
        ("Milter: from=<a@b>, reject=421, errormode=4", "1 Milter 421 -"),
        ("milter=filter1, action=mail, reject=550-5.7.1 one\\r\\n550 5.7.1 two", "1 Milter 550 5.7.1 one|two"),
        (&format!("{delivery}=5.1.1, stat=User unknown"), "1 Nobody - 5.1.1 User unknown"),
        (&format!("{delivery}=5.1.1, reply=550 5.1.1 <a@b> no, stat=User unknown"), "1 Remote 550 5.1.1 <a@b> no"),
        (&format!("{delivery}=5.1.1, reply=550-5.7.1 one, stat=User unknown"), "1 Remote 550 5.7.1 one"),
        (&format!("{delivery}=4.7.1, stat=Deferred: 450 4.7.1 later"), "1 Remote 450 4.7.1 later"),
        (
            &format!("{delivery}=4.0.0, reply=421 4.3.2 bye, stat=Deferred: Connection reset by mx."),
            "1 Remote 421 4.3.2 bye",
        ),
        (
            &format!("{delivery}=4.4.2, reply=421 4.4.1 Connection reset by mx., stat=Deferred"),
            "1 Nobody 421 4.4.1 Connection reset by mx.",
        ),
        (
            &format!("{delivery}=4.4.1, stat=Deferred: Connection refused by mx."),
            "1 Nobody - 4.4.1 Deferred: Connection refused by mx.",
        ),
        (&format!("{delivery}=2.0.0, stat=Sent (2.0.0 Ok: queued as X)"), "1 Remote - 2.0.0 Ok: queued as X"),
        (&format!("{delivery}=2.0.0, stat=Sent (250 2.0.0 Ok)"), "1 Remote 250 2.0.0 Ok"),
        (&format!("{delivery}=2.0.0, stat=Sent (ok 1700000000 qp 450)"), "1 Remote - 2.0.0 ok 1700000000 qp 450"),
        (&format!("{delivery}=2.0.0, stat=Sent"), "1 Nobody - 2.0.0 Sent"),
    ] {
        for name in ["sendmail", "sm-mta"] {
            finds(&format!("Nov 21 13:33:58 mx {name}[7]: 6ALDZYIV026949: {message}"), &[expected]);
        }
        finds(message, &[expected]);
    }
}

#[test]
fn a_refusal_that_sendmail_logs_three_times_is_one() {
    let log = [
        "milter=f, action=rcpt, reject=550 5.1.1 no",
        "Milter: to=<a@b>, reject=550 5.1.1 no",
        "--- 550 5.1.1 <a@b>... no",
        "milter=f, action=rcpt, reject=550 5.1.1 no",
        "Milter: to=<a@b>, reject=550 5.1.1 no",
        "--- 550 5.1.1 <a@b>... no",
        "--- 550 5.1.1 <a@b>... User unknown",
        "milter=f, reject=554-5.7.1 no\\r\\n554 5.7.1 x",
        "Milter: data, reject=554-5.7.1 no\\r\\n554 5.7.1 x",
        "--- 554-5.7.1 no\\r\\n554 5.7.1 x (hold)",
        "to=<a@b>, delay=00:00:00, pri=30015, stat=no\\r\\n554 5.7.1 x",
        "--- 554-5.7.1 no\\r\\n554 5.7.1 x (held)",
        "--- 250-mx",
        "--- 250 SIZE",
        "--- 050 <a@b>... queued",
        "--- 550 5.7.1 <a@b>... Relaying denied",
        "ruleset=check_rcpt, arg1=<a@b>, relay=x [192.0.2.5], reject=550 5.7.1 <a@b>... Relaying denied",
        "--- 550 5.7.1 <a@b>... Relaying denied",
        "ruleset=check_rcpt, arg1=<a@b>, relay=x [192.0.2.5], reject=550 5.7.1 <a@b>... Relaying denied",
        "ruleset=check_rcpt, arg1=<a@b>, relay=x [192.0.2.5], reject=550 5.7.1 <a@b>... Relaying denied",
    ];
    let log: String = log.iter().map(|line| format!("sendmail[7]: 6ALDZYIV026949: {line}\n")).collect();
    finds(
        &log,
        &[
            "1 Milter 550 5.1.1 no",
            "4 Milter 550 5.1.1 no",
            "7 Mta 550 5.1.1 <a@b>... User unknown",
            "8 Milter 554 5.7.1 no|x",
            "13 Mta 250 - mx|SIZE",
            "16 Mta 550 5.7.1 <a@b>... Relaying denied",
            "18 Mta 550 5.7.1 <a@b>... Relaying denied",
            "20 Mta 550 5.7.1 <a@b>... Relaying denied",
        ],
    );
}

#[test]
fn replies_of_two_processes_in_one_log_are_told_apart() {
    finds(
        "sendmail[7]: NOQUEUE: --- 250-a\nsendmail[8]: NOQUEUE: --- 250-b\nsendmail[7]: NOQUEUE: --- 250 c\nsendmail[8]: NOQUEUE: --- 250 d",
        &["1 Mta 250 - a|c", "2 Mta 250 - b|d"],
    );
}

#[test]
fn sessions_in_postfixs_verbose_log() {
    let server = "postfix/smtpd[7]: > x[192.0.2.5]: ";
    finds(
        &format!(
            "{server}250-mx\n{server}250 SIZE 550\npostfix/smtpd[7]: < x[192.0.2.5]: MAIL FROM:<a@b>\npostfix/smtpd[7]: NOQUEUE: reject: MAIL from x[192.0.2.5]: 550 5.7.1 no; from=<a@b>\n{server}550 5.7.1 no"
        ),
        &["1 Mta 250 - mx|SIZE 550", "4 Mta 550 5.7.1 no"],
    );
    finds("postfix/smtp[7]: < mx[192.0.2.5]:25: 250 2.1.0 Ok", &["1 Remote 250 2.1.0 Ok"]);
    finds("postfix/smtp[7]: > mx[192.0.2.5]:25: 250 2.1.0 Ok", &[]);
}

#[test]
fn exims_log_and_our_own() {
    finds(
        "2026-11-21 13:33:58 1abcDE-0003xy-Ab ** a@b R=dnslookup T=remote_smtp: SMTP error from remote mail server after RCPT TO:<a@b>: host mx [192.0.2.5]: 550-5.1.1 one\\n550 5.1.1 two",
        &["1 Remote 550 5.1.1 one|two"],
    );
    finds(
        "2026-11-21 13:33:58 1abcDE-0003xy-Ab => a@b H=mx [192.0.2.5] C=\"250 2.0.0 Ok: X\"",
        &["1 Remote 250 2.0.0 Ok: X"],
    );
    let ours = "INFO refuse id=7z5.1 stage=\"mail\" helo=\"550 5.1.1 x\" rule=\"r\" reply=\"550 5.7.1 no \\\"way\\\" \\\\ / two\"";
    let expected = ["1 Postward 550 5.7.1 no \"way\" \\ / two"];
    finds(&format!("2026-11-21T13:41:13.634239Z  {ours}"), &expected);
    finds(&format!("Nov 21 13:41:13 mx postward[7]: 2026-11-21T13:41:13.634239Z  {ours}"), &expected);
    finds(
        "{\"timestamp\":\"2026-11-21T13:41:13Z\",\"level\":\"INFO\",\"fields\":{\"message\":\"refuse\",\"reply\":\"550 5.7.1 no \\\"way\\\"\"}}",
        &["1 Postward 550 5.7.1 no \"way\""],
    );
    finds(&format!("2026-11-21T13:41:13.634239Z  {}", ours.replace("refuse", "would refuse")), &[]);
}

#[test]
fn forms_of_log_lines() {
    let message = "postfix/smtpd[7]: NOQUEUE: reject: RCPT from x[192.0.2.5]: 550 5.1.1 a; from=<>";
    for prefix in [
        "Nov 21 13:33:58 mx ",
        "Nov  1 13:33:58 mx ",
        "Nov 21 13:33:58.123456 mx ",
        "Nov 21 2026 13:33:58 mx ",
        "2026-11-21T13:33:58+00:00 mx ",
        "2026-11-21T13:33:58.123456Z mx ",
        "2026-11-21T13:33:58.123+0100 mx ",
        "2026-11-21 13:33:58 mx ",
        "Sat 2026-11-21 13:33:58 UTC mx ",
        "<22>Nov 21 13:33:58 mx ",
        "/var/log/mail.log:Nov 21 13:33:58 mx ",
        "/var/log/mail.log:550:Nov 21 13:33:58 mx ",
        "Nov 21 13:33:58 ",
        "    Nov 21 13:33:58 mx ",
        "> > Nov 21 13:33:58 mx ",
        "\u{feff}Nov 21 13:33:58 mx ",
        "",
    ] {
        let (found, log_lines) = scan(&format!("{prefix}{message}"));
        let found: Vec<String> = found.iter().map(show).collect();
        assert_eq!((&found[..], log_lines), (&["1 Mta 550 5.1.1 a".to_owned()][..], 1), "{prefix}");
    }
    let structured = "<22>1 2026-11-21T13:33:58Z mx postfix/smtpd 7 - - NOQUEUE: reject: RCPT from x[192.0.2.5]: 550 5.1.1 a; from=<>";
    assert_eq!(scan(structured).1, 1);
    finds(structured, &["1 Mta 550 5.1.1 a"]);
    assert_eq!(scan("550 5.1.1 a\nthey said 550").1, 0);
}

#[test]
fn in_logs_of_other_programs_only_pairs_count() {
    let log = "Nov 21 13:33:58 mx milter-greylist[7]: addr x from <a@b> code 451 4.7.1 later";
    finds(log, &["1 Unknown 451 4.7.1 later"]);
    for line in [
        "Nov 21 13:33:58 mx sshd[550]: error 550: got a 421 from 192.0.2.5 port 587",
        "Nov 21 13:33:58 mx kernel: [  550.123456] error 550 (5.7.1)",
        "Nov 21 13:33:58 mx CRON[550]: (root) CMD (run 550 5)",
        "Nov 21 13:33:58 mx dovecot: imap-login: error 450 (5.7.1): user=<550>",
        "Nov 21 13:33:58 mx dovecot/lmtp[7]: 550: status 550",
        "192.0.2.5 - - [21/Nov/2026:13:33:58 +0000] \"GET / HTTP/1.1\" 404 512",
        "192.0.2.5 - - [21/Nov/2026:13:33:58 +0000] \"GET /550 HTTP/1.1\" 200 550 \"-\" \"curl/5.7.1\"",
    ] {
        finds(line, &[]);
    }
}

#[test]
fn mtas_lines_without_a_reply() {
    for line in [
        "smtpd[7]: warning: non-SMTP command from x[192.0.2.5]: 550 5.7.1 x",
        "smtpd[7]: improper command pipelining after EHLO from x[192.0.2.5]: 550 5.7.1 x\\r\\n550 5.7.1",
        "smtpd[7]: warning: x[192.0.2.5]: SASL PLAIN authentication failed: authentication failure, sasl_username=550 5.7.1",
        "smtpd[7]: warning: TLS library problem: error:0A000126:SSL routines::unexpected eof:../ssl/record/rec_layer_s3.c:304:",
        "smtpd[7]: SSL_accept error from x[192.0.2.5]: -1",
        "smtpd[7]: lost connection after RCPT from x[192.0.2.5]",
        "smtpd[7]: disconnect from x[192.0.2.5] ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/450",
        "smtpd[7]: NOQUEUE: client=x[192.0.2.5]",
        "smtpd[7]: NOQUEUE: warn: RCPT from x[192.0.2.5]: 550 5.7.1 x; from=<a@b>",
        "smtpd[7]: NOQUEUE: discard: RCPT from x[192.0.2.5]: <a@b>: Recipient address dd; from=<a@b>",
        "cleanup[7]: 4F1A2B3C4D: message-id=<550.5.7.1@b>",
        "cleanup[7]: 4F1A2B3C4D: milter-discard: END-OF-MESSAGE from x[192.0.2.5]: milter triggers DISCARD action; from=<a@b>",
        "cleanup[7]: 4F1A2B3C4D: milter-hold: END-OF-MESSAGE from x[192.0.2.5]: milter triggers HOLD action; from=<a@b>",
        "cleanup[7]: 4F1A2B3C4D: info: header Subject: x from x[192.0.2.5]; from=<a@b> proto=ESMTP helo=<c>: 550 5.7.1 z",
        "qmgr[7]: 4F1A2B3C4D: from=<a@b>, size=550, nrcpt=450 (queue active)",
        "qmgr[7]: 4F1A2B3C4D: from=<a@b>, status=expired, returned to sender",
        "qmgr[7]: 4F1A2B3C4D: removed",
        "smtp[7]: connect to mx[192.0.2.5]:550: Connection refused",
        "bounce[7]: 4F1A2B3C4D: sender non-delivery notification: 550E4F1A2B",
        "anvil[7]: statistics: max connection rate 550/60s for (smtpd:192.0.2.5) at Nov 21 13:33:58",
        "master[550]: daemon started -- version 5.7.11, configuration /etc/postfix",
    ] {
        finds(&format!("{POSTFIX}{line}"), &[]);
    }
    for line in [
        "from=<a@b>, size=550, class=0, nrcpts=450, msgid=<550@b>, relay=x [192.0.2.5]",
        "<-- MAIL FROM:<a@b> SIZE=450",
        "<-- 550 5.7.1 x",
        "to=<a@b>, delay=00:00:00, mailer=local, pri=30450, stat=queued",
        "AUTH failure (PLAIN): authentication failure (-13) SASL(-13): 550, relay=x [192.0.2.5]",
        "STARTTLS=server, relay=x [192.0.2.5], version=TLSv1.3, verify=NO, cipher=X, bits=256/256",
        "STARTTLS=server: error:0A00010B:SSL routines::wrong version number:../ssl/record/ssl3_record.c:350:",
        "6ALDZYIV026951: DSN: User unknown",
        "--- 050 <a@b>... Connecting to mx. port 550 via relay...",
        "--- 550 5.1.1 <a@b>... User unknown (hold)",
        "Milter: sender: <550@b>",
        "milter=filter1, action=rcpt, continue",
        "x [192.0.2.5] did not issue MAIL/EXPN/VRFY/ETRN during connection to MTA",
    ] {
        finds(&format!("Nov 21 13:33:58 mx sm-mta[550]: 6ALDZYIV026949: {line}"), &[]);
    }
}

#[test]
fn what_is_no_reply() {
    for line in [
        "",
        "mx.example.net:587",
        "connect to mx.example.net:250 failed",
        "listens on port 465 and port 587",
        "on 2026-11-21 at 13:33:58, or 21.11.2026, or 5.4.2026",
        "queued as 4Dx550abc",
        "postfix[550]",
        "from 5.7.1.1 and 192.0.2.5 and [5.7.1.1]",
        "mx5.7.1.example.com and 550.example.com and 5.7.1.example.com",
        "error from 550.example.com",
        "<550@example.com>",
        "error <550@example.com>",
        "bounce+550-5.7.1@example.com",
        "size=550",
        "SIZE=552 ",
        "nrcpt=450, delay=421, pri=30450",
        "Postfix 3.7.11, OpenSSL 3.0.2, Exim 4.96.1, kernel 5.10.0",
        "version 5.7.1",
        "the code of version 5.7.1",
        "v5.7.1",
        "release 5.7.1",
        "RFC 5321 section 4.2.1",
        "RFC 5321 (4.2.1)",
        "see section (4.2.1) of it",
        "§ 4.2.1",
        "§4.2.1",
        "kernel (5.10.0)",
        "with 550 messages and 450 recipients",
        "returned 250 rows",
        "250 people came",
        "with 55% of it, with 550%",
        "for $550 or €550 or 550 EUR",
        "GET / HTTP/1.1\" 404 512",
        "HTTP error 404",
        "error 404",
        "exit status 255",
        "perl (2.0.1) unstable",
        "HTTP status code 502",
        "HTTP/2 response 503",
        "call (415) 555-0100",
        "call me at 550",
        "take the 550 to the station",
        "https://example.com/550-5.7.1/",
        "file_550 5.7.1",
        "{\"size\":\"550\"}",
        "650 5.7.1 and 150 5.7.1 and 999",
        "550 4x",
        "5.7",
        "got 5501",
        "error 5.7.1.2",
        "4.2.2.3",
    ] {
        let found = shown(line);
        let expected: &[&str] = if line == "550 4x" { &["1 Unknown 550 - 4x"] } else { &[] };
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn carriage_returns_are_no_text() {
    let mut scanner = Scanner::new();
    let lines = ["550-5.7.1 a\r", "550 5.7.1 b\r", "sendmail[7]: to=<a@b>, dsn=2.0.0, stat=Sent (ok)\r"];
    let found: Vec<String> = lines.iter().flat_map(|line| scanner.line(line)).map(|found| show(&found)).collect();
    assert_eq!(found, ["1 Unknown 550 5.7.1 a|b", "3 Remote - 2.0.0 ok"]);
}

/// What a stranger says stands behind the reply's place, or in a name.
#[test]
fn a_stranger_cannot_put_a_reply_into_the_log() {
    for line in [
        "postfix/postscreen[7]: NOQUEUE: reject: CONNECT from [192.0.2.5]:550: too many connections; helo=<: 550 5.7.1 x>",
        "postfix/cleanup[7]: 4F1A2B3C4D: reject: header Subject: 550 5.7.1 x",
        "postfix/smtp[7]: warning: x said: 550 5.7.1 y",
        "postfix/smtpd[7]: warning: hostname x does not resolve to 192.0.2.5: 550 5.7.1",
        "sendmail[7]: 6ALDZYIV026949: localhost [192.0.2.5]: possible SMTP attack: command=550 5.7.1, count=3",
    ] {
        finds(line, &[]);
    }
}

#[test]
fn line_numbers_are_those_of_the_first_line() {
    finds("a\n\nS: 250-a\nS: 250 b\nsaid:\n  x\n  550 5.7.1 y", &["3 Unknown 250 - a|b", "7 Unknown 550 5.7.1 y"]);
}

#[test]
fn long_lines_take_no_long_time() {
    for piece in [
        "550-",
        "550 ",
        "550-5.7.1 ",
        "5.7.1 ",
        "(550) ",
        "5",
        "5.",
        "550\u{a0}",
        "error ",
        "'550 ",
        "??550-",
        ", reject=",
        "550 (",
        "5.7.1#",
        " said: ",
    ] {
        let line = piece.repeat((1 << 17) / piece.len());
        for prefix in [
            "",
            "S: ",
            "Diagnostic-Code: smtp; ",
            "sendmail[7]: ",
            "postfix/smtpd[7]: NOQUEUE: reject: RCPT from x: ",
            "Nov 21 13:33:58 mx x[7]: ",
            "sendmail[7]: to=a, dsn=5.1.1, reply=",
            "{\"timestamp\" \"reply\":\"550 ",
        ] {
            let mut scanner = Scanner::new();
            scanner.line(&format!("{prefix}{line}"));
            scanner.finish();
        }
    }
}

/// Pieces of which lines are made.
const PIECES: &[&str] = &[
    "550",
    "5.7.1",
    "250-",
    "421 4.7.0",
    " ",
    "-",
    "\t",
    ": ",
    "\u{0}",
    "\u{1b}[31m",
    "é",
    "“",
    "”",
    "(",
    ")",
    "'",
    "\"",
    "#",
    "##",
    "<",
    ">",
    "reject: ",
    "milter-reject: ",
    "END-OF-MESSAGE",
    "RCPT from x[192.0.2.5]: ",
    "; from=<",
    "??",
    "\\r\\n",
    "to=<a@b>, ",
    "relay=x, ",
    ", dsn=",
    ", status=",
    "sent (",
    "said: ",
    "refused to talk to me: ",
    ", reply=",
    ", stat=",
    "--- ",
    "Milter: ",
    "milter=f, ",
    ", reject=",
    " (hold)",
    " (held)",
    "Nov 21 13:33:58 mx ",
    "2026-11-21T13:33:58Z ",
    "postfix/smtpd[7]: ",
    "sendmail[7]: ",
    "x[7]: ",
    "NOQUEUE: ",
    "4F1A2B3C4D: ",
    "Status: ",
    "Diagnostic-Code: ",
    "smtp; ",
    "X-Postfix; ",
    "S: ",
    "<<< ",
    "error ",
    "code",
    "INFO ",
    " reply=\"",
    "{\"timestamp\"",
    "\"reply\":\"",
    "\\",
    "999",
    "5.999.999",
    "[13:33:58] < ",
    "SMTP error from x: ",
    " C=\"",
];

proptest! {
    /// No line makes it panic, and what it finds holds what the line says.
    #[test]
    fn any_text_may_be_scanned(lines in prop::collection::vec(prop::collection::vec(prop_oneof![
        4 => prop::sample::select(PIECES).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ], 0..14), 0..8)) {
        let lines: Vec<String> = lines.iter().map(|pieces| pieces.concat()).collect();
        let mut scanner = Scanner::new();
        let mut found = Vec::new();
        for line in &lines {
            found.extend(scanner.line(line));
        }
        found.extend(scanner.finish());
        for found in found {
            prop_assert!(found.code.is_some() || found.enhanced.is_some());
            prop_assert!(found.code.is_none_or(|code| (200..600).contains(&code)));
            prop_assert!((1..=lines.len()).contains(&found.line), "{:?}", found);
            let line = &lines[found.line - 1];
            prop_assert!(found.code.is_none_or(|code| line.contains(&code.to_string())), "{:?} in {:?}", found, line);
        }
    }
}

/// A recipient chooses what stands between the quotes of its address.
#[test]
fn an_address_is_not_taken_for_fields() {
    postfix_finds(
        "smtp[7]: 4dLk9Y2vRkz9vJ: to=<\"x>, dsn=2.0.0, status=sent (250 2.0.0 ok\"@b.example>, relay=mx[192.0.2.5]:25, delay=1, \
         delays=0/0/1/0, dsn=5.1.1, status=bounced (host mx[192.0.2.5] said: 550 5.1.1 no (in reply to RCPT TO command))",
        &["1 Remote 550 5.1.1 no"],
    );
    finds(
        "Nov 21 13:33:58 mx sm-mta[7]: 6ALDXwZZ001234: to=<\"a, reply=250 2.0.0 x\"@b.example>, delay=0, relay=mx [192.0.2.5], \
         dsn=5.1.1, reply=550 5.1.1 no, stat=User unknown",
        &["1 Remote 550 5.1.1 no"],
    );
    finds(
        "Nov 21 13:33:58 mx sm-mta[7]: 6ALDXwZZ001234: ruleset=check_rcpt, arg1=<\"a, reject=250 2.0.0 x\"@b.example>, \
         relay=h [192.0.2.5], reject=550 5.7.1 no",
        &["1 Mta 550 5.7.1 no"],
    );
}

/// Each head would be compared with all that follow.
#[test]
fn a_line_of_nothing_but_codes_takes_no_longer_than_any_other() {
    let heads: String = (0..10_000).map(|n| format!("550-5.{}.{} ", n % 200, n / 200)).collect();
    let mut scanner = Scanner::new();
    scanner.line(&format!("x {heads}"));
    scanner.line(&format!("Nov 21 13:33:58 mx foo[1]: {heads}"));
    scanner.finish();
}
