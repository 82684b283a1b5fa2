//! The replies of rules that have none: each case, as the client sees it.

use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::each_on_both;
use crate::site::message_of;
use crate::site::on_both;
use crate::site::on_both_with;

/// A rule about client or envelope, and where the default reply is heard.
struct Case {
    rule: &'static str,
    sender: &'static str,
    heard: Heard,
    reply: &'static str,
}

enum Heard {
    AtMail,
    AtRcpt,
}
use Heard::AtMail;
use Heard::AtRcpt;

const fn case(rule: &'static str, sender: &'static str, heard: Heard, reply: &'static str) -> Case {
    Case { rule, sender, heard, reply }
}

#[test]
fn whoever_a_rule_names_is_told_so() {
    let cases = [
        case("when.client = \"127.0.0.0/8\"", SENDER, AtMail, "550 5.7.1 Client 127.0.0.1 is blocked by local policy"),
        case(
            "when.client_name = \"localhost\"",
            SENDER,
            AtMail,
            "550 5.7.1 Client host localhost is blocked by local policy",
        ),
        case(
            "when.helo = \".example.net\"",
            SENDER,
            AtMail,
            "550 5.7.1 HELO name client.example.net is blocked by local policy",
        ),
        case(
            "when.sender = \"sender@example.net\"",
            "<Sender@Example.NET>",
            AtMail,
            "550 5.7.1 Sender Sender@Example.NET is blocked by local policy",
        ),
        case("when.sender = \"<>\"", "<>", AtMail, "550 5.7.1 Sender <> is blocked by local policy"),
        case(
            "when.sender_domain = \"example.net\"",
            SENDER,
            AtMail,
            "550 5.7.1 Sender domain example.net is blocked by local policy",
        ),
        case(
            "when.recipient = \"user@example.test\"",
            SENDER,
            AtRcpt,
            "550 5.7.1 Not permitted to send to user@example.test",
        ),
        case("when.over_quota = \"user@example.test\"", SENDER, AtRcpt, "552 5.2.2 Mailbox is full"),
        case(
            "when.size = \"> 1 KiB\"\nwhen.recipient = \"user@example.test\"",
            "<sender@example.net> SIZE=1025",
            AtRcpt,
            "552 5.2.3 Message of 1025 bytes is too large for this recipient",
        ),
        case(
            "when.size = \"> 1 KiB\"",
            "<sender@example.net> SIZE=1025",
            AtMail,
            "552 5.3.4 Message of 1025 bytes exceeds the size limit",
        ),
        case(
            "when.disk_free = { path = \"/tmp\", below = \"1000 TiB\" }",
            SENDER,
            AtMail,
            "452 4.3.1 Insufficient system storage, try again later",
        ),
        case("when.authenticated = false", SENDER, AtMail, "530 5.7.0 Authentication required"),
        case("when.tls = false", SENDER, AtMail, "530 5.7.0 Must issue a STARTTLS command first"),
    ];
    each_on_both(
        &[],
        &cases,
        |case| format!("[[rule]]\nname = \"r\"\n{}\n", case.rule),
        |site, case| {
            let mut client = site.client();
            match case.heard {
                AtMail => client.mail(case.sender).is(case.reply),
                AtRcpt => {
                    client.mail(case.sender).ok();
                    client.rcpt("<other@example.test>").ok();
                    client.rcpt(RECIPIENT).is(case.reply);
                    client.data(MESSAGE).ok();
                }
            }
            client.quit();
        },
    );
}

#[test]
fn the_true_size_is_judged_at_the_end_whatever_was_declared() {
    on_both("[[rule]]\nname = \"big\"\nwhen.size = \"> 1 KiB\"\n", |site| {
        let mut client = site.client();
        for declared in ["", " SIZE=100"] {
            client.mail(&format!("{SENDER}{declared}")).ok();
            client.rcpt(RECIPIENT).ok();
            client.data(&message_of(1025)).is("552 5.3.4 Message of 1025 bytes exceeds the size limit");
            client.mail(&format!("{SENDER}{declared}")).ok();
            client.rcpt(RECIPIENT).ok();
            client.data(&message_of(1024)).ok();
        }
    });
}

#[test]
fn a_message_too_large_for_one_of_its_recipients_is_refused_to_that_one_if_it_was_declared() {
    let rules = "[[rule]]\nname = \"small\"\nwhen.size = \"> 1 KiB\"\nwhen.recipient = \"small@example.test\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        client.mail("<sender@example.net> SIZE=2048").ok();
        client.rcpt("<small@example.test>").is("552 5.2.3 Message of 2 KiB is too large for this recipient");
        client.rcpt(RECIPIENT).ok();
        client.data(&message_of(2048)).ok();
        // Not declared: at the end there is one answer for all recipients.
        client.mail(SENDER).ok();
        client.rcpt("<small@example.test>").ok();
        client.rcpt(RECIPIENT).ok();
        client.data(&message_of(2048)).is("552 5.2.3 Message of 2 KiB is too large for this recipient");
    });
}

#[test]
fn one_recipient_too_many_can_come_with_the_next_message() {
    on_both("[[rule]]\nname = \"many\"\nwhen.recipients = \"> 2\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").ok();
        client.rcpt("<two@example.test>").ok();
        client.rcpt("<three@example.test>").is("452 4.5.3 Too many recipients in one message");
        client.rcpt("<four@example.test>").is("452 4.5.3 Too many recipients in one message");
        client.data(MESSAGE).ok();
        client.mail(SENDER).ok();
        client.rcpt("<three@example.test>").ok();
        client.data(MESSAGE).ok();
    });
}

#[test]
fn the_messages_of_a_client_are_limited_at_mail() {
    on_both("[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"2/hour\" }\n", |site| {
        let mut client = site.client();
        client.delivers();
        client.delivers();
        client.mail(SENDER).is("452 4.3.1 Message rate limit of 2/hour reached, try again later");
        client.quit();
        site.client().mail(SENDER).is("452 4.3.1 Message rate limit of 2/hour reached, try again later");
    });
}

#[test]
fn the_recipients_of_a_client_are_limited_at_rcpt() {
    on_both("[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", recipients = \"3/hour\" }\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").ok();
        client.rcpt("<two@example.test>").ok();
        client.data(MESSAGE).ok();
        client.mail(SENDER).ok();
        client.rcpt("<three@example.test>").ok();
        client.rcpt("<four@example.test>").is("450 4.7.1 Recipient rate limit of 3/hour reached, try again later");
        client.data(MESSAGE).ok();
    });
}

#[test]
fn the_messages_to_a_recipient_are_limited_at_rcpt() {
    on_both("[[rule]]\nname = \"rate\"\nlimit = { key = \"recipient\", messages = \"1/hour\" }\n", |site| {
        let mut client = site.client();
        client.delivers();
        client.mail(SENDER).ok();
        client.rcpt("<other@example.test>").ok();
        client.rcpt("<USER@Example.Test>").is("450 4.7.1 Message rate limit of 1/hour reached, try again later");
        client.data(MESSAGE).ok();
    });
}

#[test]
fn octets_are_limited_at_mail_by_what_is_declared_and_at_the_end_by_what_is_true() {
    on_both("[[rule]]\nname = \"volume\"\nlimit = { key = \"client\", bytes = \"2 KiB/hour\" }\n", |site| {
        const REPLY: &str = "452 4.3.1 Volume rate limit of 2 KiB/hour reached, try again later";
        let mut client = site.client();
        client.mail("<sender@example.net> SIZE=2049").is(REPLY);
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        client.data(&message_of(1500)).ok();
        // It says nothing, it lies, it tells the truth; and what was refused was not charged.
        for declared in ["", " SIZE=100"] {
            client.mail(&format!("{SENDER}{declared}")).ok();
            client.rcpt(RECIPIENT).ok();
            client.data(&message_of(549)).is(REPLY);
        }
        client.mail("<sender@example.net> SIZE=549").is(REPLY);
        client.mail("<sender@example.net> SIZE=548").ok();
        client.rcpt(RECIPIENT).ok();
        client.data(&message_of(548)).ok();
    });
}

#[test]
fn a_connection_too_many_is_told_at_mail_and_closed() {
    on_both("[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", connections = \"2/hour\" }\n", |site| {
        site.client().delivers();
        site.client().delivers();
        let mut third = site.client();
        third.mail(SENDER).is("421 4.7.0 Connection rate limit of 2/hour reached, try again later");
        third.sees_the_connection_closed();
    });
}

#[test]
fn a_connection_too_many_at_once_is_told_at_mail_and_closed() {
    on_both("[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", concurrent = 2 }\n", |site| {
        let mut first = site.client();
        let mut second = site.client();
        let mut third = site.client();
        third.mail(SENDER).is("421 4.7.0 Too many simultaneous connections, try again later");
        third.sees_the_connection_closed();
        first.delivers();
        first.quit();
        site.daemon.wait_for_metric("postward_connections_active", &[], 1.0);
        second.delivers();
        site.client().delivers();
    });
}

#[test]
fn authentication_is_asked_for_until_the_client_has_logged_in() {
    on_both_with(&["--auth"], "[[rule]]\nname = \"auth\"\nwhen.authenticated = false\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).is("530 5.7.0 Authentication required");
        client.log_in();
        client.delivers();
    });
}

#[test]
fn encryption_is_asked_for_until_the_client_has_it() {
    on_both_with(&["--tls"], "[[rule]]\nname = \"tls\"\nwhen.tls = false\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).is("530 5.7.0 Must issue a STARTTLS command first");
        client.starttls();
        client.delivers();
    });
}

#[test]
fn a_login_may_send_only_as_its_own_addresses() {
    const OWN: &str = "[lists.own]\nsenders = { \"alice@example.test\" = [\"alice@example.test\", \"sales.example\"] }\n\
                       [[rule]]\nname = \"own\"\nwhen.sender_login_mismatch = \"@own\"\n";
    const WRITTEN: &str = "reply = \"553 5.7.1 {sender}: not owned by user {login}\"\n";
    let cases = [
        ("", "550 5.7.1 Sender bob@example.test not allowed for login alice@example.test"),
        (WRITTEN, "553 5.7.1 bob@example.test: not owned by user alice@example.test"),
    ];
    each_on_both(
        &["--auth"],
        &cases,
        |(reply, _)| format!("{OWN}{reply}"),
        |site, (_, reply)| {
            let mut client = site.client();
            client.log_in();
            client.mail("<bob@example.test>").is(reply);
            client.delivers_from("<alice@example.test>");
            client.delivers_from("<any@sales.example>");
        },
    );
}
