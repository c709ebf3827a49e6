//! `[client]`: the port clients talk to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::schema::{any, section, within};
use crate::domain::limits;

/// Where the port's certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Made at the first start and signed by itself.
    #[serde(rename = "self")]
    SelfSigned,
    /// Read from `cert_file` and `key_file`.
    Files,
    /// None: plain HTTP.
    Off,
}

section! {
    /// The port clients talk to.
    Client = "client" {
        /// Address and port.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)), any();
        /// `self` (a certificate made at the first start), `files` or `off` (plain HTTP).
        tls: Tls = Tls::SelfSigned, any();
        /// The certificate chain in PEM, for `tls = "files"`.
        cert_file: Option<PathBuf> = None, any();
        /// Its private key in PEM, for `tls = "files"`.
        key_file: Option<PathBuf> = None, any();
        /// Networks whose `X-Forwarded-For` is believed: `["10.0.0.0/8"]`.
        trusted_proxies: Vec<Cidr> = Vec::new(), any();
        /// Whether MCP clients of the transport of 2024-11-05 (HTTP+SSE) are served as well, at `/sse`.
        http_sse: bool = false, any();
        /// Bytes of one request body.
        body_bytes_max: usize = limits::BODY_BYTES_MAX, within(1 << 10, limits::BODY_BYTES_CEILING as u64);
    }
}
