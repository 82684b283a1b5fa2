//! A session without a socket: what Postfix sends of one message, and a policy to judge it by.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use postward::config::Config;
use postward::config::Source;
use postward::lookup::Ledger;
use postward::lookup::Lookup as _;
use postward::policy::Policy;
use postward::session::Action;
use postward::session::Decision;
use postward::session::Session;
use postward::session::Transport;
use postward::wire::Actions;
use postward::wire::Command;
use postward::wire::Connect;
use postward::wire::Envelope;
use postward::wire::Offer;
use postward::wire::Steps;
use postward::wire::Strings;

pub(crate) const OFFER: Offer = Offer { version: 6, actions: Actions(0x1ff), steps: Steps(0x1f_ffff) };

/// The policy in this text.
pub(crate) fn policy(text: String) -> Arc<Policy> {
    let (config, mut diagnostics) = Config::read(vec![Source { path: "micro.toml".into(), text }]);
    let policy = Policy::compile(&config, &mut diagnostics);
    Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}")))
}

/// CONNECT of a client at this address.
pub(crate) const fn connect(address: &[u8]) -> Command<'_> {
    Command::Connect(Connect { hostname: b"client.example.org", family: b'4', port: 40_000, address })
}

pub(crate) fn mail(sender: &[u8]) -> Command<'_> {
    Command::Mail(Envelope { address: sender, arguments: Strings::new(b"SIZE=4096\0BODY=8BITMIME\0") })
}

/// All of a session with one message of 4 KiB.
pub(crate) fn commands(body: &[u8]) -> Vec<Command<'_>> {
    let header = Command::Header { name: b"Subject", value: b" a value as header fields have in mail of every day" };
    let recipient = Envelope { address: b"<rcpt@r1.example.org>", arguments: Strings::default() };
    let mut all = vec![Command::Negotiate(OFFER), connect(b"10.1.2.3"), Command::Helo(b"client.example.org")];
    all.extend([mail(b"<user@s1.example.org>"), Command::Recipient(recipient), Command::Data]);
    all.extend([header; 10]);
    all.extend([Command::EndOfHeaders, Command::Body(body), Command::EndOfMessage(b""), Command::Abort, Command::Quit]);
    all
}

/// Those commands as an MTA writes them.
pub(crate) fn bytes() -> BytesMut {
    let mut out = BytesMut::new();
    commands(&[b'x'; 4096]).iter().for_each(|command| command.encode(&mut out));
    out
}

/// A session that has negotiated.
pub(crate) fn session(policy: &Arc<Policy>) -> Session {
    let mut session = Session::new(Arc::clone(policy), 1, Transport::Tcp);
    session.handle(Command::Negotiate(OFFER)).unwrap();
    session
}

/// Gives a command to the session, with the answers that it asks for. What was decided, if something was.
pub(crate) fn give(session: &mut Session, ledger: &mut Ledger, command: Command<'_>) -> Option<Box<Decision>> {
    ledger.begin();
    let mut action = session.handle(command).unwrap();
    while let Action::Ask(query) = action {
        let answer = ledger.answer(&query).now_or_never().unwrap();
        action = session.answer(query, answer);
    }
    match action {
        Action::Decided(decision) => {
            ledger.settle(decision.settlement);
            Some(decision)
        }
        Action::Aborted(_)
        | Action::Ask(_)
        | Action::Close
        | Action::Continue
        | Action::Negotiated(_)
        | Action::Read
        | Action::Restart => None,
    }
}
