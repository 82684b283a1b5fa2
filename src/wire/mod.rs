//! Bytes to and from the milter protocol's frames, commands and responses. No IO, no policy.
//!
//! The MTA speaks in [`Command`]s (`SMFIC_*`), we answer with [`Response`]s (`SMFIR_*`); both travel in a
//! [`Frame`]. Commands borrow from the receive buffer: what nobody keeps is never copied.
//!
//! Two responses of the protocol are missing on purpose, because both MTAs mistreat them:
//! `SMFIR_SHUTDOWN` (Postfix tells the client 250 and drops the message, `cleanup_milter.c`) and
//! `SMFIR_CONN_FAIL` (never expected, becomes the MTA's default action).

mod command;
mod frame;
mod negotiation;
mod response;

pub use command::Command;
pub use command::Connect;
pub use command::DecodeError;
pub use command::Envelope;
pub use command::Macros;
pub use command::Strings;
pub use frame::Frame;
pub use frame::FrameError;
pub use frame::MAX_FRAME;
pub use negotiation::Actions;
pub use negotiation::MAX_VERSION;
pub use negotiation::MIN_VERSION;
pub use negotiation::MacroStage;
pub use negotiation::Offer;
pub use negotiation::Steps;
pub use response::Response;
