//! An SMTP server to which MTAs deliver: how it behaves is chosen by the address, and it keeps what it said.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use crate::support::PATIENCE;

/// A server to which the MTA delivers, on an address of its own for each way to behave at the start.
pub(crate) struct Sink {
    pub(crate) port: u16,
    ends: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    /// Listens on 127.0.0.1, and on 127.0.0.3, where it is busy. Nobody listens on 127.0.0.2.
    pub(crate) fn start() -> Self {
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let Ok(busy) = TcpListener::bind(("127.0.0.3", port)) else { continue };
            // Held for a moment, to see that nobody else has it.
            if TcpListener::bind(("127.0.0.2", port)).is_err() {
                continue;
            }
            let ends = Arc::default();
            serve(listener, &ends, "220 sink.example ESMTP");
            serve(busy, &ends, "421 4.7.0 busy");
            return Self { port, ends };
        }
        panic!("no port is free on three addresses");
    }

    /// How each delivery ended: the reply that decided it, in order.
    pub(crate) fn ends(&self) -> Vec<String> {
        self.ends.lock().unwrap().clone()
    }
}

/// Accepts connections as long as the tests run.
fn serve(listener: TcpListener, ends: &Arc<Mutex<Vec<String>>>, greeting: &'static str) {
    let ends = Arc::clone(ends);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let ends = Arc::clone(&ends);
            thread::spawn(move || {
                // Whether the client stays to the end is its own affair.
                _ = converse(&stream.unwrap(), &ends, greeting);
            });
        }
    });
}

/// One session. The name in the recipient's, or at MAIL the sender's, address chooses the reply.
fn converse(stream: &TcpStream, ends: &Mutex<Vec<String>>, greeting: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    let say = |text: &str| (&*stream).write_all(format!("{text}\r\n").as_bytes());
    let end = |text: &str| ends.lock().unwrap().push(text.to_owned());
    if greeting.starts_with('4') {
        end(greeting);
        return say(greeting);
    }
    say(greeting)?;
    let (mut at_data, mut at_end) = (None, None);
    while let Some(line) = lines.next().transpose()? {
        let verb = line.split([' ', ':']).next().unwrap().to_uppercase();
        let reply = BEHAVIOUR.iter().find(|(name, _, _)| line.contains(&format!("<{name}@")));
        let reply_at = |stage: &str| reply.filter(|(_, at, _)| *at == stage).map(|(_, _, text)| *text);
        match verb.as_str() {
            "MAIL" | "RCPT" => match reply_at(&verb) {
                Some(SILENT) => {
                    end(SILENT);
                    return Ok(());
                }
                Some(text) => {
                    end(text);
                    say(text)?;
                    if text.starts_with("421") {
                        return Ok(());
                    }
                }
                None => {
                    say("250 2.1.5 Ok")?;
                    if verb == "RCPT" {
                        (at_data, at_end) = (reply_at("DATA"), reply_at("END"));
                    }
                }
            },
            "DATA" if at_data.is_some() => {
                end(at_data.unwrap());
                say(at_data.take().unwrap())?;
            }
            "DATA" => {
                say("354 go on")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                let text = at_end.take().unwrap_or("250 2.0.0 Ok: queued as 550ABC");
                end(text);
                say(text)?;
            }
            "QUIT" => return say("221 2.0.0 bye"),
            _ => say("250 sink.example")?,
        }
    }
    Ok(())
}

/// The server closes and says nothing.
pub(crate) const SILENT: &str = "";

/// Names of recipients (at MAIL, of senders), stages and what is said there.
pub(crate) const BEHAVIOUR: [(&str, &str, &str); 13] = [
    ("rcpt-unknown", "RCPT", "550 5.1.1 <someone@example.net> is unknown here"),
    ("rcpt-later", "RCPT", "450 4.2.0 Greylisted, see http://example.net/550 (error 421)"),
    ("rcpt-lines", "RCPT", "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three"),
    ("rcpt-plain", "RCPT", "553 sorry (#5.7.1)"),
    ("rcpt-bare", "RCPT", "550"),
    ("rcpt-bye", "RCPT", "421 4.3.2 closing"),
    ("rcpt-gone", "RCPT", SILENT),
    ("mail-later", "MAIL", "451 4.7.1 sender greylisted"),
    ("data-no", "DATA", "554 5.5.0 no data"),
    ("end-spam", "END", "554 5.7.1 said: 450 4.2.0 spam"),
    ("end-later", "END", "451 4.3.0 later"),
    ("end-plain", "END", "250 ok 1700000000 qp 450"),
    ("end-fine", "END", "250 2.6.0 <550@example.net> Queued mail for delivery"),
];
