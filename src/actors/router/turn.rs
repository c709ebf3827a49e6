//! The turn of a call whose server may ask its caller ([`super::super::handle::Askers`]).

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::super::calls::Seat;
use super::super::ctx::Ctx;
use super::super::failure::{self, Reason};
use super::super::slot::Slot;
use super::{Errand, seated, still_allowed};

/// Waits for it; gives none if the call needs none.
pub(super) async fn turn<'s, 'c>(
    ctx: &'c Ctx,
    slot: &'s Slot,
    errand: &Errand<'_>,
    seat: &mut Option<Seat<'c>>,
    deadline: Instant,
) -> Result<Option<SemaphorePermit<'s>>, Reason> {
    // Who cannot be asked need not wait for who can.
    if slot.key.questions.is_empty() || errand.aside.news.is_none() {
        return Ok(None);
    }
    let Some(turns) = slot.askers.turn_of(&errand.route.tool) else {
        return Ok(None);
    };
    if let Ok(turn) = turns.try_acquire() {
        return Ok(Some(turn));
    }
    let mcp = &errand.route.published.mcp;
    let seat = seated(ctx, errand, seat)?;
    let mut denies = ctx.kill.changes();
    loop {
        still_allowed(ctx, errand.session, errand.route)?;
        tokio::select! {
            biased;
            () = seat.hear() => {
                return Err(failure::cancelled(mcp, &seat.cancelled().unwrap_or_default()));
            }
            turn = turns.acquire() => {
                // The tool may have turned out to be silent while we waited.
                let needed = slot.askers.turn_of(&errand.route.tool).is_some();
                return Ok(turn.ok().filter(|_| needed));
            }
            changed = denies.changed() => if changed.is_err() {
                return Err(failure::shutting_down());
            },
            () = tokio::time::sleep_until(deadline) => {
                return Err(failure::out_of_turn(mcp, errand.route.tool.as_str()));
            }
        }
    }
}
