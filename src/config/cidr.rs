//! A network: an address and how many of its leading bits count.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Neither an address nor an address with a length.
    #[error("`{0}` is not a network like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
    Malformed(String),
    /// The address has bits past the length: most likely one of the two is wrong.
    #[error("`{given}` has address bits past its length; did you mean {meant}?")]
    HostBits {
        /// What was given.
        given: String,
        /// The network it lies in.
        meant: Cidr,
    },
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The leading bits of an address, as they compare.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - bits.min(32)));
            IpAddr::V4((u32::from(v4) & mask.unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - bits.min(128)));
            IpAddr::V6((u128::from(v6) & mask.unwrap_or(0)).into())
        }
    }
}

impl Cidr {
    /// Whether the address lies in the network. An IPv4 address that a socket shows as
    /// `::ffff:a.b.c.d` is that IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.bits) == self.network
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let malformed = || CidrError::Malformed(text.chars().take(64).collect());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let bits = match bits {
            None => width(address),
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().map_err(|_| malformed())?
            }
            Some(_) => return Err(malformed()),
        };
        if bits > width(address) {
            return Err(malformed());
        }
        let cidr = Self {
            network: masked(address, bits),
            bits,
        };
        if cidr.network == address {
            Ok(cidr)
        } else {
            Err(CidrError::HostBits {
                given: text.to_owned(),
                meant: cidr,
            })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;
    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(cidr: &str, address: &str) -> bool {
        let cidr: Cidr = cidr.parse().unwrap();
        cidr.contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_what_shares_its_bits() {
        for (cidr, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1/32", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            assert!(contains(cidr, inside), "{cidr} {inside}");
            assert!(!contains(cidr, outside), "{cidr} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::/129",
            "::/999",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "localhost",
        ] {
            let error = Cidr::from_str(bad).unwrap_err();
            assert!(matches!(error, CidrError::Malformed(_)), "{bad}");
        }
        let error = Cidr::from_str("10.1.2.3/8").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`10.1.2.3/8` has address bits past its length; did you mean 10.0.0.0/8?"
        );
    }

    #[test]
    fn it_prints_as_it_parses() {
        for text in ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"] {
            assert_eq!(Cidr::from_str(text).unwrap().to_string(), text);
        }
    }
}
