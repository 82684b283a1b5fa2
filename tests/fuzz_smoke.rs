//! The fuzz targets of `fuzz/`, run on inputs that are the same every time: random ones, and mutations of recorded sessions,
//! of command sequences, and of every configuration in the repository. Nothing may panic.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a panic is what is looked for")]

#[path = "../fuzz/entry.rs"]
mod entry;

use std::fs;
use std::panic;
use std::path::Path;
use std::path::PathBuf;

/// How many inputs each test makes of each kind.
const ROUNDS: usize = 8000;

#[test]
fn any_bytes_may_arrive() {
    let mut random = Random(0x0dd_b1a5);
    let streams = recorded_streams();
    for round in 0..ROUNDS {
        let mut input = streams[round % streams.len()].clone();
        random.mutate(&mut input, &streams);
        survives(entry::frames, &input);
        let noise = random.bytes(200);
        survives(entry::frames, &noise);
    }
}

#[test]
fn any_commands_may_come_in_any_order() {
    let mut random = Random(0x5e55_1071);
    let streams = recorded_streams();
    for round in 0..ROUNDS {
        // A recorded session that went wrong on its way.
        let mut stream = streams[round % streams.len()].clone();
        random.mutate(&mut stream, &streams);
        let mut input = random.bytes_exactly(7);
        input[2] &= !2;
        input.extend(stream);
        survives(entry::session, &input);
        // Commands in any order, most of them as they should be.
        let mut input = random.bytes_exactly(7);
        input[2] |= 2;
        for _ in 0..random.below(60) {
            let letter = random.byte();
            match random.below(12) {
                0 => {
                    let data = random.bytes(20);
                    input.extend([letter, u8::try_from(data.len()).unwrap()]);
                    input.extend(data);
                }
                1 if random.below(4) == 0 => input.extend([letter, 254]),
                _ => input.extend([letter, 255]),
            }
        }
        survives(entry::session, &input);
    }
}

/// Sessions in the order of the protocol, so that no early error hides what comes later.
#[test]
fn whole_sessions_survive_every_policy_answer_and_offer() {
    let mut random = Random(0xface);
    // Indices into the samples of `entry`.
    let order = [4, 2, 7, 5, 10, 14, 15, 16, 9, 12, 1, 6, 0, 10, 14, 10, 15, 6, 17, 8, 3, 11, 15, 14, 16, 6, 13];
    for _ in 0..ROUNDS {
        let mut input = random.bytes_exactly(7);
        input[2] |= 2;
        for letter in order {
            if random.below(10) > 0 {
                input.extend([letter, if random.below(100) == 0 { 254 } else { 255 }]);
            }
        }
        survives(entry::session, &input);
    }
}

#[test]
fn any_text_may_be_a_configuration() {
    let mut random = Random(0xc0_f1_90);
    let texts = configurations();
    for text in &texts {
        survives(entry::config, text);
    }
    for round in 0..ROUNDS {
        let mut lines: Vec<String> =
            String::from_utf8_lossy(&texts[round % texts.len()]).lines().map(str::to_owned).collect();
        for _ in 0..=random.below(3) {
            random.mutate_lines(&mut lines);
        }
        let mut text = lines.join("\n").into_bytes();
        if random.below(4) == 0 {
            random.mutate(&mut text, &texts);
        }
        survives(entry::config, &String::from_utf8_lossy(&text).into_owned().into_bytes());
    }
}

#[test]
fn any_text_may_be_pasted() {
    let mut random = Random(0x5ca_77e5);
    let texts: Vec<Vec<u8>> = PASTED.iter().map(|line| line.as_bytes().to_vec()).collect();
    for _ in 0..ROUNDS {
        let lines: Vec<&str> = (0..1 + random.below(6)).map(|_| PASTED[random.below(PASTED.len())]).collect();
        let mut text = lines.join("\n").into_bytes();
        survives(entry::scan, &text);
        random.mutate(&mut text, &texts);
        survives(entry::scan, &text);
        let noise = random.bytes(200);
        survives(entry::scan, &noise);
    }
}

/// The place of a rule without a name was taken to be eight bytes long, and to show it meant to cut the `é`.
#[test]
fn a_place_may_end_inside_a_character() {
    survives(entry::config, "rule = [{ab=\"éé\"}]".as_bytes());
}

/// Says which input it was if the target panics.
fn survives(target: fn(&[u8]), input: &[u8]) {
    if let Err(panicked) = panic::catch_unwind(|| target(input)) {
        eprintln!("---- the input that panicked:\n{}", input.escape_ascii());
        panic::resume_unwind(panicked);
    }
}

/// What the MTA wrote in each recorded session but the largest.
fn recorded_streams() -> Vec<Vec<u8>> {
    files("tests/captures", "jsonl")
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() < 50_000)
        .map(|path| fs::read_to_string(path).unwrap().lines().flat_map(packet).collect())
        .collect()
}

/// The bytes of one packet of the MTA; none for the milter's.
fn packet(line: &str) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    let letter = value["cmd"].as_str().unwrap().as_bytes();
    if value["dir"] != "mta>milter" || letter.len() != 1 {
        return Vec::new();
    }
    let hex = value["hex"].as_str().unwrap();
    let data: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let length = u32::try_from(1 + data.len()).unwrap();
    [&length.to_be_bytes()[..], letter, &data].concat()
}

/// The default, the examples, and the policies of `tests/sessions`.
fn configurations() -> Vec<Vec<u8>> {
    let policy = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.split("--- session").next().unwrap().as_bytes().to_vec()
    };
    let mut paths = files("conf", "toml");
    paths.extend(files("conf/examples", "toml"));
    paths.extend(files("tests/sessions", "session"));
    paths.iter().map(policy).collect()
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|its| its == extension));
    files.sort();
    files
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 16) % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 24).to_le_bytes()[0]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        self.bytes_exactly(length)
    }

    fn bytes_exactly(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    /// A few changes, anywhere: bytes changed, taken out, put in, repeated, or the end of another input put on.
    fn mutate(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        for _ in 0..=self.below(4) {
            if input.is_empty() {
                return;
            }
            let at = self.below(input.len());
            let length = self.below(20).min(input.len() - at);
            match self.below(8) {
                0 => input[at] ^= 1 << self.below(8),
                1 => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'%', b'\n', b'<'][self.below(8)],
                2 => drop(input.drain(at..at + length)),
                3 => drop(input.splice(at..at, self.bytes(20))),
                4 => {
                    let again = input[at..at + length].to_vec();
                    drop(input.splice(at..at, again));
                }
                5 => input.truncate(at),
                6 => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len().max(1)).min(other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => input[at] = self.byte(),
            }
        }
    }

    /// A change that somebody who edits a configuration might make.
    fn mutate_lines(&mut self, lines: &mut Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let at = self.below(lines.len());
        let other = self.below(lines.len());
        match self.below(7) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => lines.insert(at, LINES[self.below(LINES.len())].to_owned()),
            4 => {
                let value = VALUES[self.below(VALUES.len())];
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {value}");
                }
            }
            5 => {
                // The value of another line.
                if let (Some((key, _)), Some((_, value))) = (lines[at].split_once('='), lines[other].split_once('=')) {
                    lines[at] = format!("{key}={value}");
                }
            }
            _ => {
                let cut = self.below(lines[at].len() + 1);
                if lines[at].is_char_boundary(cut) {
                    lines[at].truncate(cut);
                }
            }
        }
    }
}

/// Lines that change much.
const LINES: &[&str] = &[
    "[[rule]]",
    "[policy]",
    "mode = \"monitor\"",
    "at = \"connect\"",
    "at = \"data\"",
    "at = \"end-of-message\"",
    "disconnect = true",
    "then = \"accept\"",
    "then = \"discard\"",
    "then = \"quarantine\"",
    "when.size = \"> 1\"",
    "when.recipient = \"b@example.test\"",
    "when.any = []",
    "when.not = { not = { not = {} } }",
    "unless.tls = true",
    "limit = { key = [\"client/1/1\", \"helo\"], bytes = \"1 B/ms\", messages = \"1/hour\" }",
    "limit = { concurrent = 0 }",
    "limit = { key = \"client\", bad_recipients = [\"0% of 1/ms\", \"99% of 9/week\"], block_for = \"1h\" }",
    "limit = { key = \"login\", distinct = [\"1/s\", \"10000/week\"], of = [\"client/24/56\", \"recipient_domain\"] }",
    "add_header = \"X: {id}\"",
    "reply = \"550 5.7.1 {queue_id} {limit} {list.comment} {recipient}\"",
];

/// Lines in which there is a reply.
const PASTED: &[&str] = &[
    "",
    "550-5.7.1 one",
    "    550 5.7.1 two",
    "S: 250-mx.example.net",
    "<<< 421 4.7.0 busy",
    "Status: 5.1.1",
    "Diagnostic-Code: smtp; 550-5.1.1 one 550 5.1.1 two",
    "they said “550”, (5.7.1), #5.1.1 and error 421:",
    "<a@b>: host mx[192.0.2.5] said: 550 5.1.1 <a@b>: no (in reply to RCPT TO command)",
    "Nov 21 13:33:58 mx postfix/smtpd[7]: NOQUEUE: milter-reject: RCPT from x: 550-5.7.1 a??550 5.7.1 b; from=<a@b>",
    "Nov 21 13:33:58 mx postfix/cleanup[7]: 4F1A2B3C4D: reject: header x from x[192.0.2.5]; from=<a@b>: 5.7.1 no",
    "Nov 21 13:33:58 mx postfix/smtp[7]: 4F1A2B3C4D: to=<a@b>, dsn=5.1.1, status=bounced (host x said: 550 5.1.1 no)",
    "Nov 21 13:33:58 mx postfix/smtpd[7]: > x[192.0.2.5]: 250-SIZE 550",
    "2026-11-21T13:33:58Z mx sendmail[7]: 6ALDZYIV026949: Milter: to=<a@b>, reject=550-5.1.1 no\\r\\n550 5.1.1 user",
    "2026-11-21T13:33:58Z mx sendmail[7]: 6ALDZYIV026949: --- 550-5.1.1 <a@b>... no\\r\\n550 5.1.1 user (held)",
    "2026-11-21T13:33:58Z mx sendmail[7]: 6ALDZYIV026949: to=<a@b>, dsn=5.1.1, reply=550 5.1.1 no, stat=User unknown",
    "2026-11-21 13:33:58 1abcDE-0003xy-Ab ** a@b: SMTP error from remote mail server: host x: 550 5.1.1 no",
    "2026-11-21T13:33:58.123456Z  INFO refuse id=7.1 reply=\"550 5.7.1 \\\"no\\\"\"",
    "{\"timestamp\":\"x\",\"fields\":{\"reply\":\"550 5.7.1 no\"}}",
];

/// Values of every kind.
const VALUES: &[&str] = &[
    "0",
    "-1",
    "1e400",
    "true",
    "[]",
    "{}",
    "\"\"",
    "[[[\"@\"]]]",
    "\"@nobody\"",
    "\"\u{fffd}\u{1f4ec}\"",
    "1979-05-27T07:32:00Z",
    "18446744073709551616",
    "\"> 99999999999999999999 GiB\"",
    "\"= 0\"",
    "\"0/0\"",
    "\"99999999999/1ms\"",
    "\"999999999999 weeks\"",
    "\"::/0\"",
    "\"999.0.0.1/64\"",
    "\"unix:\"",
    "\"inet:[::1]:65536\"",
    "\"550 5.7.1 {\"",
    "\"\"\"550 5.7.1 a\nb\"\"\"",
    "\"<>\"",
    "{ path = \"/\", below = \"0\" }",
];
