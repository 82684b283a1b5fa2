//! The control socket: `postward limits` asks here, with file permissions as the only gate.
//!
//! One request is one line, a JSON object: `{"version":1,"command":"show","key":"192.0.2.7 alice","rule":"rate"}`.
//!
//! | `command` | takes | does |
//! | --- | --- | --- |
//! | `explain` | `id` | tells what was decided about a message (`5pjg000.1`) or in a session (`5pjg000`) |
//! | `list` | `limited` (true: only keys that are limited or blocked) | tells every key |
//! | `top` | `most` (1 to 1000; else 10) | tells of each limit the keys that use most |
//! | `show` | `key` | tells one key |
//! | `reset` | `key` | forgets what it was charged |
//! | `block` | `key`, `seconds` (else without an end) | lets nothing of it pass |
//! | `unblock` | `key` | ends a block |
//! | `reload` | | puts the configuration in force that there is now, if it is fit for use |
//!
//! `rule` names one rule; without it all limits are meant, except by `block`, for which only one rule may have such keys.
//! How a `key` is written stands in `policy/key.rs`.
//!
//! The answer is some lines `{"limit":{…},"version":1}`, for a change with `change` beside `limit`, and a last one:
//! `{"done":N,"version":1}`, after N others, or `{"error":{"kind":"…","message":"…"},"version":1}`. Kinds are `busy`, `key` (no
//! limit has such keys), `request`, `rule` and `unknown` (nothing is known of the key or the decision). Then the next request may follow.
//! To `explain`, the lines are `{"decision":{…},"version":1}`, in the order in which they were made.
//! To `reload`, the answer is one line `{"reload":{…},"version":1}` and the last one: `in_force` (whether it is), `problem` (why
//! not), `diagnostics` as `postward check --format json` has them, `text` (the same for people), `notes`, `hash` and `rules`.
//! A line that is no request at all ends the connection. Past version 1 what is told here means something else.

mod answer;
mod operate;
mod request;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ACCEPT_REST;
use super::context::Context;
use super::listener::BindError;
use super::listener::Listener;
use super::reload::Reloader;
use super::report_counted;
use super::socket::Socket;
use crate::config::At;
use answer::Refusal;
use operate::Listing;
use operate::perform;
use request::Command;
use request::Request;

/// The protocol's version.
pub const VERSION: u64 = 1;

/// More administrators at once than there are; further ones are told so and closed.
const MAX_CONNECTIONS: usize = 8;

/// Longer than any key that an SMTP command has room for.
const MAX_REQUEST: usize = 16 * 1024;

/// How long a client may take to send its next request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to read a part of the answer, of which it may get many.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// The control socket, open.
#[derive(Debug)]
pub(super) struct Control {
    listener: Listener,
    reloader: Reloader,
}

impl Control {
    pub(super) fn bind(
        path: &Path,
        group: Option<&At<String>>,
        owner: Option<u32>,
        reloader: Reloader,
    ) -> Result<Self, BindError> {
        Ok(Self { listener: Listener::bind_control(path, group, owner)?, reloader })
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(mut self, context: Arc<Context>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = self.listener.accept().await;
            while let Some(ended) = connections.try_join_next() {
                report_counted(ended, &context);
            }
            match accepted {
                Ok((Socket::Tcp(_), _)) => {}
                // To a connection that is new, so short a line is written at once or not at all.
                Ok((Socket::Unix(stream), _)) if connections.len() >= MAX_CONNECTIONS => {
                    _ = stream.try_write(Refusal::busy().line().as_bytes());
                }
                Ok((Socket::Unix(stream), _)) => {
                    connections.spawn(converse(stream, Arc::clone(&context), self.reloader.clone()));
                }
                Err(error) => {
                    if context.warnings.accept.admits() {
                        tracing::warn!(%error, listener = %self, "cannot accept a connection; trying again");
                    }
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listener.fmt(f)
    }
}

async fn converse(stream: UnixStream, context: Arc<Context>, reloader: Reloader) {
    let result = match stream.peer_cred() {
        Ok(peer) => Connection::new(stream, peer.uid(), context, reloader).serve().await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "control connection lost");
    }
}

/// One client.
struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    uid: u32,
    context: Arc<Context>,
    reloader: Reloader,
}

impl Connection {
    fn new(stream: UnixStream, uid: u32, context: Arc<Context>, reloader: Reloader) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer, uid, context, reloader }
    }

    /// Answers requests until there are no more, or one is none.
    async fn serve(mut self) -> io::Result<()> {
        while let Some(line) = timeout(REQUEST_TIME, self.read_line()).await?? {
            let request = match line.and_then(|line| Request::parse(&line)) {
                Ok(request) => request,
                Err(refusal) => return self.refuse(&refusal).await,
            };
            self.answer(request).await?;
        }
        Ok(())
    }

    /// The next line; `None` at the end.
    async fn read_line(&mut self) -> io::Result<Option<Result<Vec<u8>, Refusal>>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(MAX_REQUEST as u64);
        let length = bounded.read_until(b'\n', &mut line).await?;
        Ok(match line.pop() {
            None => None,
            Some(b'\n') => Some(Ok(line)),
            Some(_) if length == MAX_REQUEST => {
                Some(Err(Refusal::request(format!("a request has at most {MAX_REQUEST} octets"))))
            }
            Some(_) => Some(Err(Refusal::request("the request ends too early: no line end".to_owned()))),
        })
    }

    /// However many keys there are, only a few are in memory here.
    async fn answer(&mut self, request: Request) -> io::Result<()> {
        if request.command == Command::Reload {
            tracing::info!(uid = self.uid, "an administrator asks for a reload");
            let outcome = self.reloader.reload().await;
            return self.write(&(answer::reloaded(&outcome) + &answer::done(1))).await;
        }
        let Command::List { limited } = request.command else {
            let (context, uid) = (Arc::clone(&self.context), self.uid);
            let answer = off_thread(&self.context, move || perform(&request, &context, uid)).await?;
            return self.write(&answer).await;
        };
        let mut listing = match Listing::new(self.context.in_force(), request.rule.as_deref(), limited) {
            Ok(listing) => listing,
            Err(refusal) => return self.write(&refusal.line()).await,
        };
        loop {
            let (text, rest) = off_thread(&self.context, move || listing.more()).await?;
            self.write(&text).await?;
            match rest {
                Some(rest) => listing = rest,
                None => return Ok(()),
            }
        }
    }

    /// Ends the connection. What still comes is read first: closed before, the answer would be lost, too.
    async fn refuse(mut self, refusal: &Refusal) -> io::Result<()> {
        self.write(&refusal.line()).await?;
        self.writer.shutdown().await?;
        let mut rest = self.reader.take(MAX_REQUEST as u64);
        timeout(WRITE_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await?.map(drop)
    }

    async fn write(&mut self, text: &str) -> io::Result<()> {
        timeout(WRITE_TIME, self.writer.write_all(text.as_bytes())).await?
    }
}

/// Where a walk over millions of keys, or a slow look-up of a user's name, keeps no session waiting.
async fn off_thread<T: Send + 'static>(context: &Context, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| {
        context.metrics.internal_error();
        io::Error::other(panic)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::Value;
    use serde_json::json;

    use super::super::connection::tests::context;
    use super::*;

    const LIMITS: &str = r#"
        [[rule]]
        name = "logins"
        limit = { key = "login", messages = "2/hour", recipients = "9/hour" }

        [[rule]]
        name = "hosts"
        limit = { key = "client", connections = "2/hour" }
    "#;

    /// A client, and the server's side of its connection.
    async fn client(context: &Arc<Context>) -> (UnixStream, JoinSet<()>) {
        let (client, ours) = UnixStream::pair().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(converse(ours, Arc::clone(context), Reloader::new().0));
        (client, serving)
    }

    /// All that is answered to these octets, after which the client says no more.
    async fn answers(context: &Arc<Context>, said: &[u8]) -> Vec<Value> {
        let (mut client, _serving) = client(context).await;
        let mut text = String::new();
        // Closed before all is read, it is reset.
        _ = client.write_all(said).await;
        _ = client.shutdown().await;
        _ = client.read_to_string(&mut text).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    async fn answer(context: &Arc<Context>, request: Value) -> Vec<Value> {
        answers(context, format!("{request}\n").as_bytes()).await
    }

    fn limits() -> Arc<Context> {
        Arc::new(context(LIMITS))
    }

    #[tokio::test]
    async fn what_is_no_request_is_told_and_ends_the_connection() {
        let context = limits();
        let too_long = [b"{\"version\":1,\"command\":\"show\",\"key\":\"".as_slice(), &[b'x'; MAX_REQUEST]].concat();
        for (said, message) in [
            (&b"hello\n{}\n"[..], "the request is no JSON object"),
            (b"[1]\n", "the request is no JSON object"),
            (b"\xff\xfe\n", "the request is no JSON object"),
            (b"{\"version\":1,\"command\":\"top\"}", "the request ends too early: no line end"),
            (b"{\"version\":1,\"comm", "the request ends too early: no line end"),
            (&too_long, "a request has at most 16384 octets"),
            (b"{\"command\":\"top\"}\n", "expected version 1, found none"),
            (b"{\"version\":2,\"command\":\"top\"}\n", "expected version 1, found 2"),
            (b"{\"version\":1}\n", "`command` is missing"),
            (b"{\"version\":1,\"command\":\"halt\"}\n", "there is no command `halt`"),
            (b"{\"version\":1,\"command\":\"show\"}\n", "`key` is missing"),
            (b"{\"version\":1,\"command\":\"show\",\"key\":7}\n", "expected a string in `key`, found 7"),
            (
                b"{\"version\":1,\"command\":\"top\",\"most\":0}\n",
                "expected a number from 1 to 1000 in `most`, found 0",
            ),
            (b"{\"version\":1,\"command\":\"top\",\"mots\":1}\n", "`mots` is unknown to `top`"),
        ] {
            let answers = answers(&context, said).await;
            let error = json!({"error": {"kind": "request", "message": message}, "version": 1});
            assert_eq!(answers, [error], "{}", String::from_utf8_lossy(said.get(..60).unwrap_or(said)));
        }
    }

    #[tokio::test]
    async fn requests_follow_one_another() {
        let request = b"{\"version\":1,\"command\":\"list\"}\n{\"version\":1,\"command\":\"top\",\"rule\":\"hosts\"}\n";
        let done = json!({"done": 0, "version": 1});
        assert_eq!(answers(&limits(), request).await, [done.clone(), done]);
    }

    #[tokio::test]
    async fn a_rule_that_is_not_there_leads_to_those_that_are() {
        let request = json!({"version": 1, "command": "list", "rule": "login"});
        let message = "no limit is called `login`; there are: logins, hosts";
        let error = json!({"error": {"kind": "rule", "message": message}, "version": 1});
        assert_eq!(answer(&limits(), request).await, [error]);
    }

    #[tokio::test]
    async fn nothing_is_known_of_a_key_that_nobody_used() {
        let context = limits();
        for (command, message) in [
            ("show", "no limit knows alice"),
            ("reset", "nothing is counted for alice"),
            ("unblock", "alice is not blocked"),
        ] {
            let request = json!({"version": 1, "command": command, "key": "alice"});
            let error = json!({"error": {"kind": "unknown", "message": message}, "version": 1});
            assert_eq!(answer(&context, request).await, [error]);
        }
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_one_is_told_why() {
        let request = json!({"version": 1, "command": "show", "key": "alice", "rule": "hosts"});
        let message = "no limit has such keys; hosts: expected an address such as 192.0.2.7, found \"alice\"";
        let error = json!({"error": {"kind": "key", "message": message}, "version": 1});
        assert_eq!(answer(&limits(), request).await, [error]);
    }

    /// 192.0.2.7 is a login as well as an address.
    #[tokio::test]
    async fn a_block_is_for_one_rule() {
        let context = limits();
        let mut request = json!({"version": 1, "command": "block", "key": "192.0.2.7", "seconds": 3600});
        let refused = answer(&context, request.clone()).await;
        let message = "logins, hosts have such keys; choose one (--rule)";
        assert_eq!(refused, [json!({"error": {"kind": "rule", "message": message}, "version": 1})]);
        request["rule"] = "logins".into();
        let blocked = answer(&context, request).await;
        let measures: Vec<_> = blocked.iter().filter_map(|line| line["limit"]["measure"].as_str()).collect();
        assert_eq!(measures, ["messages", "recipients"], "{blocked:?}");
        assert_eq!(blocked[0]["change"], "block");
        assert_eq!(blocked[0]["limit"]["blocked_seconds"], 3600);
        let listed = answer(&context, json!({"version": 1, "command": "list", "limited": true})).await;
        assert_eq!(listed.last(), Some(&json!({"done": 2, "version": 1})));
        assert_eq!(listed[0]["limit"]["key"], "192.0.2.7");
    }

    #[tokio::test]
    async fn a_block_without_an_end_has_none() {
        let context = limits();
        let blocked =
            answer(&context, json!({"version": 1, "command": "block", "key": "alice", "rule": "logins"})).await;
        let limit = &blocked[0]["limit"];
        assert_eq!((&limit["blocked"], &limit["blocked_until"]), (&json!(true), &Value::Null), "{limit}");
        let unblock = json!({"version": 1, "command": "unblock", "key": "alice"});
        assert_eq!(answer(&context, unblock).await.len(), 3);
    }

    /// Of more keys than are told at once.
    #[tokio::test]
    async fn a_list_tells_every_key_once() {
        let context = limits();
        for number in 0..1000 {
            let key = format!("alice{number}");
            context.in_force().lookups.block_limit(0, key.as_bytes(), None);
            context.in_force().lookups.block_limit(1, key.as_bytes(), None);
        }
        let listed = answer(&context, json!({"version": 1, "command": "list", "rule": "logins"})).await;
        assert_eq!(listed.last(), Some(&json!({"done": 2000, "version": 1})));
        let mut keys: Vec<_> = listed.iter().filter_map(|line| line["limit"]["key"].as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_a_line_is_closed() {
        for said in [&b""[..], b"{\"version\":1,"] {
            let (mut client, mut serving) = client(&limits()).await;
            client.write_all(said).await.unwrap();
            let start = tokio::time::Instant::now();
            serving.join_next().await.unwrap().unwrap();
            assert_eq!(start.elapsed().as_secs(), REQUEST_TIME.as_secs());
        }
    }

    #[tokio::test]
    async fn above_the_most_connections_a_client_is_told_so() {
        let directory = std::env::temp_dir().join(format!("postward-control-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("s");
        let control = Control::bind(&path, None, None, Reloader::new().0).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut serving = JoinSet::new();
        serving.spawn(control.serve(limits()));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut text = String::new();
        UnixStream::connect(&path).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, Refusal::busy().line());
        serving.shutdown().await;
        assert!(!path.exists(), "its file goes with it");
        std::fs::remove_dir(&directory).unwrap();
    }
}
