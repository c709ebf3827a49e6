//! The beginning of a TLS connection: for whom the client says it is.

/// Bytes of a ClientHello that are looked at; what comes later is not believed.
pub const HELLO_BYTES_MAX: usize = 16 << 10;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed to tell.
    More,
    /// Not TLS.
    Other,
    /// TLS, and the name in it, if there is one.
    Tls(Option<String>),
    /// TLS that cannot be read.
    Broken,
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn look(bytes: &[u8]) -> Hello {
    match bytes {
        [] => return Hello::More,
        [HANDSHAKE] | [HANDSHAKE, 3] => return Hello::More,
        [HANDSHAKE, 3, ..] => {}
        _ => return Hello::Other,
    }
    let mut message = Vec::new();
    let mut rest = bytes;
    // The message may be cut into records.
    loop {
        let Some(([kind, 3, _, high, low], after)) = rest.split_first_chunk::<5>() else {
            let cut = rest.is_empty() || (rest.len() < 5 && rest.first() == Some(&HANDSHAKE));
            return if cut { more(bytes) } else { Hello::Broken };
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != HANDSHAKE || length == 0 {
            return Hello::Broken;
        }
        let part = after.get(..length).unwrap_or(after);
        message.extend_from_slice(part);
        if let [kind, a, b, c, body @ ..] = message.as_slice() {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO || length > HELLO_BYTES_MAX {
                return Hello::Broken;
            }
            if let Some(body) = body.get(..length) {
                return server_name(body).map_or(Hello::Broken, Hello::Tls);
            }
        }
        match after.get(length..) {
            Some(next) if part.len() == length => rest = next,
            _ => return more(bytes),
        }
    }
}

fn more(bytes: &[u8]) -> Hello {
    if bytes.len() >= HELLO_BYTES_MAX {
        Hello::Broken
    } else {
        Hello::More
    }
}

/// The name of the extension `server_name`; the outer `None` is a body that cannot be read.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    // Version and random; session id; cipher suites; compression.
    let rest = body.get(34..)?;
    let (_, rest) = short(rest, 1)?;
    let (_, rest) = short(rest, 2)?;
    let (_, rest) = short(rest, 1)?;
    if rest.is_empty() {
        return Some(None);
    }
    let (mut extensions, _) = short(rest, 2)?;
    while !extensions.is_empty() {
        let (kind, after) = extensions.split_first_chunk::<2>()?;
        let (value, next) = short(after, 2)?;
        if u16::from_be_bytes(*kind) == SERVER_NAME {
            let (names, _) = short(value, 2)?;
            let (0, name) = names.split_first()? else {
                return None;
            };
            let (name, _) = short(name, 2)?;
            return Some(Some(String::from_utf8(name.to_vec()).ok()?));
        }
        extensions = next;
    }
    Some(None)
}

/// A part with its length in front, in `width` bytes; and what follows it.
fn short(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0, |all, b| all << 8 | usize::from(*b));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A ClientHello as a real client sends it.
    fn hello(name: &str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    #[test]
    fn the_name_is_found_as_soon_as_it_is_whole() {
        let bytes = hello("api.example.com");
        for cut in 0..bytes.len() {
            assert_eq!(look(&bytes[..cut]), Hello::More, "{cut}");
        }
        let named = Hello::Tls(Some("api.example.com".to_owned()));
        assert_eq!(look(&bytes), named);
        // Cut into records of 100 bytes.
        let mut cut = Vec::new();
        for part in bytes[5..].chunks(100) {
            cut.extend([HANDSHAKE, 3, 1, 0, u8::try_from(part.len()).unwrap()]);
            cut.extend(part);
        }
        assert_eq!(look(&cut), named);
    }

    #[test]
    fn an_address_is_no_name() {
        assert_eq!(look(&hello("192.0.2.1")), Hello::Tls(None));
    }

    #[test]
    fn other_protocols_are_other_and_nonsense_is_broken() {
        assert_eq!(look(b"GET / HTTP/1.1\r\n"), Hello::Other);
        assert_eq!(look(b"SSH-2.0"), Hello::Other);
        let mut bytes = hello("x.y");
        bytes[5] = 2;
        assert_eq!(look(&bytes), Hello::Broken);
        let mut long = vec![HANDSHAKE, 3, 1, 0xff, 0xff, CLIENT_HELLO, 0xff, 0xff, 0xff];
        long.resize(100, 0);
        assert_eq!(look(&long), Hello::Broken);
    }

    proptest! {
        #[test]
        fn anything_is_survived(
            head in prop::bool::ANY,
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut all = if head { vec![HANDSHAKE, 3, 1] } else { Vec::new() };
            all.extend(bytes);
            let _ = look(&all);
        }

        #[test]
        fn a_flipped_byte_never_makes_another_name(at in 0usize..200, bit in 0u8..8) {
            let mut bytes = hello("api.example.com");
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Hello::Tls(Some(name)) = look(&bytes) {
                prop_assert!(name.len() <= bytes.len());
            }
        }
    }
}
