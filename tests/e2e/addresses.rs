//! However an address is written, the rule about it is judged by the mailbox that the MTA delivers from or to.

use crate::support::Daemon;
use crate::support::Mta;
use crate::support::Smtp;

/// Spellings of `LOCAL@DOMAIN` that one MTA or both take for that mailbox.
const SPELLINGS: [&str; 25] = [
    "<LOCAL@DOMAIN>",
    "LOCAL@DOMAIN",
    "<LOCAL@DOMAIN.>",
    "<LOCAL@DOMAIN(x)>",
    "<LOCAL@DOMAIN (y)>",
    "<LOCAL@(c)DOMAIN>",
    "<(c)LOCAL@DOMAIN>",
    "<LOCAL(c)@DOMAIN>",
    "<LOCAL@DOMAIN>(c)",
    "<LOCAL@ DOMAIN>",
    "<LOCAL @DOMAIN>",
    "<<LOCAL@DOMAIN>>",
    "<g:LOCAL@DOMAIN;>",
    "<@relay.example:LOCAL@DOMAIN>",
    "<\"LOCAL\"@DOMAIN>",
    "<\\LOCAL@DOMAIN>",
    "<LOCAL@\"DOMAIN\">",
    "<\"LOCAL@DOMAIN\">",
    "<DOMAIN!LOCAL>",
    "<LOCAL%DOMAIN>",
    "<LOCAL@DOMAIN..>",
    "<LOCAL@DOMAIN(@innocent.example>",
    "<LOCAL@DOMAIN,x@innocent.example>",
    "<LOCAL@DOMAIN@innocent.example>",
    "<x y@DOMAIN>",
];

fn spelled(spelling: &str, local: &str, domain: &str) -> String {
    spelling.replace("LOCAL", local).replace("DOMAIN", domain)
}

fn rules(text: &str) -> String {
    format!("[server]\nlisten = [\"inet:127.0.0.1:0\"]\n\n{text}")
}

fn is_accepted(client: &mut Smtp, command: &str) -> bool {
    client.send(command).code() / 100 == 2
}

#[test]
fn no_spelling_gets_a_blocked_sender_or_recipient_through() {
    let policy = rules(
        "[[rule]]\nname = \"sender\"\nwhen.sender = \"blocked.example\"\n\
         [[rule]]\nname = \"recipient\"\nwhen.recipient = \"victim@example.test\"\n",
    );
    for mta in Mta::BOTH {
        let daemon = Daemon::start(&policy);
        let instance = mta.start(daemon.milter(), &[]);
        let mut through = Vec::new();
        for spelling in SPELLINGS {
            let mut client = Smtp::session(instance.port());
            let sender = spelled(spelling, "a", "blocked.example");
            if is_accepted(&mut client, &format!("MAIL FROM:{sender}")) {
                through.push(sender);
            }
            let mut client = Smtp::session(instance.port());
            assert!(is_accepted(&mut client, "MAIL FROM:<ok@example.net>"), "{mta:?}");
            for recipient in [spelled(spelling, "victim", "example.test"), spelled(spelling, "VicTim", "Example.Test")]
            {
                if is_accepted(&mut client, &format!("RCPT TO:{recipient}")) {
                    through.push(recipient);
                }
            }
            client.send("QUIT");
        }
        // `x y` is somebody else's mailbox: only the domain is blocked.
        through.retain(|address| !address.to_lowercase().contains("x y@example.test"));
        assert!(through.is_empty(), "{mta:?} let through: {through:#?}\n{}", instance.log());
    }
}

/// Without a domain it is the MTA that knows whose mailbox it is.
#[test]
fn a_recipient_without_a_domain_is_the_one_that_the_mta_makes_of_it() {
    let policy = rules("[[rule]]\nname = \"recipient\"\nwhen.recipient = \"victim@example.test\"\n");
    let daemon = Daemon::start(&policy);
    let instance = Mta::Sendmail.start(daemon.milter(), &[]);
    let mut client = Smtp::session(instance.port());
    assert!(is_accepted(&mut client, "MAIL FROM:<ok@example.net>"));
    assert_eq!(client.send("RCPT TO:<victim>").text(), "501 5.1.3 Bad recipient address syntax");
    assert!(is_accepted(&mut client, "RCPT TO:<postmaster>"));
    client.send("QUIT");
    let instance = Mta::Postfix.start(daemon.milter(), &[]);
    let mut client = Smtp::session(instance.port());
    assert!(is_accepted(&mut client, "MAIL FROM:<ok@example.net>"));
    assert_eq!(client.send("RCPT TO:<victim>").text(), "550 5.7.1 Not permitted to send to victim@example.test");
    assert_eq!(
        client.send("RCPT TO:<victim%example.test@example.test>").text(),
        "550 5.7.1 Not permitted to send to victim@example.test"
    );
    assert!(is_accepted(&mut client, "RCPT TO:<other>"));
    client.send("QUIT");
}

/// Postfix delivers `<ceo@evil.example(@partner.example>` as mail from ceo@evil.example.
#[test]
fn a_spelling_that_two_programs_read_differently_exempts_nobody() {
    let policy = rules(
        "[[rule]]\nname = \"partner\"\nwhen.sender = \"partner.example\"\nthen = \"accept\"\n\
         [[rule]]\nname = \"strangers\"\nunless.sender = \"partner.example\"\nreply = \"550 5.7.1 Strangers\"\n",
    );
    for mta in Mta::BOTH {
        let daemon = Daemon::start(&policy);
        let instance = mta.start(daemon.milter(), &[]);
        let mut client = Smtp::session(instance.port());
        for address in
            ["<ceo@evil.example(@partner.example>", "<a@evil.example,b@partner.example>", "<a b@partner.example>"]
        {
            let reply = client.send(&format!("MAIL FROM:{address}"));
            assert!(reply.code() >= 500, "{mta:?} {address}: {reply}");
        }
        if mta == Mta::Postfix {
            let reply = client.send("MAIL FROM:<ceo@evil.example(@partner.example>");
            assert_eq!(reply.text(), "501 5.1.7 Bad sender address syntax");
        }
        assert!(is_accepted(&mut client, "MAIL FROM:<boss@partner.example>"), "{mta:?}");
        client.send("QUIT");
    }
}
