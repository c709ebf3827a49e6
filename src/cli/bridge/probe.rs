//! One look at a server with a key: does it let us in, and what does it show?

use bytes::Bytes;
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::endpoint::Endpoint;
use super::http::{Ask, DISTRUSTED, Http, NO_TLS, OPEN};
use super::session::{self, Failure};
use super::settings::Trust;
use super::wire;
use crate::cli::error::CliError;
use crate::domain::limits::{BRIDGE_BEGIN_WAIT, BRIDGE_LEAVE_MAX};
use crate::protocol::version::LEGACY;

/// Why the tools are not seen, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Unseen {
    pub(in crate::cli) why: String,
    pub(in crate::cli) next: &'static str,
}

/// How many tools a key sees, by a real `initialize` and `tools/list`.
///
/// # Errors
/// Why they are not seen; a [`CliError`] if nobody was asked.
pub(in crate::cli) async fn count_tools(
    endpoint: &Endpoint,
    trust: &Trust,
    key: &SecretString,
) -> Result<Result<usize, Unseen>, CliError> {
    let http = Http::new(endpoint.clone(), trust, key, None)?;
    Ok(look(&http).await.map_err(|failure| unseen(&failure)))
}

/// Each cause has its own cure.
fn unseen(failure: &Failure) -> Unseen {
    let (why, next) = match failure {
        Failure::Away(why) if why.starts_with(DISTRUSTED) => (
            format!("it is not reachable: {why}"),
            "the same with --ca-file PEM, a file with its certificate or its CA's (--allow-self-signed, for a server \
             on this machine)",
        ),
        Failure::Away(why) if why.starts_with(NO_TLS) => (
            format!("it is not reachable: {why}"),
            "the same with http:// in --url, if TLS ends before that server",
        ),
        Failure::Away(why) => (
            format!("it is not reachable: {why}"),
            "look whether a server listens at that address (`legation status` where it runs says which), or name \
             another with --url",
        ),
        failure if failure.is_denial() => (
            format!("it refuses this key: {failure}"),
            "look whether the key is whole and good (`legation key list` where the server runs); `legation key create \
             USER` makes another",
        ),
        Failure::Refused { status, text }
            if *status == StatusCode::BAD_REQUEST && text.contains("https://") =>
        {
            (failure.to_string(), "the same with https:// in --url")
        }
        Failure::Refused { status, .. } if *status == StatusCode::NOT_FOUND => (
            failure.to_string(),
            "the same with a --url whose path is /mcp, or /mcp/NAME of an mcp that is published",
        ),
        other => (
            other.to_string(),
            "the same again; if it stays, `legation status` and the log where the server runs tell more",
        ),
    };
    Unseen { why, next }
}

async fn look(http: &Http) -> Result<usize, Failure> {
    #[derive(Deserialize)]
    struct Listed {
        tools: Vec<Box<RawValue>>,
    }
    let strange =
        |error: serde_json::Error| Failure::Broken(format!("its answer is strange: {error}"));
    let [newest, ..] = LEGACY;
    let params = to_raw_value(&json!({
        "protocolVersion": newest,
        "capabilities": {},
        "clientInfo": {"name": "legation connect", "version": env!("CARGO_PKG_VERSION")},
    }))
    .map_err(strange)?;
    let (session, _) = session::begin(http, &params, 0).await?;
    let ask = |method, body, wait| Ask {
        method,
        body,
        headers: &session.headers,
        wait,
    };
    let nothing = to_raw_value(&json!({})).map_err(strange)?;
    let list = wire::own(wire::OWN_ID, "tools/list", &nothing);
    let heard = session::post(http, ask(Method::POST, list, BRIDGE_BEGIN_WAIT), OPEN).await?;
    let result = session::result(&session::whole(heard, wire::OWN_ID).await?)?;
    let listed: Listed = serde_json::from_str(result.get()).map_err(strange)?;
    // The session ends by itself if it cannot be ended.
    _ = session::post(
        http,
        ask(Method::DELETE, Bytes::new(), BRIDGE_LEAVE_MAX),
        OPEN,
    )
    .await;
    Ok(listed.tools.len())
}
