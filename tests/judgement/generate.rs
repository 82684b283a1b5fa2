//! Random policies and scripts, from alphabets so small that conditions often meet what they ask about.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::sample::subsequence;

use crate::model::Action;
use crate::model::Ask;
use crate::model::Auth;
use crate::model::GivesUp;
use crate::model::Limit;
use crate::model::Message;
use crate::model::Moment;
use crate::model::Mta;
use crate::model::Policy;
use crate::model::Rule;
use crate::model::Script;
use crate::model::SmtpSession;
use crate::model::Stage;
use crate::model::Table;
use crate::model::Tls;
use crate::model::Values;
use crate::schedule::judgements;

/// A policy, `limits` of a hundred of its rules with a limit.
pub(crate) fn policy(limits: u32) -> impl Strategy<Value = Policy> {
    let answer_at = prop_oneof![6 => Just(Stage::Mail), 2 => Just(Stage::Rcpt), 1 => Just(Stage::Connect)];
    let is_careless = prop::bool::weighted(0.03);
    // In a long policy most rules are passed over.
    let rules = prop_oneof![9 => vec(rule(limits), 1..=7), 1 => vec(rule(limits), 20..=40)];
    (prop::bool::weighted(0.15), answer_at, rules, is_careless).prop_map(|(monitor, answer_at, rules, is_careless)| {
        let mut policy = Policy { monitor, answer_at, rules: Vec::new() };
        for rule in rules {
            let decides_always = rule.decides_always();
            let may_keep_at = rule.at.is_none() || is_careless;
            policy.rules.push(rule);
            if !may_keep_at && judgements(&policy).is_err() {
                policy.rules.last_mut().unwrap().at = None;
            }
            if decides_always {
                break;
            }
        }
        policy
    })
}

fn rule(limits: u32) -> impl Strategy<Value = Rule> {
    let when = prop_oneof![1 => Just(Table::default()), 12 => table(2)];
    let unless = option::weighted(0.2, table(1));
    let limit = prop_oneof![100 - limits => Just(None), limits => limit().prop_map(Some)];
    let stages = vec![Stage::Connect, Stage::Connect, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Data, Stage::End];
    let at = option::weighted(0.3, select(stages));
    (when, unless, limit, action(), prop::bool::weighted(0.15), at).prop_map(
        |(when, unless, limit, action, monitor, at)| {
            let mut rule = Rule { when, unless, limit, action, monitor, at };
            rule.make_sense();
            rule
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let codes = vec![None, Some("550 5.7.1"), Some("450 4.7.1"), Some("554 5.7.1")];
    let headers = vec![("X-One", "a"), ("X-One", "b"), ("X-To", "{recipient}")];
    prop_oneof![
        3 => Just(Action::Accept),
        2 => select(headers).prop_map(|(name, value)| Action::AddHeader(name, value)),
        2 => Just(Action::Discard),
        1 => Just(Action::Quarantine),
        7 => select(codes).prop_map(Action::Refuse),
    ]
}

fn table(depth: u32) -> BoxedStrategy<Table> {
    let asks = vec(ask(), 1..=2).prop_map(|mut asks| {
        asks.sort_by_key(Ask::name);
        asks.dedup_by_key(|ask| ask.name());
        asks
    });
    let asks = asks.boxed();
    let one = vec(ask(), 1).prop_map(|asks| Table { asks, ..Table::default() });
    if depth == 0 {
        return one.boxed();
    }
    let any = vec(table(depth - 1), 1..=3).boxed();
    let not = table(depth - 1).prop_map(Box::new).boxed();
    prop_oneof![
        6 => one,
        2 => asks.clone().prop_map(|asks| Table { asks, ..Table::default() }),
        1 => any.clone().prop_map(|any| Table { any, ..Table::default() }),
        1 => not.clone().prop_map(|not| Table { not: Some(not), ..Table::default() }),
        1 => (asks, option::of(any), option::of(not))
            .prop_map(|(asks, any, not)| Table { asks, any: any.unwrap_or_default(), not }),
    ]
    .boxed()
}

fn ask() -> impl Strategy<Value = Ask> {
    let recipient = || values(&["r@x.example", "T@y.example", "x.example", ".y.example", "@people", "@guests"]);
    prop_oneof![
        2 => any::<bool>().prop_map(Ask::Authenticated),
        2 => values(&["192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "127.0.0.0/8", "@nets", "@wide", "@office"]).prop_map(Ask::Client),
        1 => values(&["unknown", ".example.net", "mail.example.org", "@names", "@zones"]).prop_map(Ask::ClientName),
        1 => (0..2usize, select(vec![1000, 3000])).prop_map(|(path, below)| Ask::DiskFree(path, below)),
        1 => values(&["host", ".Example.net", "[192.0.2.1]", "@names", "@zones"]).prop_map(Ask::Helo),
        1 => values(&["smtp", "submission"]).prop_map(Ask::Listener),
        1 => values(&["Alice", "bob", "@logins"]).prop_map(Ask::Login),
        1 => Just(Ask::OverQuota(vec!["@people"])),
        1 => subsequence(vec![25, 587], 1..=2).prop_map(Ask::Port),
        5 => recipient().prop_map(Ask::Recipient),
        3 => select(vec![(">", 1), (">", 2), (">=", 3), ("<", 2), ("<=", 2), ("=", 2)])
            .prop_map(|(operator, bound)| Ask::Recipients(operator, bound)),
        2 => values(&["a@x.example", "x.example", ".x.example", "<>", "@people", "@guests"]).prop_map(Ask::Sender),
        1 => values(&["x.example", ".X.example", "@names", "@zones"]).prop_map(Ask::SenderDomain),
        1 => select(vec!["own", "shared"]).prop_map(Ask::SenderLoginMismatch),
        4 => (select(vec![">", ">", ">", ">=", "<", "<="]), select(vec![20, 40, 60]))
            .prop_map(|(operator, bound)| Ask::Size(operator, bound)),
        1 => any::<bool>().prop_map(Ask::Tls),
    ]
}

fn values(all: &[&'static str]) -> impl Strategy<Value = Values> + use<> {
    subsequence(all.to_vec(), 1..=2)
}

fn limit() -> impl Strategy<Value = Limit> {
    let parts = vec![
        "client",
        "client/24/32",
        "helo",
        "listener",
        "login",
        "recipient",
        "recipient_domain",
        "sender",
        "sender_domain",
    ];
    let key = prop_oneof![1 => Just(Vec::new()), 4 => subsequence(parts, 1), 1 => select(vec![
        vec!["login", "recipient"], vec!["sender", "client"], vec!["recipient_domain", "sender"],
    ])];
    let rates = || vec(1..=3u64, 1..=2);
    let bytes = || vec(select(vec![40, 80, 150]), 1);
    let counts = prop_oneof![
        4 => rates().prop_map(|messages| (messages, vec![], vec![])),
        4 => rates().prop_map(|recipients| (vec![], recipients, vec![])),
        2 => bytes().prop_map(|bytes| (vec![], vec![], bytes)),
        1 => (rates(), rates(), bytes()),
    ];
    (key, counts).prop_map(|(key, (messages, recipients, bytes))| Limit { key, messages, recipients, bytes })
}

impl Rule {
    fn decides_always(&self) -> bool {
        let decides = !matches!(self.action, Action::AddHeader(..)) && !self.monitor;
        decides && self.when.is_empty() && self.unless.is_none() && self.limit.is_none()
    }

    /// What the compiler refuses, for reasons that are not under test here, is not written.
    fn make_sense(&mut self) {
        let mut is_about_recipients = false;
        self.when.for_each(true, &mut |ask, _| {
            is_about_recipients |= matches!(ask, Ask::OverQuota(_) | Ask::Recipient(_) | Ask::Recipients(..));
        });
        if !matches!(self.action, Action::Refuse(_)) {
            self.at = None;
            // More than one count, and which of them a rule that exempts should still charge has no obvious answer.
            if let Some(limit) = &mut self.limit
                && !limit.messages.is_empty()
            {
                limit.recipients.clear();
                limit.bytes.clear();
            }
        }
        match self.action {
            Action::Accept => self.limit = None,
            Action::AddHeader(name, "{recipient}") if !is_about_recipients => {
                self.action = Action::AddHeader(name, "c")
            }
            Action::AddHeader(..) | Action::Discard | Action::Quarantine | Action::Refuse(_) => {}
        }
        if self.at == Some(Stage::Connect) {
            self.action = Action::Refuse(Some("554 5.7.1"));
        }
    }
}

pub(crate) fn script(most_messages: usize) -> impl Strategy<Value = Script> {
    let sessions = prop_oneof![9 => vec(session(most_messages), 1), 1 => vec(session(most_messages), 2)];
    (mta(), select(vec![[500, 500], [2000, 500], [5000, 5000]]), sessions).prop_map(|(mta, free, sessions)| Script {
        mta,
        free,
        sessions,
    })
}

fn mta() -> impl Strategy<Value = Mta> {
    let offer = prop_oneof![
        4 => Just((6, 0x1f_ffff)),
        2 => select(vec![(2, 0x7f), (3, 0x17f), (4, 0x3ff), (5, 0x3ff)]),
        2 => (4..=6u32, 0..=0x1f_ffffu32),
        1 => (2..=3u32, 0..=0xffu32),
    ];
    (offer, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |((version, steps), unix_socket, aborts_always, local_submission)| Mta {
            version,
            steps,
            unix_socket,
            aborts_always,
            local_submission,
        },
    )
}

fn session(most_messages: usize) -> impl Strategy<Value = SmtpSession> {
    let clients = vec![
        Some("192.0.2.1"),
        Some("192.0.2.2"),
        Some("::ffff:192.0.2.1"),
        Some("198.51.100.7"),
        Some("127.0.0.1"),
        Some("2001:db8::1"),
        Some("IPv6:2001:db8:0:1::1"),
        None,
    ];
    let client_names = vec!["mx.example.net", "Mail.Example.Org.", "[192.0.2.1]", "example.net"];
    (
        select(clients),
        select(client_names),
        select(vec![Some(25), Some(587), None]),
        select(vec![Some("smtp"), Some("submission"), None]),
        option::weighted(0.9, helo()),
        select(vec![Tls::No, Tls::SaidAtHelo, Tls::SaidAtMail]),
        vec(message(), 1..=most_messages),
    )
        .prop_map(|(client, client_name, port, listener, helo, tls, messages)| SmtpSession {
            client,
            client_name,
            port,
            listener,
            helo,
            tls: if tls == Tls::SaidAtHelo && helo.is_none() { Tls::SaidAtMail } else { tls },
            messages,
        })
}

fn helo() -> impl Strategy<Value = &'static str> {
    select(vec!["mx.example.net", "HOST", "[192.0.2.1]", "other.example.org"])
}

fn message() -> impl Strategy<Value = Message> {
    let auth = vec![Auth::No, Auth::No, Auth::Login("alice"), Auth::Login("Bob"), Auth::Nameless];
    let senders = vec!["<a@x.example>", "<b@y.example>", "<A@Sub.x.Example>", "<>", "<postmaster>", "a@x.example"];
    let recipients =
        vec!["<r@x.example>", "<R@X.example>", "<s@y.example>", "<t@sub.y.example>", "<postmaster>", "t@y.example"];
    let senders = prop_oneof![15 => select(senders), 1 => Just("<a@x.example@y.example>")];
    let recipients = prop_oneof![20 => select(recipients), 1 => Just("<r@x.example@y.example>")];
    let header = vec![("A", " b"), ("Subject", " c\n d"), ("X", " yyyyyyyyyyyyyyyyyyyyyy")];
    let moments = vec![Moment::Mail, Moment::Recipient, Moment::Recipients, Moment::Data, Moment::Content];
    let gives_up = (select(moments), any::<bool>()).prop_map(|(after, says_so)| GivesUp { after, says_so });
    (
        option::weighted(0.2, helo()),
        select(auth),
        senders,
        select(vec![None, Some(0), Some(10), Some(30), Some(50), Some(70)]),
        vec(recipients, 1..=4),
        subsequence(header, 1..=3),
        select(vec![0, 10, 30, 50]),
        option::weighted(0.2, gives_up),
    )
        .prop_map(|(helo, auth, sender, declared_size, recipients, header, body, gives_up)| Message {
            helo,
            auth,
            sender,
            declared_size,
            recipients,
            header,
            body,
            gives_up,
        })
}
