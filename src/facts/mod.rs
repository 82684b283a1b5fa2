//! What is known of a client, an envelope and a message, and when; questions to the world outside and their answers.
//!
//! Plain data: nothing here decides, looks anything up or reads a clock.

mod address;
mod decision_id;
mod mailbox;
mod query;
mod stage;

pub use address::Address;
pub use address::Name;
pub use decision_id::DecisionId;
pub use decision_id::NoDecisionId;
pub use query::Amount;
pub use query::Answer;
pub use query::Bound;
pub use query::Exceeded;
pub use query::Hold;
pub use query::Key;
pub use query::Query;
pub use query::Scope;
pub use stage::Fact;
pub use stage::Stage;

use std::net::IpAddr;

/// What holds for one SMTP session: the client and how it came in.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The client's address, IPv4-mapped IPv6 turned into IPv4; `None` when the MTA does not know it.
    pub client: Option<IpAddr>,
    /// The verified host name, `unknown` when there is none.
    pub client_name: Name,
    /// The argument of the last HELO or EHLO.
    pub helo: Option<Name>,
    /// The MTA's port that the client connected to (`{daemon_port}`).
    pub port: Option<u16>,
    /// The MTA's name for that port (`{daemon_name}`).
    pub listener: Option<Box<str>>,
    /// Whether a HELO was seen inside TLS (`{tls_version}`).
    pub tls: bool,
    /// Mail that did not come by SMTP (Postfix `non_smtpd_milters`): such mail must not be refused at RCPT.
    pub local_submission: bool,
}

/// What holds for one message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The envelope sender; null for bounces.
    pub sender: Address,
    /// Whether the client authenticated (`{auth_type}`).
    pub authenticated: bool,
    /// The name it authenticated as (`{auth_authen}`), in lower case.
    pub login: Option<Box<str>>,
    /// Whether TLS was in use at MAIL.
    pub tls: bool,
    /// `SIZE=` of MAIL, in octets.
    pub declared_size: Option<u64>,
    /// The octets that the client sent, known at the end of the message.
    pub true_size: Option<u64>,
    /// The MTA's queue id, from the moment it has one.
    pub queue_id: Option<Box<str>>,
}

/// What holds for one recipient.
#[derive(Clone, Debug, Default)]
pub struct Recipient {
    /// The envelope recipient.
    pub address: Address,
    /// As the client wrote it, for removing it from the message.
    pub written: Box<[u8]>,
    /// How many recipients of this message were accepted so far, this one counted.
    pub position: u64,
}

/// Everything known at one moment; what is not known yet is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The session.
    pub connection: &'a Connection,
    /// The message, from MAIL on.
    pub message: Option<&'a Message>,
    /// The recipient being judged.
    pub recipient: Option<&'a Recipient>,
}

impl Facts<'_> {
    /// The size to judge by: what was counted, before that what was declared.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.message.and_then(|message| message.true_size.or(message.declared_size))
    }
}
