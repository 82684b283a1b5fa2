use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::config::Source;
use crate::policy::Policy;
use crate::session::Action;
use crate::session::Transport;
use crate::wire::Command;
use crate::wire::Frame;

const RULES: &str = r#"
    [lists.drop]
    networks = ["192.0.2.0/24"]

    [[rule]]
    name = "blocked"
    when.client = "@drop"

    [[rule]]
    name = "tagged"
    when.client = "198.51.100.0/24"
    add_header = "X-Policy: {rule}"
"#;

/// What a ring keeps of sessions that are played under a policy.
struct Played {
    policy: Arc<Policy>,
    book: Arc<Book>,
    ring: Ring,
    sessions: u64,
}

impl Played {
    fn new(most: usize) -> Self {
        let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text: RULES.to_owned() }]);
        let policy = Arc::new(Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}")));
        Self { book: Arc::new(Book::new(&policy, &config.hash)), policy, ring: Ring::new(most), sessions: 0 }
    }

    /// A session of a client that sends messages with this sender; gives its number.
    fn session(&mut self, client: &str, sender: &str, messages: usize) -> u64 {
        self.sessions += 1;
        let mut session = Session::new(Arc::clone(&self.policy), self.sessions, Transport::Unix);
        let frames = [
            frame(b'O', &[0, 0, 0, 6, 0, 0, 1, 0xff, 0, 0x1f, 0xff, 0xff]),
            frame(b'C', format!("mx.example\x004\0\x19{client}\0").as_bytes()),
            frame(b'H', b"helo.example\0"),
        ];
        let mail = [
            frame(b'M', format!("<{sender}>\0").as_bytes()),
            frame(b'R', b"<one@example.org>\0"),
            frame(b'R', b"<two@example.org>\0"),
            frame(b'E', b""),
        ];
        for bytes in frames.iter().chain(std::iter::repeat_n(&mail, messages).flatten()) {
            let (frame, _) = Frame::split(bytes).unwrap().unwrap();
            // A message that was refused goes no further.
            let Ok(action) = session.handle(Command::decode(frame).unwrap()) else {
                break;
            };
            if let Action::Decided(decision) = action {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(self.sessions);
                self.ring.keep(&session, *decision, &self.book, at);
            }
        }
        self.sessions
    }

    fn found(&self, session: u64, number: u32) -> Vec<String> {
        let found = self.ring.find(DecisionId { session, number });
        found.iter().map(|entry| format!("{} {} {}", entry.id, entry.stage.name(), entry.outcome.name())).collect()
    }
}

fn frame(code: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[code], data].concat()
}

#[test]
fn all_that_was_known_is_kept() {
    let mut played = Played::new(10);
    let session = played.session("192.0.2.7", "eve@example.net", 1);
    let [entry] = &played.ring.find(DecisionId { session, number: 1 })[..] else { panic!("not one decision") };
    let told = entry.to_json();
    for (key, value) in [
        ("outcome", "refuse"),
        ("stage", "mail"),
        ("rule", "blocked"),
        ("reply", "550 5.7.1 Client 192.0.2.7 is blocked by local policy"),
        ("client", "192.0.2.7"),
        ("client_name", "mx.example"),
        ("helo", "helo.example"),
        ("sender", "eve@example.net"),
        ("time", "1970-01-01T00:00:01.000Z"),
    ] {
        assert_eq!(told[key], value, "{told:#}");
    }
    assert_eq!(told["matches"][0]["matched"], "@drop 192.0.2.0/24", "{told:#}");
    assert_eq!(told["matches"][0]["asked"][0], "client", "{told:#}");
}

#[test]
fn a_message_is_told_with_its_recipients_and_with_what_held_before_it() {
    let mut played = Played::new(100);
    let session = played.session("198.51.100.1", "a@example.net", 2);
    let accept = played.found(session, 2).pop().unwrap();
    assert!(accept.ends_with(".2 end-of-message accept"), "{accept}");
    let last = played.ring.find(DecisionId { session, number: 2 }).pop().unwrap();
    assert_eq!(last.recipients().collect::<Vec<_>>(), ["one@example.org", "two@example.org"]);
    assert!(played.found(session, 0).len() > played.found(session, 2).len(), "the session is more than a message");
    assert!(played.found(session, 3).is_empty() && played.found(session + 1, 0).is_empty());
}

#[test]
fn it_is_bounded_by_number_and_by_octets() {
    let mut played = Played::new(600);
    for _ in 0..700 {
        played.session("192.0.2.7", "a@b.example", 1);
    }
    assert_eq!(played.ring.stock().decisions, 600);
    let (mut before, mut all) = (Before::default(), Vec::new());
    loop {
        let entries = played.ring.next(&mut before);
        if entries.is_empty() {
            break;
        }
        all.extend(entries.iter().map(|entry| entry.id.session));
    }
    assert!(all.iter().copied().eq((101..=700).rev()), "the newest first, each once: {all:?}");
    for _ in 0..700 {
        played.session("192.0.2.7", &format!("{}@b.example", "x".repeat(2000)), 1);
    }
    let stock = played.ring.stock();
    assert!(stock.octets <= 600 * OCTETS_EACH && stock.decisions > 400, "{stock:?}");
    played.ring.resize(10);
    assert!(played.ring.stock().decisions.abs_diff(10) <= 1, "{:?}", played.ring.stock());
    assert_eq!(played.found(1400, 1).len(), 1, "those that stay are the newest");
    played.ring.resize(0);
    played.session("192.0.2.7", "a@b.example", 1);
    assert_eq!(played.ring.stock(), Stock { decisions: 0, most: 0, octets: 0, since: None });
}

/// Who reads lists anew every minute would else have as many copies of the rules as decisions are kept.
#[test]
fn reloads_that_change_no_rule_share_what_decisions_are_told_with() {
    let Played { policy, book, .. } = Played::new(1);
    let same = book.succeed(&policy, &book.hash);
    assert!(Arc::ptr_eq(&same, &book));
    let next = same.succeed(&policy, "another");
    assert!(next.hash == "another" && next.shares_all_with(&book));
    let (config, mut diagnostics) =
        Config::read(vec![Source { path: "test.toml".into(), text: RULES.replace("blocked", "renamed") }]);
    let other = next.succeed(&Policy::compile(&config, &mut diagnostics).unwrap(), &config.hash);
    assert!(!other.shares_all_with(&next) && other.rule_name(0) == "renamed");
}

/// What comes while somebody reads neither repeats nor hides what was there.
#[test]
fn a_walk_goes_on_where_it_was() {
    let mut played = Played::new(300);
    (0..300).for_each(|_| _ = played.session("192.0.2.7", "a@b.example", 1));
    let mut before = Before::default();
    assert_eq!(played.ring.next(&mut before).len(), STRIDE);
    (0..100).for_each(|_| _ = played.session("192.0.2.7", "a@b.example", 1));
    assert_eq!(played.ring.next(&mut before).len(), 0, "the rest was forgotten meanwhile");
}
