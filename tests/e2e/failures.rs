//! A daemon that dies, and one that is told to end: mail waits, and nothing passes unseen.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use crate::site::LOCALHOST;
use crate::site::MESSAGE;
use crate::site::RECIPIENT;
use crate::site::SENDER;
use crate::site::Site;
use crate::site::keeping;
use crate::site::lines_with;
use crate::support::Daemon;
use crate::support::Mta;
use crate::support::Queued;
use crate::support::Reply;
use crate::support::Smtp;
use crate::support::wait_for;

const JUDGED: &str = "[[rule]]\nname = \"judged\"\nwhen.client = \"127.0.0.1\"\nadd_header = \"X-Judged: {id}\"\n";

/// MAIL is answered, so that the daemon hears of it at once.
const ANSWERED: &str = "[[rule]]\nname = \"bad\"\nwhen.sender = \"bad@example.net\"\n";

const UNAVAILABLE: &str = "451 4.7.1 Service unavailable - try again later";

/// What the clients of a storm met.
#[derive(Default)]
struct Storm {
    accepted: AtomicUsize,
    deferred: AtomicUsize,
    replies: Mutex<BTreeMap<String, usize>>,
}

impl Storm {
    /// Sends one message until it is accepted; after each refusal over a new connection, since Postfix does not ask the
    /// daemon again in the old one.
    fn deliver(&self, port: u16, client: &mut Option<Smtp>, number: usize) {
        let sender = format!("sender{number}@example.net");
        let message = format!("Subject: test\nX-Number: {number}\n\nHello\n");
        wait_for(&format!("message {number} to be accepted"), || {
            let smtp = client.get_or_insert_with(|| Smtp::session(port));
            let reply = smtp.deliver(&sender, &["user@example.test"], &message);
            if reply.code() == 250 {
                self.accepted.fetch_add(1, Ordering::SeqCst);
                return Some(());
            }
            self.defer(&reply);
            *client = None;
            None
        });
    }

    fn defer(&self, reply: &Reply) {
        assert_eq!(reply.code() / 100, 4, "{reply}");
        self.deferred.fetch_add(1, Ordering::SeqCst);
        *self.replies.lock().unwrap().entry(reply.text()).or_default() += 1;
    }
}

/// The value of a header field; fails unless it is there once.
fn field<'a>(message: &'a Queued, name: &str) -> &'a str {
    let values: Vec<&str> = message.message.lines().filter_map(|line| line.strip_prefix(name)).collect();
    assert_eq!(values.len(), 1, "{name} in {message:?}");
    values[0].trim_start_matches(':').trim()
}

/// Postfix's queue id: the name of the file.
fn queue_id(message: &Queued) -> &str {
    let (_, path) = message.envelope.split_once("ENVELOPE RECORDS ").unwrap();
    path.split(" ***").next().and_then(|path| path.rsplit('/').next()).unwrap()
}

#[test]
fn a_daemon_killed_in_a_storm_loses_nothing_and_lets_nothing_pass_unseen() {
    const CLIENTS: usize = 20;
    const EACH: usize = 10;
    let mut site = Site::start(Mta::Postfix, keeping(Mta::Postfix), JUDGED);
    let port = site.mta.port();
    let storm = Storm::default();
    let mut downs = Vec::new();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let storm = &storm;
            scope.spawn(move || {
                let mut smtp = None;
                (0..EACH).for_each(|message| storm.deliver(port, &mut smtp, client * EACH + message));
            });
        }
        // Twice: once with an empty chair for a while, once replaced at once.
        wait_for("a quarter of the storm", || (storm.accepted.load(Ordering::SeqCst) >= 50).then_some(()));
        site.daemon.kill();
        downs.push(storm.accepted.load(Ordering::SeqCst));
        wait_for("clients to be deferred", || (storm.deferred.load(Ordering::SeqCst) >= 40).then_some(()));
        site.daemon.restart();
        wait_for("most of the storm", || (storm.accepted.load(Ordering::SeqCst) >= 120).then_some(()));
        downs.push(storm.accepted.load(Ordering::SeqCst));
        site.daemon.restart();
    });
    let replies = storm.replies.into_inner().unwrap();
    let deferred = storm.deferred.into_inner();
    eprintln!(
        "{} messages over {CLIENTS} connections; killed after {downs:?} were accepted; {deferred} retries: {replies:?}",
        CLIENTS * EACH,
    );
    assert_eq!(storm.accepted.into_inner(), CLIENTS * EACH);
    assert_eq!(replies.keys().collect::<Vec<_>>(), [UNAVAILABLE]);
    // What was accepted is there exactly once, and the daemon has judged it.
    let queued = site.mta.all_queued();
    let mut numbers: Vec<usize> = queued.iter().map(|message| field(message, "X-Number").parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..CLIENTS * EACH).collect::<Vec<_>>());
    let log = site.daemon.log();
    let mut judged = HashSet::new();
    let mut untold = 0;
    for message in &queued {
        let judgement = field(message, "X-Judged");
        assert!(!judgement.is_empty() && judged.insert(judgement.to_owned()), "{message:?}");
        let id = format!("queue_id=\"{}\"", queue_id(message));
        let accepted = log.lines().filter(|line| line.contains(" accept id=") && line.contains(&id)).count();
        assert!(accepted <= 1, "{id}");
        untold += 1 - accepted;
    }
    // SIGKILL may take the lines of the last moment with it: no more than there were messages under way.
    assert!(untold <= downs.len() * CLIENTS, "{untold} messages are not in the log");
    assert_eq!(lines_with(&log, &[" WARN ", " ERROR ", "panicked"], &[""]), [""; 0]);
}

/// Behind a socket unit: the socket is there all the time, so that an MTA that comes during a restart waits for it to be over.
#[test]
fn restarts_behind_a_socket_unit_defer_nothing() {
    const CLIENTS: usize = 4;
    const RESTARTS: usize = 5;
    let mut site = Site::start_activated(Mta::Postfix, keeping(Mta::Postfix), JUDGED);
    let port = site.mta.port();
    let storm = Storm::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (storm, stop) = (&storm, &stop);
            scope.spawn(move || {
                // Each over a connection of its own: what Postfix has begun with the daemon it cannot begin anew.
                for message in (client..).step_by(CLIENTS).take_while(|_| !stop.load(Ordering::SeqCst)) {
                    storm.deliver(port, &mut None, message);
                }
            });
        }
        for _ in 0..RESTARTS {
            let before = storm.accepted.load(Ordering::SeqCst);
            wait_for("some messages", || (storm.accepted.load(Ordering::SeqCst) >= before + 20).then_some(()));
            assert!(site.daemon.terminate().success());
            // Those that come now find nobody, and wait.
            site.daemon.restart();
        }
        stop.store(true, Ordering::SeqCst);
    });
    let (accepted, deferred) = (storm.accepted.into_inner(), storm.deferred.into_inner());
    eprintln!("{RESTARTS} restarts: {accepted} messages accepted, {deferred} deferred: {:?}", storm.replies);
    assert_eq!(deferred, 0, "{:?}", storm.replies);
    let queued = site.mta.all_queued();
    assert_eq!(queued.len(), accepted);
    assert!(queued.iter().all(|message| !field(message, "X-Judged").is_empty()), "one passed unseen");
}

#[test]
fn a_client_for_whom_there_is_no_room_is_told_to_come_again() {
    for mta in Mta::BOTH {
        let server = "listen = [\"inet:127.0.0.1:0\"]\nmax_sessions = 1";
        let site = Site::start_with(mta, &[], server, ANSWERED);
        let mut first = site.client();
        first.mail(SENDER).ok();
        let mut second = site.stranger();
        second.greeting().is(site.either(
            "421 mx.example.test Service unavailable - try again later",
            "421 4.7.0 mx.example.test closing connection",
        ));
        site.expect_reply("connect", "421 4.3.2", "enforce");
        site.expect_rejection("CONNECT", LOCALHOST, "421 4.3.2 Too many sessions, try again later");
        drop(second);
        first.rcpt(RECIPIENT).ok();
        first.data(MESSAGE).ok();
        drop(first);
        site.check_counters();
        site.client().delivers();
    }
}

#[test]
fn or_passes_unseen() {
    for mta in Mta::BOTH {
        let server = "listen = [\"inet:127.0.0.1:0\"]\nmax_sessions = 1\non_overload = \"accept\"";
        let site =
            Site::start_with(mta, &[], server, "[[rule]]\nname = \"r\"\nwhen.recipient = \"user@example.test\"\n");
        let mut first = site.client();
        first.mail(SENDER).ok();
        let mut second = Smtp::session(site.mta.port());
        assert_eq!(second.deliver("a@example.net", &["user@example.test"], MESSAGE).code(), 250, "{mta:?}");
        first.rcpt(RECIPIENT).starts("550 5.7.1 ");
        drop(first);
        site.daemon.wait_for_metric("postward_connections_shed_total", &[("result", "accepted")], 1.0);
    }
}

/// A milter endpoint as an address, `127.0.0.1:PORT`.
fn address(daemon: &Daemon) -> &str {
    daemon.milter().strip_prefix("inet:").unwrap()
}

#[test]
fn a_message_under_way_ends_normally_when_the_daemon_is_told_to_end() {
    for mta in Mta::BOTH {
        let mut site = Site::start(mta, keeping(mta), &format!("{JUDGED}{ANSWERED}"));
        let mut client = site.client();
        let idle = site.client();
        client.mail(SENDER).ok();
        client.rcpt(RECIPIENT).ok();
        site.daemon.signal("TERM");
        wait_for("new connections to be refused", || TcpStream::connect(address(&site.daemon)).is_err().then_some(()));
        client.rcpt("<second@example.test>").ok();
        client.data(MESSAGE).ok();
        drop(client);
        drop(idle);
        let (queued, recipients) = site.only_queued();
        assert!(!field(&queued, "X-Judged").is_empty());
        assert_eq!(recipients, ["user@example.test", "second@example.test"]);
        let status = site.daemon.wait_for_exit();
        assert_eq!(status.code(), Some(0), "{mta:?}");
        let log = site.daemon.log();
        assert_eq!(log.matches(" accept id=").count(), 1, "{log}");
        assert_eq!(lines_with(&log, &[" WARN ", " ERROR ", "panicked"], &[""]), [""; 0]);
        // Until the next one starts, mail waits.
        let mut late = Smtp::session(site.mta.port());
        let reply = late.send("MAIL FROM:<late@example.net>");
        assert_eq!(reply.text(), site.either(UNAVAILABLE, "451 4.3.2 Please try again later"));
        site.daemon.restart();
        assert_eq!(
            Smtp::session(site.mta.port()).deliver("late@example.net", &["user@example.test"], MESSAGE).code(),
            250
        );
    }
}

#[test]
fn a_client_that_gives_up_lets_the_daemon_end_at_once() {
    for mta in Mta::BOTH {
        let mut site = Site::start(mta, &[], ANSWERED);
        let mut client = site.client();
        client.mail(SENDER).ok();
        site.daemon.signal("TERM");
        wait_for("new connections to be refused", || TcpStream::connect(address(&site.daemon)).is_err().then_some(()));
        drop(client);
        assert_eq!(site.daemon.wait_for_exit().code(), Some(0), "{mta:?}");
    }
}
