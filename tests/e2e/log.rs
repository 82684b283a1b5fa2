//! Every reply in a real MTA's log is found, and nothing else.
//!
//! What must be found is known from what the clients were told, from what the server said to which the MTA delivered, and
//! from the rules in [`Account`] about what each MTA logs of that. The log is never read in a second way.

use std::collections::BTreeMap;

use postward::codes::EnhancedCode;
use postward::explain::Scanner;
use postward::explain::Speaker;

use crate::sink::BEHAVIOUR;
use crate::sink::SILENT;
use crate::sink::Sink;
use crate::support::Daemon;
use crate::support::Instance;
use crate::support::Mta;
use crate::support::Reply;
use crate::support::Smtp;
use crate::support::TempDir;
use crate::support::postward;
use crate::support::wait_up_to_patience;

/// The milter's part of all refusals.
const RULES: &str = r#"
[server]
listen = ["inet:127.0.0.1:0"]
[[rule]]
name = "connect"
when.client = "::1"
at = "connect"
reply = "554 5.7.1 no connection"
[[rule]]
name = "mail"
when.sender = "mail@milter.example"
reply = "550 5.7.1 sender refused"
[[rule]]
name = "mail-later"
when.sender = "mail-later@milter.example"
reply = "451 4.7.1 sender later"
[[rule]]
name = "mail-lines"
when.sender = "mail-lines@milter.example"
reply = "550 5.7.1 one\ntwo\nthree 550 4.7.1"
[[rule]]
name = "rcpt"
when.recipient = "rcpt@milter.example"
reply = "550 5.1.1 no such user"
[[rule]]
name = "rcpt-later"
when.recipient = "rcpt-later@milter.example"
reply = "450 4.2.1 mailbox is busy; from=<x> to=<y>"
[[rule]]
name = "rcpt-lines"
when.recipient = "rcpt-lines@milter.example"
reply = "550 5.1.1 one\ntwo"
[[rule]]
name = "rcpt-bye"
when.recipient = "rcpt-bye@milter.example"
reply = "421 4.3.2 bye"
disconnect = true
[[rule]]
name = "data"
when.sender = "data@milter.example"
at = "data"
reply = "554 5.7.1 no data"
[[rule]]
name = "end"
when.sender = "end@milter.example"
at = "end-of-message"
reply = "554 5.7.1 no message"
[[rule]]
name = "end-later"
when.sender = "end-later@milter.example"
at = "end-of-message"
reply = "451 4.7.1 message later"
[[rule]]
name = "end-lines"
when.sender = "end-lines@milter.example"
at = "end-of-message"
reply = "552 5.3.4 one\ntwo"
[[rule]]
name = "discard"
when.sender = "discard@milter.example"
then = "discard"
[[rule]]
name = "hold"
when.sender = "hold@milter.example"
then = "quarantine"
[[rule]]
name = "watched"
when.sender = "watched@milter.example"
reply = "550 5.7.1 watched"
mode = "monitor"
"#;

const MESSAGE: &str = "Subject: 550 5.7.1 said: 550 5.7.1\n\n550 5.7.1 in a body\n";

/// Code, enhanced code, speaker.
type Said = (Option<u16>, Option<EnhancedCode>, Speaker);

/// What a log must hold.
#[derive(Default)]
struct Account {
    said: BTreeMap<Said, usize>,
}

impl Account {
    fn add(&mut self, code: Option<u16>, enhanced: Option<&str>, speaker: Speaker) {
        let enhanced = enhanced.map(|enhanced| enhanced.parse().unwrap());
        *self.said.entry((code, enhanced, speaker)).or_default() += 1;
    }

    /// A client was told this, and the MTA logs it.
    fn told(&mut self, text: &str, speaker: Speaker) {
        let (code, enhanced) = codes(text);
        self.add(Some(code), enhanced, speaker);
    }

    /// The other server ended a delivery so.
    fn ended(&mut self, mta: Mta, end: &str) {
        if end == SILENT {
            return match mta {
                // `lost connection with …`
                Mta::Postfix => self.add(None, Some("4.4.2"), Speaker::Nobody),
                // Sendmail makes up what the server should have said.
                Mta::Sendmail => self.add(Some(421), Some("4.4.1"), Speaker::Nobody),
            };
        }
        let (code, enhanced) = codes(end);
        match mta {
            // Of a message that was taken Sendmail logs what stands behind the code, and of its own that it was.
            Mta::Sendmail if code == 250 => self.add(None, enhanced.or(Some("2.0.0")), Speaker::Remote),
            Mta::Postfix | Mta::Sendmail => self.add(Some(code), enhanced, Speaker::Remote),
        }
    }
}

/// The codes of a reply, by its last line.
fn codes(text: &str) -> (u16, Option<&str>) {
    let last = text.lines().last().unwrap();
    let (code, rest) = last.split_at(3);
    let word = rest.get(1..).unwrap_or_default().split(' ').next().unwrap_or_default();
    (code.parse().unwrap(), word.parse::<EnhancedCode>().is_ok().then_some(word))
}

/// An MTA with a daemon and a server, and what its log must hold.
struct Play {
    mta: Instance,
    server: Sink,
    account: Account,
    /// The MTA does not log all that it says to clients.
    is_terse: bool,
    /// Messages that the server is to see, but for reports of what it refuses.
    due: usize,
    _daemon: Daemon,
}

impl Play {
    fn start(mta: Mta, options: impl FnOnce(u16) -> Vec<String>) -> Self {
        let daemon = Daemon::start(RULES);
        let server = Sink::start();
        let options = options(server.port);
        let mta = mta.start(daemon.milter(), &options.iter().map(String::as_str).collect::<Vec<_>>());
        let is_terse = mta.mta() == Mta::Postfix;
        Self { mta, server, account: Account::default(), is_terse, due: 0, _daemon: daemon }
    }

    fn is_postfix(&self) -> bool {
        self.mta.mta() == Mta::Postfix
    }

    /// A client that has just connected.
    fn stranger(&mut self) -> Talker<'_> {
        let smtp = Smtp::connect(self.mta.port());
        let mut talker = Talker { smtp, play: self };
        let greeting = talker.smtp.greeting();
        talker.note(&greeting, Log::Dialogue);
        talker
    }

    /// A client that was greeted.
    fn client(&mut self) -> Talker<'_> {
        let mut talker = self.stranger();
        talker.says("EHLO client.example", Log::Dialogue);
        talker
    }

    /// A message that the MTA takes.
    fn delivers(&mut self, sender: &str, recipient: &str) {
        let mut client = self.client();
        client.envelope(sender, recipient);
        assert_eq!(client.data(Log::Dialogue).code(), 250);
        client.quits();
        self.due +=
            usize::from(["@sink.example", "@busy.example", "@lmtp.example"].iter().any(|at| recipient.ends_with(at)));
    }

    /// The MTA itself gives a delivery up, and reports it to the sender.
    fn bounces(&mut self, recipient: &str, enhanced: &str) {
        self.delivers("user@sender.example", recipient);
        self.account.add(None, Some(enhanced), Speaker::Nobody);
        self.due += 1;
    }

    /// Each reply of the server ends a delivery; of those that never reach it, the MTA's own.
    fn plays_deliveries(&mut self) {
        for (name, stage, _) in BEHAVIOUR {
            match stage {
                "MAIL" => self.delivers(&format!("{name}@sender.example"), "user@sink.example"),
                _ => self.delivers("user@sender.example", &format!("{name}@sink.example")),
            }
        }
        self.delivers("user@sender.example", "user@sink.example");
        self.delivers("user@sender.example", "user@busy.example");
        self.delivers("user@sender.example", "user@closed.example");
        self.account.add(None, Some("4.4.1"), Speaker::Nobody);
    }

    /// The milter refuses at each stage.
    fn plays_milter(&mut self) {
        for name in ["mail", "mail-later", "mail-lines"] {
            let mut client = self.client();
            client.says(&format!("MAIL FROM:<{name}@milter.example>"), Log::Milter);
            client.quits();
        }
        for name in ["rcpt", "rcpt-later", "rcpt-lines", "rcpt-bye"] {
            let mut client = self.client();
            client.says("MAIL FROM:<user@sender.example>", Log::Dialogue);
            client.says(&format!("RCPT TO:<{name}@milter.example>"), Log::Milter);
            if name != "rcpt-bye" {
                client.quits();
            }
        }
        let mut client = self.client();
        client.envelope("data@milter.example", "user@example.test");
        client.says("DATA", Log::Milter);
        client.quits();
        for (name, line) in [("end", None), ("end-later", None), ("end-lines", Some(552))] {
            let mut client = self.client();
            client.envelope(&format!("{name}@milter.example"), "user@example.test");
            client.data(Log::MilterAtEnd { code_of_other_lines: line });
            client.quits();
        }
        self.delivers("discard@milter.example", "user@example.test");
        self.delivers("hold@milter.example", "user@example.test");
        self.delivers("watched@milter.example", "held@example.test");
    }

    /// What is wrong whoever hears it. Postfix logs none of these replies.
    fn plays_errors(&mut self) {
        for _ in 0..5 {
            let mut client = self.stranger();
            client.says("HELO", Log::Dialogue);
            client.says("FOO 550 5.7.1", Log::Dialogue);
            client.says("RCPT TO:<user@example.test>", Log::Dialogue);
            client.says("DATA", Log::Dialogue);
            client.quits();
            let mut client = self.client();
            client.says("MAIL FROM:<user@sender.example", Log::Dialogue);
            client.says("MAIL FROM:<user@sender.example> X=550", Log::Dialogue);
            client.says("MAIL FROM:<user@sender.example> SIZE=450", Log::Dialogue);
            client.says("DATA", Log::Dialogue);
            client.says("AUTH PLAIN AGFsaWNlAGJhZA==", Log::Dialogue);
            client.says("AUTH PLAIN !", Log::Dialogue);
            client.says("RSET", Log::Dialogue);
            client.quits();
            let mut client = self.client();
            client.says("STARTTLS", Log::Dialogue);
            client.smtp.raw("550 5.7.1 this is no handshake\r\n550 5.7.1 no\r\n");
            client.smtp.read_to_end();
        }
    }

    /// Every message has come to the server, and so has the report of each that it refused for good.
    fn server_saw_all(&self) -> bool {
        let ends = self.server.ends();
        ends.len() == self.due + ends.iter().filter(|end| end.starts_with('5')).count()
    }

    /// Waits until everything is logged, and compares.
    fn check(mut self) {
        let mta = self.mta.mta();
        let known = std::mem::take(&mut self.account);
        let expected = || {
            let mut account = Account { said: known.said.clone() };
            self.server.ends().iter().for_each(|end| account.ended(mta, end));
            account.said
        };
        // Should it never be so, the comparison below tells why.
        wait_up_to_patience(|| self.server_saw_all() && found(&self.mta.log()) == expected());
        self.mta.stop();
        let log = self.mta.log();
        let (found, expected) = (found(&log), expected());
        let differences: Vec<String> = found
            .keys()
            .chain(expected.keys().filter(|said| !found.contains_key(said)))
            .map(|said| (said, found.get(said).copied().unwrap_or(0), expected.get(said).copied().unwrap_or(0)))
            .filter(|(_, found, expected)| found != expected)
            .map(|(said, found, expected)| format!("{said:?}: found {found}, expected {expected}"))
            .collect();
        assert!(self.server_saw_all(), "{:?}", self.server.ends());
        assert!(differences.is_empty(), "{mta:?}\n{}", differences.join("\n"));
        let lines = log.lines().count();
        assert!(lines >= MIN_LINES, "only {lines} lines");
        let mut scanner = Scanner::new();
        log.lines().for_each(|line| drop(scanner.line(line)));
        assert_eq!(scanner.log_lines(), lines);
        check_program(&log, &expected);
    }
}

/// `postward explain` counts the same.
fn check_program(log: &str, expected: &BTreeMap<Said, usize>) {
    // But for messages that were delivered without a reply.
    let is_reply = |(code, enhanced, speaker): &Said| {
        *speaker != Speaker::Nobody || code.is_some() || enhanced.is_none_or(|enhanced| enhanced.class != 2)
    };
    let expected: BTreeMap<Said, usize> =
        expected.iter().filter(|(said, _)| is_reply(said)).map(|(said, count)| (*said, *count)).collect();
    let directory = TempDir::new("log");
    let file = directory.write("maillog", log);
    let output = postward(&["explain", "--file", file.to_str().unwrap(), "--format", "json", "--summary"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["lines"], log.lines().count());
    assert_eq!(told["replies"], expected.values().sum::<usize>());
    let mut counted: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for line in told["summary"].as_array().unwrap() {
        let key = ["code", "enhanced_code", "said_by"].map(|name| line[name].to_string());
        *counted.entry(key).or_default() += line["count"].as_u64().unwrap();
    }
    let shown = |&(code, enhanced, speaker): &Said| {
        let enhanced = enhanced.map(|enhanced| enhanced.to_string());
        let speaker = format!("{speaker:?}").to_lowercase();
        [serde_json::json!(code), serde_json::json!(enhanced), serde_json::json!(speaker)]
            .map(|value| value.to_string())
    };
    let expected: BTreeMap<_, _> = expected.iter().map(|(said, count)| (shown(said), *count as u64)).collect();
    assert_eq!(counted, expected);
}

/// A log of fewer lines proves little.
const MIN_LINES: usize = 300;

/// The replies that are found in a log.
fn found(log: &str) -> BTreeMap<Said, usize> {
    let mut scanner = Scanner::new();
    let mut found: Vec<_> = log.lines().flat_map(|line| scanner.line(line)).collect();
    found.extend(scanner.finish());
    let mut counts = BTreeMap::new();
    for found in found {
        *counts.entry((found.code, found.enhanced, found.speaker)).or_default() += 1;
    }
    counts
}

/// How an MTA logs a reply to a client.
#[derive(Clone, Copy)]
enum Log {
    /// Sendmail logs all that it says, at this log level; Postfix does not.
    Dialogue,
    /// Postfix logs what a milter refuses; so does Sendmail, in other words.
    Milter,
    /// At the end of a message Postfix logs what a milter says without its code, except that of the lines behind the first.
    MilterAtEnd { code_of_other_lines: Option<u16> },
    /// What Postfix refuses by its restrictions it logs.
    Restriction,
    /// What Postfix refuses for a message's content it logs without the code.
    Content,
}

/// A client whose replies are noted.
struct Talker<'a> {
    smtp: Smtp,
    play: &'a mut Play,
}

impl Talker<'_> {
    fn says(&mut self, line: &str, log: Log) -> Reply {
        let reply = self.smtp.send(line);
        self.note(&reply, log);
        reply
    }

    fn envelope(&mut self, sender: &str, recipient: &str) {
        for line in [format!("MAIL FROM:<{sender}>"), format!("RCPT TO:<{recipient}>")] {
            let reply = self.says(&line, Log::Dialogue);
            assert_eq!(reply.code(), 250, "{reply}");
        }
    }

    /// DATA and a message; the reply to the message is logged so.
    fn data(&mut self, log: Log) -> Reply {
        self.message(MESSAGE, log)
    }

    fn message(&mut self, message: &str, log: Log) -> Reply {
        let reply = self.says("DATA", Log::Dialogue);
        assert_eq!(reply.code(), 354, "{reply}");
        let text: String = message.lines().map(|line| format!("{line}\r\n")).collect();
        self.says(&format!("{text}."), log)
    }

    fn quits(mut self) {
        let reply = self.says("QUIT", Log::Dialogue);
        assert_eq!(reply.code(), 221, "{reply}");
    }

    fn note(&mut self, reply: &Reply, log: Log) {
        let text = reply.text();
        let (_, enhanced) = codes(&text);
        let (is_postfix, is_terse) = (self.play.is_postfix(), self.play.is_terse);
        let account = &mut self.play.account;
        match (log, is_postfix) {
            (Log::Dialogue, _) if is_terse => {}
            (Log::Dialogue | Log::Restriction | Log::Content, false) | (Log::Dialogue | Log::Restriction, true) => {
                account.told(&text, Speaker::Mta);
            }
            (Log::Milter, _) | (Log::MilterAtEnd { .. }, false) => account.told(&text, Speaker::Milter),
            (Log::MilterAtEnd { code_of_other_lines }, true) => {
                account.add(code_of_other_lines, enhanced, Speaker::Milter);
            }
            (Log::Content, true) => account.add(None, enhanced, Speaker::Mta),
        }
    }
}

#[test]
fn every_reply_in_postfixs_log_is_found_and_nothing_else() {
    let mut play = Play::start(Mta::Postfix, |port| {
        let transports = format!(
            "transport_maps=inline:{{ {{sink.example=smtp:[127.0.0.1]:{port}}}, {{sender.example=smtp:[127.0.0.1]:{port}}}, \
             {{busy.example=smtp:[127.0.0.3]:{port}}}, {{closed.example=smtp:[127.0.0.2]:{port}}}, \
             {{local.example=local:}}, {{pipe.example=fails:}}, {{lmtp.example=lmtp:inet:127.0.0.1:{port}}}, \
             {{error.example=error:5.1.2 no such domain}} }}"
        );
        let settings = [
            &transports,
            "relay_domains=sink.example, busy.example, closed.example, local.example, pipe.example, lmtp.example, milter.example, error.example",
            "smtpd_relay_restrictions=reject_unauth_destination",
            "local_recipient_maps=inline:{ {user=x}, {held=x} }",
            "smtpd_delay_reject=no",
            "smtpd_helo_restrictions=check_helo_access inline:{ {refused.example=554 5.7.1 no such host} }",
            "smtpd_sender_restrictions=check_sender_access inline:{ {mail@refused.example=553 5.1.8 no such sender} }",
            "smtpd_recipient_restrictions=check_recipient_access inline:{ {later@example.test=450 4.7.1 later}, {warn@example.test=warn 550 5.7.1 x}, {hold@example.test=hold 550 5.7.1 x} }",
            "smtpd_data_restrictions=check_sender_access inline:{ {data@refused.example=reject} }",
            "smtpd_end_of_data_restrictions=check_sender_access inline:{ {end@refused.example=451 4.7.1 end} }",
            "header_checks=regexp:{ {/^X-Refused/ reject 5.7.1 header 550 5.7.1} {/^X-Warned/ warn 550 5.7.1 x} }",
            "body_checks=regexp:{ {/^refused/ reject} }",
            "message_size_limit=5000",
            "smtp_destination_concurrency_failed_cohort_limit=100",
            "soft_bounce=no",
        ];
        let services = [
            "smtp unix - - n - - smtp",
            "lmtp unix - - n - - lmtp",
            "fails unix - n n - - pipe user=nobody argv=/bin/false",
        ];
        let mut options: Vec<String> = ["--auth", "--tls", "--ipv6"].map(str::to_owned).to_vec();
        settings.iter().for_each(|setting| options.extend(["--set".to_owned(), (*setting).to_owned()]));
        services.iter().for_each(|service| options.extend(["--service".to_owned(), (*service).to_owned()]));
        options
    });
    play.plays_milter();
    play.plays_deliveries();
    play.plays_errors();
    plays_postfixs_own(&mut play);
    play.check();
}

/// What Postfix refuses, and how deliveries end that it makes itself.
fn plays_postfixs_own(play: &mut Play) {
    // A milter's refusal at CONNECT: it is logged again for each command.
    let mut smtp = Smtp::connect_to("::1", play.mta.port());
    assert_eq!(smtp.greeting().code(), 554);
    play.account.told("554 5.7.1 no connection", Speaker::Milter);
    for line in ["EHLO client.example", "MAIL FROM:<user@sender.example>"] {
        smtp.send(line);
        play.account.told("554 5.7.1 no connection", Speaker::Milter);
    }
    smtp.send("QUIT");

    let mut client = play.stranger();
    client.says("HELO refused.example", Log::Restriction);
    client.says("EHLO refused.example", Log::Restriction);
    client.says("HELO client.example", Log::Dialogue);
    client.says("MAIL FROM:<mail@refused.example>", Log::Restriction);
    client.says("VRFY nobody", Log::Restriction);
    client.says("MAIL FROM:<user@sender.example>", Log::Dialogue);
    client.says("RCPT TO:<nobody@example.test>", Log::Restriction);
    client.says("RCPT TO:<user@elsewhere.example>", Log::Restriction);
    client.says("RCPT TO:<later@example.test>", Log::Restriction);
    client.says("RCPT TO:<warn@example.test>", Log::Restriction);
    client.says("RCPT TO:<user@error.example>", Log::Restriction);
    client.says("DATA", Log::Dialogue);
    client.quits();
    // Here and not above: Postfix remembers the size, and refuses the next MAIL of the session for it too.
    let mut client = play.client();
    client.says("MAIL FROM:<user@sender.example> SIZE=999999", Log::Restriction);
    client.says("MAIL FROM:<user@sender.example>", Log::Restriction);
    client.quits();
    let mut client = play.client();
    client.envelope("data@refused.example", "user@example.test");
    client.says("DATA", Log::Restriction);
    client.quits();
    let mut client = play.client();
    client.envelope("end@refused.example", "user@example.test");
    client.data(Log::Restriction);
    client.quits();
    for message in ["X-Refused: 550 5.7.1; from=<a> helo=<b>: 5.1.1\n\nhello\n", "Subject: x\n\nrefused 550 5.7.1\n"] {
        let mut client = play.client();
        client.envelope("user@sender.example", "user@example.test");
        client.message(message, Log::Content);
        client.quits();
    }
    // Too big: said without a line of its own.
    let mut client = play.client();
    client.envelope("user@sender.example", "user@example.test");
    let big = format!("{}\n", "x".repeat(70)).repeat(100);
    assert_eq!(client.message(&big, Log::Dialogue).code(), 552);
    client.quits();
    let mut client = play.client();
    client.envelope("user@sender.example", "user@example.test");
    client.message("X-Warned: 550 5.7.1\n\nhello\n", Log::Dialogue);
    client.quits();
    play.account.add(None, Some("2.0.0"), Speaker::Nobody);

    // Of the watched message above.
    play.account.add(None, Some("2.0.0"), Speaker::Nobody);
    play.delivers("user@sender.example", "user@example.test");
    play.account.add(None, Some("2.0.0"), Speaker::Nobody);
    play.bounces("no-such-user-550@local.example", "5.1.1");
    play.bounces("user@pipe.example", "5.3.0");
    play.delivers("user@sender.example", "rcpt-unknown@lmtp.example");
    play.delivers("user@sender.example", "user@lmtp.example");
    for _ in 0..10 {
        play.delivers("user@sender.example", "rcpt-lines@sink.example");
    }
}

#[test]
fn every_reply_in_sendmails_log_is_found_and_nothing_else() {
    plays_sendmail(15);
}

/// At Sendmail's own log level, at which what it says to clients is not logged.
#[test]
fn every_reply_in_sendmails_log_is_found_at_its_default_level() {
    plays_sendmail(DEFAULT_LEVEL);
}

/// `confLOG_LEVEL`
const DEFAULT_LEVEL: usize = 9;

fn plays_sendmail(level: usize) {
    let mut play = Play::start(Mta::Sendmail, |port| {
        let source = [
            format!("define(`confLOG_LEVEL', `{level}')"),
            "define(`confDELIVERY_MODE', `background')".to_owned(),
            format!("define(`RELAY_MAILER_ARGS', `TCP $h {port}')"),
            "define(`SMART_HOST', `[127.0.0.1]')".to_owned(),
            "LOCAL_RULE_0\nR$* < @ closed.example $* > $*\t$#relay $@ [127.0.0.2] $: $1 < @ closed.example > $3\n\
             R$* < @ busy.example $* > $*\t$#relay $@ [127.0.0.3] $: $1 < @ busy.example > $3"
                .to_owned(),
            "LOCAL_RULESETS\nSLocal_check_mail\nR$* refused.example $*\t$#error $@ 5.1.8 $: \"553 no such sender\"\n\
             SLocal_check_rcpt\nR$* denied.example $*\t$#error $@ 5.7.1 $: \"550 Relaying denied\"\n\
             R$* later.example $*\t$#error $@ 4.7.1 $: \"451 later\""
                .to_owned(),
        ];
        let mut options: Vec<String> = ["--auth", "--tls", "--ipv6"].map(str::to_owned).to_vec();
        source.into_iter().for_each(|line| options.extend(["--mc".to_owned(), line]));
        options
    });
    play.is_terse = level == DEFAULT_LEVEL;
    let rounds = if play.is_terse { 4 } else { 1 };
    for _ in 0..rounds {
        play.plays_milter();
        play.plays_deliveries();
        play.plays_errors();
        plays_sendmails_own(&mut play);
    }
    play.check();
}

/// What Sendmail refuses by its rules.
fn plays_sendmails_own(play: &mut Play) {
    let mut client = play.client();
    client.says("MAIL FROM:<user@refused.example>", Log::Restriction);
    client.says("MAIL FROM:<user@sender.example>", Log::Dialogue);
    client.says("RCPT TO:<user@denied.example>", Log::Restriction);
    client.says("RCPT TO:<user@later.example>", Log::Restriction);
    client.says("RCPT TO:<user@denied.example>", Log::Restriction);
    client.says("VRFY user", Log::Dialogue);
    client.says("HELP", Log::Dialogue);
    client.quits();
    // Of a milter's refusal at CONNECT the client hears only Sendmail's own words; `rejecting commands` is all that it logs at
    // its default level.
    let mut smtp = Smtp::connect_to("::1", play.mta.port());
    let greeting = smtp.greeting();
    if !play.is_terse {
        play.account.told("554 5.7.1 no connection", Speaker::Milter);
    }
    let mut client = Talker { smtp, play: &mut *play };
    client.note(&greeting, Log::Dialogue);
    client.says("EHLO client.example", Log::Dialogue);
    client.says("MAIL FROM:<user@sender.example>", Log::Dialogue);
    client.quits();
    // A client that just goes: Sendmail logs what it could not tell it.
    let mut client = play.client();
    client.says("NOOP", Log::Dialogue);
    drop(client);
    if !play.is_terse {
        play.account.told("421 4.4.1 mx.example.test Lost input channel", Speaker::Mta);
    }
}
