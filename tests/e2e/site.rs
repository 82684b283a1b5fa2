//! A daemon, an MTA that asks it, and clients whose every reply is kept, so that it can be compared with what the daemon
//! counted and with what the MTA logged.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::support::Daemon;
use crate::support::Instance;
use crate::support::Mta;
use crate::support::Queued;
use crate::support::Reply;
use crate::support::Smtp;
use crate::support::wait_for;
use crate::support::wait_up_to_patience;

/// Sender and recipient of messages in which nothing about them matters.
pub(crate) const SENDER: &str = "<sender@example.net>";
pub(crate) const RECIPIENT: &str = "<user@example.test>";

/// How Postfix's log calls a client on the same machine.
pub(crate) const LOCALHOST: &str = "localhost[127.0.0.1]";

/// A message of a few octets.
pub(crate) const MESSAGE: &str = "Subject: test\n\nHello\n";

/// A message of so many octets, as the daemon counts them.
pub(crate) fn message_of(octets: usize) -> String {
    // Postfix adds fields that a message from its own machine lacks, and shows them to milters.
    const HEADER: &str = "From: sender@example.net\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
                          Message-Id: <1@example.net>\r\nSubject: test\r\n\r\n";
    let body = octets - HEADER.len();
    assert!(body > 80, "too short to be filled with lines");
    let mut message = HEADER.replace('\r', "");
    for _ in 0..body / 80 - 1 {
        message += &format!("{}\n", "x".repeat(78));
    }
    message + &format!("{}\n", "x".repeat(body % 80 + 78))
}

/// Plays the same on both MTAs, each with a daemon of its own under these rules; then checks that daemon and MTA tell the
/// same as the client saw.
pub(crate) fn on_both(rules: &str, play: impl Fn(&Site)) {
    on_both_with(&[], rules, play);
}

/// Options by which everything that is accepted stays in the queue. Sendmail delivers nothing anyway.
pub(crate) fn keeping(mta: Mta) -> &'static [&'static str] {
    match mta {
        Mta::Postfix => &["--set", "smtpd_client_restrictions=check_client_access static:HOLD"],
        Mta::Sendmail => &[],
    }
}

/// As `on_both`, on MTAs that keep what they accept in the queue.
pub(crate) fn on_both_keeping(rules: &str, play: impl Fn(&Site)) {
    for mta in Mta::BOTH {
        on(mta, keeping(mta), rules, &play);
    }
}

/// As `on_both`, with options for the MTA that both understand.
pub(crate) fn on_both_with(options: &[&str], rules: &str, play: impl Fn(&Site)) {
    for mta in Mta::BOTH {
        on(mta, options, rules, &play);
    }
}

/// As `on_both_with`, on one.
pub(crate) fn on(mta: Mta, options: &[&str], rules: &str, play: impl Fn(&Site)) {
    let site = Site::start(mta, options, rules);
    play(&site);
    site.check();
}

/// Several policies, one after the other, on both MTAs.
pub(crate) fn each_on_both<C>(options: &[&str], cases: &[C], rules: impl Fn(&C) -> String, play: impl Fn(&Site, &C)) {
    for mta in Mta::BOTH {
        let mut site: Option<Site> = None;
        for case in cases {
            let rules = rules(case);
            match &mut site {
                None => site = Some(Site::start(mta, options, &rules)),
                Some(site) => site.replace_policy(&rules),
            }
            let site = site.as_ref().unwrap();
            play(site, case);
            site.check();
        }
    }
}

/// A daemon and an MTA that asks it.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) mta: Instance,
    /// Shown when the test fails.
    rules: String,
    seen: Mutex<Seen>,
    /// How many clients are connected.
    clients: AtomicUsize,
    /// Where the part of the MTA's log begins that belongs to this policy.
    log_start: usize,
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    /// Stage, code, enhanced code, mode.
    replies: Counts,
    messages: Counts,
    recipients: Counts,
    /// What Postfix must have logged.
    rejected: Vec<String>,
}

pub(crate) type Counts = BTreeMap<Vec<String>, f64>;

impl Site {
    pub(crate) fn start(mta: Mta, options: &[&str], rules: &str) -> Self {
        Self::start_with(mta, options, "listen = [\"inet:127.0.0.1:0\"]", rules)
    }

    /// With a daemon that is handed its socket, and again at each start.
    pub(crate) fn start_activated(mta: Mta, options: &[&str], rules: &str) -> Self {
        let config = config("", rules);
        let daemon = Daemon::start_activated(&config, &[("RUST_LOG", "info,postward=debug")]);
        Self::asked_by(mta.start(daemon.milter(), options), daemon, rules)
    }

    /// With this text in `[server]`. An option `{milter}` stands for the daemon's endpoint.
    pub(crate) fn start_with(mta: Mta, options: &[&str], server: &str, rules: &str) -> Self {
        let config = config(server, rules);
        let daemon = Daemon::start_with(&config, &[("RUST_LOG", "info,postward=debug")]);
        let options: Vec<String> = options.iter().map(|option| option.replace("{milter}", daemon.milter())).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Self::asked_by(mta.start(daemon.milter(), &options), daemon, rules)
    }

    fn asked_by(mta: Instance, daemon: Daemon, rules: &str) -> Self {
        let rules = rules.to_owned();
        Self { daemon, mta, rules, seen: Mutex::default(), clients: AtomicUsize::new(0), log_start: 0 }
    }

    /// Starts the daemon anew with other rules, and counts anew.
    pub(crate) fn replace_policy(&mut self, rules: &str) {
        self.rules = rules.to_owned();
        self.daemon.rewrite(&config("listen = [\"inet:127.0.0.1:0\"]", rules));
        self.daemon.restart();
        self.log_start = self.mta.log().len();
        self.seen = Mutex::default();
    }

    /// Other rules for the sessions that begin from now on; what was counted counts on.
    pub(crate) fn reload(&self, rules: &str) {
        let reloads = || self.daemon.metrics().get("postward_config_reloads_total", &[("result", "ok")]);
        let before = reloads();
        self.daemon.rewrite(&config("listen = [\"inet:127.0.0.1:0\"]", rules));
        self.daemon.signal("HUP");
        wait_for("a reload", || (reloads() > before).then_some(()));
    }

    /// A client that was greeted and has said `EHLO client.example.net`.
    pub(crate) fn client(&self) -> Client<'_> {
        let mut client = self.stranger();
        client.greeting().starts("220 ");
        client.ehlo("client.example.net");
        client
    }

    /// A client that has just connected.
    pub(crate) fn stranger(&self) -> Client<'_> {
        self.with_client(Smtp::connect(self.mta.port()), LOCALHOST)
    }

    /// As `client`, over IPv6; the MTA needs `--ipv6`.
    pub(crate) fn client_over_ipv6(&self) -> Client<'_> {
        let mut client = self.with_client(Smtp::connect_to("::1", self.mta.port()), "");
        client.greeting().starts("220 ");
        client.ehlo("client.example.net");
        if self.is_postfix() {
            // Whether the address has a name depends on the machine.
            let line = self.mta.wait_for_log("[::1]");
            client.logged_as = line.split(' ').next_back().unwrap_or_default().to_owned();
        }
        client
    }

    fn with_client(&self, smtp: Smtp, logged_as: &str) -> Client<'_> {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Client { site: self, smtp, open: None, logged_as: logged_as.to_owned() }
    }

    pub(crate) fn is_postfix(&self) -> bool {
        self.mta.mta() == Mta::Postfix
    }

    /// The one of the two that fits the MTA.
    pub(crate) fn either<T>(&self, postfix: T, sendmail: T) -> T {
        if self.is_postfix() { postfix } else { sendmail }
    }

    /// The only message in the queue, with its recipients.
    pub(crate) fn only_queued(&self) -> (Queued, Vec<String>) {
        let queued = self.mta.queued();
        assert_eq!(self.mta.all_queued().len(), 1);
        // `recipient: a@b` (Postfix) or `RPFD:<a@b>` (Sendmail)
        let recipient = |line: &str| match self.mta.mta() {
            Mta::Postfix => line.strip_prefix("recipient: ").map(str::to_owned),
            Mta::Sendmail => line.strip_prefix('R')?.split_once(':').map(|(_, address)| address.to_owned()),
        };
        let recipients = queued.envelope.lines().filter_map(recipient);
        let recipients = recipients.map(|address| address.trim_matches(['<', '>']).to_owned()).collect();
        (queued, recipients)
    }

    /// The daemon says this without a client seeing it at that stage: it is in monitor mode, or at CONNECT.
    pub(crate) fn expect_reply(&self, stage: &str, status: &str, mode: &str) {
        let (code, enhanced) = status.split_once(' ').unwrap();
        count(&mut self.seen().replies, &[stage, code, enhanced, mode]);
    }

    /// A message comes to this end without a client seeing it.
    pub(crate) fn expect_message(&self, end: &str) {
        count(&mut self.seen().messages, &[end]);
    }

    /// A recipient comes to this end without a client seeing it.
    pub(crate) fn expect_recipient(&self, end: &str) {
        count(&mut self.seen().recipients, &[end]);
    }

    /// Postfix logs this refusal of this client, `name[address]`, although no client of ours was told it at that stage.
    pub(crate) fn expect_rejection(&self, stage: &str, client: &str, text: &str) {
        self.seen().rejected.push(format!("milter-reject: {stage} from {client}: {text};"));
    }

    /// How often clients were told each reply: stage, code, enhanced code, mode.
    pub(crate) fn replies_seen(&self) -> Counts {
        self.seen().replies.clone()
    }

    /// What became of their messages.
    pub(crate) fn messages_seen(&self) -> Counts {
        self.seen().messages.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Once all clients have gone: the daemon counted exactly what they saw, and the MTA logged it and nothing worse.
    pub(crate) fn check(&self) {
        self.check_counters();
        self.check_log();
    }

    /// Waits until every session has ended and compares all counters.
    pub(crate) fn check_counters(&self) {
        self.daemon.wait_for_metric("postward_connections_active", &[], 0.0);
        let metrics = self.daemon.metrics();
        let seen = self.seen();
        let labels = ["stage", "code", "enhanced_code", "mode"];
        let (mta, rules) = (self.mta.mta(), &self.rules);
        assert_eq!(metrics.by("postward_replies_total", &labels), seen.replies, "replies, {mta:?}\n{rules}");
        assert_eq!(metrics.by("postward_messages_total", &["result"]), seen.messages, "messages, {mta:?}\n{rules}");
        assert_eq!(
            metrics.by("postward_recipients_total", &["result"]),
            seen.recipients,
            "recipients, {mta:?}\n{rules}"
        );
        assert_eq!(metrics.get("postward_protocol_errors_total", &[]), 0.0);
        assert_eq!(metrics.get("postward_internal_errors_total", &[]), 0.0);
    }

    /// What the MTA logged of the messages that it took: as many were let through, held and dropped as the daemon counted.
    fn check_messages_in_log(&self) {
        let counted = |end: &str| self.seen().messages.get(&vec![end.to_owned()]).copied().unwrap_or_default();
        let expected = ["accepted", "quarantined", "discarded"].map(counted);
        let logged = || logged_messages(self.mta.mta(), &self.mta.log()[self.log_start..]).map(|count| count as f64);
        // The MTAs log through processes of their own.
        wait_up_to_patience(|| logged() == expected);
        let (mta, rules) = (self.mta.mta(), &self.rules);
        assert_eq!(logged(), expected, "accepted, quarantined, discarded, in the log of {mta:?}\n{rules}");
    }

    fn check_log(&self) {
        self.check_messages_in_log();
        let log = || self.mta.log()[self.log_start..].to_owned();
        if self.is_postfix() {
            let rejected = self.seen().rejected.clone();
            // Postfix logs through a process of its own.
            wait_for(&format!("Postfix to log {} refusals", rejected.len()), || {
                (log().matches("milter-reject: ").count() >= rejected.len()).then_some(())
            });
            let log = log();
            for line in &rejected {
                let same = rejected.iter().filter(|other| *other == line).count();
                assert_eq!(log.matches(line).count(), same, "{line}\n{}", self.rules);
            }
            assert_eq!(log.matches("milter-reject: ").count(), rejected.len(), "{}", self.rules);
            assert_eq!(lines_with(&log, &["warning: "], &["milter"]), NOTHING);
            assert_eq!(lines_with(&log, &["panic: ", "fatal: ", "error: "], &[""]), NOTHING);
        } else {
            let complaints = ["to error state", "error connecting", "bogus", "lied about", "timeout", "milter_sys"];
            assert_eq!(lines_with(&log(), &["ilter"], &complaints), NOTHING);
        }
        let log = self.daemon.log();
        assert_eq!(lines_with(&log, &[" WARN ", " ERROR ", "panicked"], &[""]), NOTHING);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {:?} under the policy\n{}", self.mta.mta(), self.rules);
        }
    }
}

const NOTHING: [&str; 0] = [];

pub(crate) fn lines_with<'a>(log: &'a str, one_of: &[&str], and_one_of: &[&str]) -> Vec<&'a str> {
    let has = |line: &str, needles: &[&str]| needles.iter().any(|needle| line.contains(needle));
    log.lines().filter(|line| has(line, one_of) && has(line, and_one_of)).collect()
}

/// How many messages the MTA let through, held and dropped.
fn logged_messages(mta: Mta, log: &str) -> [usize; 3] {
    let ids = |needle: &str| -> BTreeSet<&str> {
        let lines = log.lines().filter(|line| line.contains(needle));
        lines.filter_map(|line| line.split("]: ").nth(1)?.split(':').next()).collect()
    };
    let (taken, held, dropped) = match mta {
        Mta::Postfix => {
            let mut taken = ids("(queue active)");
            taken.extend(ids(": hold: "));
            let held = ids(": milter-hold: END-OF-MESSAGE");
            taken.extend(&held);
            // What Postfix writes itself no milter sees.
            let bounces = log.lines().filter_map(|line| line.split("delivery notification: ").nth(1));
            bounces.for_each(|id| _ = taken.remove(id));
            (taken, held, ids(": milter-discard: END-OF-MESSAGE"))
        }
        Mta::Sendmail => (
            ids(" Message accepted for delivery"),
            ids(": milter=filter1, quarantine="),
            ids(": Milter: data, discard"),
        ),
    };
    let passed = taken.iter().filter(|id| !held.contains(*id) && !dropped.contains(*id));
    [passed.count(), held.len(), dropped.len()]
}

fn config(server: &str, rules: &str) -> String {
    format!("[server]\n{server}\n[http]\nlisten = \"127.0.0.1:0\"\nmax_series = 10000\n{rules}")
}

fn count(counts: &mut Counts, labels: &[&str]) {
    *counts.entry(labels.iter().map(|&label| label.to_owned()).collect()).or_default() += 1.0;
}

/// An SMTP client that keeps account of what it is told. Dropping it hangs up.
pub(crate) struct Client<'a> {
    pub(crate) site: &'a Site,
    pub(crate) smtp: Smtp,
    open: Option<Transaction>,
    /// How Postfix's log calls it.
    logged_as: String,
}

/// What the client knows of its message.
#[derive(Default)]
struct Transaction {
    accepted_recipients: usize,
    last_refusal: Option<&'static str>,
    /// DATA itself was refused.
    data_refused: bool,
}

impl Client<'_> {
    pub(crate) fn greeting(&mut self) -> Answer {
        let reply = self.smtp.greeting();
        self.answer(reply, "")
    }

    pub(crate) fn ehlo(&mut self, name: &str) {
        let answer = self.ehlo_raw(name.as_bytes());
        answer.starts("250");
    }

    /// EHLO with a name that need not be text.
    pub(crate) fn ehlo_raw(&mut self, name: &[u8]) -> Answer {
        self.smtp.raw([b"EHLO ", name, b"\r\n"].concat());
        let reply = self.smtp.read_reply();
        if reply.code() == 250 {
            self.end_open();
        }
        self.answer(reply, "")
    }

    /// Logs in as alice@example.test.
    pub(crate) fn log_in(&mut self) {
        assert_eq!(self.smtp.auth_plain("alice@example.test", "secret").code(), 235);
    }

    /// From here on Postfix takes the client for this one; `name` is the name and address in its log.
    pub(crate) fn becomes(&mut self, attributes: &str, name: &str) {
        let reply = self.smtp.send(&format!("XCLIENT {attributes}"));
        assert_eq!(reply.code(), 220, "{reply}");
        self.logged_as = name.to_owned();
        self.ehlo("client.example.net");
    }

    pub(crate) fn starttls(&mut self) {
        self.smtp.starttls();
        self.ehlo("client.example.net");
    }

    /// `MAIL FROM:` and this.
    pub(crate) fn mail(&mut self, argument: &str) -> Answer {
        let reply = self.smtp.send(&format!("MAIL FROM:{argument}"));
        match reply.code() {
            250 => self.open = Some(Transaction::default()),
            _ if self.is_daemons(&reply) => self.ended(self.refused("mail", &reply)),
            _ => {}
        }
        self.answer(reply, argument)
    }

    /// `RCPT TO:` and this.
    pub(crate) fn rcpt(&mut self, argument: &str) -> Answer {
        let reply = self.smtp.send(&format!("RCPT TO:{argument}"));
        let is_daemons = self.is_daemons(&reply);
        let refusal = (is_daemons && reply.code() != 250).then(|| self.refused("rcpt", &reply));
        if let (Some(open), true) = (&mut self.open, is_daemons) {
            open.accepted_recipients += usize::from(refusal.is_none());
            open.last_refusal = refusal.or(open.last_refusal);
            self.site.expect_recipient(refusal.unwrap_or("accepted"));
        }
        self.answer(reply, argument)
    }

    /// DATA, the message, and the final dot.
    pub(crate) fn data(&mut self, message: &str) -> Answer {
        self.data_that_is("accepted", message)
    }

    /// As `data`, for a message that the client is told is accepted, but that comes to this end.
    pub(crate) fn data_that_is(&mut self, end: &str, message: &str) -> Answer {
        let go_ahead = self.smtp.send("DATA");
        if go_ahead.code() != 354 {
            if self.is_daemons(&go_ahead) {
                let refusal = self.refused("data", &go_ahead);
                let open = self.open.as_mut().unwrap();
                open.last_refusal = Some(refusal);
                open.data_refused = true;
            }
            return self.answer(go_ahead, "");
        }
        let text: String = message.lines().map(|line| format!("{line}\r\n")).collect();
        let reply = self.smtp.send(&format!("{text}."));
        if reply.code() == 250 {
            self.ended(end);
        } else if self.is_daemons(&reply) {
            self.ended(self.refused("end-of-message", &reply));
        }
        self.answer(reply, "")
    }

    /// A whole message, accepted.
    pub(crate) fn delivers(&mut self) {
        self.delivers_from(SENDER);
    }

    pub(crate) fn delivers_from(&mut self, sender: &str) {
        self.mail(sender).ok();
        self.rcpt(RECIPIENT).ok();
        self.data(MESSAGE).ok();
    }

    pub(crate) fn rset(&mut self) {
        assert_eq!(self.smtp.send("RSET").code() / 100, 2);
        self.end_open();
    }

    /// Returns when the daemon has heard of it, unless other clients are just coming: Postfix keeps an ABORT to itself until it has more to send, and says 221 first.
    pub(crate) fn quit(mut self) {
        assert_eq!(self.smtp.send("QUIT").code(), 221);
        let site = self.site;
        drop(self);
        wait_for("the session of a client that has gone to end", || {
            // In this order: a client that comes in between is one more session, too.
            let clients = site.clients.load(Ordering::Relaxed) as f64;
            (site.daemon.metrics().get("postward_connections_active", &[]) <= clients).then_some(())
        });
    }

    /// The server hangs up.
    pub(crate) fn sees_the_connection_closed(mut self) {
        assert!(self.smtp.is_closed(), "the server closes");
    }

    /// What becomes of a message that the client gives up, or the server with it.
    fn end_open(&mut self) {
        let Some(open) = self.open.take() else { return };
        let refused = open.last_refusal.filter(|_| open.accepted_recipients == 0 || open.data_refused);
        self.site.expect_message(refused.unwrap_or("aborted"));
    }

    /// The message came to this end by commands that `smtp` was given.
    pub(crate) fn ended(&mut self, end: &str) {
        self.open = None;
        self.site.expect_message(end);
    }

    /// Notes a refusal; gives what became of what it was about.
    fn refused(&self, stage: &str, reply: &Reply) -> &'static str {
        let text = reply.text();
        let last = text.lines().last().unwrap_or_default();
        let (code, rest) = last.split_at(3);
        let enhanced = rest[1..].split(' ').next().unwrap_or_default();
        self.site.expect_reply(stage, &format!("{code} {enhanced}"), "enforce");
        let logged = text.replace("\r\n", "??");
        match stage {
            "end-of-message" => self.site.expect_rejection("END-OF-MESSAGE", &self.logged_as, &logged[4..]),
            _ => self.site.expect_rejection(&stage.to_uppercase(), &self.logged_as, &logged),
        }
        if code.starts_with('4') { "deferred" } else { "rejected" }
    }

    /// Whether it is the daemon that speaks.
    fn is_daemons(&self, reply: &Reply) -> bool {
        const MTAS_OWN: [&str; 4] = [
            "451 4.7.1 Service unavailable - try again later",
            "503 5.0.0 Need RCPT (recipient)",
            "503 5.5.1 Error: ",
            "554 5.5.1 Error: no valid recipients",
        ];
        let of_recipient = ["Recipient address rejected: User unknown", "... User unknown"];
        let is_unknown = of_recipient.iter().any(|text| reply.text().contains(text));
        !is_unknown && !MTAS_OWN.iter().any(|own| reply.text().starts_with(own))
    }

    fn answer(&self, reply: Reply, argument: &str) -> Answer {
        let address = argument.split(' ').next().unwrap_or_default().to_owned();
        Answer { reply, address, mta: self.site.mta.mta() }
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.end_open();
        self.site.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a client was told.
#[must_use]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    address: String,
    mta: Mta,
}

impl Answer {
    /// 250.
    #[track_caller]
    pub(crate) fn ok(&self) {
        self.starts("250 2.");
    }

    #[track_caller]
    pub(crate) fn starts(&self, text: &str) {
        assert!(
            self.reply.text().starts_with(text),
            "{:?}: expected {text:?}, the client saw {:?}",
            self.mta,
            self.reply
        );
    }

    /// Exactly this, byte for byte; only that Sendmail puts the address before the text of some codes at MAIL and RCPT.
    #[track_caller]
    pub(crate) fn is(&self, expected: &str) {
        let mut expected = expected.to_owned();
        let names_address = ["450", "550", "553"].iter().any(|code| expected.starts_with(code));
        if self.mta == Mta::Sendmail && names_address && !self.address.is_empty() {
            let text = 4 + expected[4..].find(' ').unwrap() + 1;
            expected.insert_str(text, &format!("{}... ", self.address));
        }
        let seen = String::from_utf8_lossy(self.reply.bytes()).into_owned();
        assert_eq!(seen, expected + "\r\n", "{:?}", self.mta);
    }
}
