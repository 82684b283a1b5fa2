//! An SMTP client for one line at a time that keeps every byte of what the server says.

use std::fmt;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::StreamOwned;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;

use super::PATIENCE;

/// A client's side of one SMTP session. Dropping it closes the connection, wherever it stands.
pub(crate) struct Smtp {
    stream: Option<Stream>,
    unread: Vec<u8>,
}

impl Smtp {
    /// Connects and reads nothing yet.
    pub(crate) fn connect(port: u16) -> Self {
        Self::connect_to("127.0.0.1", port)
    }

    /// Connects to this address and reads nothing yet.
    pub(crate) fn connect_to(address: &str, port: u16) -> Self {
        let stream = TcpStream::connect((address, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Some(Stream::Plain(stream)), unread: Vec::new() }
    }

    /// Connects, is greeted with 220 and has said `EHLO client.example.net`.
    pub(crate) fn session(port: u16) -> Self {
        let mut client = Self::connect(port);
        assert_eq!(client.greeting().code(), 220);
        assert_eq!(client.send("EHLO client.example.net").code(), 250);
        client
    }

    /// The server's first words.
    pub(crate) fn greeting(&mut self) -> Reply {
        self.read_reply()
    }

    /// Sends one line and reads the reply.
    pub(crate) fn send(&mut self, line: &str) -> Reply {
        self.raw(format!("{line}\r\n"));
        self.read_reply()
    }

    /// DATA, the message with its dots doubled and its lines ended with CRLF, and the final dot. Gives the reply to the
    /// message, or the one to DATA if that is not 354.
    pub(crate) fn data(&mut self, message: &str) -> Reply {
        let reply = self.send("DATA");
        if reply.code() != 354 {
            return reply;
        }
        let mut text = String::new();
        for line in message.lines() {
            let dot = if line.starts_with('.') { "." } else { "" };
            text += &format!("{dot}{line}\r\n");
        }
        self.send(&format!("{text}."))
    }

    /// A whole transaction; gives the reply that decided it: the first that is not 2xx, or the last.
    pub(crate) fn deliver(&mut self, sender: &str, recipients: &[&str], message: &str) -> Reply {
        let mut commands = vec![format!("MAIL FROM:<{sender}>")];
        commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        for command in commands {
            let reply = self.send(&command);
            if reply.code() / 100 != 2 {
                return reply;
            }
        }
        self.data(message)
    }

    /// STARTTLS and the handshake; whatever certificate the server has will do. EHLO again afterwards.
    pub(crate) fn starttls(&mut self) {
        self.start_tls_with(|config| config.with_no_client_auth());
    }

    /// As `starttls`, with the client certificate (CN `client.example.net`) of an instance's `tls_directory()`.
    pub(crate) fn starttls_with_certificate(&mut self, directory: &Path) {
        let certificate = CertificateDer::from_pem_file(directory.join("client.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(directory.join("client.key")).unwrap();
        self.start_tls_with(|config| config.with_client_auth_cert(vec![certificate], key).unwrap());
    }

    /// Logs in with AUTH PLAIN; gives the reply.
    pub(crate) fn auth_plain(&mut self, user: &str, password: &str) -> Reply {
        self.send(&format!("AUTH PLAIN {}", base64(format!("\0{user}\0{password}").as_bytes())))
    }

    /// Sends these bytes as they are and reads nothing.
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        let stream = self.stream.as_mut().unwrap().as_io();
        stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()).expect("the server takes bytes");
    }

    /// Reads one reply, of one line or more.
    pub(crate) fn read_reply(&mut self) -> Reply {
        let mut reply = Reply { bytes: Vec::new() };
        loop {
            let line = self.read_line().unwrap_or_else(|| panic!("the server closed after {:?}", reply.text()));
            let last = line.get(3) != Some(&b'-');
            reply.bytes.extend(line);
            if last {
                return reply;
            }
        }
    }

    /// Waits until the server closes the connection; false if it says something instead, or nothing for too long.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && matches!(self.read_more(), Ok(0))
    }

    /// Reads until the server closes, whatever it says.
    pub(crate) fn read_to_end(&mut self) {
        while self.read_more().expect("the server closes") > 0 {}
    }

    fn start_tls_with(
        &mut self,
        client_auth: impl FnOnce(rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>) -> ClientConfig,
    ) {
        let reply = self.send("STARTTLS");
        assert_eq!(reply.code(), 220, "{reply}");
        assert!(self.unread.is_empty(), "the server speaks before the handshake");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
        let name = ServerName::try_from("mx.example.test").unwrap();
        let mut tls = ClientConnection::new(Arc::new(client_auth(config)), name).unwrap();
        let Some(Stream::Plain(mut plain)) = self.stream.take() else { panic!("STARTTLS within TLS") };
        while tls.is_handshaking() {
            tls.complete_io(&mut plain).expect("the TLS handshake succeeds");
        }
        self.stream = Some(Stream::Tls(Box::new(StreamOwned::new(tls, plain))));
    }

    /// The next line with its line end; `None` if the server has closed.
    fn read_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                return Some(self.unread.drain(..=end).collect());
            }
            match self.read_more() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => panic!("no reply: {error}; so far {:?}", String::from_utf8_lossy(&self.unread)),
            }
        }
    }

    /// Reads what there is; 0 is the end, however the server made it.
    fn read_more(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 4096];
        match self.stream.as_mut().unwrap().as_io().read(&mut buffer) {
            Ok(length) => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(length)
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => Ok(0),
            // A read with a time limit is not started again by the kernel when the machine was stopped meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_more(),
            Err(error) => Err(error),
        }
    }
}

/// What the server said to one command, byte by byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All lines with their codes, CRLF between them and none after the last.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.strip_suffix("\r\n").unwrap_or(&text).to_owned()
    }

    /// The code of the last line, the one that counts.
    pub(crate) fn code(&self) -> u16 {
        let text = self.text();
        let last = text.lines().last().unwrap_or_default();
        last.get(..3).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no code in {text:?}"))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

impl Stream {
    fn as_io(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream,
        }
    }
}

/// Believes every certificate: the instances sign their own.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | chunk.get(at).map_or(0, |&byte| usize::from(byte)));
        for at in 0..4 {
            text.push(if at <= chunk.len() { char::from(DIGITS[bits >> (18 - 6 * at) & 63]) } else { '=' });
        }
    }
    text
}
