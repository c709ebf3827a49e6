//! `POST /v1/sessions/register`: a preshared key becomes a session.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Shared, body};
use crate::actors::front::{Registered, Registration};
use crate::api::error::{Error, json, put_string};
use crate::api::stamp::rfc3339;
use crate::domain::limits::{LABEL_CHARS_MAX, PRESENTED_KEY_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::domain::talk::Questions;

/// What a client that does not say is called. (The standard client always says.)
const UNNAMED: &str = "unnamed";
const UNKNOWN_TOOL: &str = "custom";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    preshared_key: Cow<'a, str>,
    #[serde(borrow, default)]
    friendly_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    host_tool: Option<Cow<'a, str>>,
}

pub(super) async fn register(State(shared): State<Shared>, request: Request) -> Response {
    match registered(&shared, request).await {
        Ok(registered) => json(StatusCode::CREATED, render(&registered)),
        Err(error) => error.into_response(),
    }
}

async fn registered(shared: &Shared, mut request: Request) -> Result<Registered, Error> {
    if let Err(error) = body::is_json(request.headers()) {
        body::discard(request.body_mut()).await;
        return Err(error);
    }
    let bytes = body::read(request.body_mut(), SMALL_BODY_BYTES_MAX).await?;
    let from = shared.caller(&request);
    let registration = parse(&bytes, from)?;
    let registered = shared.front().register(registration).await;
    let address = from.map(tracing::field::display);
    match &registered {
        Ok(new) => {
            tracing::info!(session.id = %new.session, client.address = address, "registered")
        }
        Err(refusal) => {
            let code = refusal.code.as_str();
            tracing::warn!(code, client.address = address, "registration refused");
        }
    }
    Ok(registered?)
}

fn parse(bytes: &[u8], from: Option<IpAddr>) -> Result<Registration, Error> {
    let wire: Wire<'_> = body::parse(bytes)?;
    if wire.preshared_key.len() > PRESENTED_KEY_BYTES_MAX {
        let text = format!("`preshared_key` is longer than {PRESENTED_KEY_BYTES_MAX} bytes");
        return Err(Error::invalid(text));
    }
    Ok(Registration {
        questions: Questions::NONE,
        preshared_key: SecretString::from(wire.preshared_key.as_ref()),
        friendly_name: label("friendly_name", wire.friendly_name, UNNAMED)?,
        host_tool: label("host_tool", wire.host_tool, UNKNOWN_TOOL)?,
        from,
    })
}

/// A text that people will read in tables and logs.
fn label(field: &str, given: Option<Cow<'_, str>>, missing: &str) -> Result<String, Error> {
    let Some(text) = given.filter(|text| !text.is_empty()) else {
        return Ok(missing.to_owned());
    };
    if text.chars().count() > LABEL_CHARS_MAX {
        return Err(Error::invalid(format!(
            "`{field}` has more than {LABEL_CHARS_MAX} characters"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("`{field}` has control characters")));
    }
    Ok(text.into_owned())
}

fn render(registered: &Registered) -> Bytes {
    let mut out = BytesMut::with_capacity(320);
    out.put_slice(b"{\"session_id\":");
    put_string(&mut out, registered.session.as_str());
    out.put_slice(b",\"session_token\":");
    put_string(&mut out, registered.token.expose_secret());
    out.put_slice(b",\"connection_id\":");
    put_string(&mut out, registered.connection.as_str());
    out.put_slice(b",\"expires_at\":\"");
    out.put_slice(&rfc3339(registered.expires_at));
    out.put_slice(b"\",\"profile_id\":");
    put_string(&mut out, registered.user.as_str());
    out.put_u8(b'}');
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ConnectionId, SessionId};
    use crate::domain::name::Name;

    fn complaint(text: &str) -> String {
        parse(text.as_bytes(), None).unwrap_err().to_string()
    }

    #[test]
    fn takes_what_the_standard_client_sends() {
        let registration = parse(
            br#"{"preshared_key":"amb_pk_x","friendly_name":"ada's \u006captop","host_tool":"vscode"}"#,
            None,
        )
        .unwrap();
        assert_eq!(registration.preshared_key.expose_secret(), "amb_pk_x");
        assert_eq!(registration.friendly_name, "ada's laptop");
        assert_eq!(registration.host_tool, "vscode");
    }

    #[test]
    fn only_the_key_is_needed() {
        let registration = parse(br#"{"preshared_key":"k","friendly_name":null}"#, None).unwrap();
        assert_eq!(registration.friendly_name, UNNAMED);
        assert_eq!(registration.host_tool, UNKNOWN_TOOL);
    }

    #[test]
    fn fields_are_checked() {
        assert!(complaint("{}").contains("missing field `preshared_key`"));
        assert!(complaint(r#"{"preshared_key":5}"#).contains("expected"));
        assert!(
            complaint(r#"{"preshared_key":"k","admin":true}"#).contains("unknown field `admin`")
        );
        let long = "ä".repeat(LABEL_CHARS_MAX);
        assert!(
            parse(
                format!(r#"{{"preshared_key":"k","host_tool":"{long}"}}"#).as_bytes(),
                None
            )
            .is_ok()
        );
        let longer = format!(r#"{{"preshared_key":"k","host_tool":"{long}x"}}"#);
        assert!(complaint(&longer).contains("`host_tool`"));
        assert!(
            complaint(r#"{"preshared_key":"k","friendly_name":"\u001b[2J"}"#).contains("control")
        );
        let key = "k".repeat(PRESENTED_KEY_BYTES_MAX + 1);
        let complained = complaint(&format!(r#"{{"preshared_key":"{key}"}}"#));
        assert!(complained.contains("longer") && !complained.contains("kkk"));
    }

    #[test]
    fn the_answer_has_all_five_fields() {
        let registered = Registered {
            session: SessionId::from_random([1; 10]),
            token: SecretString::from("amb_st_secret"),
            connection: ConnectionId::from_random([2; 10]),
            expires_at: 0,
            user: Name::parse("ada").unwrap(),
        };
        let value: serde_json::Value = serde_json::from_slice(&render(&registered)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "session_id": registered.session.as_str(),
                "session_token": "amb_st_secret",
                "connection_id": registered.connection.as_str(),
                "expires_at": "1970-01-01T00:00:00.000Z",
                "profile_id": "ada",
            })
        );
    }
}
