//! A minimal HTTP/1.1 client: one keep-alive connection, one request at a time. It does as
//! little as it can, because it shares the machine with what it measures.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of an answer that is certainly wrong.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a target listens, and how.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    /// TLS, trusting one certificate.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One keep-alive connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    request: Vec<u8>,
    received: Vec<u8>,
    body: Vec<u8>,
}

/// One answer; borrowed from the connection until the next request.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    head: &'a str,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

// === impl Endpoint ===

impl Endpoint {
    pub(crate) fn plain(addr: SocketAddr) -> Self {
        Self { addr, tls: None }
    }

    /// TLS that trusts the certificate in this file and no other.
    pub(crate) fn trusting(addr: SocketAddr, certificate: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate)
            .with_context(|| format!("no certificate in {}", certificate.display()))?;
        roots.add(certificate)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            addr,
            tls: Some(Arc::new(config)),
        })
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self> {
        let stream = TcpStream::connect(endpoint.addr).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &endpoint.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::from(endpoint.addr.ip());
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name, stream).await?)
            }
        };
        Ok(Self {
            stream,
            request: Vec::with_capacity(4096),
            received: Vec::with_capacity(16 << 10),
            body: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends a request whose `head` is everything up to the length (each line ended by CRLF) and
    /// reads the whole answer.
    pub(crate) async fn exchange(&mut self, head: &str, body: &[u8]) -> Result<Answer<'_>> {
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request
            .extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;

        self.received.clear();
        self.body.clear();
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = std::str::from_utf8(self.received.get(..head_end).unwrap_or_default())?;
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("no status in {head:?}"))?;
        let length = header(head, "content-length").and_then(|length| length.parse().ok());
        let chunked = header(head, "transfer-encoding").is_some();
        match length {
            _ if chunked => self.read_chunks(head_end).await?,
            Some(length) => self.read_length(head_end, length).await?,
            None if status == 204 || status == 202 => {}
            None => bail!("an answer without length: {head:?}"),
        }
        let head = std::str::from_utf8(self.received.get(..head_end).unwrap_or_default())?;
        Ok(Answer {
            status,
            head,
            body: &self.body,
        })
    }

    async fn read_length(&mut self, from: usize, length: usize) -> Result<()> {
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        while self.received.len() < from + length {
            self.more().await?;
        }
        let body = self.received.get(from..from + length).unwrap_or_default();
        self.body.extend_from_slice(body);
        Ok(())
    }

    async fn read_chunks(&mut self, mut at: usize) -> Result<()> {
        loop {
            let line_end = loop {
                let rest = self.received.get(at..).unwrap_or_default();
                if let Some(end) = memchr::memmem::find(rest, b"\r\n") {
                    break at + end;
                }
                self.more().await?;
            };
            let size = std::str::from_utf8(self.received.get(at..line_end).unwrap_or_default())?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16)?;
            ensure!(size <= ANSWER_BYTES_MAX, "a chunk of {size} bytes");
            let (from, to) = (line_end + 2, line_end + 2 + size);
            while self.received.len() < to + 2 {
                self.more().await?;
            }
            if size == 0 {
                return Ok(());
            }
            self.body
                .extend_from_slice(self.received.get(from..to).unwrap_or_default());
            at = to + 2;
        }
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(
            self.received.len() <= ANSWER_BYTES_MAX,
            "an answer that does not end"
        );
        ensure!(
            self.stream.read_buf(&mut self.received).await? > 0,
            "connection closed in the middle of an answer"
        );
        Ok(())
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}
