//! Whose address a request has.
//!
//! The socket's peer, unless that peer is a proxy the operator trusts: then the nearest address
//! that is not such a proxy, read from `X-Forwarded-For` or `Forwarded` from the right, since only
//! what a trusted hop appended can be believed. Anything that cannot be read ends the walk at the
//! last address known for certain, so a client can never choose the address it is seen under.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use http::HeaderMap;
use http::header::FORWARDED;

use crate::config::Cidr;
use crate::domain::limits::FORWARDED_HOPS_MAX;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of a TCP connection, as a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Who is at the other end of a Unix socket, as the kernel says it; a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process, where the kernel tells.
    pub pid: Option<i32>,
}

/// The client's address of a request that came from `socket`.
#[must_use]
pub fn client_address(socket: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let socket = socket.to_canonical();
    if !is_trusted(socket, trusted) {
        return socket;
    }
    let plain = values(headers, X_FORWARDED_FOR);
    let standard = values(headers, FORWARDED.as_str());
    match (plain.is_empty(), standard.is_empty()) {
        (true, true) => socket,
        (false, true) => walk(socket, &plain, trusted, plain_hop),
        (true, false) => walk(socket, &standard, trusted, standard_hop),
        // A proxy maintains one of the two and passes the other through as the client wrote it.
        // Which one we cannot know, so they count only if they agree.
        (false, false) => {
            let one = walk(socket, &plain, trusted, plain_hop);
            let other = walk(socket, &standard, trusted, standard_hop);
            if one == other { one } else { socket }
        }
    }
}

/// The address a request came from; `None` if it came over no network.
#[must_use]
pub fn caller(request: &Request, trusted: &[Cidr]) -> Option<IpAddr> {
    let PeerAddress(socket) = request.extensions().get()?;
    Some(client_address(socket.ip(), request.headers(), trusted))
}

fn is_trusted(address: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|range| range.contains(address))
}

/// All lines of a header, in order, as one list. A line that is not text counts as unreadable.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .collect()
}

/// Goes from the nearest hop outwards for as long as hops are trusted.
fn walk(
    socket: IpAddr,
    hops: &[&str],
    trusted: &[Cidr],
    read: fn(&str) -> Option<IpAddr>,
) -> IpAddr {
    let mut known = socket;
    for hop in hops.iter().rev().take(FORWARDED_HOPS_MAX) {
        let Some(address) = read(hop) else { break };
        known = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    known
}

fn plain_hop(hop: &str) -> Option<IpAddr> {
    address(hop.trim())
}

/// One element of RFC 7239: `for=192.0.2.60;proto=http;by=203.0.113.43`.
fn standard_hop(hop: &str) -> Option<IpAddr> {
    let node = hop.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("for")
            .then_some(value.trim())
    })?;
    let bare = node
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(node);
    address(bare)
}

/// An address with or without a port or brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|with_port| with_port.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(socket: &str, lines: &[(&'static str, &str)]) -> String {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8"]
            .iter()
            .map(|range| range.parse().unwrap())
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        client_address(socket.parse().unwrap(), &headers, &trusted).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(seen("192.0.2.1", &[(XFF, "198.51.100.7")]), "192.0.2.1");
        assert_eq!(seen("10.0.0.1", &[(XFF, "198.51.100.7")]), "198.51.100.7");
        assert_eq!(
            seen("::ffff:10.0.0.1", &[(XFF, "198.51.100.7")]),
            "198.51.100.7"
        );
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_the_client_put_in_front_is_not_believed() {
        assert_eq!(
            seen("10.0.0.1", &[(XFF, "1.1.1.1, 198.51.100.7, 10.2.3.4")]),
            "198.51.100.7"
        );
        assert_eq!(
            seen("10.0.0.1", &[(XFF, "1.1.1.1"), (XFF, "198.51.100.7")]),
            "198.51.100.7"
        );
        assert_eq!(
            seen("10.0.0.1", &[(XFF, "1.1.1.1, junk, 10.2.3.4")]),
            "10.2.3.4"
        );
        assert_eq!(seen("10.0.0.1", &[(XFF, "10.9.9.9, 10.2.3.4")]), "10.9.9.9");
        assert_eq!(seen("10.0.0.1", &[(XFF, "")]), "10.0.0.1");
    }

    #[test]
    fn all_ways_to_write_an_address() {
        for (written, meant) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("unknown", "10.0.0.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[(XFF, written)]), meant, "{written}");
        }
        for (written, meant) in [
            ("for=198.51.100.7", "198.51.100.7"),
            (
                "proto=https;For=\"[2001:db8::1]:4711\";by=10.0.0.1",
                "2001:db8::1",
            ),
            (
                "for=1.1.1.1, for=198.51.100.7, for=10.1.1.1",
                "198.51.100.7",
            ),
            ("for=_hidden", "10.0.0.1"),
            ("by=198.51.100.7", "10.0.0.1"),
        ] {
            assert_eq!(
                seen("10.0.0.1", &[("forwarded", written)]),
                meant,
                "{written}"
            );
        }
    }

    #[test]
    fn two_headers_count_only_if_they_agree() {
        let agree = [(XFF, "198.51.100.7"), ("forwarded", "for=198.51.100.7")];
        assert_eq!(seen("10.0.0.1", &agree), "198.51.100.7");
        let differ = [(XFF, "198.51.100.7"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(seen("10.0.0.1", &differ), "10.0.0.1");
    }

    #[test]
    fn a_long_chain_is_cut() {
        let chain = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(
            seen("10.0.0.1", &[(XFF, &format!("1.1.1.1,{chain}"))]),
            "10.0.0.2"
        );
    }
}
