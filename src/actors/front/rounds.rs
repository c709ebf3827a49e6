//! The calls of servers that ask in their answers (MCP 2026-07-28), for clients that do not know of that: who called
//! is asked on the stream of its call, and the call is sent again with the answers, until there is a result. Every
//! round is a request of its own to the server, which has asked for it; the log has one call.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::ids::CallId;
use crate::domain::limits::{MCP_ROUNDS_MAX, ROUND_ANSWERS_BYTES_MAX};
use crate::domain::talk::Question;
use crate::protocol::envelope::ReplyKind;
use crate::protocol::needed::{self, Needed};
use crate::protocol::outbound::{self, Said};
use crate::protocol::state;
use crate::protocol::tasks::newer;

use super::super::calls::News;
use super::super::clock::id_bits;
use super::super::ctx::Ctx;
use super::super::failure::{self, Reason};
use super::super::handle::{Asked, Reply};
use super::super::router::{self, Aside, Ask, Errand};

/// Carries one call, in as many rounds as its server needs. What comes back is for its client as it is: of a server
/// of the other era, it was made so.
pub(super) async fn carry(ctx: &Arc<Ctx>, mut errand: Errand<'_>) -> Result<Reply, Reason> {
    let mut brought = Bytes::new();
    for _ in 0..=MCP_ROUNDS_MAX {
        let reply = match brought.is_empty() {
            true => router::carry(ctx, errand).await?,
            false => {
                let aside = Aside {
                    brought: &brought,
                    ..errand.aside.clone()
                };
                let round = Errand {
                    aside: &aside,
                    ..errand
                };
                router::carry(ctx, round).await?
            }
        };
        if !reply.modern {
            return Ok(reply);
        }
        if errand.aside.modern {
            return passed(&errand, reply);
        }
        let result = reply.line.get(reply.body.clone()).unwrap_or_default();
        if reply.kind == ReplyKind::Error {
            // It was not made: its server wants a client that takes tasks, which this one cannot say of itself. So
            // the gateway does, and waits.
            if let Ask::Tool { arguments } = errand.ask
                && newer::is_required(result)
            {
                let keep = None;
                errand.ask = Ask::Task { arguments, keep };
                continue;
            }
            return Ok(older_error(&errand, reply));
        }
        match outbound::said(result) {
            Said::Complete => return older(&errand, &reply),
            Said::Unknown(kind) => {
                let what = format!("its result is of a type that is not known here: {kind}");
                return Err(wrong(&errand, &what));
            }
            Said::Asks => {
                let needed = asks(&errand, result)?;
                // What the server was told is small against what it says.
                drop(reply);
                brought = answered(ctx, &errand, needed).await?;
            }
        }
    }
    Err(wrong(&errand, "it asks its client without end"))
}

/// What a result asks for, if its server may ask that.
fn asks(errand: &Errand<'_>, result: &[u8]) -> Result<Needed, Reason> {
    if state::asking(method(errand)).is_none() {
        return Err(wrong(errand, "it asks its client where it must not"));
    }
    needed::read(result, errand.declared()).map_err(|why| wrong(errand, &why))
}

/// For a client of the same era, who asks its user itself.
fn passed(errand: &Errand<'_>, reply: Reply) -> Result<Reply, Reason> {
    let result = reply.line.get(reply.body.clone()).unwrap_or_default();
    if reply.kind == ReplyKind::Result && outbound::said(result) == Said::Asks {
        asks(errand, result)?;
    }
    Ok(reply)
}

fn wrong(errand: &Errand<'_>, what: &str) -> Reason {
    failure::unusable(&errand.route.published.mcp, what)
}

fn method<'a>(errand: &Errand<'a>) -> &'a str {
    match errand.ask {
        Ask::Tool { .. } | Ask::Task { .. } => "tools/call",
        Ask::Method { name, .. } => name,
    }
}

/// A result without what only its version knows.
fn older(errand: &Errand<'_>, reply: &Reply) -> Result<Reply, Reason> {
    let result = reply.line.get(reply.body.clone()).unwrap_or_default();
    let line = outbound::older_result(result).map_err(|why| wrong(errand, why))?;
    Ok(Reply {
        body: 0..line.len(),
        line,
        kind: ReplyKind::Result,
        modern: false,
    })
}

fn older_error(errand: &Errand<'_>, reply: Reply) -> Reply {
    let error = reply.line.get(reply.body.clone()).unwrap_or_default();
    match outbound::older_error(error, method(errand)) {
        Some(line) => Reply {
            body: 0..line.len(),
            line,
            kind: ReplyKind::Error,
            modern: false,
        },
        None => Reply {
            modern: false,
            ..reply
        },
    }
}

/// Asks who called; gives what the next round brings.
async fn answered(ctx: &Arc<Ctx>, errand: &Errand<'_>, needed: Needed) -> Result<Bytes, Reason> {
    let until = errand.admitted + errand.route.published.mcp.call_deadline();
    let mut open = Vec::new();
    for (name, posed) in needed.questions {
        let visit = CallId::from_random(id_bits());
        let posed = needed::as_older(posed, visit.as_str());
        let (asked, awaited) = Asked::of_round(posed, until);
        if let Some(news) = &errand.aside.news {
            // One who does not read answers nothing.
            let _ = news.try_send(News::Asked(Box::new(asked)));
        }
        open.push((name, awaited));
    }
    let (mut answers, mut bytes) = (Vec::with_capacity(open.len()), 0_usize);
    let all = async {
        for (name, awaited) in open {
            let unanswered = |(question, why): (Question, String)| {
                failure::unanswered(&errand.route.published.mcp, question, &why)
            };
            let question = awaited.question();
            let answer = awaited.answer().await.map_err(unanswered)?;
            bytes = bytes.saturating_add(answer.len());
            if bytes > ROUND_ANSWERS_BYTES_MAX {
                let why = format!(
                    "what the client answered is larger than {ROUND_ANSWERS_BYTES_MAX} bytes in all"
                );
                return Err(unanswered((question, why)));
            }
            answers.push((name, answer));
        }
        Ok(())
    };
    waited(ctx, errand, all).await?;
    Ok(needed::brought(&answers, needed.state.as_deref()))
}

/// Waits for a client. Meanwhile the call is on no run: it is seen, cancelled and denied where calls wait.
async fn waited(
    ctx: &Arc<Ctx>,
    errand: &Errand<'_>,
    answers: impl Future<Output = Result<(), Reason>>,
) -> Result<(), Reason> {
    let (session, route) = (errand.session, errand.route);
    let mcp = &route.published.mcp;
    let deadline = errand.admitted + mcp.call_deadline();
    let mut seat = None;
    let seat = router::seated(ctx, errand, &mut seat)?;
    let (mut denies, mut stopping) = (ctx.kill.changes(), ctx.stopping.subscribe());
    tokio::pin!(answers);
    loop {
        router::still_allowed(ctx, session, route)?;
        tokio::select! {
            biased;
            () = seat.hear() => {
                // Whose key was revoked is told that, and not that an administrator cancelled the call.
                router::still_allowed(ctx, session, route)?;
                return Err(failure::cancelled(mcp, &seat.cancelled().unwrap_or_default()));
            }
            answered = &mut answers => return answered,
            changed = denies.changed() => if changed.is_err() {
                return Err(failure::shutting_down());
            },
            _ = stopping.wait_for(|stopping| *stopping) => return Err(failure::shutting_down()),
            () = tokio::time::sleep_until(deadline) => {
                return Err(failure::timed_out(mcp, route.tool.as_str(), None));
            }
        }
    }
}
