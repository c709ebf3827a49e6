//! What a call's arguments not fitting the schema of its tool comes to, as its mcp says.

use serde_json::value::RawValue;

use crate::domain::arguments::{Held, Unchecked, Unfit};
use crate::domain::code::Code;
use crate::domain::talk::Check;
use crate::telemetry::metrics::labels::ArgumentCheck;

use super::super::catalog::Route;
use super::super::ctx::Ctx;
use super::super::failure::Reason;

/// Whether a call may go on with these arguments.
pub(super) async fn check(ctx: &Ctx, route: &Route, arguments: &RawValue) -> Result<(), Reason> {
    // Without one, nothing is checked.
    let Some(schema) = &route.schema else {
        return Ok(());
    };
    let (mcp, meter) = (&route.published.mcp, &route.published.meter);
    let held = schema.hold(&ctx.schemas, arguments.get()).await;
    let (rule, reason) = match &held {
        Ok(Held::Fit) => {
            meter.arguments(ArgumentCheck::Fit);
            return Ok(());
        }
        Err(unfit) => {
            meter.arguments(ArgumentCheck::Unchecked);
            if schema.is_worth_telling(&ctx.schemas) {
                tell_unfit(route, unfit);
            }
            return Ok(());
        }
        Ok(Held::Misfit(misfit)) => (
            format!("{} at {}", misfit.keyword, misfit.rule),
            misfit_reason(route, &misfit.to_string()),
        ),
        Ok(Held::Unchecked(why)) => ("unchecked".to_owned(), unchecked_reason(route, *why)),
    };
    if mcp.talk.arguments == Check::Enforce {
        meter.arguments(ArgumentCheck::Refused);
        return Err(reason.rule(rule));
    }
    meter.arguments(ArgumentCheck::Warned);
    if schema.is_worth_telling(&ctx.schemas) {
        tracing::warn!(
            mcp.name = %mcp.name,
            tool = %route.tool,
            rule,
            "a call's arguments do not fit the schema of its tool, or cannot be checked; it goes on"
        );
    }
    Ok(())
}

fn tell_unfit(route: &Route, unfit: &Unfit) {
    tracing::warn!(
        mcp.name = %route.published.mcp.name,
        tool = %route.tool,
        "calls go on unchecked, because the tool's schema is not used: {unfit}"
    );
}

fn misfit_reason(route: &Route, misfit: &str) -> Reason {
    let text = format!(
        "the arguments of tool `{}` of mcp `{}` do not fit its schema: {misfit}. Correct them and \
         call again; the tool's inputSchema says what it takes.",
        route.tool, route.published.mcp.name
    );
    Reason::new(Code::ArgumentsInvalid, text)
}

fn unchecked_reason(route: &Route, why: Unchecked) -> Reason {
    let (tool, mcp) = (&route.tool, &route.published.mcp.name);
    match why {
        Unchecked::Busy => {
            let text = format!(
                "the arguments of tool `{tool}` of mcp `{mcp}` {why}. Try again in a moment."
            );
            Reason::new(Code::Busy, text).retry(std::time::Duration::from_secs(1))
        }
        Unchecked::Costly | Unchecked::Unreadable(_) => {
            let text = format!(
                "the arguments of tool `{tool}` of mcp `{mcp}` cannot be held against its schema: \
                 what was sent {why}. Send it simpler, or less at once."
            );
            Reason::new(Code::ArgumentsInvalid, text)
        }
    }
}
