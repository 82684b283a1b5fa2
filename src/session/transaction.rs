//! One message, from MAIL to its end.

use memchr::memchr_iter;

use super::decision::MessageEnd;
use crate::facts::Message;
use crate::facts::Recipient;
use crate::facts::Stage;
use crate::policy::Lookups;
use crate::policy::MessageStanding;
use crate::policy::Refusal;
use crate::policy::Walk;
use crate::reply::Class;

/// A message on its way in.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) facts: Message,
    pub(super) standing: MessageStanding,
    /// The judgement that waits for an answer.
    pub(super) walk: Option<Walk>,
    /// For the walk that is under way.
    pub(super) lookups: Lookups,
    /// How often RCPT was said, whatever came of it.
    pub(super) seen_recipients: u64,
    /// Whether DATA was shown.
    pub(super) seen_data: bool,
    /// In monitor mode: a refusal was noted, so nothing more is judged.
    pub(super) settled: bool,
    /// A refusal that could not be spoken when it was found.
    pub(super) held_back: Option<Refusal>,
    /// The class of the last refusal at RCPT.
    refused_recipient: Option<Class>,
    /// The class of the refusal at DATA, which leaves the transaction open: another DATA asks again.
    pub(super) refused_data: Option<Class>,
    /// Octets of the recipients' addresses, of those refused, too.
    pub(super) recipient_octets: usize,
    /// Octets of the header and of the body, as the client sent them.
    size: u64,
}

impl Transaction {
    /// Whether nothing more is to be judged: in monitor mode, after what would have been the end.
    pub(super) fn is_settled(&self, stage: Stage) -> bool {
        let all_refused = self.seen_recipients > 0 && self.standing.recipients() == 0;
        self.settled || (stage > Stage::Rcpt && all_refused)
    }

    /// Notes that a recipient was refused.
    pub(super) const fn refused_recipient(&mut self, class: Class) {
        self.refused_recipient = Some(class);
    }

    /// What became of it when it ends before its content was judged: where DATA or every recipient was refused, it is
    /// refused; else the client gave up.
    pub(super) fn end_without_message(&self) -> MessageEnd {
        let no_recipient = self.refused_recipient.filter(|_| self.standing.recipients() == 0);
        self.refused_data.or(no_recipient).map_or(MessageEnd::Aborted, MessageEnd::refused)
    }

    /// Takes the queue id from the first macro that has it.
    pub(super) fn name_queue(&mut self, id: &[u8]) {
        if self.facts.queue_id.is_none() {
            self.facts.queue_id = Some(String::from_utf8_lossy(id).into());
        }
    }

    /// A field's name, colon, value and line ends. Folded lines come joined by LF, where the client sent CR LF. Without
    /// HDR_LEADSPC both MTAs drop the blank after the colon, which nearly every field has.
    pub(super) fn count_header(&mut self, name: &[u8], value: &[u8], kept_space: bool) {
        let folds = memchr_iter(b'\n', value).count();
        let space = usize::from(!kept_space && !value.is_empty());
        self.size += (name.len() + 1 + space + value.len() + folds + 2) as u64;
    }

    /// The empty line.
    pub(super) const fn count_end_of_headers(&mut self) {
        self.size += 2;
    }

    pub(super) const fn count_body(&mut self, data: &[u8]) {
        self.size += data.len() as u64;
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The recipient, if there is just one.
    pub(super) fn only_recipient(&self) -> Option<&Recipient> {
        let mut accepted = self.standing.accepted();
        let first = accepted.next();
        if accepted.next().is_some() { None } else { first }
    }
}
