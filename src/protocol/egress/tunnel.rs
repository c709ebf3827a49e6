//! A proxy's requests: `CONNECT host:port`, and nothing else.

/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// What the first bytes from a proxy's client are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// More bytes are needed.
    More,
    /// A tunnel to there; what follows the head begins at `length`.
    Connect {
        /// The host as the client wrote it.
        host: String,
        /// The port.
        port: u16,
        /// Bytes of the head.
        length: usize,
    },
    /// Another request.
    Other,
    /// No request.
    Broken,
}

/// Looks at the first bytes.
#[must_use]
pub fn look(bytes: &[u8]) -> Head {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return if bytes.len() >= HEAD_BYTES_MAX {
            Head::Broken
        } else {
            Head::More
        };
    };
    let head = bytes.get(..end).unwrap_or_default();
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else {
        return Head::Broken;
    };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Head::Broken;
    };
    if !version.starts_with("HTTP/1.") {
        return Head::Broken;
    }
    if method != "CONNECT" {
        return Head::Other;
    }
    let parts = target.rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if port > 0 && !host.is_empty() => Head::Connect {
            host: host.to_owned(),
            port,
            length: end + 4,
        },
        _ => Head::Broken,
    }
}

/// The request for a tunnel to there, of a proxy of somebody else; `login` is what it asks for, as a header has it.
#[must_use]
pub fn request(host: &str, port: u16, login: Option<&str>) -> Vec<u8> {
    let login = login.map_or_else(String::new, |login| {
        format!("Proxy-Authorization: {login}\r\n")
    });
    format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n").into_bytes()
}

/// What a proxy answered, up to the end of its head: whether the tunnel is open, or its first line.
///
/// # Errors
/// It is not.
pub fn opened(head: &[u8]) -> Result<(), String> {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    match status {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        _ => Err(line.chars().take(128).collect()),
    }
}

/// The answer that opens a tunnel.
pub const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// An answer that does not, with a text for whoever reads the client's log.
#[must_use]
pub fn refusal(status: &str, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port() {
        let bytes = b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\nrest";
        let wanted = Head::Connect {
            host: "api.example.com".to_owned(),
            port: 443,
            length: bytes.len() - 4,
        };
        assert_eq!(look(bytes), wanted);
        for cut in 0..bytes.len() - 4 {
            assert_eq!(look(&bytes[..cut]), Head::More, "{cut}");
        }
        let six = look(b"CONNECT [::1]:80 HTTP/1.0\r\n\r\n");
        assert!(matches!(six, Head::Connect { host, .. } if host == "[::1]"));
    }

    #[test]
    fn a_proxy_s_answer_opens_the_tunnel_or_says_why_not() {
        assert_eq!(opened(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n"), Ok(()));
        assert_eq!(opened(b"HTTP/1.0 200\r\n\r\n"), Ok(()));
        let refused = opened(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        assert!(refused.unwrap_err().contains("407"));
        assert!(opened(b"HTTP/1.1 2000 x\r\n\r\n").is_err());
        assert!(opened(b"\xff\r\n\r\n").is_err());
        for login in [None, Some("Basic eDp5")] {
            let text = request("a.example", 443, login);
            let Head::Connect { host, port, length } = look(&text) else {
                panic!("no request");
            };
            assert_eq!((host.as_str(), port), ("a.example", 443));
            assert_eq!(length, text.len(), "the login is in the head");
        }
    }

    #[test]
    fn anything_else_is_not() {
        assert_eq!(look(b"GET http://x/ HTTP/1.1\r\n\r\n"), Head::Other);
        for text in [
            "CONNECT x HTTP/1.1\r\n\r\n",
            "CONNECT x:0 HTTP/1.1\r\n\r\n",
            "CONNECT x:70000 HTTP/1.1\r\n\r\n",
            "CONNECT :443 HTTP/1.1\r\n\r\n",
            "CONNECT x:443 SMTP\r\n\r\n",
            "CONNECT a b:443 HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(look(text.as_bytes()), Head::Broken, "{text}");
        }
        assert_eq!(look(&[b'x'; HEAD_BYTES_MAX]), Head::Broken);
    }

    proptest! {
        #[test]
        fn anything_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = look(&bytes);
        }
    }
}
