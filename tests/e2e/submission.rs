//! Mail that does not come by SMTP, and unix sockets.

use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::Site;
use crate::site::keeping;
use crate::site::message_of;
use crate::support::Mta;
use crate::support::wait_for;

/// A Postfix that asks the daemon about mail from SMTP and from sendmail(1) alike.
fn with_submission(rules: &str) -> Site {
    Site::start(Mta::Postfix, &["--non-smtpd-milter", "{milter}"], rules)
}

/// Hands a message to Postfix as a program on the same machine does.
fn submit(site: &Site, sender: &str, recipients: &[&str]) {
    let mut sendmail = Command::new("/usr/sbin/sendmail")
        .arg("-C")
        .arg(site.mta.config_directory())
        .args(["-i", "-f", sender])
        .args(recipients)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    sendmail.stdin.take().unwrap().write_all(MESSAGE.as_bytes()).unwrap();
    assert!(sendmail.wait().unwrap().success());
}

/// Waits until nothing is left of it.
fn is_gone(site: &Site) {
    let queue = site.mta.config_directory().with_file_name("queue");
    let directories = ["maildrop", "incoming", "active", "deferred", "hold"];
    wait_for("the queue to be empty", || {
        let mut files = directories.iter().filter(|name| has_files(&queue.join(name)));
        files.next().is_none().then_some(())
    });
}

fn has_files(directory: &std::path::Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| !entry.path().is_dir() || has_files(&entry.path()))
}

#[test]
fn a_recipient_refused_to_a_local_program_bounces_and_is_never_stuck() {
    let site = with_submission("[[rule]]\nname = \"r\"\nwhen.recipient = \"bad@example.test\"\n");
    const REPLY: &str = "5.7.1 Not permitted to send to bad@example.test";
    submit(&site, "sender@example.net", &["user@example.test", "bad@example.test"]);
    site.mta.wait_for_log("sender non-delivery notification: ");
    is_gone(&site);
    site.expect_recipient("accepted");
    site.expect_recipient("accepted");
    site.expect_reply("end-of-message", "550 5.7.1", "enforce");
    site.expect_message("rejected");
    site.expect_rejection("END-OF-MESSAGE", "localhost[127.0.0.1]", REPLY);
    // By SMTP the same recipient is refused at RCPT, and to it alone.
    let mut client = site.client();
    client.mail(SENDER).ok();
    client.rcpt("<bad@example.test>").is(&format!("550 {REPLY}"));
    client.rcpt(RECIPIENT).ok();
    client.data(MESSAGE).ok();
    client.quit();
    site.check();
}

#[test]
fn a_local_program_hears_of_refusals_at_mail_and_at_the_end_by_a_bounce() {
    let rules = "[[rule]]\nname = \"mail\"\nwhen.sender = \"bad@example.net\"\n\
                 [[rule]]\nname = \"end\"\nwhen.size = \"> 10 B\"\nunless.sender = \"good@example.net\"\n";
    let site = with_submission(rules);
    submit(&site, "bad@example.net", &["user@example.test"]);
    site.mta.wait_for_log("to=<bad@example.net>");
    submit(&site, "large@example.net", &["user@example.test"]);
    site.mta.wait_for_log("to=<large@example.net>");
    submit(&site, "good@example.net", &["user@example.test"]);
    site.mta.wait_for_log("from=<good@example.net>");
    is_gone(&site);
    let log = site.mta.log();
    assert_eq!(log.matches("milter-reject: ").count(), 2, "{log}");
    assert_eq!(log.matches("sender non-delivery notification: ").count(), 2, "{log}");
    assert!(!log.contains("configuration error") && !log.contains("warning: milter"), "{log}");
    site.expect_reply("mail", "550 5.7.1", "enforce");
    site.expect_reply("end-of-message", "552 5.3.4", "enforce");
    for end in ["rejected", "rejected", "accepted"] {
        site.expect_message(end);
    }
    site.expect_recipient("accepted");
    site.expect_recipient("accepted");
    site.check_counters();
}

#[test]
fn a_local_program_may_have_one_recipient_exempted_and_one_discarded() {
    let rules = "[[rule]]\nname = \"exempt\"\nwhen.recipient = \"postmaster@example.test\"\nthen = \"accept\"\n\
                 [[rule]]\nname = \"drop\"\nwhen.recipient = \"drop@example.test\"\nthen = \"discard\"\n\
                 [[rule]]\nname = \"tag\"\nwhen.sender_domain = \"example.net\"\nadd_header = \"X-Policy: {rule}\"\n";
    let site = with_submission(rules);
    submit(&site, "sender@example.net", &["postmaster@example.test", "drop@example.test", "user@example.test"]);
    site.mta.wait_for_log("to=<user@example.test>");
    is_gone(&site);
    let log = site.mta.log();
    assert!(log.contains("to=<postmaster@example.test>") && !log.contains("to=<drop@example.test>"), "{log}");
    for _ in 0..3 {
        site.expect_recipient("accepted");
    }
    site.expect_message("accepted");
    site.check();
}

#[test]
fn both_mtas_reach_the_daemon_over_a_unix_socket() {
    let rules = "[[rule]]\nname = \"bad\"\nwhen.recipient = \"bad@example.test\"\n\
                 [[rule]]\nname = \"big\"\nwhen.size = \"> 1 KiB\"\n\
                 [[rule]]\nname = \"tag\"\nwhen.client = \"127.0.0.1\"\nadd_header = \"X-Policy: {rule}\"\n";
    let server = "listen = [\"unix:{dir}/milter.sock\"]\nsocket_group = \"postfix\"\nsocket_mode = \"0660\"";
    for mta in Mta::BOTH {
        let site = Site::start_with(mta, keeping(mta), server, rules);
        assert!(site.daemon.milter().starts_with("unix:/"), "{}", site.daemon.milter());
        let mut client = site.client();
        for _ in 0..3 {
            client.mail(SENDER).ok();
            client.rcpt("<bad@example.test>").is("550 5.7.1 Not permitted to send to bad@example.test");
            client.rcpt(RECIPIENT).ok();
            client.data(&message_of(2048)).is("552 5.3.4 Message of 2 KiB exceeds the size limit");
        }
        client.delivers();
        client.quit();
        let (queued, _) = site.only_queued();
        assert!(queued.message.contains("X-Policy: tag\n"), "{queued:?}");
        site.check();
    }
}
