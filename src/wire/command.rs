//! What the MTA says (`SMFIC_*`), decoded without copying.

use std::fmt;

use bytes::BufMut;
use bytes::BytesMut;
use memchr::memchr;
use memchr::memchr_iter;
use memchr::memrchr;

use super::frame::Frame;
use super::negotiation::Actions;
use super::negotiation::Offer;
use super::negotiation::Steps;

/// One command of the MTA.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command<'a> {
    /// `A`: forget the current message, if any. Not a failure: Postfix sends it after success, too.
    Abort,
    /// `B`: a piece of the body.
    Body(&'a [u8]),
    /// `C`: a client connected to the MTA.
    Connect(Connect<'a>),
    /// `T`: the client said DATA.
    Data,
    /// `N`: the header is over.
    EndOfHeaders,
    /// `E`: the message is over. The protocol allows a last piece of the body in it; neither MTA sends one.
    EndOfMessage(&'a [u8]),
    /// `L`: one header field, folded lines joined by LF.
    Header {
        /// The field's name.
        name: &'a [u8],
        /// The field's value.
        value: &'a [u8],
    },
    /// `H`: the argument of HELO or EHLO, as typed.
    Helo(&'a [u8]),
    /// `D`: macros for the command that follows.
    Macros(Macros<'a>),
    /// `M`: the argument of MAIL.
    Mail(Envelope<'a>),
    /// `O`: the MTA offers a version, actions and steps.
    Negotiate(Offer),
    /// `Q`: the SMTP session is over.
    Quit,
    /// `K`: this session is over, another one follows on the same connection (never seen from either MTA).
    QuitNewConnection,
    /// `R`: the argument of RCPT.
    Recipient(Envelope<'a>),
    /// `U`: an SMTP command that the MTA does not know.
    Unknown(&'a [u8]),
}

impl<'a> Command<'a> {
    /// Reads the command in `frame`.
    ///
    /// # Errors
    ///
    /// Names the field that is missing, cut short or out of range, or the letter that is no command.
    pub fn decode(frame: Frame<'a>) -> Result<Self, DecodeError> {
        let mut data = Reader { rest: frame.data };
        let command = match frame.code {
            b'A' => Self::Abort,
            b'B' => Self::Body(data.rest()),
            b'C' => Self::Connect(Connect::decode(&mut data)?),
            b'D' => Self::Macros(Macros::decode(&mut data)?),
            b'E' => Self::EndOfMessage(data.rest()),
            b'H' => Self::Helo(data.string("helo name")?),
            b'K' => Self::QuitNewConnection,
            b'L' => Self::Header { name: data.string("header name")?, value: data.string("header value")? },
            b'M' => Self::Mail(Envelope::decode(&mut data, "mail address", "mail argument")?),
            b'N' => Self::EndOfHeaders,
            b'O' => Self::Negotiate(Offer {
                version: data.word("negotiation version")?,
                actions: Actions(data.word("negotiation actions")?),
                steps: Steps(data.word("negotiation steps")?),
            }),
            b'Q' => Self::Quit,
            b'R' => Self::Recipient(Envelope::decode(&mut data, "rcpt address", "rcpt argument")?),
            b'T' => Self::Data,
            b'U' => Self::Unknown(data.string("unknown command")?),
            code => return Err(DecodeError::Unknown { code }),
        };
        Ok(command)
    }

    /// Appends the command as a frame: the MTA's side, for tests and load generators.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Self::Abort => Frame::write(out, b'A', |_| {}),
            Self::Body(data) => Frame::write(out, b'B', |out| out.put_slice(data)),
            Self::Connect(connect) => Frame::write(out, b'C', |out| connect.encode(out)),
            Self::Data => Frame::write(out, b'T', |_| {}),
            Self::EndOfHeaders => Frame::write(out, b'N', |_| {}),
            Self::EndOfMessage(data) => Frame::write(out, b'E', |out| out.put_slice(data)),
            Self::Header { name, value } => Frame::write(out, b'L', |out| {
                put_string(out, name);
                put_string(out, value);
            }),
            Self::Helo(name) => Frame::write(out, b'H', |out| put_string(out, name)),
            Self::Macros(macros) => Frame::write(out, b'D', |out| {
                out.put_u8(macros.command);
                out.put_slice(macros.pairs.0);
            }),
            Self::Mail(envelope) => Frame::write(out, b'M', |out| envelope.encode(out)),
            Self::Negotiate(offer) => Frame::write(out, b'O', |out| {
                out.put_u32(offer.version);
                out.put_u32(offer.actions.0);
                out.put_u32(offer.steps.0);
            }),
            Self::Quit => Frame::write(out, b'Q', |_| {}),
            Self::QuitNewConnection => Frame::write(out, b'K', |_| {}),
            Self::Recipient(envelope) => Frame::write(out, b'R', |out| envelope.encode(out)),
            Self::Unknown(text) => Frame::write(out, b'U', |out| put_string(out, text)),
        }
    }

    /// Whether the MTA waits for a reply to this command after these steps were negotiated.
    #[must_use]
    pub const fn wants_reply(&self, taken: Steps) -> bool {
        let no_reply = match self {
            Self::Abort | Self::Macros(_) | Self::Quit | Self::QuitNewConnection => return false,
            Self::EndOfMessage(_) | Self::Negotiate(_) => return true,
            Self::Body(_) => Steps::NO_REPLY_BODY,
            Self::Connect(_) => Steps::NO_REPLY_CONNECT,
            Self::Data => Steps::NO_REPLY_DATA,
            Self::EndOfHeaders => Steps::NO_REPLY_END_OF_HEADERS,
            Self::Header { .. } => Steps::NO_REPLY_HEADER,
            Self::Helo(_) => Steps::NO_REPLY_HELO,
            Self::Mail(_) => Steps::NO_REPLY_MAIL,
            Self::Recipient(_) => Steps::NO_REPLY_RECIPIENT,
            Self::Unknown(_) => Steps::NO_REPLY_UNKNOWN,
        };
        !taken.contains(no_reply)
    }

    /// Whether a policy may have something to say to it, rather than only note it.
    #[must_use]
    pub const fn may_be_judged(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::Data
            | Self::EndOfMessage(_)
            | Self::Helo(_)
            | Self::Mail(_)
            | Self::Recipient(_) => true,
            Self::Abort | Self::Body(_) | Self::EndOfHeaders | Self::Header { .. } | Self::Macros(_) => false,
            Self::Negotiate(_) | Self::Quit | Self::QuitNewConnection | Self::Unknown(_) => false,
        }
    }

    /// The command's name in the protocol's documents, for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Abort => "ABORT",
            Self::Body(_) => "BODY",
            Self::Connect(_) => "CONNECT",
            Self::Data => "DATA",
            Self::EndOfHeaders => "EOH",
            Self::EndOfMessage(_) => "BODYEOB",
            Self::Header { .. } => "HEADER",
            Self::Helo(_) => "HELO",
            Self::Macros(_) => "MACRO",
            Self::Mail(_) => "MAIL",
            Self::Negotiate(_) => "OPTNEG",
            Self::Quit => "QUIT",
            Self::QuitNewConnection => "QUIT_NC",
            Self::Recipient(_) => "RCPT",
            Self::Unknown(_) => "UNKNOWN",
        }
    }
}

/// What CONNECT says of the SMTP client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connect<'a> {
    /// The verified host name; the bracketed address when there is none.
    pub hostname: &'a [u8],
    /// `4`, `6`, `L` (unix socket) or `U` (unknown).
    pub family: u8,
    /// The client's port; zero when not known, and for mail that did not come by SMTP.
    pub port: u16,
    /// The address as text, in whatever form the MTA writes it.
    pub address: &'a [u8],
}

impl<'a> Connect<'a> {
    fn decode(data: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let hostname = data.string("connect hostname")?;
        let family = data.byte("connect family")?;
        let (port, address) = match family {
            b'U' => (0, &[][..]),
            b'4' | b'6' | b'L' => (data.half("connect port")?, data.string("connect address")?),
            family => return Err(DecodeError::Family { family }),
        };
        Ok(Self { hostname, family, port, address })
    }

    fn encode(&self, out: &mut BytesMut) {
        put_string(out, self.hostname);
        out.put_u8(self.family);
        if self.family != b'U' {
            out.put_u16(self.port);
            put_string(out, self.address);
        }
    }
}

/// The argument of MAIL or RCPT: the address as the client wrote it, then its ESMTP arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Envelope<'a> {
    /// With or without angle brackets, as typed.
    pub address: &'a [u8],
    /// `SIZE=1234` and the like, one string each.
    pub arguments: Strings<'a>,
}

impl<'a> Envelope<'a> {
    fn decode(
        data: &mut Reader<'a>,
        address_field: &'static str,
        argument_field: &'static str,
    ) -> Result<Self, DecodeError> {
        let address = data.string(address_field)?;
        Ok(Self { address, arguments: data.strings(argument_field)? })
    }

    fn encode(&self, out: &mut BytesMut) {
        put_string(out, self.address);
        out.put_slice(self.arguments.0);
    }
}

/// The macros that come before a command, by the names the MTA gave them (`i`, `{auth_authen}`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Macros<'a> {
    /// The letter of the command they belong to.
    pub command: u8,
    pairs: Strings<'a>,
}

impl<'a> Macros<'a> {
    fn decode(data: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let command = data.byte("macro command")?;
        let pairs = data.strings("macro")?;
        if memchr_iter(0, pairs.0).count() % 2 == 1 {
            return Err(DecodeError::TooShort { field: "macro value" });
        }
        Ok(Self { command, pairs })
    }

    /// Every name with its value.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut strings = self.pairs;
        std::iter::from_fn(move || Some((strings.next()?, strings.next()?)))
    }
}

/// NUL-terminated strings, one after the other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    /// Takes `bytes` as strings; what follows the last NUL is left out.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let end = memrchr(0, bytes).map_or(0, |last| last + 1);
        Self(bytes.get(..end).unwrap_or_default())
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (string, rest) = split_string(self.0)?;
        self.0 = rest;
        Some(string)
    }
}

/// Why a frame is not a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// CONNECT with a family that the protocol does not know.
    Family {
        /// The letter found.
        family: u8,
    },
    /// The data ends inside this field.
    TooShort {
        /// The field, as `connect port`.
        field: &'static str,
    },
    /// A letter that is no command.
    Unknown {
        /// The letter found.
        code: u8,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family { family } => {
                write!(f, "connect family: expected 4, 6, L or U, found `{}`", family.escape_ascii())
            }
            Self::TooShort { field } => write!(f, "{field}: data ends too early"),
            Self::Unknown { code } => write!(f, "command letter: `{}` is not a milter command", code.escape_ascii()),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The part of a frame that has not been read.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn half(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn word(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(DecodeError::TooShort { field })?;
        self.rest = rest;
        Ok(*array)
    }

    fn string(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (string, rest) = split_string(self.rest).ok_or(DecodeError::TooShort { field })?;
        self.rest = rest;
        Ok(string)
    }

    fn strings(&mut self, field: &'static str) -> Result<Strings<'a>, DecodeError> {
        if !self.rest.is_empty() && self.rest.last() != Some(&0) {
            return Err(DecodeError::TooShort { field });
        }
        Ok(Strings(self.rest()))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn put_string(out: &mut BytesMut, string: &[u8]) {
    out.put_slice(string);
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_command() -> Vec<Command<'static>> {
        let arguments = Strings::new(b"SIZE=10\0BODY=8BITMIME\0");
        let connect = Connect { hostname: b"[127.0.0.9]", family: b'4', port: 44_956, address: b"127.0.0.9" };
        vec![
            Command::Abort,
            Command::Body(b"hello\r\n"),
            Command::Connect(connect),
            Command::Connect(Connect { family: b'U', port: 0, address: b"", ..connect }),
            Command::Data,
            Command::EndOfHeaders,
            Command::EndOfMessage(b""),
            Command::Header { name: b"Subject", value: b" hello" },
            Command::Helo(b"client.example.net"),
            Command::Macros(Macros { command: b'M', pairs: Strings::new(b"i\0ABC\0{auth_authen}\0alice\0") }),
            Command::Macros(Macros { command: b'H', pairs: Strings::default() }),
            Command::Mail(Envelope { address: b"<a@example.net>", arguments }),
            Command::Negotiate(Offer { version: 6, actions: Actions(0x1ff), steps: Steps(0x1f_ffff) }),
            Command::Quit,
            Command::QuitNewConnection,
            Command::Recipient(Envelope { address: b"<b@example.test>", arguments: Strings::default() }),
            Command::Unknown(b"FOO bar"),
        ]
    }

    #[test]
    fn decoding_undoes_encoding() {
        for command in every_command() {
            let mut bytes = BytesMut::new();
            command.encode(&mut bytes);
            let (frame, taken) = Frame::split(&bytes).unwrap().unwrap();
            assert_eq!(taken, bytes.len());
            assert_eq!(Command::decode(frame), Ok(command), "{}", command.name());
        }
    }

    /// Cut anywhere, a command is either an error that names its field, or whole by itself (a body, a shorter list).
    #[test]
    fn data_cut_short_never_panics_and_names_the_field() {
        for command in every_command() {
            let mut bytes = BytesMut::new();
            command.encode(&mut bytes);
            for end in 5..bytes.len() {
                let frame = Frame { code: bytes[4], data: &bytes[5..end] };
                if let Err(error) = Command::decode(frame) {
                    assert!(error.to_string().ends_with(": data ends too early"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_string_without_its_nul_is_an_error() {
        let frame = Frame { code: b'H', data: b"name" };
        assert_eq!(Command::decode(frame), Err(DecodeError::TooShort { field: "helo name" }));
        let frame = Frame { code: b'R', data: b"<b@example.test>\0NOTIFY=never" };
        assert_eq!(Command::decode(frame), Err(DecodeError::TooShort { field: "rcpt argument" }));
    }

    #[test]
    fn a_macro_name_without_a_value_is_an_error() {
        let frame = Frame { code: b'D', data: b"Mi\0" };
        assert_eq!(Command::decode(frame), Err(DecodeError::TooShort { field: "macro value" }));
    }

    /// Postfix's packet for a local submission with the null sender: `M` and one NUL.
    #[test]
    fn an_empty_address_is_an_address() {
        let frame = Frame { code: b'M', data: b"\0" };
        let expected = Envelope { address: b"", arguments: Strings::default() };
        assert_eq!(Command::decode(frame), Ok(Command::Mail(expected)));
    }

    #[test]
    fn an_unknown_letter_is_named() {
        let error = Command::decode(Frame { code: b'z', data: b"" }).unwrap_err();
        assert_eq!(error.to_string(), "command letter: `z` is not a milter command");
    }
}
