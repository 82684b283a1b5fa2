//! Code by stage: whatever reply the linter lets pass at a stage reaches the client of both MTAs as it was written.
//!
//! No code is listed here. The replies are made from the catalogue, the linter says which of them a rule may speak where, and
//! what an MTA makes of one on its way must stand in the notes that `postward check` prints for the rule.

use std::collections::BTreeSet;
use std::thread;

use postward::codes;
use postward::config::Config;
use postward::config::Source;
use postward::policy::Policy;
use postward::reply::MAX_LINE_TEXT;
use postward::reply::MAX_LINES;

use crate::site::LOCALHOST;
use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::Site;
use crate::site::each_on_both;
use crate::support::Mta;

/// The stages after CONNECT at which a client is answered.
const STAGES: [&str; 4] = ["mail", "rcpt", "data", "end-of-message"];

/// So that neither the catalogue nor the linter can leave the tests with little to play.
const FEWEST_PLAYED: usize = 1159;
const FEWEST_CODES: usize = 52;
const FEWEST_GREETED: usize = 32;

/// What `check` says that MTAs make of a reply: all exceptions there are.
const NAMES_ADDRESS: &str = "Sendmail puts `<address>... ` before the text";
const KEEPS_CODE: &str = "at CONNECT the MTA keeps the code, but may put its own text";
const GREETS: &str = "at CONNECT the MTA greets with its own text; at MAIL Postfix says this reply, Sendmail 550 5.0.0";
const STAYS: &str = "Postfix hangs up after 521, Sendmail does not";

/// It names an address, as 551 has to.
const TEXT: &str = "no, ask postmaster@example.test";

/// A reply that a rule may speak at a stage, as far as the linter knows.
struct Said {
    /// Of the rule, and of the sender whose messages it is about.
    name: String,
    stage: &'static str,
    status: String,
    text: String,
    /// What an MTA makes of it.
    exceptions: Vec<String>,
}

impl Said {
    fn new(number: usize, stage: &'static str, status: &str, text: &str) -> Self {
        let name = format!("{}-{stage}-{number}", status.replace([' ', '.'], "-"));
        Self { name, stage, status: status.to_owned(), text: text.to_owned(), exceptions: Vec::new() }
    }

    /// `None`: the linter refuses it.
    fn passing(number: usize, stage: &'static str, status: &str, text: &str) -> Option<Self> {
        let said = Self::new(number, stage, status, text);
        let notes = notes(&said.rule())?;
        // When it is spoken is another matter.
        let exceptions = notes.into_iter().filter(|note| !note.starts_with("waits until ")).collect();
        Some(Self { exceptions, ..said })
    }

    fn rule(&self) -> String {
        let Self { name, stage, status, text, .. } = self;
        let condition = match *stage {
            "connect" => "when.client = \"127.0.0.1\"".to_owned(),
            _ => format!("when.sender = \"{name}@example.net\""),
        };
        let text = text.replace('\n', "\\n");
        let disconnect = if self.disconnects() { "disconnect = true\n" } else { "" };
        format!("[[rule]]\nname = \"{name}\"\n{condition}\nat = \"{stage}\"\nreply = \"{status} {text}\"\n{disconnect}")
    }

    fn has_exception(&self, exception: &str) -> bool {
        self.exceptions.iter().any(|note| note == exception)
    }

    /// What a client has to see that spoke of this address last.
    fn on_the_wire(&self, mta: Mta, address: &str) -> String {
        let (code, enhanced) = self.status.split_once(' ').unwrap();
        let names_address = mta == Mta::Sendmail && self.has_exception(NAMES_ADDRESS);
        let prefix = if names_address { format!("{address}... ") } else { String::new() };
        let text = format!("{prefix}{}", self.text);
        let last = text.matches('\n').count();
        let hyphen = |number| if number == last { ' ' } else { '-' };
        let line = |(number, line)| format!("{code}{}{enhanced} {line}\r\n", hyphen(number));
        text.split('\n').enumerate().map(line).collect()
    }

    /// Every reply for which the linter demands `disconnect = true`, but for what it says of an MTA.
    fn ends_session(&self, mta: Mta) -> bool {
        self.disconnects() && !(mta == Mta::Sendmail && self.has_exception(STAYS))
    }

    fn disconnects(&self) -> bool {
        ["421", "521"].contains(&&self.status[..3])
    }
}

/// What `check` notes about this rule; `None` if it has an error.
fn notes(rule: &str) -> Option<Vec<String>> {
    let source = Source { path: "postward.toml".into(), text: rule.to_owned() };
    let (config, mut diagnostics) = Config::read(vec![source]);
    let policy = Policy::compile(&config, &mut diagnostics)?;
    Some(policy.outlines().iter().flat_map(|outline| outline.notes.clone()).collect())
}

/// Every code that a rule can write, with every enhanced code that anybody is known to use with it, the two that go with all,
/// and one that means nothing.
fn statuses() -> BTreeSet<String> {
    let codes = (400..460).chain(500..560);
    let with_any = |code: u16| ["0.0", "7.1", "7.99"].map(|rest| format!("{code} {}.{rest}", code / 100));
    let usual_of_basic = codes::all_basic().iter().flat_map(|basic| basic.usual).copied();
    let usual_of_enhanced = codes::all_enhanced().iter().flat_map(|enhanced| enhanced.usual).copied();
    let usual = usual_of_basic.chain(usual_of_enhanced).map(str::to_owned);
    let registered = codes::all_enhanced().iter().flat_map(|enhanced| {
        // `X.7.1`, `4.7.32` or `5.7.501-5.7.503`
        let (first, _) = enhanced.code.split_once('-').unwrap_or((enhanced.code, ""));
        let (_, rest) = first.split_once('.').unwrap();
        // Where the registry names none, the two that go with most.
        let basic = if enhanced.basic.is_empty() { &[451, 550] } else { enhanced.basic };
        let has_class = |code: &&u16| [enhanced.classes, enhanced.seen].concat().contains(&(**code / 100));
        basic.iter().filter(has_class).map(move |code| format!("{code} {}.{rest}", code / 100))
    });
    let all = codes.flat_map(with_any).chain(usual).chain(registered);
    all.filter(|status| status.starts_with(['4', '5'])).collect()
}

/// What the linter lets pass at these stages: every status with the first text, and each code with the others once.
fn passing(stages: &[&'static str], first: &str, others: &[String]) -> Vec<Said> {
    let mut all = Vec::new();
    for (status, stage) in statuses().iter().flat_map(|status| stages.iter().map(move |stage| (status, *stage))) {
        let Some(plain) = Said::passing(all.len(), stage, status, first) else { continue };
        all.push(plain);
        for text in others.iter().filter(|_| status.ends_with(".7.1")) {
            all.push(Said::passing(all.len(), stage, status, text).expect("no text here is refused"));
        }
    }
    let known = |exception: &&String| [NAMES_ADDRESS, KEEPS_CODE, GREETS, STAYS].contains(&exception.as_str());
    let unknown = all.iter().flat_map(|said| &said.exceptions).find(|exception| !known(exception));
    assert_eq!(unknown, None, "the tests do not know this exception");
    all
}

/// The longest line that is not folded.
fn longest_line() -> String {
    format!("a@{}", "x".repeat(MAX_LINE_TEXT - 2))
}

/// Has both MTAs say all of it.
fn arrives(all: &[Said], check: impl Fn(&Site) + Sync) {
    let rules: String = all.iter().map(Said::rule).collect();
    thread::scope(|scope| {
        for mta in Mta::BOTH {
            let (rules, check) = (&rules, &check);
            scope.spawn(move || {
                let site = Site::start(mta, &[], rules);
                let different: Vec<String> = all.iter().filter_map(|said| difference(&site, said)).collect();
                assert!(different.is_empty(), "{mta:?}:\n{}", different.join("\n"));
                check(&site);
            });
        }
    });
}

#[test]
fn what_the_linter_lets_pass_reaches_the_client_as_it_was_written() {
    let others = [
        "one\ntwo@example.test\n\nfour".to_owned(),
        "it is 100% sure, %s%n %% a@b.example %".to_owned(),
        longest_line(),
        ["line@example.test"; MAX_LINES].join("\n"),
    ];
    let all = passing(&STAGES, TEXT, &others);
    assert!(all.len() >= FEWEST_PLAYED, "only {} replies", all.len());
    arrives(&all, Site::check);
}

/// Nearly 8 KiB. Postfix cuts its own log line about it.
#[test]
fn the_longest_reply_with_every_code_reaches_the_client_whole() {
    let mut all = passing(&STAGES, &[longest_line().as_str(); MAX_LINES].join("\n"), &[]);
    all.retain(|said| said.status.ends_with(".7.1"));
    assert!(all.len() >= FEWEST_CODES, "only {} replies", all.len());
    arrives(&all, Site::check_counters);
}

/// Has the reply said, and looks at what arrives and whether the session goes on.
fn difference(site: &Site, said: &Said) -> Option<String> {
    let mta = site.mta.mta();
    let mut client = site.client();
    let sender = format!("<{}@example.net>", said.name);
    let mut commands = STAGES.iter().take_while(|stage| **stage != said.stage);
    let (mut answer, mut address) = (client.mail(&sender), sender.as_str());
    if commands.next().is_some() {
        answer.ok();
        (answer, address) = (client.rcpt(RECIPIENT), RECIPIENT);
    }
    if commands.next().is_some() {
        answer.ok();
        answer = client.data(MESSAGE);
    }
    let seen = String::from_utf8_lossy(answer.reply.bytes()).into_owned();
    let expected = said.on_the_wire(mta, address);
    if seen != expected {
        return Some(format!("{}: saw {seen:?}, expected {expected:?}", said.name));
    }
    if said.ends_session(mta) {
        client.sees_the_connection_closed();
    } else {
        assert_eq!(client.smtp.send("NOOP").code(), 250, "{mta:?} {}", said.name);
    }
    None
}

#[test]
fn what_the_linter_lets_pass_at_connect_is_greeted_with_its_code() {
    let all = passing(&["connect"], TEXT, &[]);
    assert!(all.len() >= FEWEST_GREETED, "only {} replies", all.len());
    each_on_both(&[], &all, Said::rule, |site, said| {
        let mut client = site.stranger();
        client.greeting().starts(&format!("{} ", &said.status[..3]));
        site.expect_reply("connect", &said.status, "enforce");
        let logged = format!("{} {TEXT}", said.status);
        site.expect_rejection("CONNECT", LOCALHOST, &logged);
        if said.ends_session(site.mta.mta()) {
            assert!(said.has_exception(KEEPS_CODE), "{}", said.name);
            return client.sees_the_connection_closed();
        }
        assert!(said.has_exception(GREETS), "{}", said.name);
        assert_eq!(client.smtp.send("EHLO client.example.net").code(), 250);
        let answer = client.smtp.send("MAIL FROM:<sender@example.net>").text();
        assert_eq!(answer, site.either(logged.as_str(), "550 5.0.0 Command rejected"));
        site.expect_rejection("EHLO", LOCALHOST, &logged);
        site.expect_rejection("MAIL", LOCALHOST, &logged);
    });
}

/// The other side of the sieve: it does hold something back, and at the right stages.
#[test]
fn what_would_not_arrive_or_do_harm_is_refused_by_the_linter() {
    let refused = |stage: &'static str, status: &str| Said::passing(0, stage, status, TEXT).is_none();
    // After this Sendmail greets with 220.
    assert!(Said::passing(0, "connect", "421 4.7.0", "one\ntwo").is_none());
    for stage in STAGES.into_iter().chain(["connect"]) {
        for status in ["250 2.0.0", "571 5.7.1", "550 4.7.1", "457 4.0.0", "535 5.7.8", "454 4.7.0", "500 5.5.1"] {
            assert!(refused(stage, status), "{status} at {stage}");
        }
        let has = |status: &str| !refused(stage, status);
        assert_eq!(has("550 5.7.1"), stage != "connect", "{stage}");
        assert_eq!(has("551 5.7.1"), stage == "rcpt", "{stage}");
        assert_eq!(has("556 5.1.10"), stage == "rcpt", "{stage}");
        assert_eq!(has("521 5.3.2"), ["mail", "rcpt"].contains(&stage), "{stage}");
        assert_eq!(has("550 5.1.1"), !["connect", "mail"].contains(&stage), "{stage}");
        for status in ["421 4.7.0", "521 5.3.2"] {
            let rule = Said::new(0, stage, status, TEXT).rule();
            assert_eq!(notes(&rule.replace("disconnect = true\n", "")), None, "{status} at {stage}");
        }
    }
}
