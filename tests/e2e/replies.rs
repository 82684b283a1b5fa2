//! Texts of replies: whatever is written, and whatever a stranger puts into it, arrives as it was meant.

use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::Site;
use crate::site::each_on_both;
use crate::site::message_of;
use crate::site::on;
use crate::site::on_both;
use crate::support::Mta;

/// A condition that holds at each stage at which a client hears texts.
const STAGES: [(&str, &str); 3] = [
    ("mail", "when.sender = \"sender@example.net\""),
    ("rcpt", "when.recipient = \"user@example.test\""),
    ("end-of-message", "when.sender = \"sender@example.net\"\nat = \"end-of-message\""),
];

fn refused_at(site: &Site, stage: &str, reply: &str) {
    let mut client = site.client();
    let mail = client.mail(SENDER);
    if stage == "mail" {
        return mail.is(reply);
    }
    mail.ok();
    let rcpt = client.rcpt(RECIPIENT);
    if stage == "rcpt" {
        return rcpt.is(reply);
    }
    rcpt.ok();
    client.data(MESSAGE).is(reply);
}

#[test]
fn every_line_of_a_text_reaches_the_client_with_both_codes() {
    let texts = [
        ("550 5.7.1 one\\ntwo\\nthree", "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three"),
        ("451 4.7.1 one\\n\\nthree", "451-4.7.1 one\r\n451-4.7.1 \r\n451 4.7.1 three"),
    ];
    said_as_written(&texts);
}

#[test]
fn percent_signs_and_braces_and_quotes_reach_the_client() {
    let texts = [
        (
            "550 5.7.1 It is 100% sure, %s%n %% {{id}} \\\"quoted\\\" \\\\",
            "550 5.7.1 It is 100% sure, %s%n %% {id} \"quoted\" \\",
        ),
        ("452 4.3.1 quota 50% used", "452 4.3.1 quota 50% used"),
        ("554 5.7.1 %", "554 5.7.1 %"),
    ];
    said_as_written(&texts);
}

#[test]
fn a_long_text_is_folded_where_clients_can_read_it() {
    let words = "word ".repeat(100);
    let text = format!("550 5.7.1 {words}");
    let [whole, rest] = ["word ".repeat(48), "word ".repeat(4)].map(|words| words.trim_end().to_owned());
    let expected = format!("550-5.7.1 {whole}\r\n550-5.7.1 {whole}\r\n550 5.7.1 {rest}");
    said_as_written(&[(&text, &expected)]);
}

/// Each text at each stage.
fn said_as_written(texts: &[(&str, &str)]) {
    let cases: Vec<_> = texts.iter().flat_map(|text| STAGES.map(|stage| (text, stage))).collect();
    each_on_both(
        &[],
        &cases,
        |((written, _), (_, condition))| format!("[[rule]]\nname = \"r\"\n{condition}\nreply = \"{written}\"\n"),
        |site, ((_, reply), (stage, _))| refused_at(site, stage, reply),
    );
}

#[test]
fn what_a_stranger_calls_itself_cannot_break_out_of_a_reply() {
    let long = "x".repeat(400);
    let cut = format!("{}...", "x".repeat(100));
    // What is sent, and what the daemon then says.
    let names: [(&[u8], &str); 8] = [
        (b"%s%n%d%%", "%s%n%d%%"),
        (b"{client}{{rule}}", "{client}{{rule}}"),
        (b"\"quoted\\\" 250 ok", "\"quoted\\\" 250 ok"),
        (b"<script>&amp;'", "<script>&amp;'"),
        ("gr\u{fc}n".as_bytes(), "gr?n"),
        (b"\xff\xfe\x80", "???"),
        (b"a\x01\x07\x1b[31m\x7fb", "a???[31m?b"),
        (long.as_bytes(), &cut),
    ];
    let rules = "[[rule]]\nname = \"r\"\nwhen.sender = \"sender@example.net\"\n\
                 reply = \"554 5.7.1 HELO {helo} refused\"\n";
    for mta in Mta::BOTH {
        // As little as possible is refused by the MTA itself.
        let options = match mta {
            Mta::Postfix => ["--set", "smtputf8_enable=no"],
            Mta::Sendmail => ["--set", "AllowBogusHELO=True"],
        };
        on(mta, &options, rules, |site| {
            for (name, shown) in names {
                let mut client = site.stranger();
                client.greeting().starts("220 ");
                let answer = client.ehlo_raw(name);
                if mta == Mta::Sendmail && name.len() > 256 {
                    answer.starts("501 5.0.0 Invalid domain name");
                    continue;
                }
                answer.starts("250");
                client.mail(SENDER).is(&format!("554 5.7.1 HELO {shown} refused"));
            }
        });
    }
}

#[test]
fn what_a_stranger_puts_into_an_address_cannot_break_out_of_a_reply() {
    let long = "x".repeat(150);
    let cut = format!("{}...", "x".repeat(100));
    on_both("[[rule]]\nname = \"r\"\nwhen.recipient = \".test\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        let mut names = |local: &str, shown: &str| {
            let reply = format!("550 5.7.1 Not permitted to send to {shown}");
            client.rcpt(&format!("<{local}@host.example.test>")).is(&reply);
        };
        names("%s%n", "%s%n@host.example.test");
        names("{rule}", "{rule}@host.example.test");
        names("\"a.b\\\"250\"", "\"a.b\\\"250\"@host.example.test");
        names(&long, &cut);
        if site.is_postfix() {
            names("gr\u{fc}\u{df}e", "gr??e@host.example.test");
        }
    });
}

#[test]
fn a_watched_rule_is_counted_and_not_heard() {
    let cases = [
        ("mail", "550 5.7.1", "when.client = \"127.0.0.1\""),
        ("rcpt", "550 5.7.1", "when.recipient = \"user@example.test\""),
        ("end-of-message", "552 5.3.4", "when.size = \"> 10 B\""),
        ("mail", "451 4.7.1", "when.client = \"127.0.0.1\"\nreply = \"451 4.7.1 watched\""),
    ];
    each_on_both(
        &[],
        &cases,
        |(_, _, condition)| format!("[[rule]]\nname = \"watched\"\n{condition}\nmode = \"monitor\"\n"),
        |site, (stage, status, _)| {
            site.client().delivers();
            site.expect_reply(stage, status, "monitor");
        },
    );
}

#[test]
fn a_watched_limit_counts_what_it_lets_pass() {
    let rules =
        "[[rule]]\nname = \"watched\"\nlimit = { key = \"client\", messages = \"1/hour\" }\nmode = \"monitor\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        for _ in 0..3 {
            client.delivers();
        }
        site.expect_reply("mail", "452 4.3.1", "monitor");
        site.expect_reply("mail", "452 4.3.1", "monitor");
    });
}

#[test]
fn a_watched_connection_limit_lets_the_connection_live() {
    let rules = "[[rule]]\nname = \"watched\"\nlimit = { key = \"client\", concurrent = 1 }\nmode = \"monitor\"\n";
    on_both(rules, |site| {
        let mut first = site.client();
        let mut second = site.client();
        second.delivers();
        site.expect_reply("mail", "421 4.7.0", "monitor");
        first.delivers();
    });
}

#[test]
fn a_watched_rule_does_not_keep_the_one_below_from_refusing() {
    let rules = "[[rule]]\nname = \"watched\"\nwhen.client = \"127.0.0.1\"\nreply = \"554 5.7.1 watched\"\nmode = \"monitor\"\n\
                 [[rule]]\nname = \"enforced\"\nwhen.sender_domain = \"example.net\"\nreply = \"550 5.7.1 enforced\"\n";
    on_both(rules, |site| {
        site.client().mail(SENDER).is("550 5.7.1 enforced");
        site.expect_reply("mail", "554 5.7.1", "monitor");
    });
}

#[test]
fn a_watched_policy_lets_everything_pass() {
    // Each message gets one answer; what comes below in the policy, and later, it never got to.
    let conditions =
        ["when.client = \"127.0.0.1\"", "when.recipient = \"user@example.test\"", "when.size = \"> 1 KiB\""];
    let cases = [
        ("mail", "550 5.7.1", conditions[0]),
        ("rcpt", "550 5.7.1", conditions[1]),
        ("end-of-message", "552 5.3.4", conditions[2]),
    ];
    each_on_both(
        &[],
        &cases,
        |(_, _, condition)| format!("[policy]\nmode = \"monitor\"\n[[rule]]\nname = \"r\"\n{condition}\n"),
        |site, (stage, status, _)| {
            let mut client = site.client();
            client.mail(SENDER).ok();
            client.rcpt(RECIPIENT).ok();
            client.data(&message_of(2000)).ok();
            site.expect_reply(stage, status, "monitor");
        },
    );
}

#[test]
fn variables_are_filled_in() {
    let rules = "[lists.bad]\naddresses = [\"sender@example.net # since Monday\"]\n\
                 [[rule]]\nname = \"r-1\"\nwhen.sender = \"@bad\"\n\
                 reply = \"550 5.7.1 {rule}: {client} {client_name} {helo} {sender} {sender_domain} {login} {list} \
                 {list.entry} {list.comment}\"\n";
    on_both(rules, |site| {
        site.client()
            .mail(SENDER)
            .is("550 5.7.1 r-1: 127.0.0.1 localhost client.example.net sender@example.net example.net unknown bad \
             sender@example.net since Monday");
    });
}
