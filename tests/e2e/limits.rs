//! Limits are charged for what was accepted, and for nothing else.

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::Site;
use crate::site::message_of;
use crate::site::on;
use crate::site::on_both;
use crate::site::on_both_with;
use crate::support::Mta;
use crate::support::postward;
use crate::support::wait_for;

const ONE_AN_HOUR: &str = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/hour\" }\n";
const EXCEEDED: &str = "452 4.3.1 Message rate limit of 1/hour reached, try again later";

/// There was room for exactly one message.
fn has_room_for_one(site: &Site) {
    let mut client = site.client();
    client.delivers();
    client.mail(SENDER).is(EXCEEDED);
}

#[test]
fn a_client_that_hangs_up_is_charged_nothing() {
    on_both(ONE_AN_HOUR, |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        drop(client);
        site.daemon.wait_for_metric("postward_messages_total", &[("result", "aborted")], 1.0);
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        drop(client);
        site.daemon.wait_for_metric("postward_messages_total", &[("result", "aborted")], 2.0);
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        assert_eq!(client.smtp.send("DATA").code(), 354);
        client.smtp.raw("Subject: half\r\n\r\nThe connection is lost in the mid");
        drop(client);
        site.daemon.wait_for_metric("postward_messages_total", &[("result", "aborted")], 3.0);
        has_room_for_one(site);
    });
}

#[test]
fn a_reset_by_an_operator_makes_room_and_a_block_leaves_none() {
    for mta in Mta::BOTH {
        let server = "listen = [\"inet:127.0.0.1:0\"]\ncontrol = \"{dir}/control.sock\"";
        let site = Site::start_with(mta, &[], server, ONE_AN_HOUR);
        let control = site.daemon.directory().join("control.sock");
        let operate = |command: &str| {
            let arguments = ["limits", command, "127.0.0.1", "--control", control.to_str().unwrap()];
            assert!(postward(&arguments).status.success(), "{command}");
        };
        has_room_for_one(&site);
        operate("reset");
        has_room_for_one(&site);
        operate("block");
        operate("reset");
        site.client().mail(SENDER).is("452 4.3.1 Blocked by the administrator");
        operate("unblock");
        has_room_for_one(&site);
        site.check();
    }
}

#[test]
fn rset_gives_back_what_was_held() {
    on_both(ONE_AN_HOUR, |site| {
        let mut client = site.client();
        for _ in 0..3 {
            client.mail(SENDER).ok();
            client.rset();
            client.mail(SENDER).ok();
            client.rcpt(RECIPIENT).ok();
            client.rset();
        }
        client.quit();
        has_room_for_one(site);
    });
}

#[test]
fn what_rset_gives_back_another_client_can_have() {
    let rules = "[[rule]]\nname = \"rate\"\nlimit = { key = \"sender\", messages = \"1/hour\" }\n";
    on_both(rules, |site| {
        let (mut first, mut second) = (site.client(), site.client());
        first.mail("<a@example.net>").ok();
        second.mail("<a@example.net>").is(EXCEEDED);
        first.rset();
        // Postfix keeps an ABORT to itself until it has more to send.
        first.mail("<b@example.net>").ok();
        second.mail("<b@example.net>").is(EXCEEDED);
        second.delivers_from("<a@example.net>");
    });
}

#[test]
fn a_message_refused_by_another_rule_is_not_charged() {
    let rules = format!("{ONE_AN_HOUR}[[rule]]\nname = \"big\"\nwhen.size = \"> 1 KiB\"\n");
    on_both(&rules, |site| {
        let mut client = site.client();
        client.mail("<sender@example.net> SIZE=2048").is("552 5.3.4 Message of 2 KiB exceeds the size limit");
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        client.data(&message_of(2048)).is("552 5.3.4 Message of 2 KiB exceeds the size limit");
        client.quit();
        has_room_for_one(site);
    });
}

#[test]
fn what_one_message_holds_another_cannot_have() {
    on_both(ONE_AN_HOUR, |site| {
        let mut first = site.client();
        let mut second = site.client();
        let mut third = site.client();
        first.mail(SENDER).ok();
        second.mail(SENDER).is(EXCEEDED);
        first.quit();
        site.daemon.wait_for_metric("postward_messages_total", &[("result", "aborted")], 1.0);
        second.mail(SENDER).ok();
        third.mail(SENDER).is(EXCEEDED);
        second.rcpt(RECIPIENT).ok();
        second.data(MESSAGE).ok();
        third.mail(SENDER).is(EXCEEDED);
    });
}

#[test]
fn a_limit_for_each_login_leaves_strangers_alone() {
    let rules = "[[rule]]\nname = \"rate\"\nlimit = { key = \"login\", messages = \"1/hour\" }\n";
    on_both_with(&["--auth"], rules, |site| {
        let mut stranger = site.client();
        stranger.delivers();
        stranger.delivers();
        let mut alice = site.client();
        alice.log_in();
        alice.delivers();
        alice.mail(SENDER).is(EXCEEDED);
        alice.quit();
        // On another connection it is still she.
        let mut alice = site.client();
        alice.log_in();
        alice.mail(SENDER).is(EXCEEDED);
        stranger.delivers();
    });
}

#[test]
fn of_two_hundred_messages_of_twenty_that_race_exactly_as_many_get_through_as_the_limit_says() {
    const CLIENTS: usize = 20;
    const MESSAGES: usize = 10;
    let rules = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"100/hour\" }\n";
    on_both(rules, |site| {
        let start = Barrier::new(CLIENTS);
        let race = || {
            let mut client = site.client();
            start.wait();
            let mut passed = 0;
            for _ in 0..MESSAGES {
                let answer = client.mail(SENDER);
                if answer.reply.code() != 250 {
                    answer.is("452 4.3.1 Message rate limit of 100/hour reached, try again later");
                    continue;
                }
                client.rcpt(RECIPIENT).ok();
                client.data(MESSAGE).ok();
                passed += 1;
            }
            passed
        };
        let passed: usize = thread::scope(|scope| {
            let racers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(passed, 100, "{:?}", site.mta.mta());
    });
}

/// Clients come and go while other rules change, and the limit's own name for a customer: a hundred get through, whichever
/// policy their session has.
#[test]
fn a_limit_is_exact_while_policies_come_and_go() {
    const CLIENTS: usize = 20;
    let limit = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"100/hour\" }\n";
    let other = "[[rule]]\nname = \"other\"\nwhen.sender = \"spam@example.net\"\n";
    let policies = [
        limit.to_owned(),
        format!("{other}{limit}"),
        format!("{limit}{other}").replace("hour\" }", "hour\", max_keys = 50000 }"),
    ];
    on_both(limit, |site| {
        let racing = AtomicUsize::new(CLIENTS);
        let race = || {
            let mut passed = 0;
            // Each connection has the policy that is in force when it begins.
            for _ in 0..5 {
                let mut client = site.client();
                for _ in 0..2 {
                    let answer = client.mail(SENDER);
                    if answer.reply.code() != 250 {
                        answer.is("452 4.3.1 Message rate limit of 100/hour reached, try again later");
                        continue;
                    }
                    client.rcpt(RECIPIENT).ok();
                    client.data(MESSAGE).ok();
                    passed += 1;
                }
                client.quit();
            }
            racing.fetch_sub(1, Ordering::Relaxed);
            passed
        };
        let (passed, reloads) = thread::scope(|scope| {
            let racers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(race)).collect();
            let mut reloads = 0;
            while racing.load(Ordering::Relaxed) > 0 {
                site.reload(&policies[reloads % policies.len()]);
                reloads += 1;
            }
            (racers.into_iter().map(|racer| racer.join().unwrap()).sum::<usize>(), reloads)
        });
        assert_eq!(passed, 100, "{:?}", site.mta.mta());
        assert!(reloads > 3, "{reloads}");
        println!("{:?}: 100 of 200 messages through, {reloads} reloads meanwhile", site.mta.mta());
    });
}

/// Postfix sends an ABORT between two messages, Sendmail just the next MAIL.
#[test]
fn a_message_that_follows_another_finds_the_limit_as_that_one_left_it() {
    let rules =
        "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"3/hour\", recipients = \"4/hour\" }\n";
    on_both(rules, |site| {
        const EXCEEDED: &str = "450 4.7.1 Recipient rate limit of 4/hour reached, try again later";
        let mut client = site.client();
        client.delivers();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").ok();
        client.rcpt("<two@example.test>").ok();
        client.rset();
        client.mail(SENDER).ok();
        for recipient in ["<one@example.test>", "<two@example.test>", "<three@example.test>"] {
            client.rcpt(recipient).ok();
        }
        client.rcpt("<four@example.test>").is(EXCEEDED);
        client.data(MESSAGE).ok();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).is(EXCEEDED);
        client.rset();
        client.mail(SENDER).ok();
    });
}

#[test]
fn a_third_different_value_of_two_is_one_too_many() {
    let rules = "[[rule]]\nname = \"few\"\nlimit = { key = \"client\", distinct = \"2/hour\", of = \"sender\" }\n";
    let reached = "452 4.3.1 Limit of 2 senders/hour reached, try again later";
    on_both(rules, |site| {
        let mut client = site.client();
        client.mail("<given-up@example.net>").ok();
        client.rset();
        for sender in ["<a@example.net>", "<b@example.net>", "<A@example.net>", "<b@example.net>"] {
            client.delivers_from(sender);
        }
        client.mail("<c@example.net>").is(reached);
        client.delivers_from("<a@example.net>");
        // What is held is one of the two, too.
        let mut other = site.client();
        other.mail("<b@example.net>").ok();
        client.mail("<c@example.net>").is(reached);
    });
}

/// Postfix knows these users, and refuses all others by itself.
const KNOWN_USERS: [&str; 5] = [
    "--xclient",
    "--set",
    "local_recipient_maps=inline:{user=x, one=x, two=x}",
    "--set",
    "smtpd_hard_error_limit=1000",
];

const DICTIONARY: &str = "[[rule]]\nname = \"trap\"\nwhen.recipient = \"trap@example.test\"\n\
    [[rule]]\nname = \"dictionary\"\n\
    limit = { key = \"client\", bad_recipients = \"50% of 4/hour\", block_for = \"1h\" }\n\
    reply = \"451 4.7.28 Bad: {used} of {limit}\"\n";

#[test]
fn who_tries_unknown_users_is_shut_out_and_nobody_else() {
    let unknown = |name: &str| {
        format!("550 5.1.1 <{name}@example.test>: Recipient address rejected: User unknown in local recipient table")
    };
    on(Mta::Postfix, &KNOWN_USERS, DICTIONARY, |site| {
        let (mut bad, mut good) = (site.client(), site.client());
        bad.becomes("NAME=bad.example.net ADDR=192.0.2.9", "bad.example.net[192.0.2.9]");
        good.becomes("NAME=good.example.net ADDR=192.0.2.10", "good.example.net[192.0.2.10]");
        bad.mail(SENDER).ok();
        bad.rcpt("<one@example.test>").ok();
        // What Postfix refuses no rule judges.
        for name in ["adam", "trap"] {
            bad.rcpt(&format!("<{name}@example.test>")).is(&unknown(name));
        }
        bad.rcpt("<two@example.test>").ok();
        // Two of four are half, and no more: that is no reason yet.
        bad.rcpt("<carl@example.test>").is(&unknown("carl"));
        // Three of five are more. Our answer to one that Postfix refuses changes nothing.
        bad.rcpt("<one@example.test>").is("451 4.7.28 Bad: 60% of 50% bad recipients/hour");
        bad.rcpt("<dora@example.test>").is(&unknown("dora"));
        bad.rset();
        bad.mail(SENDER).starts("451 4.7.28 Bad: 0 of blocked until 2");
        // A good one may be mistaken once, and a message with one that is refused has the others.
        good.mail(SENDER).ok();
        good.rcpt("<one@example.test>").ok();
        good.rcpt("<eve@example.test>").is(&unknown("eve"));
        good.rcpt("<user@example.test>").ok();
        good.data(MESSAGE).ok();
        for _ in 0..5 {
            good.delivers();
        }
    });
}

/// A recipient that a rule below refuses is as bad as one that Postfix refuses; one that the message had is charged once.
#[test]
fn what_our_own_rules_refuse_counts_like_what_postfix_refuses() {
    let rules = "[[rule]]\nname = \"dictionary\"\nlimit = { key = \"sender\", bad_recipients = \"50% of 4/hour\" }\n\
        [[rule]]\nname = \"former\"\nwhen.recipient = [\"adam@example.test\", \"berta@example.test\"]\n\
        reply = \"550 5.1.1 No longer with us\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rcpt("<one@example.test>").ok();
        for name in ["adam", "berta", "adam"] {
            client.rcpt(&format!("<{name}@example.test>")).is("550 5.1.1 No longer with us");
        }
        let reached = "Limit of 50% bad recipients/hour reached, try again later";
        client.rcpt("<two@example.test>").is(&format!("451 4.7.28 {reached}"));
        client.data(MESSAGE).ok();
        client.mail(SENDER).is(&format!("451 4.7.28 {reached}"));
        client.delivers_from("<other@example.net>");
    });
}

#[test]
fn an_override_frees_one_forbids_another_and_leaves_the_rest() {
    let rules = "[lists.own.limits]\n\"free@example.net\" = \"unlimited\"\n\"example.org\" = 0\n\
                 \"more@example.com\" = { messages = \"2/hour\" }\n\
                 [[rule]]\nname = \"rate\"\nlimit = { key = \"sender\", messages = \"1/hour\", overrides = \"@own\" }\n";
    let reached = |limit: &str| format!("452 4.3.1 Message rate limit of {limit} reached, try again later");
    on_both(rules, |site| {
        let mut client = site.client();
        for _ in 0..3 {
            client.delivers_from("<free@example.net>");
        }
        client.mail("<any@example.org>").is(&reached("nothing at all"));
        for _ in 0..2 {
            client.delivers_from("<more@example.com>");
        }
        client.mail("<more@example.com>").is(&reached("2/hour"));
        client.delivers_from("<other@example.com>");
        client.mail("<other@example.com>").is(&reached("1/hour"));
    });
}

#[test]
fn who_is_over_a_limit_is_shut_out_for_longer_than_its_window() {
    let rules = "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/minute\", block_for = \"2h\" }\n\
                 reply = \"452 4.3.1 Shut out for {retry_after}\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        client.delivers();
        client.mail(SENDER).is("452 4.3.1 Shut out for 2 hours");
        client.mail(SENDER).is("452 4.3.1 Shut out for 2 hours");
        client.quit();
        site.client().mail(SENDER).is("452 4.3.1 Shut out for 2 hours");
        site.daemon.wait_for_log("used 1; blocked until 20");
        let log = site.daemon.log();
        let begins = log.lines().filter(|line| line.contains("messages 1/minute used 1; blocked until 20")).count();
        assert_eq!(begins, 1, "{log}");
    });
}

#[test]
fn where_tries_are_charged_a_message_that_is_given_up_counts() {
    let rules =
        "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"2/hour\", charge = \"attempts\" }\n";
    let exceeded = "452 4.3.1 Message rate limit of 2/hour reached, try again later";
    on_both(rules, |site| {
        let mut client = site.client();
        client.mail(SENDER).ok();
        client.rset();
        client.mail(SENDER).ok();
        client.quit();
        site.client().mail(SENDER).is(exceeded);
    });
}

#[test]
fn where_refusals_are_charged_only_who_is_refused_runs_out_of_room() {
    let rules = "[[rule]]\nname = \"refused-too-often\"\nlimit = { key = \"client\", messages = \"2/hour\", recipients = \"3/hour\", \
                 charge = \"refused\" }\n[[rule]]\nname = \"blocked\"\nwhen.sender = \"spam@example.net\"\n\
                 [[rule]]\nname = \"unknown\"\nwhen.recipient = \"nobody@example.test\"\n";
    on_both(rules, |site| {
        let mut client = site.client();
        for _ in 0..4 {
            client.delivers();
        }
        client.mail("<spam@example.net>").starts("550 5.7.1 ");
        client.mail(SENDER).ok();
        for _ in 0..3 {
            client.rcpt("<nobody@example.test>").starts("550 5.7.1 ");
        }
        client.rcpt(RECIPIENT).is("450 4.7.1 Recipient rate limit of 3/hour reached, try again later");
        client.rset();
        client.quit();
        let mut client = site.client();
        client.mail(SENDER).is("452 4.3.1 Message rate limit of 2/hour reached, try again later");
    });
}

#[test]
fn who_is_shut_out_is_told_until_when_and_not_that_a_bound_is_a_time() {
    let rules =
        "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1/minute\", block_for = \"2h\" }\n";
    on_both(rules, |site| {
        let mut client = site.client();
        client.delivers();
        client.mail(SENDER).is("452 4.3.1 Message rate limit of 1/minute reached, try again later");
        client.mail(SENDER).starts("452 4.3.1 Blocked for now, try again after 20");
    });
}

fn five_an_hour(name: &str, rate: &str) -> String {
    format!(
        "[state]\npath = \"{{dir}}\"\ninterval = \"1s\"\n\
         [[rule]]\nname = \"{name}\"\nlimit = {{ key = \"client\", messages = \"{rate}\" }}\n"
    )
}

/// So many messages pass, and no more.
fn has_room_for(site: &Site, messages: usize, rate: &str) {
    let mut client = site.client();
    (0..messages).for_each(|_| client.delivers());
    client.mail(SENDER).is(&format!("452 4.3.1 Message rate limit of {rate} reached, try again later"));
    client.quit();
}

#[test]
fn counts_survive_a_restart_and_go_with_the_name_of_their_rule() {
    let mut site = Site::start(Mta::Postfix, &[], &five_an_hour("rate", "5/hour"));
    let mut client = site.client();
    (0..3).for_each(|_| client.delivers());
    client.quit();
    assert!(site.daemon.terminate().success());
    site.replace_policy(&five_an_hour("rate", "5/hour"));
    has_room_for(&site, 2, "5/hour");
    site.check();
    assert!(site.daemon.terminate().success());
    site.replace_policy(&five_an_hour("rate", "6/hour"));
    has_room_for(&site, 1, "6/hour");
    site.check();
    assert!(site.daemon.terminate().success());
    site.replace_policy(&five_an_hour("rate", "4/hour"));
    has_room_for(&site, 0, "4/hour");
    site.check();
    assert!(site.daemon.terminate().success());
    site.replace_policy(&five_an_hour("renamed", "4/hour"));
    site.daemon.wait_for_log("rule `rate`, messages by client/32/64: not in this configuration; dropped, keys: 1");
    has_room_for(&site, 4, "4/hour");
    site.check();
}

#[test]
fn counts_survive_a_kill_once_they_are_saved() {
    let rules = five_an_hour("rate", "5/hour").replace("\"client\"", "\"sender\"");
    let mut site = Site::start(Mta::Postfix, &[], &rules);
    let mut client = site.client();
    (0..3).for_each(|_| client.delivers());
    // The first save to end may have begun earlier, the second one has all three.
    let saves = || site.daemon.metrics().get("postward_state_saves_total", &[("result", "ok")]);
    for _ in 0..2 {
        let before = saves();
        client.delivers_from("<other@example.net>");
        wait_for("a save", || (saves() > before).then_some(()));
    }
    client.quit();
    site.daemon.kill();
    site.replace_policy(&rules);
    has_room_for(&site, 2, "5/hour");
    site.check();
}

#[test]
fn who_is_shut_out_stays_so_over_a_restart() {
    let rules = "[state]\npath = \"{dir}\"\n[[rule]]\nname = \"rate\"\n\
                 limit = { key = \"client\", messages = \"1/minute\", block_for = \"2h\" }\n\
                 reply = \"452 4.3.1 Shut out for {retry_after}\"\n";
    let mut site = Site::start(Mta::Postfix, &[], rules);
    let mut client = site.client();
    client.delivers();
    client.mail(SENDER).is("452 4.3.1 Shut out for 2 hours");
    client.quit();
    assert!(site.daemon.terminate().success());
    site.replace_policy(rules);
    site.client().mail(SENDER).is("452 4.3.1 Shut out for 2 hours");
    site.check();
}

/// What is a little over passes, what is further over is held, and what is far over is deferred; the counters say the same.
#[test]
fn steps_let_pass_then_hold_then_defer() {
    let limit =
        "messages = \"2/hour\", steps = { \"100%\" = \"monitor\", \"150%\" = \"quarantine\", \"200%\" = \"defer\" }";
    let rules = format!("[[rule]]\nname = \"rate\"\nlimit = {{ key = \"client\", {limit} }}\n");
    let deferred = "452 4.3.1 Message rate limit of 4/hour reached, try again later";
    for mta in Mta::BOTH {
        on(mta, &[], &rules, |site| {
            let matches = |action: &str| {
                let labels = [("rule", "rate"), ("action", action), ("mode", "enforce")];
                site.daemon.metrics().get("postward_rule_matches_total", &labels)
            };
            assert_eq!(["monitor", "quarantine", "defer"].map(matches), [0.0; 3]);
            let mut client = site.client();
            for sender in ["<one@example.net>", "<two@example.net>", "<three@example.net>"] {
                client.delivers_from(sender);
            }
            client.mail("<four@example.net>").ok();
            client.rcpt(RECIPIENT).ok();
            client.data_that_is("quarantined", MESSAGE).ok();
            client.mail(SENDER).is(deferred);
            client.mail(SENDER).is(deferred);
            client.quit();
            // What is not held may have left the queue.
            let held: Vec<_> = site.mta.all_queued().into_iter().filter(|queued| queued.held).collect();
            let [held] = &held[..] else { panic!("{held:?}") };
            assert!(held.envelope.contains("four@example.net"), "{held:?}");
            for (end, count) in [("accepted", 3.0), ("quarantined", 1.0), ("deferred", 2.0)] {
                site.daemon.wait_for_metric("postward_messages_total", &[("result", end)], count);
            }
            assert_eq!(["monitor", "quarantine", "defer"].map(matches), [1.0, 1.0, 2.0]);
            for verdict in ["let pass", "quarantine at end of message", "quarantine", "refuse"] {
                let line = site.daemon.wait_for_log(&format!("INFO {verdict} id="));
                assert!(line.contains(" step=\""), "{line}");
            }
        });
    }
}
