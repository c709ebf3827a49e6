//! What a client says before its message: who it is, what it takes, which version it speaks.

use std::net::IpAddr;

use http::header::{ACCEPT, AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;

use super::SESSION;
use crate::actors::front::Bearer;
use crate::api::client::body;
use crate::api::error::Error;
use crate::domain::code::Code;
use crate::domain::limits::PRESENTED_KEY_BYTES_MAX;
use crate::protocol::modern::Says;
use crate::protocol::repeated::Header;
use crate::protocol::version;

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";

const LAST_EVENT: &str = "last-event-id";

/// Whether a client's streams can be taken up again where they were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// They cannot.
    Nothing,
    /// From any message on.
    Messages,
    /// From the beginning on: it is told how before there is a message, in an event without one, which older
    /// clients would take for a broken message.
    Primed,
}

/// The headers we look at.
#[derive(Debug)]
pub(super) struct Head {
    /// A key or a token.
    pub(super) bearer: Bearer,
    /// The session it names.
    pub(super) session: Option<String>,
    /// Whether it takes a stream of events.
    pub(super) takes_events: bool,
    /// What it repeats of its message.
    pub(super) says: Says,
    /// Whether its streams can be taken up again.
    pub(super) keeps: Keeps,
    /// The versions that are spoken where it came to, the newest first.
    pub(super) speaks: &'static [&'static str],
    /// The last event it had of a stream that it wants to take up again.
    pub(super) last_event: Option<String>,
}

impl Head {
    /// Of a request with a message.
    ///
    /// # Errors
    /// Another origin, no JSON, an answer it would not take, no bearer.
    pub(super) fn of(headers: &HeaderMap, from: Option<IpAddr>) -> Result<Self, Error> {
        let mut head = Self::without_body(headers, from)?;
        body::is_json(headers)?;
        let (takes_json, takes_events) = accepts(headers);
        if !takes_json {
            let text = "the answer is JSON or a stream of events: send `Accept: application/json, \
                        text/event-stream`";
            return Err(Error::new(Code::NotAcceptable, text));
        }
        head.takes_events = takes_events;
        Ok(head)
    }

    /// Of a request for a stream.
    ///
    /// # Errors
    /// Another origin, no bearer, and a stream is not taken.
    pub(super) fn of_stream(headers: &HeaderMap, from: Option<IpAddr>) -> Result<Self, Error> {
        let head = Self::without_body(headers, from)?;
        match accepts(headers) {
            (_, true) => Ok(head),
            _ => {
                let text = "the answer is a stream of events: send `Accept: text/event-stream`";
                Err(Error::new(Code::NotAcceptable, text))
            }
        }
    }

    /// Whether it names a session, or its bearer is one.
    pub(super) fn names_a_session(&self) -> bool {
        self.session.is_some() || !self.bearer.is_key()
    }

    /// Of a request without a body.
    ///
    /// # Errors
    /// Another origin, no bearer.
    pub(super) fn without_body(headers: &HeaderMap, from: Option<IpAddr>) -> Result<Self, Error> {
        check_origin(headers)?;
        let version = text(headers, VERSION);
        Ok(Self {
            bearer: Bearer::new(bearer(headers)?, from),
            keeps: match version.as_deref() == Some(version::PRIMES) {
                true => Keeps::Primed,
                false => Keeps::Messages,
            },
            speaks: &version::LEGACY,
            last_event: text(headers, LAST_EVENT),
            session: text(headers, SESSION),
            takes_events: false,
            says: Says {
                version,
                method: text(headers, METHOD),
                name: text(headers, NAME),
                unclear: [VERSION, METHOD, NAME]
                    .iter()
                    .any(|name| is_unclear(headers, name)),
            },
        })
    }

    /// Whether it is of a client without sessions.
    pub(super) fn is_modern(&self) -> bool {
        self.session.is_none() && self.says.is_modern(&version::LEGACY)
    }

    /// Refuses a version we do not speak. Without one it is an old client's.
    pub(super) fn check_version(&self) -> Result<(), Error> {
        match &self.says.version {
            Some(asked) if !self.speaks.contains(&asked.as_str()) => {
                let shown: String = asked.chars().take(32).collect();
                Err(Error::invalid(format!(
                    "MCP-Protocol-Version `{}` is not spoken here; we speak {}",
                    shown.escape_debug(),
                    self.speaks.join(", "),
                )))
            }
            _ => Ok(()),
        }
    }
}

/// What a request has of a header that repeats an argument.
pub(super) fn repeated<'a>(headers: &'a HeaderMap, name: &str) -> Header<'a> {
    match headers.get(name).map(HeaderValue::to_str) {
        None => Header::Missing,
        Some(Ok(text)) if !is_unclear(headers, name) => Header::Says(text.trim()),
        Some(_) => Header::Unclear,
    }
}

/// Whether a header is there twice, or is no text.
fn is_unclear(headers: &HeaderMap, name: &str) -> bool {
    let mut all = headers.get_all(name).iter();
    all.next().is_some_and(|value| value.to_str().is_err()) || all.next().is_some()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn bearer(headers: &HeaderMap) -> Result<SecretString, Error> {
    let refused = |text: &str| Err(Error::new(Code::Unauthorized, text));
    let Some(given) = headers.get(AUTHORIZATION) else {
        return refused("the header `Authorization: Bearer <key>` is missing");
    };
    let given = given.to_str().unwrap_or_default();
    let Some((scheme, credential)) = given.split_once(' ') else {
        return refused("the header Authorization is not `Bearer <key>`");
    };
    let credential = credential.trim();
    let fits = (1..=PRESENTED_KEY_BYTES_MAX).contains(&credential.len());
    if !scheme.eq_ignore_ascii_case("bearer") || !fits {
        return refused("the header Authorization is not `Bearer <key>`");
    }
    Ok(SecretString::from(credential))
}

/// Whether JSON is taken, and whether events are. Who says nothing takes everything.
fn accepts(headers: &HeaderMap) -> (bool, bool) {
    let mut said = false;
    let (mut json, mut events) = (false, false);
    for value in headers.get_all(ACCEPT) {
        said = true;
        for part in value.as_bytes().split(|byte| *byte == b',') {
            let kind = part.split(|byte| *byte == b';').next().unwrap_or_default();
            match &*kind.trim_ascii().to_ascii_lowercase() {
                b"*/*" => (json, events) = (true, true),
                b"application/json" | b"application/*" => json = true,
                b"text/event-stream" | b"text/*" => events = true,
                _ => {}
            }
        }
    }
    (json || !said, events || !said)
}

/// A page of another site must not speak through its visitor's browser: an origin is this host's, or of
/// the visitor's own machine, and then so is the host it speaks to.
fn check_origin(headers: &HeaderMap) -> Result<(), Error> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let from = origin.split_once("://").map_or("", |(_, rest)| rest);
    if is_own_machine(from) && host.is_none_or(is_own_machine) {
        return Ok(());
    }
    let shown: String = origin.chars().take(64).collect();
    let text = format!(
        "the origin `{}` may not speak here: browsers are no clients of this port",
        shown.escape_debug()
    );
    Err(Error::new(Code::Denied, text))
}

fn is_own_machine(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    matches!(host, "localhost" | "127.0.0.1" | "::1")
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    const KEY: (&str, &str) = ("authorization", "Bearer k");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn who_is_refused_by_the_headers_and_with_what() {
        for (given, code) in [
            (&[JSON][..], Code::Unauthorized),
            (&[JSON, ("authorization", "Basic eA==")], Code::Unauthorized),
            (&[JSON, ("authorization", "Bearer")], Code::Unauthorized),
            (&[JSON, ("authorization", "Bearer  ")], Code::Unauthorized),
            (&[KEY], Code::UnsupportedMediaType),
            (
                &[KEY, ("content-type", "text/plain")],
                Code::UnsupportedMediaType,
            ),
            (&[KEY, JSON, ("accept", "text/html")], Code::NotAcceptable),
            (
                &[KEY, JSON, ("accept", "text/event-stream")],
                Code::NotAcceptable,
            ),
            (
                &[KEY, JSON, ("origin", "https://evil.example")],
                Code::Denied,
            ),
            (&[KEY, JSON, ("origin", "null")], Code::Denied),
            (
                &[
                    KEY,
                    JSON,
                    ("origin", "http://localhost"),
                    ("host", "evil.example:8443"),
                ],
                Code::Denied,
            ),
        ] {
            assert_eq!(
                Head::of(&headers(given), None).unwrap_err().code(),
                code,
                "{given:?}"
            );
        }
    }

    #[test]
    fn who_is_let_in_and_what_it_takes() {
        for (given, events) in [
            (&[KEY, JSON][..], true),
            (&[KEY, JSON, ("accept", "application/json")], false),
            (
                &[
                    KEY,
                    JSON,
                    ("accept", "application/json;q=1, text/event-stream"),
                ],
                true,
            ),
            (&[KEY, JSON, ("accept", "*/*")], true),
            (
                &[KEY, JSON, ("accept", "Application/JSON, Text/Event-Stream")],
                true,
            ),
            (
                &[
                    KEY,
                    JSON,
                    ("origin", "http://localhost:9"),
                    ("host", "127.0.0.1:8443"),
                ],
                true,
            ),
            (&[("authorization", "bEARER  k"), JSON], true),
        ] {
            let head = Head::of(&headers(given), None).unwrap();
            assert_eq!(
                (head.bearer.text(), head.takes_events),
                ("k", events),
                "{given:?}"
            );
        }
    }

    #[test]
    fn a_version_we_do_not_speak_is_refused() {
        for (version, is_spoken) in [
            ("2025-11-25", true),
            ("2025-06-18", true),
            ("2025-03-26", true),
            ("2024-11-05", false),
            ("2026-07-28", false),
            ("x", false),
        ] {
            let head = Head::of(&headers(&[KEY, JSON, (VERSION, version)]), None).unwrap();
            assert_eq!(head.check_version().is_ok(), is_spoken, "{version}");
        }
        assert!(
            Head::of(&headers(&[KEY, JSON]), None)
                .unwrap()
                .check_version()
                .is_ok()
        );
    }

    proptest! {
        /// Whatever stands in the headers: nobody is let in without a bearer, or from another origin.
        #[test]
        fn any_headers_are_taken(
            values in proptest::collection::vec(proptest::collection::vec(32u8..=255, 0..40), 9),
            twice in 0usize..9,
        ) {
            let names = [
                "authorization", "accept", "content-type", "origin", "host", SESSION, VERSION, NAME, LAST_EVENT,
            ];
            let mut given = HeaderMap::new();
            for (at, (name, value)) in names.iter().zip(&values).enumerate() {
                let name: HeaderName = name.parse().unwrap();
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    given.append(name.clone(), value.clone());
                    if at == twice {
                        given.append(name, value);
                    }
                }
            }
            prop_assert!(Head::of(&given, None).is_err(), "no origin of this machine is random");
            given.remove(ORIGIN);
            given.remove(AUTHORIZATION);
            prop_assert!(Head::without_body(&given, None).is_err());
            given.insert(AUTHORIZATION, HeaderValue::from_static("Bearer k"));
            let head = Head::without_body(&given, None).unwrap();
            for said in [&head.session, &head.last_event, &head.says.version, &head.says.name] {
                prop_assert!(said.as_ref().is_none_or(|said| !said.is_empty()));
            }
        }
    }
}
