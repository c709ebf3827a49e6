//! The beginning of a run, in one of two ways: `initialize`, or `server/discover`, by which a server without
//! sessions says what it is.
//!
//! Which way is known of the definition, since it was asked once ([`super::super::eras`]), or of the slot, whose server
//! may be another. A discovery of one of which it is not known asks by `server/discover` first; any other start by
//! `initialize`, as all servers up to 2025-11-25 expect, and by the other way if that is refused. So an old server meets
//! a question that it does not know once, and not at each start.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::era::Era;
use crate::domain::limits::{ERA_FALLBACK_WAIT, ERA_PROBE_WAIT};
use crate::domain::remote::Transport;
use crate::domain::verdict::Verdict;
use crate::protocol::envelope::ReplyKind;
use crate::protocol::extensions::Extensions;
use crate::protocol::handshake::{self, ServerInfo};
use crate::protocol::outbound::{self, DISCOVER, Found};

use super::super::eras::Bearing;
use super::super::handle::{CallError, Handle, Posed, Reply};
use super::super::slot::Principal;
use super::RunArgs;
use super::start::{ask, body, too_slow, verdict_on};

const INITIALIZE: &str = "initialize";

/// The first question, and its answer to come.
pub(super) struct Greeting {
    by: Era,
    posed: Posed,
}

/// What was found.
pub(super) struct Begun {
    pub(super) era: Era,
    /// The server says so itself. Else it is spoken to as one of the older era because it gave no answer of its own to
    /// the newer question.
    pub(super) said: bool,
    pub(super) server: ServerInfo,
}

/// As what the beginning is counted.
pub(super) const fn phase(era: Era) -> &'static str {
    match era {
        Era::Legacy => "initialize",
        Era::Modern => "discover",
    }
}

/// What is known of the definition.
pub(super) fn known(args: &RunArgs) -> Option<Era> {
    let mcp = &args.slot.mcp;
    args.ctx.eras.of(&mcp.id, &mcp.config_hash())
}

/// Whether its transport knows no newer era.
fn is_older(args: &RunArgs) -> bool {
    let remote = args.slot.mcp.program.remote.as_ref();
    remote.is_some_and(|remote| remote.transport == Transport::Sse)
}

/// Which era a server is asked in first.
fn era_of(args: &RunArgs) -> Era {
    let slot = &args.slot;
    // Our own installer, and what knows no newer transport.
    if slot.key.is_install() || is_older(args) {
        return Era::Legacy;
    }
    let known = known(args);
    match (slot.manners.of(known), known) {
        (Some(Bearing::Speaks(own)), _) => return own,
        (Some(Bearing::Shy), _) => return Era::Legacy,
        (Some(Bearing::Doubtful), _) | (None, None) => {}
        // What has become of an old one is what a discovery is for.
        (None, Some(Era::Legacy)) if slot.key.is_probe() => {}
        (None, Some(known)) => return known,
    }
    // One behind HTTP is asked at each first start: that costs a request, and ends nothing.
    match slot.key.is_probe() || slot.mcp.program.is_remote() {
        true => Era::Modern,
        false => Era::Legacy,
    }
}

/// The first line, and what waits for its answer.
pub(super) fn first(args: &RunArgs, handle: &Arc<Handle>) -> Result<(Bytes, Greeting), Verdict> {
    let by = era_of(args);
    let (method, params) = match by {
        Era::Legacy => (INITIALIZE, initialize_params(args)),
        Era::Modern => (DISCOVER, outbound::own_params("")),
    };
    let (line, posed) = handle
        .pose(method, &params)
        .map_err(|error| verdict_on(args, handle, method, error))?;
    Ok((line, Greeting { by, posed }))
}

fn initialize_params(args: &RunArgs) -> Bytes {
    let key = &args.slot.key;
    handshake::initialize_params(key.questions, &extensions(args))
}

/// The extensions that the server is told of: those of a session that it runs for, which it has as well. What many share
/// cannot say which of them has what.
fn extensions(args: &RunArgs) -> Extensions {
    let (ctx, slot) = (&args.ctx, &args.slot);
    let Principal::Session(user, session) = &slot.key.principal else {
        return Extensions::NONE;
    };
    let session = ctx.sessions.pin().get(&session.bits()).cloned();
    let card = ctx.abilities.card(&slot.mcp.id, &slot.key.config, user);
    match (session, card) {
        (Some(session), Some(card)) => session.extensions().both(&card.extensions),
        _ => Extensions::NONE,
    }
}

/// Which era the server speaks, and what it says of itself.
pub(super) async fn greet(
    args: &RunArgs,
    handle: &Arc<Handle>,
    greeting: Greeting,
    deadline: Instant,
) -> Result<Begun, Verdict> {
    let begun = match greeting.by {
        Era::Legacy => by_initialize(args, handle, greeting.posed, deadline).await,
        Era::Modern => by_discover(args, handle, greeting.posed, deadline).await,
    };
    if let Err(Verdict::Handshake { .. } | Verdict::Exited { .. }) = begun {
        // It is not what it was known as: the next one here is asked anew. Others may have better ones.
        args.slot.manners.show(Bearing::Doubtful, known(args));
    }
    begun
}

/// A server that is known as, or taken for, one of the older era.
async fn by_initialize(
    args: &RunArgs,
    handle: &Arc<Handle>,
    posed: Posed,
    deadline: Instant,
) -> Result<Begun, Verdict> {
    let answered = posed.answer(deadline).await;
    let reply = answered.map_err(|error| verdict_on(args, handle, INITIALIZE, error))?;
    // It may speak both.
    let begun = legacy(args, &reply, is_older(args));
    if reply.kind == ReplyKind::Result {
        return begun;
    }
    // One of the newer era knows no such method.
    let soon = deadline.min(Instant::now() + ERA_FALLBACK_WAIT);
    match asked_again(args, handle, soon).await {
        Some(Ok(server)) => Ok(newer(server)),
        Some(Err(detail)) => Err(Verdict::Handshake { detail }),
        // What it said first is the better reason.
        None => begun,
    }
}

/// Asks a server what it is, once more if it wants that; `None` if it is none of this era.
async fn asked_again(
    args: &RunArgs,
    handle: &Arc<Handle>,
    until: Instant,
) -> Option<Result<ServerInfo, String>> {
    let params = outbound::own_params("");
    for _ in 0..2 {
        let reply = ask(args, handle, DISCOVER, &params, until).await.ok()?;
        match modern(args, &reply) {
            Ok(Found::Modern(server)) => return Some(Ok(server)),
            Ok(Found::Again) => {}
            Ok(Found::Older | Found::Unsaid) => return None,
            Err(detail) => return Some(Err(detail)),
        }
    }
    None
}

/// A server that may be, or is known as, one of the newer era.
async fn by_discover(
    args: &RunArgs,
    handle: &Arc<Handle>,
    posed: Posed,
    deadline: Instant,
) -> Result<Begun, Verdict> {
    // The other question still has its time.
    let waited = Instant::now() + ERA_PROBE_WAIT.min(args.deadline / 2);
    let discovered = posed.answer(deadline);
    tokio::pin!(discovered);
    let first = tokio::time::timeout_at(waited.min(deadline), &mut discovered).await;
    let silent = first.is_err();
    let mut said = match first {
        Err(_) => false,
        Ok(Ok(reply)) => match modern(args, &reply) {
            Ok(Found::Modern(server)) => return Ok(newer(server)),
            Ok(Found::Older) => true,
            Ok(Found::Unsaid) => false,
            Ok(Found::Again) => match asked_again(args, handle, waited).await {
                Some(Ok(server)) => return Ok(newer(server)),
                Some(Err(_)) | None => false,
            },
            Err(detail) => return Err(Verdict::Handshake { detail }),
        },
        Ok(Err(error)) => {
            if let CallError::Ended(end) = &error
                && let Verdict::Exited { .. } | Verdict::Signaled { .. } = end.verdict
            {
                args.slot.manners.show(Bearing::Shy, known(args));
            }
            return Err(verdict_on(args, handle, DISCOVER, error));
        }
    };
    let params = initialize_params(args);
    let initialized = handle.ask(INITIALIZE, &params, deadline);
    tokio::pin!(initialized);
    // One that is slow to start answers both, in any order.
    let answered = tokio::select! {
        biased;
        late = &mut discovered, if silent => {
            match late.ok().map(|reply| modern(args, &reply)) {
                Some(Ok(Found::Modern(server))) => return Ok(newer(server)),
                Some(Ok(Found::Older)) => said = true,
                _ => {}
            }
            initialized.await
        }
        answered = &mut initialized => {
            let refused = matches!(&answered, Ok(reply) if reply.kind == ReplyKind::Error);
            if silent && refused {
                // It may be about to say why.
                let soon = deadline.min(Instant::now() + ERA_FALLBACK_WAIT);
                if let Ok(Ok(reply)) = tokio::time::timeout_at(soon, &mut discovered).await
                    && let Ok(Found::Modern(server)) = modern(args, &reply)
                {
                    return Ok(newer(server));
                }
            }
            answered
        }
    };
    match answered {
        Ok(reply) => legacy(args, &reply, said),
        Err(CallError::TimedOut) => Err(too_slow(INITIALIZE, args.deadline)),
        Err(error) => Err(verdict_on(args, handle, INITIALIZE, error)),
    }
}

fn newer(server: ServerInfo) -> Begun {
    Begun {
        era: Era::Modern,
        said: true,
        server,
    }
}

fn legacy(args: &RunArgs, reply: &Reply, said: bool) -> Result<Begun, Verdict> {
    let read = body(&args.occupant.record, reply).and_then(handshake::read_initialize);
    read.map_err(|detail| Verdict::Handshake { detail })
        .map(|server| Begun {
            era: Era::Legacy,
            said,
            server,
        })
}

fn modern(args: &RunArgs, reply: &Reply) -> Result<Found, String> {
    let bytes = reply.line.get(reply.body.clone()).unwrap_or_default();
    let found = match reply.kind {
        ReplyKind::Result => outbound::read_discover(bytes),
        ReplyKind::Error => outbound::read_refusal(bytes),
    };
    found.map_err(|why| args.occupant.record.clean_text(&why))
}
