//! Sends what happened to a web server, as JSON. No redirects, no proxy, no connection that is kept.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderValue;
use hyper::header::USER_AGENT;
use hyper_rustls::HttpsConnector;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::crypto::ring;

use super::event::Event;
use super::secret;
use super::worker::Failure;

/// How much of an answer is kept.
const MAX_ANSWER: usize = 1000;

/// A web server, and how to reach it.
pub(super) struct Post {
    url: Uri,
    /// For logs: the path of a URL is often a secret.
    origin: String,
    authorization_file: Option<PathBuf>,
    /// What is wrong with the certificates of this host, where they are needed.
    client: Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String>,
}

impl Post {
    pub(super) fn new(url: &Uri, authorization_file: Option<&Path>) -> Self {
        let client = connector(url.scheme_str() == Some("https")).map(|connector| {
            // Between two notifications every connection would have been closed.
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
        });
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let origin = format!("{}://{authority}", url.scheme_str().unwrap_or_default());
        Self { url: url.clone(), origin, authorization_file: authorization_file.map(Path::to_owned), client }
    }

    /// Sends it once.
    pub(super) async fn send(&self, event: &Event, timeout: Duration) -> Result<(), Failure> {
        let client = self.client.as_ref().map_err(|problem| Failure::lasting(problem.clone()))?;
        let answered = tokio::time::timeout(timeout, async {
            let request = self.request(event).await?;
            let response = client.request(request).await.map_err(|error| Failure::passing(self.chain(&error)))?;
            self.judge(response).await
        });
        let seconds = timeout.as_secs();
        answered.await.unwrap_or_else(|_| Err(Failure::passing(format!("{} took more than {seconds} s", self.origin))))
    }

    async fn request(&self, event: &Event) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::post(&self.url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, HeaderValue::from_static(concat!("postward/", env!("CARGO_PKG_VERSION"))));
        if let Some(path) = self.authorization_file.clone() {
            let secret = tokio::task::spawn_blocking(move || secret::read(&path)).await;
            let secret = secret.unwrap_or_else(|panic| Err(panic.to_string())).map_err(Failure::lasting)?;
            request = request.header(AUTHORIZATION, secret);
        }
        request.body(Full::new(Bytes::from(event.to_json()))).map_err(|error| Failure::lasting(error.to_string()))
    }

    /// 2xx is fine; what the server has to say to anything else is for the log.
    async fn judge(&self, response: Response<Incoming>) -> Result<(), Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let mut body = response.into_body();
        let mut said = Vec::new();
        while said.len() < MAX_ANSWER
            && let Some(Ok(frame)) = body.frame().await
        {
            said.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        said.truncate(MAX_ANSWER);
        let message = format!("{} answered {status}", self.origin);
        let may_pass =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let failure = if may_pass { Failure::passing(message) } else { Failure::lasting(message) };
        Err(failure.saying(String::from_utf8_lossy(&said).trim()))
    }

    /// An error with all its causes: the outermost says only that there was one.
    fn chain(&self, error: &dyn Error) -> String {
        let mut text = format!("cannot send to {}: {error}", self.origin);
        let mut source = error.source();
        while let Some(cause) = source {
            _ = write!(text, ": {cause}");
            source = cause.source();
        }
        text
    }
}

/// https by the certificates that this host trusts; they are not looked for where nobody needs them.
fn connector(needs_certificates: bool) -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if needs_certificates {
        let with_roots = builder.with_provider_and_native_roots(ring::default_provider());
        with_roots.map_err(|error| format!("this host trusts no certificates: {error}"))?
    } else {
        let config = ClientConfig::builder_with_provider(ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        builder.with_tls_config(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    };
    Ok(builder.https_or_http().enable_http1().build())
}
