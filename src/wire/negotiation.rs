//! `SMFIC_OPTNEG`: what the MTA offers and what we take of it, as bit masks.

use std::fmt;
use std::ops::BitAnd;
use std::ops::BitOr;
use std::ops::BitOrAssign;

/// The highest protocol version we speak; both MTAs offer it.
pub const MAX_VERSION: u32 = 6;

/// The lowest protocol version we speak. Sendmail refuses 1 (`milter.c`), Postfix warns about it.
pub const MIN_VERSION: u32 = 2;

/// The three words of `SMFIC_OPTNEG`, the same in both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer {
    /// The protocol version.
    pub version: u32,
    /// What a milter may do to a message.
    pub actions: Actions,
    /// Which steps the milter may leave out, or leave without a reply.
    pub steps: Steps,
}

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident { $($(#[$bit_doc:meta])* $bit:ident = $value:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Eq, PartialEq)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)*

            /// Whether every bit of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut names = f.debug_set();
                $(if self.contains(Self::$bit) { names.entry(&format_args!(stringify!($bit))); })*
                names.finish()
            }
        }

        impl BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }
    };
}

bits! {
    /// What a milter may do to a message at its end (`SMFIF_*`).
    Actions {
        /// Add header fields.
        ADD_HEADERS = 0x001;
        /// Replace the body.
        CHANGE_BODY = 0x002;
        /// Add recipients.
        ADD_RECIPIENTS = 0x004;
        /// Remove recipients.
        DELETE_RECIPIENTS = 0x008;
        /// Change or remove header fields.
        CHANGE_HEADERS = 0x010;
        /// Put the message on hold.
        QUARANTINE = 0x020;
        /// Replace the envelope sender.
        CHANGE_FROM = 0x040;
        /// Add recipients with ESMTP arguments.
        ADD_RECIPIENTS_WITH_ARGUMENTS = 0x080;
        /// Name the macros that the MTA shall send (`SMFIF_SETSYMLIST`).
        SET_MACRO_LIST = 0x100;
    }
}

bits! {
    /// Which steps are left out (`SMFIP_NO*`), stay without a reply (`SMFIP_NR_*`), or are changed.
    Steps {
        /// Do not send CONNECT.
        NO_CONNECT = 0x00_0001;
        /// Do not send HELO.
        NO_HELO = 0x00_0002;
        /// Do not send MAIL.
        NO_MAIL = 0x00_0004;
        /// Do not send RCPT.
        NO_RECIPIENTS = 0x00_0008;
        /// Do not send the body.
        NO_BODY = 0x00_0010;
        /// Do not send header fields.
        NO_HEADERS = 0x00_0020;
        /// Do not send the end of the header.
        NO_END_OF_HEADERS = 0x00_0040;
        /// No reply to header fields.
        NO_REPLY_HEADER = 0x00_0080;
        /// Do not send unknown SMTP commands.
        NO_UNKNOWN = 0x00_0100;
        /// Do not send DATA.
        NO_DATA = 0x00_0200;
        /// The MTA understands the reply SKIP.
        SKIP = 0x00_0400;
        /// Send recipients that the MTA refused, too.
        REFUSED_RECIPIENTS = 0x00_0800;
        /// No reply to CONNECT.
        NO_REPLY_CONNECT = 0x00_1000;
        /// No reply to HELO.
        NO_REPLY_HELO = 0x00_2000;
        /// No reply to MAIL.
        NO_REPLY_MAIL = 0x00_4000;
        /// No reply to RCPT.
        NO_REPLY_RECIPIENT = 0x00_8000;
        /// No reply to DATA.
        NO_REPLY_DATA = 0x01_0000;
        /// No reply to unknown SMTP commands.
        NO_REPLY_UNKNOWN = 0x02_0000;
        /// No reply to the end of the header.
        NO_REPLY_END_OF_HEADERS = 0x04_0000;
        /// No reply to body chunks.
        NO_REPLY_BODY = 0x08_0000;
        /// Header values keep the blank after the colon, so that sizes add up.
        HEADER_LEADING_SPACE = 0x10_0000;
    }
}

/// The stages for which a milter can name macros, with the protocol's numbers (Postfix `milter.h` `SMFIM_*`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MacroStage {
    /// CONNECT.
    Connect = 0,
    /// HELO.
    Helo = 1,
    /// MAIL.
    Mail = 2,
    /// RCPT.
    Recipient = 3,
    /// DATA.
    Data = 4,
    /// End of message. Sendmail looks at this list only if the next one was sent as well (`milter.c`).
    EndOfMessage = 5,
    /// End of the header.
    EndOfHeaders = 6,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_shown_by_name() {
        let both = Actions::QUARANTINE | Actions::ADD_HEADERS;
        assert_eq!(format!("{both:?}"), "{ADD_HEADERS, QUARANTINE}");
    }

    #[test]
    fn contains_asks_for_every_bit() {
        assert!(Steps(0x1f_ffff).contains(Steps::HEADER_LEADING_SPACE));
        assert!(!Steps::NO_BODY.contains(Steps::NO_BODY | Steps::NO_HEADERS));
    }
}
