//! What an MTA can say that makes no sense.

use std::fmt;

use crate::wire::DecodeError;
use crate::wire::FrameError;
use crate::wire::MIN_VERSION;

/// Why the MTA's side of the conversation makes no sense. Ends the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProtocolError {
    /// A frame is not a command.
    Decode(DecodeError),
    /// The bytes are not frames.
    Frame(FrameError),
    /// The command cannot come now.
    Order {
        /// The command's name.
        command: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// The MTA speaks an older protocol than any we know.
    Version {
        /// The version it offers.
        offered: u32,
    },
}

impl ProtocolError {
    pub(super) const fn order(command: &'static str, expected: &'static str) -> Self {
        Self::Order { command, expected }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => write!(f, "{error}"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Order { command, expected } => write!(f, "command {command}: out of order, expected {expected}"),
            Self::Version { offered } => {
                write!(f, "negotiation version: {offered}, expected at least {MIN_VERSION}")
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

impl From<DecodeError> for ProtocolError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<FrameError> for ProtocolError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
