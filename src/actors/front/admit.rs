//! Who may call what, decided from snapshots alone.

use std::time::Duration;

use crate::domain::audit::Category;
use crate::domain::code::Code;
use crate::domain::limits::EXPOSED_NAME_CHARS_MAX;
use crate::domain::mcp::Mcp;
use crate::protocol::jsonrpc;

use super::super::audit::CALL;
use super::super::catalog::{Route, Routes, View};
use super::super::ctx::Ctx;
use super::super::failure::{self, Reason};
use super::super::handle::Reply;
use super::super::session::SessionHandle;
use super::Called;

/// How many tools a refusal names instead of the one that is not there.
const OTHER_NAMES_MAX: usize = 3;

/// Decides from snapshots alone whether a call may be made, and where it goes.
pub(super) fn admit<'a>(
    ctx: &Ctx,
    routes: &'a Routes,
    session: &SessionHandle,
    called: Called<'_>,
) -> Result<&'a Route, Reason> {
    house_stands(ctx, session)?;
    within_rate(ctx, session)?;
    let Some(route) = called.in_view(routes, session) else {
        return Err(not_in_view(routes, session, called));
    };
    not_denied(ctx, session, route).map(|()| route)
}

/// The same for a route that is known.
pub(super) fn admissible(ctx: &Ctx, session: &SessionHandle, route: &Route) -> Result<(), Reason> {
    house_stands(ctx, session)?;
    not_denied(ctx, session, route)
}

/// Whether the session's key may make a call now. Counted in the log as refused logins are: a client
/// that does not wait must not fill it.
pub(super) fn within_rate(ctx: &Ctx, session: &SessionHandle) -> Result<(), Reason> {
    let Err(wait) = ctx.call_rates.take(&session.key) else {
        return Ok(());
    };
    ctx.metrics.calls_over_rate.increment(1);
    let reason = failure::too_many(ctx.call_rates.per_minute(), wait);
    Err(one_of_many(ctx, session, reason))
}

/// The first of a key's refusals of this kind in a while is on record in full, the others are counted.
fn one_of_many(ctx: &Ctx, session: &SessionHandle, reason: Reason) -> Reason {
    let (key, code) = (session.key.as_str(), reason.code.as_str());
    match ctx.refusals.is_first(CALL, key, code) {
        true => reason,
        false => reason.counted(),
    }
}

fn not_denied(ctx: &Ctx, session: &SessionHandle, route: &Route) -> Result<(), Reason> {
    match ctx.denies_call(session, &route.published.mcp.id, &route.tool) {
        Some(deny) => Err(failure::denied(&deny)),
        None => Ok(()),
    }
}

/// Whether calls are made at all now. A caller who tries again and again while the log cannot be
/// written must not fill the queue in front of it: those refusals are counted.
fn house_stands(ctx: &Ctx, session: &SessionHandle) -> Result<(), Reason> {
    if ctx.is_stopping() {
        return Err(failure::shutting_down());
    }
    if !ctx.may(Category::Call) {
        let text = "no call is made while the audit log cannot be written. Tell your operator.";
        let reason = Reason::new(Code::AuditUnavailable, text);
        return Err(one_of_many(ctx, session, reason));
    }
    if !ctx.gates.kill.is_open() || !ctx.gates.catalog.is_open() {
        let text = "the gateway is starting. Try again in a few seconds.";
        return Err(Reason::new(Code::Starting, text).retry(Duration::from_secs(2)));
    }
    Ok(())
}

fn not_in_view(routes: &Routes, session: &SessionHandle, called: Called<'_>) -> Reason {
    let (Called::Exposed(tool) | Called::Of { tool, .. }) = called;
    let shown: String = tool.chars().take(EXPOSED_NAME_CHARS_MAX).collect();
    let bare = tool.rsplit('.').next().unwrap_or(tool);
    let (user, key) = (&session.user.id, &session.key);
    let hidden = routes.not_subscribed(user, key, tool);
    if let Some(mcp) = hidden.or_else(|| routes.not_subscribed(user, key, bare)) {
        let text = format!(
            "tool `{shown}` belongs to mcp `{mcp}`, to which this key is not subscribed. Ask your \
             operator: legation subscription add {key} {mcp}"
        );
        return Reason::new(Code::NotSubscribed, text);
    }
    let next = match (called, routes.view(key)) {
        (Called::Exposed(_), Some(view)) => others_of_that_name(view, bare),
        _ => None,
    };
    let next = next.unwrap_or_else(|| "List the tools again; names may have changed.".to_owned());
    Reason::new(
        Code::ToolUnknown,
        format!("there is no tool `{shown}`. {next}"),
    )
}

/// Under which names the key has what is called so: whoever had that name before it is gone now.
fn others_of_that_name(view: &View, tool: &str) -> Option<String> {
    let names: Vec<String> = view
        .called(tool)
        .take(OTHER_NAMES_MAX)
        .map(|route| format!("`{}` (mcp `{}`)", route.exposed, route.published.mcp.name))
        .collect();
    let names = match names.as_slice() {
        [] => return None,
        names => names.join(" and "),
    };
    Some(format!(
        "This key has {names}. List the tools again; names may have changed."
    ))
}

pub(super) fn server_error(mcp: &Mcp, reply: &Reply) -> Reason {
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(default)]
        code: i64,
        #[serde(default)]
        message: String,
    }
    let body = reply.line.get(reply.body.clone()).unwrap_or_default();
    let text = match serde_json::from_slice::<Error>(body) {
        Ok(error) => {
            let message: String = error.message.chars().take(2000).collect();
            format!(
                "mcp `{}` answered with error {}: {message}",
                mcp.name, error.code
            )
        }
        Err(_) => format!(
            "mcp `{}` answered with an error of no known shape",
            mcp.name
        ),
    };
    Reason {
        error: Some(
            jsonrpc::proper_error(body).unwrap_or_else(|| reply.line.slice(reply.body.clone())),
        ),
        modern: reply.modern,
        ..Reason::new(Code::ServerError, text)
    }
}
