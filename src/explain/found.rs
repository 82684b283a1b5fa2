//! What was found in a text.

use crate::codes::EnhancedCode;

/// A reply, or a delivery status, as it stands in a text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// The three-digit code. At least one of the two codes is there.
    pub code: Option<u16>,
    /// The enhanced status code.
    pub enhanced: Option<EnhancedCode>,
    /// What follows the codes: lines of one reply with line feeds between them, each without codes; empty where nothing does.
    pub text: String,
    /// Who said it.
    pub speaker: Speaker,
    /// The number of the line where it begins, from 1.
    pub line: usize,
}

impl Found {
    /// Whether a message was delivered, and nobody replied to that: no reply was counted.
    #[must_use]
    pub fn is_mere_delivery(&self) -> bool {
        let is_success = self.enhanced.is_some_and(|enhanced| enhanced.class == 2);
        self.speaker == Speaker::Nobody && self.code.is_none() && is_success
    }
}

impl Speaker {
    /// Whether it may have been this server, for all that the text tells.
    pub(super) const fn may_be_ours(self) -> bool {
        match self {
            Self::Milter | Self::Mta | Self::Postward | Self::Unknown => true,
            Self::Nobody | Self::Remote => false,
        }
    }
}

/// Who said a reply to whom, as far as the text around it tells.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Speaker {
    /// The MTA that wrote this log, to a client.
    Mta,
    /// A milter of the MTA that wrote this log, through it to a client.
    Milter,
    /// Postward, in its own log. The MTA's log has it, too, as its milter's.
    Postward,
    /// Another server, to the MTA that wrote this log or to whoever made a report of it.
    Remote,
    /// Nobody: the MTA that wrote this log made it up when delivery failed or succeeded without a reply (`dsn=4.4.1`).
    Nobody,
    /// The text does not tell.
    #[default]
    Unknown,
}
