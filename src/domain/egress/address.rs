//! Which addresses the gateway connects an isolate to.
//!
//! Refused whatever a rule says: what belongs to a link or to the host's cloud. Refused unless a rule
//! says `/private`: the host itself, private networks, and what the world does not route but a
//! laboratory may. An address inside another (mapped,
//! translated, tunnelled) is looked at as what it leads to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services that do not have a link-local address.
const METADATA: [IpAddr; 6] = [
    // Google.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Oracle.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    // Scaleway.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    // Azure.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle, of old.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Whether it may be connected to.
///
/// # Errors
/// Why not.
pub fn check(address: IpAddr, private: bool) -> Result<(), &'static str> {
    if METADATA.contains(&address) {
        return Err("it is a cloud's metadata address");
    }
    match address {
        IpAddr::V4(v4) => v4_check(v4, private),
        IpAddr::V6(v6) => {
            // Both ways of reading it, for we do not know which its translator takes.
            if let Some(v4) = wide(v6) {
                check(IpAddr::V4(v4), private)?;
            }
            match inner(v6) {
                Some(v4) => check(IpAddr::V4(v4), private),
                None => v6_check(v6, private),
            }
        }
    }
}

fn v4_check(address: Ipv4Addr, private: bool) -> Result<(), &'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (169, 254, _) => Err("it is link-local or a cloud's metadata address"),
        (0, ..) | (240..=255, ..) => Err("it is no address of a host"),
        (224..=239, ..) => Err("it is a multicast address"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) | (198, 18..=19, _) | (192, 88, 99)
            if !private =>
        {
            Err("it is reserved for documentation and tests; a rule may say /private")
        }
        (127, ..) if !private => Err("it is the host itself; a rule may say /private"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) | (192, 0, 0)
            if !private =>
        {
            Err("it is a private address; a rule may say /private")
        }
        _ => Ok(()),
    }
}

fn v6_check(address: Ipv6Addr, private: bool) -> Result<(), &'static str> {
    let [first, second, ..] = address.segments();
    match first {
        _ if address.is_unspecified() => Err("it is no address of a host"),
        _ if address.is_loopback() && private => Ok(()),
        _ if address.is_loopback() => Err("it is the host itself; a rule may say /private"),
        0xfe80..=0xfeff => Err("it is link-local"),
        0xff00..=0xffff => Err("it is a multicast address"),
        // AWS, over IPv6: metadata, credentials of pods, and whatever else it puts there.
        0xfd00 if second == 0xec2 => Err("it is a cloud's metadata address"),
        0xfc00..=0xfdff if private => Ok(()),
        0xfc00..=0xfdff => Err("it is a private address; a rule may say /private"),
        0x2001 if second == 0 => Err("it is a tunnel's"),
        0x2001 if second == 0xdb8 && !private => {
            Err("it is reserved for documentation; a rule may say /private")
        }
        0x2000..=0x3fff => Ok(()),
        _ => Err("it is no address of a host"),
    }
}

/// The IPv4 address in one of NAT64's local prefix, where that is 48 bits long (RFC 6052); `None` where
/// none stands there.
fn wide(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, ..] = address.segments();
    let ([one, two], [_, three], [four, _]) = (d.to_be_bytes(), e.to_be_bytes(), f.to_be_bytes());
    let there = (a, b, c) == (0x64, 0xff9b, 1) && (d, e, f) != (0, 0, 0);
    there.then(|| Ipv4Addr::new(one, two, three, four))
}

/// The IPv4 address that an IPv6 address leads to.
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match (a, b, c, d, e, f) {
        // Mapped; compatible, of old, but not `::` and `::1`.
        (0, 0, 0, 0, 0, 0xffff) => Some(pair(g, h)),
        (0, 0, 0, 0, 0, 0) if g != 0 => Some(pair(g, h)),
        // NAT64, the well-known and the local prefix.
        (0x64, 0xff9b, 0, 0, 0, 0) | (0x64, 0xff9b, 1, ..) => Some(pair(g, h)),
        // 6to4.
        (0x2002, high, low, ..) => Some(pair(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, private: bool) -> bool {
        check(text.parse().unwrap(), private).is_ok()
    }

    #[test]
    fn the_world_is_allowed() {
        for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "172.32.0.1"] {
            assert!(checked(text, false), "{text}");
        }
    }

    #[test]
    fn private_networks_only_where_a_rule_says_so() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "203.0.113.80",
            "198.18.0.1",
            "2001:db8::1",
            "::1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
            "::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "64:ff9b:1:a00:0:100:101:101",
        ] {
            assert!(!checked(text, false), "{text}");
            assert!(checked(text, true), "{text}");
        }
    }

    #[test]
    fn links_and_metadata_never() {
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00:101:101",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:ec2:1::1",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "2001::1",
            "100::1",
        ] {
            assert!(!checked(text, true), "{text}");
        }
    }
}
