//! Tasks that are taken away from their keys while they are under way: a call's time is short, a task's is not.

use crate::domain::code::Code;

use super::super::super::ctx::Ctx;
use super::super::super::tasks::{End, Task};
use super::lost;

/// Ends those under way whose key is gone, or does not have the tool any more.
pub(in crate::actors) fn end_withdrawn(ctx: &Ctx) {
    let living = ctx.tasks.living();
    if living.is_empty() {
        return;
    }
    let now = ctx.wall_ms();
    let routes = ctx.routes.load_full();
    for task in living {
        let view = routes.view(&task.key);
        let is_revoked = task.is_key_expired(now) || (view.is_none() && task.is_session_revoked());
        let has_it = view.is_some_and(|view| {
            let mut own = view.routes().iter();
            own.any(|route| route.published.mcp.id == task.mcp && route.tool == task.tool)
        });
        if is_revoked {
            let text = "the key that made this task was revoked or has expired";
            end(&task, Code::SessionSuspended, text);
        } else if !has_it {
            let text = "the key that made this task does not have its tool any more";
            end(&task, Code::NotSubscribed, text);
        }
    }
}

/// Whoever works on it tells its server.
fn end(task: &Task, code: Code, text: &str) {
    task.end(End::Failed(lost(code, text.to_owned())));
}
