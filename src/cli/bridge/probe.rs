//! One look at a server with a key: does it let us in, and what does it show?

use bytes::Bytes;
use http::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::endpoint::Endpoint;
use super::http::{Ask, Http, OPEN};
use super::session::{self, Failure};
use super::settings::Trust;
use super::wire;
use crate::cli::error::CliError;
use crate::domain::limits::{BRIDGE_BEGIN_WAIT, BRIDGE_LEAVE_MAX};
use crate::protocol::version::LEGACY;

/// How many tools a key sees, by a real `initialize` and `tools/list`.
///
/// # Errors
/// Why they are not seen, for people; a [`CliError`] if nobody was asked.
pub(in crate::cli) async fn count_tools(
    endpoint: &Endpoint,
    trust: &Trust,
    key: &SecretString,
) -> Result<Result<usize, String>, CliError> {
    let http = Http::new(endpoint.clone(), trust, key)?;
    let told = |failure: Failure| match failure {
        Failure::Away(why) => format!("it is not reachable: {why}"),
        failure if failure.is_denial() => format!("it refuses this key: {failure}"),
        other => other.to_string(),
    };
    Ok(look(&http).await.map_err(told))
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
    let list = wire::own("tools/list", &nothing);
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
