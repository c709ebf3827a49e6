//! The work of a task, and that it has an end, however that goes.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::domain::code::Code;
use crate::protocol::tasks;
use crate::telemetry::metrics::labels;

use super::super::super::calls::News;
use super::super::super::ctx::Ctx;
use super::super::super::failure::Reason;
use super::super::super::session::SessionHandle;
use super::super::super::tasks::{End, Task};
use super::super::{Answer, Aside, Called, Front, Outcome};
use super::lost;

impl Front {
    /// A task's work: the call, from its admission to its end.
    #[expect(clippy::too_many_arguments, reason = "a call's, and a task's")]
    pub(super) fn keeper(
        &self,
        session: &Arc<SessionHandle>,
        called: Called<'_>,
        arguments: &RawValue,
        aside: &Aside<'_>,
        task: &Arc<Task>,
        mut news: mpsc::Receiver<News>,
        tell: oneshot::Sender<Outcome>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (front, session, task) = (self.clone(), Arc::clone(session), Arc::clone(task));
        let (mcp, name) = match called {
            Called::Exposed(name) => (None, name.to_owned()),
            Called::Of { mcp, tool } => (Some(mcp.to_owned()), tool.to_owned()),
        };
        let (arguments, meta) = (arguments.to_owned(), aside.meta.to_owned());
        let brought = aside.brought.to_owned();
        let aside = Aside {
            task: Some(Arc::clone(&task)),
            ..aside.owned()
        };
        // Made here: who goes before the first step is taken leaves no task behind that lives for ever.
        let kept = Kept(Arc::clone(&front.ctx), Arc::clone(&task));
        async move {
            let aside = Aside {
                meta: &meta,
                brought: &brought,
                ..aside
            };
            let called = match &mcp {
                Some(mcp) => Called::Of { mcp, tool: &name },
                None => Called::Exposed(&name),
            };
            let mut call = Box::pin(front.call(&session, called, &arguments, &aside));
            let outcome = loop {
                tokio::select! {
                    biased;
                    Some(news) = news.recv() => task.heard(news),
                    outcome = &mut call => break outcome,
                }
            };
            drop(call);
            if !task.has_begun() && (task.is_stateless() || matches!(outcome, Outcome::Failed(_))) {
                // There was no task: its client is told as of a call, if it did not ask for one.
                let _ = tell.send(outcome);
                return;
            }
            kept.end(outcome);
        }
    }
}

/// The work of a call, for as long as its task has not ended: one that was cancelled or taken away ends its call, and
/// the log says how.
pub(in crate::actors::front) async fn while_open<T>(
    work: impl Future<Output = Result<T, Reason>>,
    task: Option<&Task>,
) -> Result<T, Reason> {
    let Some(task) = task else {
        return work.await;
    };
    // Who lets go of the work tells the server.
    tokio::select! {
        biased;
        done = work => done,
        () = task.over() => Err(match task.look() {
            (_, Some(End::Failed(failure))) => Reason::new(failure.code, failure.text),
            _ => Reason::new(Code::Cancelled, "this task has ended"),
        }),
    }
}

/// A task under way: it has an end, however its work goes.
struct Kept(Arc<Ctx>, Arc<Task>);

impl Kept {
    fn end(&self, outcome: Outcome) {
        let Self(ctx, task) = self;
        if task.has_ended() {
            return;
        }
        let outcome = match outcome {
            Outcome::Answered(answer) if task.is_everywhere() => answer.seen_everywhere(),
            outcome => outcome,
        };
        ctx.tasks.make_room(task);
        let mut end = match outcome {
            Outcome::Answered(answer) => ended(&answer),
            Outcome::Failed(failure) => End::Failed(failure),
        };
        let bytes = match &end {
            End::Result { result, .. } => result.len(),
            End::Failed(failure) => {
                failure.text.len() + failure.error.as_ref().map_or(0, |error| error.len())
            }
        };
        if !ctx.tasks.keep(task, bytes) {
            let text = format!(
                "what this task ended with, {bytes} bytes, is not kept: that is more than there is room for"
            );
            end = End::Failed(lost(Code::ResultTooLarge, text));
        }
        task.end(end);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Self(ctx, task) = self;
        if !task.has_begun() {
            ctx.tasks.forget(&task.id);
        } else if !task.has_ended() {
            let text = "the gateway stopped working on this task".to_owned();
            task.end(End::Failed(lost(Code::Internal, text)));
        }
    }
}

fn ended(answer: &Answer) -> End {
    let result = answer.line.slice(answer.result.clone());
    if result.first() != Some(&b'{') {
        answer.meter.ended(labels::Outcome::RpcError);
        let text = format!(
            "mcp `{}` answered with a result that is no object",
            answer.mcp
        );
        return End::Failed(lost(Code::ServerError, text));
    }
    let is_error = tasks::says_error(&result);
    if is_error {
        answer.meter.ended(labels::Outcome::ToolError);
    }
    End::Result { result, is_error }
}
