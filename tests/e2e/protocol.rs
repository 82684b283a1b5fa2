//! What is asked of the MTA: nothing that no rule looks at.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use crate::support::Daemon;
use crate::support::Mta;
use crate::support::Smtp;
use crate::support::wait_for;

/// Sits between MTA and daemon and notes the letter of every packet.
struct Tap {
    endpoint: String,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// Commands of the MTA, replies of the daemon.
    commands: String,
    replies: String,
    /// Octets from the MTA.
    octets: usize,
    /// Sessions that have ended.
    ended: usize,
}

impl Tap {
    fn before(daemon: &Daemon) -> Self {
        let target = daemon.milter().strip_prefix("inet:").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("inet:{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = Arc::clone(&heard);
        // Ends with the process: the listener is never told that the test is over.
        thread::spawn(move || {
            for mta in listener.incoming().flatten() {
                let daemon = TcpStream::connect(&target).unwrap();
                let (from_mta, to_daemon) = (mta.try_clone().unwrap(), daemon.try_clone().unwrap());
                let (commands, replies) = (Arc::clone(&shared), Arc::clone(&shared));
                thread::spawn(move || {
                    forward(from_mta, to_daemon, |letter, length| {
                        let mut heard = commands.lock().unwrap();
                        heard.commands.push(letter);
                        heard.octets += length;
                    });
                    commands.lock().unwrap().ended += 1;
                });
                thread::spawn(move || forward(daemon, mta, |letter, _| replies.lock().unwrap().replies.push(letter)));
            }
        });
        Self { endpoint, heard }
    }
}

/// Passes whole packets on until the end.
fn forward(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(char, usize)) {
    let mut length = [0; 4];
    while from.read_exact(&mut length).is_ok() {
        let mut packet = length.to_vec();
        packet.resize(4 + u32::from_be_bytes(length) as usize, 0);
        if from.read_exact(&mut packet[4..]).is_err() {
            break;
        }
        note(char::from(packet[4]), packet.len());
        if to.write_all(&packet).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// What MTA and daemon say to each other about one session with two messages of 300 KB, and what they negotiated.
fn overheard(mta: Mta, rules: &str) -> (Heard, String) {
    let config = format!("[server]\nlisten = [\"inet:127.0.0.1:0\"]\n{rules}");
    let daemon = Daemon::start_with(&config, &[("RUST_LOG", "info,postward=debug")]);
    let tap = Tap::before(&daemon);
    let instance = mta.start(&tap.endpoint, &[]);
    let mut client = Smtp::session(instance.port());
    let message = format!("Subject: large\n\n{}", format!("{}\n", "x".repeat(70)).repeat(300_000 / 72));
    for _ in 0..2 {
        assert_eq!(client.deliver("sender@example.net", &["user@example.test"], &message).code(), 250);
    }
    assert_eq!(client.send("QUIT").code(), 221);
    wait_for("the session to end", || (tap.heard.lock().unwrap().ended == 1).then_some(()));
    (std::mem::take(&mut tap.heard.lock().unwrap()), daemon.wait_for_log(" negotiated "))
}

fn has(negotiated: &str, bit: &str) -> bool {
    let (_, steps) = negotiated.split_once("steps=\"{").unwrap();
    steps.trim_end().trim_end_matches("}\"").split(", ").any(|step| step == bit)
}

const RCPT_ONLY: &str = "[[rule]]\nname = \"r\"\nwhen.recipient = \"bad@example.test\"\n";

#[test]
fn a_policy_about_recipients_never_sees_header_or_body() {
    for mta in Mta::BOTH {
        let (heard, negotiated) = overheard(mta, RCPT_ONLY);
        for letter in ['L', 'N', 'B'] {
            assert!(!heard.commands.contains(letter), "{mta:?} {}", heard.commands);
        }
        assert!(heard.octets < 2000, "{mta:?}: {} octets about messages of 600 KB", heard.octets);
        for bit in ["NO_BODY", "NO_HEADERS", "NO_END_OF_HEADERS"] {
            assert!(has(&negotiated, bit), "{negotiated}");
        }
    }
}

/// Without DATA, or without an answer to it, every message over TCP waits 40 ms for a delayed acknowledgement.
#[test]
fn over_tcp_data_is_asked_for_and_answered() {
    for mta in Mta::BOTH {
        let (heard, negotiated) = overheard(mta, RCPT_ONLY);
        for bit in ["NO_DATA", "NO_REPLY_DATA"] {
            assert!(!has(&negotiated, bit), "{negotiated}");
        }
        assert_eq!(heard.commands.matches('T').count(), 2, "{mta:?} {}", heard.commands);
        // The negotiation, and for each message MAIL, RCPT, DATA and the end; nothing for connection and HELO.
        assert_eq!(heard.replies, "Occcccccc", "{mta:?}");
    }
}

#[test]
fn content_that_is_counted_is_not_answered_piece_by_piece() {
    for mta in Mta::BOTH {
        let (heard, _) = overheard(mta, "[[rule]]\nname = \"big\"\nwhen.size = \"> 1 MiB\"\n");
        let count = |letter: char| heard.commands.matches(letter).count();
        // 300 KB are five packets of 65535 octets at most.
        assert_eq!((count('N'), count('B'), count('E')), (2, 10, 2), "{mta:?} {}", heard.commands);
        assert!(heard.octets > 600_000 && heard.octets < 610_000, "{mta:?} {}", heard.octets);
        // MAIL, DATA (over TCP) and the end.
        assert_eq!(heard.replies, "Occcccc", "{mta:?}");
    }
}

#[test]
fn over_a_unix_socket_data_is_not_asked_for() {
    for mta in Mta::BOTH {
        let config = format!("[server]\nlisten = [\"unix:{{dir}}/s\"]\nsocket_group = \"postfix\"\n{RCPT_ONLY}");
        let daemon = Daemon::start_with(&config, &[("RUST_LOG", "info,postward=debug")]);
        let instance = mta.start(daemon.milter(), &[]);
        let mut client = Smtp::session(instance.port());
        assert_eq!(client.deliver("sender@example.net", &["user@example.test"], "Subject: x\n\nx\n").code(), 250);
        let negotiated = daemon.wait_for_log(" negotiated ");
        assert!(has(&negotiated, "NO_DATA"), "{negotiated}");
    }
}
