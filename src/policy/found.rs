//! What a walk has looked up in the lists: each fact once, when a rule asks about it.

use super::condition::Failure;
use super::condition::malformed_recipient;
use super::condition::malformed_sender;
use super::index::Index;
use super::index::Matching;
use crate::facts::Facts;

/// A fact that is looked up in lists.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Asked {
    Client,
    ClientName,
    Helo,
    Login,
    /// With the position of the recipient.
    Recipient,
    Sender,
    SenderDomain,
}

impl Asked {
    /// Whether it is an address that is malformed, so that nobody can say in which lists it is.
    pub(crate) fn malformed(self, facts: &Facts<'_>) -> Option<Failure> {
        match self {
            Self::Recipient => malformed_recipient(facts),
            Self::Sender | Self::SenderDomain => malformed_sender(facts),
            Self::Client | Self::ClientName | Self::Helo | Self::Login => None,
        }
    }

    /// The patterns that match what is known; none match what is not.
    pub(crate) fn look_up(self, facts: &Facts<'_>, index: &Index, matching: &mut Matching) {
        let Facts { connection, message, recipient } = *facts;
        match self {
            Self::Client => connection.client.into_iter().for_each(|client| index.networks(client, matching)),
            Self::ClientName => index.domains(connection.client_name.folded(), matching),
            Self::Helo => connection.helo.iter().for_each(|helo| index.domains(helo.folded(), matching)),
            Self::Login => {
                let login = message.and_then(|message| message.login.as_deref());
                login.into_iter().for_each(|login| index.logins(login, matching));
            }
            Self::Recipient => recipient.into_iter().for_each(|r| index.addresses(&r.address, matching)),
            Self::Sender => message.into_iter().for_each(|message| index.addresses(&message.sender, matching)),
            Self::SenderDomain => {
                let domain = message.and_then(|message| message.sender.domain());
                domain.into_iter().for_each(|domain| index.domains(domain, matching));
            }
        }
    }
}

/// What was found of each fact.
#[derive(Debug, Default)]
pub(crate) struct Found {
    client: Finding,
    client_name: Finding,
    helo: Finding,
    login: Finding,
    recipient: Finding,
    sender: Finding,
    sender_domain: Finding,
}

/// What was found of one fact.
#[derive(Debug, Default)]
struct Finding {
    /// Whose it is: of recipients the position, else 0; `None`: nobody has looked yet.
    of: Option<u64>,
    matching: Matching,
}

impl Found {
    /// Forgets what was found, and keeps the room for it.
    pub(crate) fn clear(&mut self) {
        let Self { client, client_name, helo, login, recipient, sender, sender_domain } = self;
        for finding in [client, client_name, helo, login, recipient, sender, sender_domain] {
            finding.of = None;
        }
    }

    /// The patterns that match a fact.
    pub(crate) fn matching(&mut self, asked: Asked, facts: &Facts<'_>, index: &Index) -> &[u32] {
        let (finding, of) = match asked {
            Asked::Client => (&mut self.client, 0),
            Asked::ClientName => (&mut self.client_name, 0),
            Asked::Helo => (&mut self.helo, 0),
            Asked::Login => (&mut self.login, 0),
            Asked::Recipient => (&mut self.recipient, facts.recipient.map_or(0, |recipient| recipient.position)),
            Asked::Sender => (&mut self.sender, 0),
            Asked::SenderDomain => (&mut self.sender_domain, 0),
        };
        if finding.of != Some(of) {
            finding.of = Some(of);
            finding.matching.clear();
            asked.look_up(facts, index, &mut finding.matching);
        }
        &finding.matching
    }
}
