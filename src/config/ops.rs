//! `[ops]`: health and metrics.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::client::Tls;
use super::schema::{any, section, within};
use crate::domain::limits;

/// Where the listener is, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Listen {
    /// The address.
    #[must_use]
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| {
                format!("`{text}` is neither `off` nor an address and port, such as 127.0.0.1:9464")
            }),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

/// Which isolates are on `/metrics/isolates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolatesPage {
    /// There is no such page.
    Off,
    /// The largest, and all that are not ready.
    Top,
    /// All that are not at rest.
    All,
}

section! {
    /// Health and metrics. Any address but loopback needs `token_file` or `client_ca_file`.
    Ops = "ops" {
        /// Address and port, or `off`.
        listen: Listen = Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))), any();
        /// `off` (plain HTTP), `self` (the client port's own certificate) or `files`.
        tls: Tls = Tls::Off, any();
        /// The certificate chain in PEM, for `tls = "files"`.
        cert_file: Option<PathBuf> = None, any();
        /// Its private key in PEM, for `tls = "files"`.
        key_file: Option<PathBuf> = None, any();
        /// Clients must show a certificate of these authorities (PEM); needs `tls`.
        client_ca_file: Option<PathBuf> = None, any();
        /// A file with the token that scrapers send as `Authorization: Bearer`. Read again when it
        /// changes.
        token_file: Option<PathBuf> = None, any();
        /// `top`, `all` or `off`: which isolates are on `/metrics/isolates`.
        isolates: IsolatesPage = IsolatesPage::Top, any();
        /// Isolates on that page with `top`, by memory; those that are not ready come on top.
        isolates_top: usize = limits::ISOLATES_TOP, within(1, limits::ISOLATE_SERIES_MAX as u64);
    }
}
