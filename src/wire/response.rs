//! What we say to the MTA (`SMFIR_*`).

use bytes::BufMut;
use bytes::BytesMut;

use super::frame::Frame;
use super::negotiation::MacroStage;
use super::negotiation::Offer;
use crate::reply::Reply;

/// One response to the MTA.
///
/// At the end of a message any number of changes may come before the one that decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Response<'a> {
    /// `a`: take the message, ask nothing more about it. Harmless only at the end of the message: earlier it waves
    /// through the other recipients and the content, too.
    Accept,
    /// `h`: add a header field.
    AddHeader {
        /// The field's name.
        name: &'a str,
        /// The field's value.
        value: &'a str,
    },
    /// `+`: add a recipient.
    AddRecipient(&'a str),
    /// `2`: add a recipient with ESMTP arguments.
    AddRecipientWithArguments {
        /// The address.
        address: &'a str,
        /// The arguments, separated by blanks.
        arguments: &'a str,
    },
    /// `e`: replace the envelope sender.
    ChangeFrom(&'a str),
    /// `m`: change the `index`th field of that name, counted from one; an empty value removes it.
    ChangeHeader {
        /// Which one of several.
        index: u32,
        /// The field's name.
        name: &'a str,
        /// The new value.
        value: &'a str,
    },
    /// `c`: go on.
    Continue,
    /// `-`: remove a recipient.
    DeleteRecipient(&'a [u8]),
    /// `d`: tell the client 250 and drop the message.
    Discard,
    /// `i`: insert a header field before the `index`th.
    InsertHeader {
        /// Where.
        index: u32,
        /// The field's name.
        name: &'a str,
        /// The field's value.
        value: &'a str,
    },
    /// `O`: what is taken of the MTA's offer, and the macros asked for.
    Negotiate {
        /// Version, actions and steps.
        taken: Offer,
        /// Names separated by blanks, for each stage.
        macros: &'a [(MacroStage, &'a str)],
    },
    /// `p`: still working. Sendmail allows it at the end of the message only.
    Progress,
    /// `q`: put the message on hold, for this reason.
    Quarantine(&'a str),
    /// `r`: refuse with the MTA's own text, which differs between MTAs; prefer [`Response::Reply`].
    Reject,
    /// `b`: replace the body (by the pieces sent so, in order).
    ReplaceBody(&'a [u8]),
    /// `y`: refuse with this reply.
    Reply(&'a Reply),
    /// `s`: send no more body.
    Skip,
    /// `t`: refuse for now with the MTA's own text; prefer [`Response::Reply`].
    TempFail,
}

impl Response<'_> {
    /// Appends the response as a frame.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Self::Accept => Frame::write(out, b'a', |_| {}),
            Self::AddHeader { name, value } => Frame::write(out, b'h', |out| put_strings(out, &[name, value])),
            Self::AddRecipient(address) => Frame::write(out, b'+', |out| put_strings(out, &[address])),
            Self::AddRecipientWithArguments { address, arguments } => {
                Frame::write(out, b'2', |out| put_strings(out, &[address, arguments]));
            }
            Self::ChangeFrom(address) => Frame::write(out, b'e', |out| put_strings(out, &[address])),
            Self::ChangeHeader { index, name, value } => Frame::write(out, b'm', |out| {
                out.put_u32(index);
                put_strings(out, &[name, value]);
            }),
            Self::Continue => Frame::write(out, b'c', |_| {}),
            Self::DeleteRecipient(address) => Frame::write(out, b'-', |out| {
                out.put_slice(address);
                out.put_u8(0);
            }),
            Self::Discard => Frame::write(out, b'd', |_| {}),
            Self::InsertHeader { index, name, value } => Frame::write(out, b'i', |out| {
                out.put_u32(index);
                put_strings(out, &[name, value]);
            }),
            Self::Negotiate { taken, macros } => Frame::write(out, b'O', |out| put_negotiation(out, taken, macros)),
            Self::Progress => Frame::write(out, b'p', |_| {}),
            Self::Quarantine(reason) => Frame::write(out, b'q', |out| put_strings(out, &[reason])),
            Self::Reject => Frame::write(out, b'r', |_| {}),
            Self::ReplaceBody(piece) => Frame::write(out, b'b', |out| out.put_slice(piece)),
            Self::Reply(reply) => Frame::write(out, b'y', |out| put_reply(out, reply)),
            Self::Skip => Frame::write(out, b's', |_| {}),
            Self::TempFail => Frame::write(out, b't', |_| {}),
        }
    }
}

fn put_strings(out: &mut BytesMut, strings: &[&str]) {
    for string in strings {
        out.put_slice(string.as_bytes());
        out.put_u8(0);
    }
}

/// An empty list makes Postfix send its default and Sendmail nothing; so a stage without a list is left out.
fn put_negotiation(out: &mut BytesMut, taken: Offer, macros: &[(MacroStage, &str)]) {
    out.put_u32(taken.version);
    out.put_u32(taken.actions.0);
    out.put_u32(taken.steps.0);
    for (stage, names) in macros.iter().filter(|(_, names)| !names.is_empty()) {
        out.put_u32(*stage as u32);
        put_strings(out, &[names]);
    }
}

/// The safe form of a reply: both MTAs read the text as a format, so each `%` is doubled; CR LF between lines and none
/// at the end; exactly one NUL, at the very end.
fn put_reply(out: &mut BytesMut, reply: &Reply) {
    for (number, line) in reply.lines().into_iter().enumerate() {
        if number > 0 {
            out.put_slice(b"\r\n");
        }
        for byte in line.bytes() {
            if byte == b'%' {
                out.put_u8(b'%');
            }
            out.put_u8(byte);
        }
    }
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Actions;
    use crate::wire::Steps;

    fn encoded(response: &Response<'_>) -> Vec<u8> {
        let mut out = BytesMut::new();
        response.encode(&mut out);
        out[4..].to_vec()
    }

    #[test]
    fn every_response_has_the_letter_and_layout_of_the_protocol() {
        let header = Response::AddHeader { name: "X-A", value: "b" };
        let insert = Response::InsertHeader { index: 1, name: "X-A", value: "b" };
        let change = Response::ChangeHeader { index: 2, name: "X-A", value: "" };
        let with_arguments = Response::AddRecipientWithArguments { address: "<b@x>", arguments: "NOTIFY=never" };
        assert_eq!(encoded(&Response::Accept), b"a");
        assert_eq!(encoded(&header), b"hX-A\0b\0");
        assert_eq!(encoded(&Response::AddRecipient("<b@x>")), b"+<b@x>\0");
        assert_eq!(encoded(&with_arguments), b"2<b@x>\0NOTIFY=never\0");
        assert_eq!(encoded(&Response::ChangeFrom("<a@x>")), b"e<a@x>\0");
        assert_eq!(encoded(&change), b"m\0\0\0\x02X-A\0\0");
        assert_eq!(encoded(&Response::Continue), b"c");
        assert_eq!(encoded(&Response::DeleteRecipient(b"<b@x>")), b"-<b@x>\0");
        assert_eq!(encoded(&Response::Discard), b"d");
        assert_eq!(encoded(&insert), b"i\0\0\0\x01X-A\0b\0");
        assert_eq!(encoded(&Response::Progress), b"p");
        assert_eq!(encoded(&Response::Quarantine("why")), b"qwhy\0");
        assert_eq!(encoded(&Response::Reject), b"r");
        assert_eq!(encoded(&Response::ReplaceBody(b"new")), b"bnew");
        assert_eq!(encoded(&Response::Skip), b"s");
        assert_eq!(encoded(&Response::TempFail), b"t");
    }

    /// Requirement 3: `%` doubled, one NUL at the very end, nothing after it.
    #[test]
    fn a_percent_sign_is_doubled_and_the_text_ends_in_one_nul() {
        let reply: Reply = "452 4.3.1 quota 50% used".parse().unwrap();
        assert_eq!(encoded(&Response::Reply(&reply)), b"y452 4.3.1 quota 50%% used\0");
    }

    #[test]
    fn lines_are_joined_by_crlf_with_code_and_enhanced_code_on_each() {
        let reply: Reply = "550 5.7.1 one\ntwo".parse().unwrap();
        assert_eq!(encoded(&Response::Reply(&reply)), b"y550-5.7.1 one\r\n550 5.7.1 two\0");
    }

    /// Requirement 12: stages 5 and 6 together, and no empty list.
    #[test]
    fn macro_lists_follow_the_three_words() {
        let taken = Offer { version: 6, actions: Actions(0x100), steps: Steps(0x70) };
        let macros = [(MacroStage::Mail, "i {auth_authen}"), (MacroStage::Helo, "")];
        let bytes = encoded(&Response::Negotiate { taken, macros: &macros });
        assert_eq!(bytes, b"O\0\0\0\x06\0\0\x01\0\0\0\0\x70\0\0\0\x02i {auth_authen}\0");
    }
}
