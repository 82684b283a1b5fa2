//! What is unusual in a reply: each kind has a name, by which a rule can say that it is meant.

/// A kind of notice. A rule allows it with `allow = "name"`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Notice {
    /// 452 at RCPT for anything but too many recipients.
    At452,
    /// 503 for anything but a wrong order of commands.
    At503,
    /// 552 for too many recipients.
    At552,
    /// A code that tells senders to forget the address, from a rule that does not look at the recipient.
    DeadAddress,
    /// A text that begins with a variable that begins with digits.
    DigitsFirst,
    /// A line that has to be folded.
    FoldedText,
    /// A limit that strangers can use up for somebody else.
    ForgedSender,
    /// Anything but 530 where a login or encryption is missing.
    Login,
    /// 5.2.2, mailbox full, for a message that is too large.
    MailboxFull,
    /// 451 4.7.1, which Postfix says when a milter is down.
    MilterDown,
    /// An enhanced code that no policy gives.
    NotForPolicy,
    /// 5yz for what waiting cures.
    Permanent,
    /// A limit of fewer than 100 recipients.
    RecipientLimit,
    /// An enhanced code about a recipient before there is one.
    RecipientUnknown,
    /// 4yz for what waiting does not cure.
    Temporary,
    /// Encryption demanded of servers.
    TlsOnPort25,
    /// An enhanced code in a class in which it is not registered.
    UnregisteredClass,
    /// An enhanced code that is not registered.
    UnregisteredCode,
    /// A code and an enhanced code that are neither registered with each other nor common.
    UnregisteredPair,
    /// A code at a stage for which the standards do not list it.
    UnusualStage,
}

impl Notice {
    /// Every kind, by name.
    pub const ALL: [Self; 20] = [
        Self::At452,
        Self::At503,
        Self::At552,
        Self::DeadAddress,
        Self::DigitsFirst,
        Self::FoldedText,
        Self::ForgedSender,
        Self::Login,
        Self::MailboxFull,
        Self::MilterDown,
        Self::NotForPolicy,
        Self::Permanent,
        Self::RecipientLimit,
        Self::RecipientUnknown,
        Self::Temporary,
        Self::TlsOnPort25,
        Self::UnregisteredClass,
        Self::UnregisteredCode,
        Self::UnregisteredPair,
        Self::UnusualStage,
    ];

    /// The name in diagnostics and in `allow`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::At452 => "452-at-rcpt",
            Self::At503 => "503-in-order",
            Self::At552 => "552-for-recipients",
            Self::DeadAddress => "dead-address",
            Self::DigitsFirst => "digits-first",
            Self::FoldedText => "folded-text",
            Self::ForgedSender => "forged-sender",
            Self::Login => "login-needs-530",
            Self::MailboxFull => "mailbox-full-for-size",
            Self::MilterDown => "milter-down",
            Self::NotForPolicy => "not-for-policy",
            Self::Permanent => "permanent-for-temporary",
            Self::RecipientLimit => "recipient-limit",
            Self::RecipientUnknown => "recipient-unknown",
            Self::Temporary => "temporary-for-permanent",
            Self::TlsOnPort25 => "tls-on-port-25",
            Self::UnregisteredClass => "unregistered-class",
            Self::UnregisteredCode => "unregistered-code",
            Self::UnregisteredPair => "unregistered-pair",
            Self::UnusualStage => "unusual-stage",
        }
    }

    /// When it is given and why, for the documentation.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::At452 => {
                "452 at RCPT for anything but too many recipients. There it means \"no more recipients in this transaction\", and Exim opens the next one at once"
            }
            Self::At503 => "503 for anything but `recipients` at DATA. It tells that commands came in the wrong order",
            Self::At552 => "552 for too many recipients. Senders should read it as temporary there; Postfix does not",
            Self::DeadAddress => {
                "5.1.1, 5.1.6 or 5.2.1 from a rule that does not ask about the recipient. Senders drop the address"
            }
            Self::DigitsFirst => {
                "a line of the text begins with a variable that may begin with digits. People and programs take them for a code"
            }
            Self::FoldedText => "a line of the text is longer than 240 characters. It is folded at a blank",
            Self::ForgedSender => {
                "a limit for each sender that holds for clients without a login, too. Strangers can use up the budget of anybody whose address they write"
            }
            Self::Login => {
                "anything but 530 where only a login or encryption is missing. Mail programs ask for a password after 530 alone"
            }
            Self::MailboxFull => "4.2.2 or 5.2.2 for a size. They say that the mailbox is full",
            Self::MilterDown => {
                "451 4.7.1. Postfix says just that when a milter is down, so nobody could tell the two apart"
            }
            Self::NotForPolicy => "an enhanced code that an MTA or a sender makes up, and no policy",
            Self::Permanent => {
                "5yz for what waiting cures: a rate, a count of connections, a full disk. The mail bounces, and the sender may drop the address"
            }
            Self::RecipientLimit => "a limit of fewer than 100 recipients. RFC 5321 §4.5.3.1.8 has servers take 100",
            Self::RecipientUnknown => "4.1.z or 5.1.z about a recipient, before there is one",
            Self::Temporary => {
                "4yz for what waiting does not cure, a size. The mail waits for days, then bounces all the same"
            }
            Self::TlsOnPort25 => {
                "encryption demanded of everybody on port 25. RFC 3207 §4 forbids it for servers that take mail from the Internet"
            }
            Self::UnregisteredClass => "an enhanced code that is registered in the other class only, such as 5.3.1",
            Self::UnregisteredCode => "an enhanced code that is not in IANA's registry, or no longer",
            Self::UnregisteredPair => {
                "a code and an enhanced code that neither IANA's registry nor common practice puts together"
            }
            Self::UnusualStage => {
                "a code at a stage for which RFC 5321 §4.3.2 does not list it, though servers do say it there"
            }
        }
    }
}
