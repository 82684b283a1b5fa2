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
