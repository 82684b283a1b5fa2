//! `/metrics`, `/healthz`, `/readyz`, and the status page for who may see it.

mod access;
mod page;
mod privacy;
mod scrape;

pub(super) use access::Gate;
pub(super) use access::unusable_token;

use std::convert::Infallible;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderMap;
use hyper::header::HeaderValue;
use hyper::header::WWW_AUTHENTICATE;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::task::JoinSet;

use super::ACCEPT_REST;
use super::context::Context;
use super::listener::BindError;
use super::report_counted;
use access::Denied;
use page::Page;
use page::Shown;
use scrape::Format;
use scrape::scrape;

/// More connections at once than any number of scrapers needs; further ones are closed.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long a connection may last, whatever it does or does not do.
const CONNECTION_TIME: Duration = Duration::from_secs(30);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The HTTP listener.
#[derive(Debug)]
pub(super) struct Http {
    listener: TcpListener,
    address: SocketAddr,
}

impl Http {
    pub(super) async fn bind(address: &str) -> Result<Self, BindError> {
        let error = |error| BindError::Http { address: address.to_owned(), error };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, context: Arc<Context>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = self.listener.accept().await;
            while let Some(ended) = connections.try_join_next() {
                report_counted(ended, &context);
            }
            match accepted {
                Ok(_) if connections.len() >= MAX_CONNECTIONS => tracing::debug!("too many HTTP connections"),
                Ok((stream, peer)) => {
                    let visit = Visit { peer: peer.ip(), listener: self.address };
                    connections.spawn(converse(stream, visit, Arc::clone(&context)));
                }
                Err(error) => {
                    if context.warnings.accept.admits() {
                        tracing::warn!(%error, "cannot accept an HTTP connection; trying again");
                    }
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
struct Visit {
    peer: IpAddr,
    listener: SocketAddr,
}

async fn converse(stream: TcpStream, visit: Visit, context: Arc<Context>) {
    let answer = service_fn(|request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(respond(&request, visit, &context).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIME);
    match tokio::time::timeout(CONNECTION_TIME, http.serve_connection(TokioIo::new(stream), answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "HTTP connection lost"),
        Err(_elapsed) => tracing::debug!("closing an HTTP connection: it lasted too long"),
    }
}

async fn respond(request: &Request<Incoming>, visit: Visit, context: &Arc<Context>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let (work, format) = (Arc::clone(context), Format::wanted(request));
            match make(&context.scrapes, move || scrape(&work, format)).await {
                Ok(Ok(text)) => response(StatusCode::OK, format.content_type(), text),
                Ok(Err(error)) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
                Err(panic) => own_up(&panic, "in /metrics", context),
            }
        }
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" if context.stopping.borrow().is_some() => {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "stopping\n".to_owned())
        }
        "/readyz" => response(StatusCode::OK, TEXT, "ready\n".to_owned()),
        path => match Page::at(path) {
            Some(page) => show(page, request, visit, context).await,
            None => response(StatusCode::NOT_FOUND, TEXT, NOTHING_ELSE.to_owned()),
        },
    }
}

const NOTHING_ELSE: &str = "there are /metrics, /healthz, /readyz and the status page at /\n";

/// A page, for who may see it. Made off the threads that serve mail, and not too many at a time.
async fn show(page: Page, request: &Request<Incoming>, visit: Visit, context: &Arc<Context>) -> Response<Full<Bytes>> {
    if let Err(denied) = context.gate.load().admits(request.headers(), visit.peer, visit.listener) {
        return send_away(denied, visit, context);
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let work = Arc::clone(context);
    match make(&context.pages, move || page.show(&query, &work)).await {
        Ok(Shown { status, content_type, body, refresh }) => {
            let mut shown = response(status, HeaderValue::from_static(content_type), body);
            harden(shown.headers_mut());
            if let Some(seconds) = refresh {
                shown.headers_mut().insert("refresh", HeaderValue::from(seconds));
            }
            shown
        }
        Err(panic) => own_up(&panic, "on the status page", context),
    }
}

fn own_up(panic: &JoinError, place: &str, context: &Context) -> Response<Full<Bytes>> {
    context.metrics.internal_error();
    tracing::error!(%panic, "a bug was met {place}; please report this");
    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "a bug was met; the log has more\n".to_owned())
}

/// Makes a page once there is room. Whoever goes away meanwhile has it made all the same, so its place is taken until then.
async fn make<T: Send + 'static>(
    pages: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // It is never closed.
    let permit = Arc::clone(pages).acquire_owned().await;
    let made = move || {
        let _permit = permit;
        work()
    };
    tokio::task::spawn_blocking(made).await
}

/// Nothing but our own styles and pictures is loaded, nothing runs, nobody frames it, nothing is kept or passed on.
fn harden(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Says what it takes to be let in.
fn send_away(denied: Denied, visit: Visit, context: &Context) -> Response<Full<Bytes>> {
    let (status, text) = match denied {
        Denied::NoPage if context.in_force().config.http.status_page => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the status page is shut: http.token_file is of no use, and the log says why\n",
        ),
        Denied::NoPage => {
            (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz; http.status_page is off\n")
        }
        Denied::Host => {
            let text =
                "this page is known as localhost, or by its address; behind a proxy it takes http.trusted_header\n";
            (StatusCode::MISDIRECTED_REQUEST, text)
        }
        Denied::Open => {
            let text = "the status page is not served where everybody could see it; http.token_file or \
                        http.trusted_header in the configuration opens it\n";
            (StatusCode::FORBIDDEN, text)
        }
        Denied::Proxy => (StatusCode::FORBIDDEN, "the status page is for who has logged in at the proxy before it\n"),
        Denied::Token { wrong } => {
            if wrong && context.warnings.denied.admits() {
                tracing::warn!(peer = %visit.peer, "somebody was not let in to the status page: a wrong token");
            }
            (StatusCode::UNAUTHORIZED, "the status page takes a token: any name, and the token for a password\n")
        }
    };
    let mut answer = response(status, TEXT, text.to_owned());
    harden(answer.headers_mut());
    if let Denied::Token { .. } = denied {
        let challenge = HeaderValue::from_static("Basic realm=\"Postward\", charset=\"UTF-8\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

fn response(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::super::connection::tests::context;
    use super::*;

    /// Two modules that do not know each other.
    #[test]
    fn the_histogram_of_fullness_has_the_bounds_that_are_counted() {
        assert_eq!(crate::lookup::FULLNESS_BOUNDS.map(|bound| bound as f64 / 1000.0), crate::metrics::FULLNESS);
    }

    /// A client that asks, goes, and asks again does not have more of them made at once.
    #[tokio::test]
    async fn a_page_takes_its_place_until_it_is_made() {
        let pages = Arc::new(Semaphore::new(2));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let work = move || {
            _ = begin.send(());
            _ = released.recv();
        };
        let asked = make(&pages, work);
        tokio::select! {
            _ = asked => panic!("it was made at once"),
            begun = begun => begun.unwrap(),
        }
        assert_eq!(pages.available_permits(), 1, "the client has gone, the page is still made");
        drop(release);
        while pages.available_permits() < 2 {
            tokio::task::yield_now().await;
        }
    }

    /// The status line of /healthz; empty if the connection is closed instead.
    async fn health(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        // Closed with a request unread, it is reset.
        _ = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await;
        _ = stream.read_to_string(&mut answer).await;
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Asks for more pages than the sockets' buffers hold, and reads none.
    async fn never_reads(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let requests = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".repeat(10_000);
        _ = tokio::time::timeout(Duration::from_millis(1), stream.write_all(&requests)).await;
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_reads_does_not_keep_others_out_for_long() {
        let http = Http::bind("127.0.0.1:0").await.unwrap();
        let address = http.address();
        let mut serving = JoinSet::new();
        serving.spawn(http.serve(Arc::new(context(""))));
        assert_eq!(health(address).await, "HTTP/1.0 200 OK");
        let mut greedy = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            greedy.push(never_reads(address).await);
        }
        assert_eq!(health(address).await, "", "above the maximum it is closed");
        tokio::time::sleep(CONNECTION_TIME).await;
        assert_eq!(health(address).await, "HTTP/1.0 200 OK");
    }
}
