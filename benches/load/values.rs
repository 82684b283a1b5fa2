//! Who writes to whom: what the commands and macros of a session say.

use crate::frames;
use crate::message::Random;

/// What the macros of a session stand for.
#[derive(Default)]
pub(crate) struct Values {
    client: u32,
    pub(crate) sender: String,
    pub(crate) recipient: String,
    queue_id: u64,
    pub(crate) has_queue_id: bool,
}

impl Values {
    /// Of a client anywhere in 10.0.0.0/8.
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { client: random.below(1 << 24) as u32, ..Self::default() }
    }

    pub(crate) fn begin(&mut self, random: &mut Random) {
        self.queue_id = random.below(1 << 40);
        self.has_queue_id = false;
        self.sender = format!("user{}@s{}.example.org", random.below(100_000), random.below(1000));
    }

    /// Postfix has a queue id once the first recipient was taken.
    pub(crate) fn next_recipient(&mut self, number: usize, random: &mut Random) {
        self.has_queue_id = number > 0;
        self.recipient = format!("rcpt{}@r{}.example.org", random.below(100_000), random.below(1000));
    }

    pub(crate) fn client(&self) -> String {
        let [_, a, b, c] = self.client.to_be_bytes();
        format!("10.{a}.{b}.{c}")
    }

    /// Nothing, if it has no value: Postfix leaves such names out.
    pub(crate) fn put(&self, name: &str, out: &mut Vec<u8>) {
        let host = |address: &str| address.split('@').next_back().unwrap_or_default().to_owned();
        let value = match name.trim_matches(['{', '}']) {
            "i" if self.has_queue_id => format!("{:010X}", self.queue_id),
            "j" | "daemon_name" => "mx.example.org".to_owned(),
            "daemon_addr" => "127.0.0.1".to_owned(),
            "daemon_port" => "25".to_owned(),
            "v" => "Postfix 3.7.11".to_owned(),
            "_" => format!("{NAME} [{}]", self.client()),
            "mail_addr" => self.sender.clone(),
            "mail_host" => host(&self.sender),
            "rcpt_addr" => self.recipient.clone(),
            "rcpt_host" => host(&self.recipient),
            "mail_mailer" | "rcpt_mailer" => "smtp".to_owned(),
            _ => return,
        };
        frames::put_string(out, name);
        frames::put_string(out, &value);
    }
}

/// The name of every client: it has one.
pub(crate) const NAME: &str = "client.example.org";
