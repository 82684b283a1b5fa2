//! Counters against what is known outside of the daemon, over many sessions that nobody wrote down: the replies that the
//! clients saw, and the messages that the MTA has in its own log.

use crate::site::Client;
use crate::site::MESSAGE;
use crate::site::Site;
use crate::site::message_of;
use crate::site::on_both;

pub(crate) const RULES: &str = r#"
[[rule]]
name = "deferred"
when.sender = "deferred@example.net"
reply = "451 4.7.1 later"

[[rule]]
name = "rejected"
when.sender = "rejected@example.net"
reply = "550 5.7.1 no"

[[rule]]
name = "watched"
when.sender = "watched@example.net"
reply = "554 5.7.1 not for long"
mode = "monitor"

[[rule]]
name = "dropped"
when.sender = "dropped@example.net"
then = "discard"

[[rule]]
name = "held"
when.sender = "held@example.net"
then = "quarantine"

[[rule]]
name = "closed"
when.recipient = "closed@example.test"
reply = "550 5.2.1 closed"

[[rule]]
name = "full"
when.recipient = "full@example.test"
reply = "452 4.2.2 full"

[[rule]]
name = "big"
when.size = "> 4 KiB"
reply = "552 5.3.4 too big"

[[rule]]
name = "rate"
when.sender = "limited@example.net"
limit = { key = "sender", messages = "3/hour" }
reply = "452 4.3.1 enough"
"#;

const SENDERS: [&str; 8] = ["ok", "ok", "deferred", "rejected", "watched", "dropped", "held", "limited"];
const RECIPIENTS: [&str; 5] = ["one", "two", "three", "closed", "full"];

/// Always the same numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn counters_are_what_clients_saw_and_what_the_mta_logged() {
    on_both(RULES, |site| {
        let mut dice = Dice(2026);
        for _ in 0..40 {
            session(site, &mut dice);
        }
    });
}

/// A client with one message or some, under [`RULES`].
pub(crate) fn session(site: &Site, dice: &mut Dice) {
    let mut client = site.client();
    for _ in 0..1 + dice.roll(4) {
        transaction(site, &mut client, dice);
    }
    if dice.roll(2) == 0 {
        client.quit();
    }
}

fn transaction(site: &Site, client: &mut Client<'_>, dice: &mut Dice) {
    let sender = SENDERS[dice.roll(SENDERS.len())];
    let answer = client.mail(&format!("<{sender}@example.net>"));
    if sender == "watched" {
        site.expect_reply("mail", "554 5.7.1", "monitor");
    }
    if answer.reply.code() != 250 {
        return;
    }
    for _ in 0..dice.roll(4) {
        let recipient = RECIPIENTS[dice.roll(RECIPIENTS.len())];
        let answer = client.rcpt(&format!("<{recipient}@example.test>"));
        let is_exempt = ["dropped", "held"].contains(&sender);
        let refused = !is_exempt && ["closed", "full"].contains(&recipient);
        assert_eq!(answer.reply.code() == 250, !refused, "{:?}", answer.reply);
    }
    if dice.roll(5) == 0 {
        client.rset();
        return;
    }
    let end = match sender {
        "dropped" => "discarded",
        "held" => "quarantined",
        _ => "accepted",
    };
    let message = if dice.roll(4) == 0 { message_of(8192) } else { MESSAGE.to_owned() };
    let answer = client.data_that_is(end, &message);
    // Without a recipient the MTA refuses DATA, and the transaction goes on.
    if answer.reply.code() / 100 != 2 {
        client.rset();
    }
}
