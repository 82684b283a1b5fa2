//! Everything that is not a refusal, and how rules and messages stand to one another.

use crate::site::LOCALHOST;
use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::message_of;
use crate::site::on;
use crate::site::on_both;
use crate::site::on_both_keeping;
use crate::support::Mta;

#[test]
fn a_discarded_message_is_accepted_and_gone() {
    on_both_keeping("[[rule]]\nname = \"drop\"\nwhen.sender = \"sender@example.net\"\nthen = \"discard\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        client.data_that_is("discarded", MESSAGE).ok();
        client.delivers_from("<other@example.net>");
        client.quit();
        let (queued, recipients) = site.only_queued();
        assert!(queued.envelope.contains("other@example.net"), "{queued:?}");
        assert_eq!(recipients, ["user@example.test"]);
        if site.is_postfix() {
            site.mta.wait_for_log("milter-discard: END-OF-MESSAGE from localhost[127.0.0.1]: ");
        }
    });
}

#[test]
fn a_message_discarded_for_one_recipient_reaches_the_others() {
    on_both_keeping("[[rule]]\nname = \"drop\"\nwhen.recipient = \"two@example.test\"\nthen = \"discard\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        for recipient in ["<one@example.test>", "<two@example.test>", "<three@example.test>"] {
            client.rcpt(recipient).ok();
        }
        client.data(MESSAGE).ok();
        client.quit();
        let (_, recipients) = site.only_queued();
        assert_eq!(recipients, ["one@example.test", "three@example.test"]);
    });
}

#[test]
fn a_message_that_every_recipient_discards_is_discarded() {
    on_both_keeping("[[rule]]\nname = \"drop\"\nwhen.recipient = \".test\"\nthen = \"discard\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<one@a.example.test>").ok();
        client.rcpt("<two@b.example.test>").ok();
        client.data_that_is("discarded", MESSAGE).ok();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.net>").ok();
        client.data(MESSAGE).ok();
        client.quit();
        let (_, recipients) = site.only_queued();
        assert_eq!(recipients, ["one@example.net"]);
    });
}

#[test]
fn a_quarantined_message_is_accepted_and_held() {
    on_both("[[rule]]\nname = \"hold\"\nwhen.sender = \"sender@example.net\"\nthen = \"quarantine\"\n", |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        client.data_that_is("quarantined", MESSAGE).ok();
        client.quit();
        let (queued, recipients) = site.only_queued();
        assert!(queued.held, "{queued:?}");
        assert_eq!(recipients, ["user@example.test"]);
    });
}

#[test]
fn a_header_field_is_added_once_for_each_rule_that_holds() {
    let rules = "[[rule]]\nname = \"tag\"\nwhen.client = \"127.0.0.1\"\nadd_header = \"X-Policy: {rule}; client={client}; 100%\"\n\
                 [[rule]]\nname = \"second\"\nwhen.recipient = \".test\"\nadd_header = \"X-Second: helo={helo}\"\n\
                 [[rule]]\nname = \"never\"\nwhen.client = \"192.0.2.1\"\nadd_header = \"X-Never: yes\"\n";
    on_both_keeping(rules, |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").ok();
        client.rcpt("<two@example.test>").ok();
        client.data(MESSAGE).ok();
        client.quit();
        let (queued, _) = site.only_queued();
        let added: Vec<&str> = queued.message.lines().filter(|line| line.starts_with("X-")).collect();
        assert_eq!(added, ["X-Policy: tag; client=127.0.0.1; 100%", "X-Second: helo=client.example.net"]);
    });
}

/// With a rule about the size HDR_LEADSPC is negotiated, and the blank after the colon becomes part of the value.
#[test]
fn an_added_header_field_looks_the_same_whether_content_is_asked_for_or_not() {
    let rules = "[[rule]]\nname = \"tag\"\nwhen.client = \"127.0.0.1\"\nadd_header = \"X-Policy: {rule}\"\n\
                 [[rule]]\nname = \"big\"\nwhen.size = \"> 1 MiB\"\n";
    on_both_keeping(rules, |site| {
        site.client().delivers();
        let (queued, _) = site.only_queued();
        assert!(queued.message.contains("\nX-Policy: tag\n"), "{queued:?}");
    });
}

#[test]
fn the_exemption_of_one_recipient_exempts_no_other() {
    let rules = "[[rule]]\nname = \"postmaster\"\nwhen.recipient = \"postmaster@example.test\"\nthen = \"accept\"\n\
                 [[rule]]\nname = \"blocked\"\nwhen.client = \"127.0.0.1\"\nreply = \"550 5.7.1 blocked\"\n";
    on_both_keeping(rules, |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").is("550 5.7.1 blocked");
        client.rcpt("<Postmaster@Example.Test>").ok();
        client.rcpt("<two@example.test>").is("550 5.7.1 blocked");
        client.data(MESSAGE).ok();
        // Nobody is left: the MTA itself refuses DATA.
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").is("550 5.7.1 blocked");
        let answer = client.data(MESSAGE);
        answer.starts(site.either("554 5.5.1 Error: no valid recipients", "503 5.0.0 Need RCPT (recipient)"));
        client.quit();
        let (_, recipients) = site.only_queued();
        assert_eq!(recipients.iter().map(|r| r.to_lowercase()).collect::<Vec<_>>(), ["postmaster@example.test"]);
    });
}

#[test]
fn a_rule_about_the_whole_message_is_skipped_only_if_every_recipient_is_exempt() {
    let rules = "[[rule]]\nname = \"vip\"\nwhen.recipient = [\"vip@example.test\", \"vip2@example.test\"]\nthen = \"accept\"\n\
                 [[rule]]\nname = \"big\"\nwhen.size = \"> 1 KiB\"\n";
    on_both(rules, |site| {
        let large = message_of(2048);
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<vip@example.test>").ok();
        client.rcpt("<vip2@example.test>").ok();
        client.data(&large).ok();
        client.mail(SENDER).ok();
        client.rcpt("<vip@example.test>").ok();
        client.rcpt(RECIPIENT).ok();
        client.data(&large).is("552 5.3.4 Message of 2 KiB exceeds the size limit");
        // Declared: the others hear it at RCPT, and the exempt one has its message.
        client.mail("<sender@example.net> SIZE=2048").ok();
        client.rcpt(RECIPIENT).is("552 5.3.4 Message of 2 KiB exceeds the size limit");
        client.rcpt("<vip@example.test>").ok();
        client.data(&large).ok();
    });
}

#[test]
fn each_message_of_a_connection_is_judged_for_itself() {
    on_both("[[rule]]\nname = \"bad\"\nwhen.sender = \"bad@example.net\"\n", |site| {
        let mut client = site.client();
        for _ in 0..3 {
            client.delivers();
            client.mail("<bad@example.net>").is("550 5.7.1 Sender bad@example.net is blocked by local policy");
        }
        client.delivers();
        client.quit();
    });
}

#[test]
fn the_last_name_that_a_client_gave_itself_counts() {
    on_both("[[rule]]\nname = \"helo\"\nwhen.helo = \"spammer.example\"\n", |site| {
        let mut client = site.client();
        client.delivers();
        client.ehlo("spammer.example");
        client.mail(SENDER).is("550 5.7.1 HELO name spammer.example is blocked by local policy");
        client.ehlo("honest.example");
        client.delivers();
        // EHLO in the middle of a message ends it.
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        client.ehlo("SPAMMER.example");
        client.mail(SENDER).is("550 5.7.1 HELO name SPAMMER.example is blocked by local policy");
    });
}

#[test]
fn who_is_exempt_is_not_charged() {
    let rules = "[[rule]]\nname = \"trusted\"\nwhen.sender = \"trusted@example.net\"\nthen = \"accept\"\n\
                 [[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/hour\" }\n";
    on_both(rules, |site| {
        let mut client = site.client();
        for _ in 0..3 {
            client.delivers_from("<trusted@example.net>");
        }
        client.delivers();
        client.mail(SENDER).is("452 4.3.1 Message rate limit of 1/hour reached, try again later");
        client.delivers_from("<trusted@example.net>");
    });
}

#[test]
fn commands_that_come_together_get_each_its_own_answer() {
    on_both("[[rule]]\nname = \"bad\"\nwhen.recipient = \"bad@example.test\"\n", |site| {
        const REPLY: &str = "550 5.7.1 Not permitted to send to bad@example.test";
        let mut client = site.client();
        client.smtp.raw(
            "MAIL FROM:<sender@example.net>\r\nRCPT TO:<one@example.test>\r\nRCPT TO:<bad@example.test>\r\n\
             RCPT TO:<two@example.test>\r\nDATA\r\n",
        );
        let codes: Vec<u16> = (0..5).map(|_| client.smtp.read_reply().code()).collect();
        assert_eq!(codes, [250, 250, 550, 250, 354]);
        client.smtp.raw("Subject: test\r\n\r\nHello\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n");
        let codes: Vec<u16> = (0..4).map(|_| client.smtp.read_reply().code()).collect();
        assert_eq!(codes, [250, 250, 250, 221]);
        for end in ["accepted", "rejected", "accepted"] {
            site.expect_recipient(end);
        }
        site.expect_reply("rcpt", "550 5.7.1", "enforce");
        site.expect_rejection("RCPT", LOCALHOST, REPLY);
        site.expect_message("accepted");
        site.expect_message("aborted");
    });
}

#[test]
fn a_message_that_comes_in_chunks_is_judged_like_another() {
    on(Mta::Postfix, &[], "[[rule]]\nname = \"big\"\nwhen.size = \"> 1 KiB\"\n", |site| {
        let chunks = message_of(1025).replace('\n', "\r\n");
        let (first, second) = chunks.split_at(500);
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        client.smtp.raw(format!("BDAT 500\r\n{first}"));
        assert_eq!(client.smtp.read_reply().code(), 250);
        client.smtp.raw(format!("BDAT {} LAST\r\n{second}", second.len()));
        let reply = client.smtp.read_reply().text();
        assert_eq!(reply, "552 5.3.4 Message of 1025 bytes exceeds the size limit");
        client.ended("rejected");
        site.expect_reply("end-of-message", "552 5.3.4", "enforce");
        site.expect_rejection("END-OF-MESSAGE", LOCALHOST, &reply[4..]);
        client.delivers();
    });
}
