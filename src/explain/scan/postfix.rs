//! Where Postfix's log has replies (`smtpd_check.c: log_whatsup`, `cleanup_message.c`, `log_adhoc.c`, `smtp_trouble.c`).

use super::Speaker;
use super::entry::Service;
use super::slot;
use super::slot::Head;
use super::slot::Slot;

/// The reply in a message, and whether it is one to a client, which a verbose log shows again.
pub(super) fn find(message: &str) -> Option<Slot> {
    let (_, body) = slot::queue_id(message);
    refusal(body).or_else(|| delivery(body)).or_else(|| said(body))
}

/// A server's line in a verbose log: `> host[address]: 250 2.1.0 Ok` of a server, `< …` of a client.
pub(super) fn dialogue(service: Service, message: &str) -> Option<(Speaker, &str)> {
    let (prefix, speaker) = match service {
        Service::Client => ("< ", Speaker::Remote),
        Service::Server => ("> ", Speaker::Mta),
        Service::Neither => return None,
    };
    let (peer, said) = message.strip_prefix(prefix)?.split_once("]: ").or_else(|| {
        let (peer, said) = message.strip_prefix(prefix)?.split_once(": ")?;
        (!peer.contains(' ')).then_some((peer, said))
    })?;
    (!peer.contains(": ")).then_some((speaker, said))
}

/// `reject: RCPT from host[address]: 550 5.1.1 <a@b>: text; from=<> to=<a@b> proto=ESMTP helo=<h>`
fn refusal(body: &str) -> Option<Slot> {
    let (verb, after) = body.split_once(": ")?;
    let speaker = match verb {
        // `reject_warning` (warn_if_reject) is told to nobody.
        "reject" => Speaker::Mta,
        "milter-reject" => Speaker::Milter,
        "proxy-accept" | "proxy-reject" => Speaker::Remote,
        _ => return None,
    };
    let stage = after.split([' ', ':']).next()?;
    if !stage.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return content(after).map(|head| Slot::new(&head, speaker));
    }
    // Behind that is what a stranger said.
    let end = DETAILS.iter().filter_map(|start| after.find(start)).min();
    let own = end.map_or(after, |end| after.get(..end).unwrap_or(after));
    let head = own.match_indices(": ").find_map(|(at, _)| {
        let text = own.get(at + 2..)?;
        // `cleanup` writes no basic code.
        Head::parse(text).or_else(|| Head::parse_enhanced(text).filter(|_| stage == "END-OF-MESSAGE"))
    })?;
    // Of several lines all but the first have both codes.
    let next = head.rest().split("??").nth(1).and_then(Head::parse).filter(|_| head.code.is_none());
    Some(Slot::new(&next.map_or(head, |next| head.with_code(next.code)), speaker))
}

/// `header Subject: … from host[address]; from=<> to=<a@b> proto=ESMTP helo=<h>: 5.7.1 text`: what comes before the last
/// `; from=<` is a stranger's.
fn content(after: &str) -> Option<Head<'_>> {
    let after = after.get(after.rfind("; from=<")?..)?;
    after.match_indices(": ").find_map(|(at, _)| {
        let text = after.get(at + 2..)?;
        Head::parse_enhanced(text).or_else(|| Head::parse(text))
    })
}

/// `to=<a@b>, relay=mx[address]:25, delay=1, delays=0/0/1/0, dsn=5.1.1, status=bounced (text)`
fn delivery(body: &str) -> Option<Slot> {
    let mut fields = slot::after_address(body.strip_prefix("to=<")?)?;
    if let Some(original) = fields.strip_prefix(", orig_to=<") {
        fields = slot::after_address(original)?;
    }
    let fields = fields.get(fields.find(", dsn=")? + 6..)?;
    let (enhanced, fields) = slot::enhanced(fields)?;
    let (status, text) = fields.strip_prefix(", status=")?.split_once(" (").unwrap_or_default();
    let text = text.trim_end();
    let text = text.strip_suffix(')').unwrap_or(text);
    let reply = match status {
        "sent" | "deliverable" => Head::parse(text),
        _ => after_said(text),
    };
    Some(match reply {
        Some(head) => Slot::new(&head, Speaker::Remote),
        None => Slot::of_status(enhanced, text, Speaker::Nobody),
    })
}

/// `host mx[address] said: 450 4.2.0 text (in reply to RCPT TO command)`, before another host is tried.
fn said(body: &str) -> Option<Slot> {
    let body = body.strip_prefix("warning: ").unwrap_or(body);
    let known = ["host ", "SASL authentication failed; server "];
    let after = known.iter().find_map(|start| body.strip_prefix(start))?;
    after_said(after).map(|head| Slot::new(&head, Speaker::Remote))
}

/// What a server said.
fn after_said(text: &str) -> Option<Head<'_>> {
    let places = [" said: ", " refused to talk to me: "].into_iter();
    let after = places.filter_map(|said| text.find(said).map(|at| at + said.len())).min()?;
    let head = Head::parse(text.get(after..)?)?;
    Some(head.until(slot::without_command(head.rest())))
}

/// What Postfix writes behind a reply.
const DETAILS: [&str; 4] = ["; from=<", "; to=<", "; proto=", "; helo=<"];
