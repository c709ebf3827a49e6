//! The turn of a call whose server may ask its caller ([`super::super::handle::Askers`]).

use tokio::time::Instant;

use super::super::calls::Seat;
use super::super::ctx::Ctx;
use super::super::failure::{self, Reason};
use super::super::handle::InTurn;
use super::super::slot::Slot;
use super::{Errand, seated, still_allowed};

/// Waits for it; gives none if the call needs none.
pub(super) async fn turn<'c>(
    ctx: &'c Ctx,
    slot: &Slot,
    errand: &Errand<'_>,
    seat: &mut Option<Seat<'c>>,
    deadline: Instant,
) -> Result<Option<InTurn>, Reason> {
    let (askers, what) = (&slot.askers, errand.what());
    // Who cannot be asked need not wait for who can.
    if slot.key.questions.is_empty() || errand.aside.news.is_none() || !askers.needs_turn(what) {
        return Ok(None);
    }
    if let Some(turn) = askers.try_turn() {
        return Ok(Some(turn));
    }
    let mcp = &errand.route.published.mcp;
    let seat = seated(ctx, errand, seat)?;
    let mut denies = ctx.kill.changes();
    let turn = askers.turn();
    tokio::pin!(turn);
    loop {
        still_allowed(ctx, errand.session, errand.route)?;
        tokio::select! {
            biased;
            () = seat.hear() => {
                still_allowed(ctx, errand.session, errand.route)?;
                return Err(failure::cancelled(mcp, &seat.cancelled().unwrap_or_default()));
            }
            // The tool may have turned out to be silent while we waited.
            turn = &mut turn => return Ok(turn.filter(|_| askers.needs_turn(what))),
            changed = denies.changed() => if changed.is_err() {
                return Err(failure::shutting_down());
            },
            () = tokio::time::sleep_until(deadline) => {
                return Err(failure::out_of_turn(mcp, errand.route.tool.as_str()));
            }
        }
    }
}
