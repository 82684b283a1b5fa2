//! When a refusal is spoken, and who Postfix says the client is.

use std::net::TcpListener;

use crate::site::LOCALHOST;
use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::on;
use crate::site::on_both;
use crate::site::on_both_with;
use crate::support::Mta;

#[test]
fn a_rule_can_answer_at_rcpt_so_that_logs_name_the_recipient() {
    on_both("[[rule]]\nname = \"r\"\nwhen.client = \"127.0.0.1\"\nat = \"rcpt\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).is("550 5.7.1 Client 127.0.0.1 is blocked by local policy");
    });
}

#[test]
fn a_policy_can_answer_at_rcpt_at_the_earliest() {
    let rules = "[policy]\nanswer_at = \"rcpt\"\n\
                 [[rule]]\nname = \"sender\"\nwhen.sender = \"bad@example.net\"\n\
                 [[rule]]\nname = \"client\"\nwhen.client = \"127.0.0.1\"\nunless.sender = \"<>\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        client.mail("<bad@example.net>").ok();
        client.rcpt(RECIPIENT).is("550 5.7.1 Sender bad@example.net is blocked by local policy");
        client.rset();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).is("550 5.7.1 Client 127.0.0.1 is blocked by local policy");
        client.rset();
        client.mail("<>").ok();
        client.rcpt(RECIPIENT).ok();
        client.data(MESSAGE).ok();
    });
}

#[test]
fn a_rule_can_answer_at_data_and_at_the_end() {
    let rules = "[[rule]]\nname = \"data\"\nwhen.sender = \"data@example.net\"\nat = \"data\"\nreply = \"550 5.7.1 at data\"\n\
                 [[rule]]\nname = \"end\"\nwhen.sender = \"end@example.net\"\nat = \"end-of-message\"\nreply = \"451 4.7.1 at end\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        client.mail("<data@example.net>").ok();
        client.rcpt(RECIPIENT).ok();
        client.data(MESSAGE).is("550 5.7.1 at data");
        // The transaction is still open: what was refused once is refused again.
        client.data(MESSAGE).is("550 5.7.1 at data");
        client.rset();
        client.mail("<end@example.net>").ok();
        client.rcpt(RECIPIENT).ok();
        client.data(MESSAGE).is("451 4.7.1 at end");
        client.delivers();
    });
}

#[test]
fn what_is_refused_at_connect_is_greeted_with_554() {
    let rules =
        "[[rule]]\nname = \"r\"\nwhen.client = \"127.0.0.1\"\nat = \"connect\"\nreply = \"554 5.7.1 Go away\"\n";
    on_both(rules, |site| {
        let mut client = site.stranger();
        let greeting = client.greeting();
        greeting.is(site.either(
            "554 mx.example.test ESMTP not accepting connections",
            "554 mx.example.test ESMTP not accepting messages",
        ));
        assert_eq!(client.smtp.send("EHLO client.example.net").code(), 250);
        // Postfix now gives the text; Sendmail has none but its own.
        let answer = client.smtp.send("MAIL FROM:<sender@example.net>");
        assert_eq!(answer.text(), site.either("554 5.7.1 Go away", "550 5.0.0 Command rejected"));
        site.expect_reply("connect", "554 5.7.1", "enforce");
        for event in ["CONNECT", "EHLO", "MAIL"] {
            site.expect_rejection(event, LOCALHOST, "554 5.7.1 Go away");
        }
    });
}

#[test]
fn who_is_sent_away_at_connect_finds_the_connection_closed() {
    let rules = "[[rule]]\nname = \"r\"\nwhen.client = \"127.0.0.1\"\nat = \"connect\"\nreply = \"421 4.7.0 Come back later\"\n\
                 disconnect = true\n";
    on_both(rules, |site| {
        let mut client = site.stranger();
        client.greeting().is(site.either(
            "421 mx.example.test Service unavailable - try again later",
            "421 4.7.0 mx.example.test closing connection",
        ));
        client.sees_the_connection_closed();
        site.expect_reply("connect", "421 4.7.0", "enforce");
        site.expect_rejection("CONNECT", LOCALHOST, "421 4.7.0 Come back later");
    });
}

#[test]
fn a_connection_limit_can_answer_at_connect() {
    let rules = "[[rule]]\nname = \"r\"\nlimit = { key = \"client\", connections = \"1/hour\" }\nat = \"connect\"\n";
    on_both(rules, |site| {
        site.client().delivers();
        let mut client = site.stranger();
        client.greeting().starts("421 ");
        client.sees_the_connection_closed();
        site.expect_reply("connect", "421 4.7.0", "enforce");
        let text = "421 4.7.0 Connection rate limit of 1/hour reached, try again later";
        site.expect_rejection("CONNECT", LOCALHOST, text);
    });
}

/// Sendmail writes the address as `IPv6:0:0:0:0:0:0:0:1`.
#[test]
fn a_client_over_ipv6_is_known_by_its_address() {
    let rules = "[[rule]]\nname = \"six\"\nwhen.client = \"::/64\"\nwhen.sender = \"sender@example.net\"\n\
                 reply = \"550 5.7.1 Client {client} is blocked\"\n\
                 [[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/hour\" }\n";
    // A machine without IPv6 has nothing to test.
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    on_both_with(&["--ipv6"], rules, |site| {
        let mut client = site.client_over_ipv6();
        client.mail(SENDER).is("550 5.7.1 Client ::1 is blocked");
        client.delivers_from("<other@example.net>");
        client.mail("<other@example.net>").is("452 4.3.1 Message rate limit of 1/hour reached, try again later");
        site.client().delivers();
    });
}

/// Postfix takes IPv6 addresses in XCLIENT only if it speaks IPv6 itself.
const XCLIENT: &[&str] = &["--xclient", "--set", "inet_protocols=all"];

#[test]
fn rules_see_the_client_that_xclient_names() {
    let rules = "[lists.drop]\nnetworks = [\"192.0.2.0/24 # test net\", \"2001:db8::/32\"]\n\
                 [[rule]]\nname = \"network\"\nwhen.client = \"@drop\"\nreply = \"550 5.7.1 {client} is in {list.entry}\"\n\
                 [[rule]]\nname = \"name\"\nwhen.client_name = \".spam.example\"\n";
    on(Mta::Postfix, XCLIENT, rules, |site| {
        let cases = [
            ("ADDR=192.0.2.66 NAME=[UNAVAILABLE]", "unknown[192.0.2.66]", "550 5.7.1 192.0.2.66 is in 192.0.2.0/24"),
            (
                "ADDR=IPV6:2001:db8::25 NAME=[UNAVAILABLE]",
                "unknown[2001:db8::25]",
                "550 5.7.1 2001:db8::25 is in 2001:db8::/32",
            ),
            (
                "ADDR=IPV6:::ffff:192.0.2.7 NAME=mx.example.com",
                "mx.example.com[192.0.2.7]",
                "550 5.7.1 192.0.2.7 is in 192.0.2.0/24",
            ),
            (
                "ADDR=198.51.100.1 NAME=host.spam.example",
                "host.spam.example[198.51.100.1]",
                "550 5.7.1 Client host host.spam.example is blocked by local policy",
            ),
        ];
        for (attributes, name, reply) in cases {
            let mut client = site.client();
            client.delivers();
            client.becomes(attributes, name);
            client.mail(SENDER).is(reply);
            client.quit();
            // The next one on the same smtpd process.
            let mut client = site.client();
            client.becomes("ADDR=198.51.100.2 NAME=mail.example.com", "mail.example.com[198.51.100.2]");
            client.delivers();
        }
    });
}

#[test]
fn limits_count_for_the_client_that_xclient_names() {
    let rules = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/hour\" }\n";
    on(Mta::Postfix, XCLIENT, rules, |site| {
        const EXCEEDED: &str = "452 4.3.1 Message rate limit of 1/hour reached, try again later";
        let first = |attributes: &str, name: &str| {
            let mut client = site.client();
            client.becomes(attributes, name);
            client.delivers();
        };
        let exceeds = |attributes: &str, name: &str| {
            let mut client = site.client();
            client.becomes(attributes, name);
            client.mail(SENDER).is(EXCEEDED);
        };
        first("ADDR=192.0.2.1", "localhost[192.0.2.1]");
        exceeds("ADDR=192.0.2.1", "localhost[192.0.2.1]");
        first("ADDR=192.0.2.2", "localhost[192.0.2.2]");
        exceeds("ADDR=IPV6:::ffff:192.0.2.2", "localhost[192.0.2.2]");
        // Of IPv6 a /64 is one client.
        first("ADDR=IPV6:2001:db8::1", "localhost[2001:db8::1]");
        exceeds("ADDR=IPV6:2001:db8::ffff:2", "localhost[2001:db8::ffff:2]");
        first("ADDR=IPV6:2001:db8:0:1::1", "localhost[2001:db8:0:1::1]");
        // The client that said XCLIENT is another one.
        site.client().delivers();
    });
}

#[test]
fn a_login_given_by_xclient_is_a_login() {
    let rules = "[[rule]]\nname = \"auth\"\nwhen.authenticated = false\n\
                 [[rule]]\nname = \"who\"\nwhen.login = \"mallory\"\nreply = \"550 5.7.1 {login} is suspended\"\n";
    on(Mta::Postfix, XCLIENT, rules, |site| {
        let mut client = site.client();
        client.mail(SENDER).is("530 5.7.0 Authentication required");
        client.becomes("LOGIN=alice", LOCALHOST);
        client.delivers();
        client.becomes("LOGIN=mallory", LOCALHOST);
        client.mail(SENDER).is("550 5.7.1 mallory is suspended");
        client.becomes("LOGIN=[UNAVAILABLE]", LOCALHOST);
        client.mail(SENDER).is("530 5.7.0 Authentication required");
    });
}
