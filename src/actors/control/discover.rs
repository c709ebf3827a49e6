//! Discovery: starts a server in an isolate of its own, reads its tools, stores them, stops it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::era::Spoken;
use crate::domain::ids::{IsolateId, McpId};
use crate::domain::mcp::{Mcp, Sharing, Tool};
use crate::domain::talk::{Check, Questions};
use crate::domain::verdict::Verdict;

use super::super::clock::id_bits;
use super::super::eras::Bearing;
use super::super::handle::RunEnd;
use super::super::isolate::IsolateMsg;
use super::super::slot::{Slot, SlotKey, SlotState};
use super::super::views::{Discovery, Phase, UnfitSchema};
use super::{Control, ControlError, isolates, view};

/// An install that took less was none.
const WORTH_TELLING: Duration = Duration::from_millis(100);

impl Control {
    /// Starts the server once, outside of anybody's isolate, and stores the tools it lists.
    ///
    /// # Errors
    /// It is archived, does not start, or does not speak: the verdict and its last words.
    pub async fn discover(&self, id: &McpId) -> Result<Discovery, ControlError> {
        let mcp = Arc::new(self.ctx.store.mcp(id).await?);
        self.may_start(&mcp).await?;
        let since = Instant::now();
        self.installed(&mcp).await?;
        let waited = since.elapsed();
        let (slot, looked) = self.probed(&mcp, false).await;
        if looked.is_err() && slot.manners.shied() {
            // It ended on a question that servers of its era know nothing of.
            let (again, found) = self.probed(&mcp, true).await;
            return self.found(id, &again, found, waited).await;
        }
        self.found(id, &slot, looked, waited).await
    }

    /// Starts the server outside of anybody's isolate, and ends it; gives where it was, and what it listed.
    /// `shy`: it is asked as servers of the older era are.
    async fn probed(
        &self,
        mcp: &Arc<Mcp>,
        shy: bool,
    ) -> (Arc<Slot>, Result<Vec<Tool>, ControlError>) {
        let mcp = Arc::clone(mcp);
        let probe = IsolateId::from_random(id_bits());
        // What it offers to clients that can answer all that it may ask.
        let questions = match mcp.sharing {
            Sharing::Shared => Questions::NONE,
            _ => mcp.talk.questions,
        };
        let key = SlotKey {
            questions,
            ..SlotKey::probe(&mcp.id, &probe)
        };
        let settings = &self.ctx.settings;
        let slot = Arc::new(Slot::new(
            probe,
            key.clone(),
            mcp,
            None,
            settings.user_limits,
            settings.restart,
            Arc::clone(&self.ctx.changes),
        ));
        if shy {
            let known = self.ctx.eras.of(&slot.mcp.id, &slot.mcp.config_hash());
            slot.manners.show(Bearing::Shy, known);
        }
        self.ctx.slots.pin().insert(key.clone(), Arc::clone(&slot));
        let looked = self.look(&slot).await;
        if let Some(actor) = slot.actor() {
            let verdict = match &looked {
                Ok(_) => Verdict::Idle,
                // It may still be starting, and nobody waits for it any more.
                Err(_) => Verdict::Killed {
                    reason: "the discovery failed".to_owned(),
                },
            };
            let _ = actor.cast(IsolateMsg::Leave(verdict));
        }
        isolates::wait_gone(
            &[Arc::clone(&slot)],
            settings.kill_wait + settings.kill_wait,
        )
        .await;
        self.ctx.slots.pin().remove(&key);
        (slot, looked)
    }

    async fn found(
        &self,
        id: &McpId,
        slot: &Slot,
        looked: Result<Vec<Tool>, ControlError>,
        waited: Duration,
    ) -> Result<Discovery, ControlError> {
        let mut found = self.keep(id, slot, looked?).await?;
        if waited >= WORTH_TELLING {
            let install = Phase {
                name: "install".to_owned(),
                ms: view::ms(waited),
            };
            found.phases.insert(0, install);
        }
        Ok(found)
    }

    async fn look(&self, slot: &Arc<Slot>) -> Result<Vec<Tool>, ControlError> {
        let mut watch = slot.watch();
        self.ctx.demand(slot);
        let limit = slot.mcp.start_deadline() * 2;
        let settled = watch.wait_for(|state| {
            matches!(
                state,
                SlotState::Ready(_)
                    | SlotState::Backoff { .. }
                    | SlotState::Quarantined { .. }
                    | SlotState::Stuck { .. }
            )
        });
        let state = match tokio::time::timeout(limit, settled).await {
            Ok(Ok(state)) => state.clone(),
            _ => {
                let message = format!("mcp `{}` did not settle in time", slot.mcp.name);
                return Err(ControlError::new(Code::DiscoverFailed, message));
            }
        };
        match state {
            SlotState::Backoff { end, .. } | SlotState::Quarantined { end, .. } => {
                Err(self.failed(slot, &end))
            }
            SlotState::Ready(_) => slot.take_tools().ok_or_else(|| {
                ControlError::new(Code::Internal, "the run was ready without a tool list")
            }),
            _ => Err(ControlError::new(
                Code::DiscoverFailed,
                "its processes do not die",
            )),
        }
    }

    fn failed(&self, slot: &Slot, end: &RunEnd) -> ControlError {
        let name = &slot.mcp.name;
        let mut message = format!(
            "mcp `{name}` could not be discovered: it {}",
            end.verdict.predicate()
        );
        let tail = slot
            .history()
            .first()
            .map(|run| run.stderr.lines())
            .unwrap_or_default();
        for line in tail.iter().rev().take(5).rev() {
            message.push_str("\nlast stderr: ");
            message.push_str(line);
        }
        let error = ControlError::new(Code::DiscoverFailed, message);
        match &end.verdict {
            Verdict::NotStarted { .. } => error,
            _ => error.next(format!(
                "correct it (legation mcp update {name}), then discover again"
            )),
        }
    }

    async fn keep(
        &self,
        id: &McpId,
        slot: &Slot,
        tools: Vec<Tool>,
    ) -> Result<Discovery, ControlError> {
        let changed = self.keep_tools(id, &tools).await?;
        let known = self.ctx.eras.of(id, &slot.mcp.config_hash());
        let routes = self.ctx.routes.load_full();
        if routes.published(id).is_some_and(|now| now.era != known) {
            self.refresh().await?;
        }
        let run = slot.history().into_iter().next();
        let unfit = self.unfit(&slot.mcp, &tools).await;
        let facts = run.as_ref().map(|run| run.facts()).unwrap_or_default();
        let server = facts.server.clone();
        Ok(Discovery {
            tools,
            server_name: server.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
            server_version: server
                .as_ref()
                .map(|s| s.version.clone())
                .unwrap_or_default(),
            protocol_version: server.map(|s| s.protocol_version).unwrap_or_default(),
            phases: view::phases(&facts),
            stderr_tail: run.map(|run| run.stderr.lines()).unwrap_or_default(),
            changed,
            unfit,
            left_out: self.left_out(&slot.mcp),
        })
    }

    /// What the servers of a definition speak, if that is known.
    #[must_use]
    pub fn spoken(&self, mcp: &Mcp) -> Option<Spoken> {
        self.ctx.eras.spoken(&mcp.id, &mcp.config_hash())
    }

    /// What servers of a definition list and nobody is offered, as one listed it last.
    #[must_use]
    pub fn left_out(&self, mcp: &Mcp) -> Vec<String> {
        self.ctx.left_out.of(&mcp.id, &mcp.config_hash())
    }

    /// Stores the tools of an mcp and publishes them; gives whether they are others than before.
    ///
    /// # Errors
    /// The store says no, or they are stored and not yet published.
    pub async fn keep_tools(&self, id: &McpId, tools: &[Tool]) -> Result<bool, ControlError> {
        let mut before = self.ctx.store.tools_of(id).await?;
        let mut after = tools.to_vec();
        before.sort_by(|a, b| a.name.cmp(&b.name));
        after.sort_by(|a, b| a.name.cmp(&b.name));
        let changed = before != after;
        if changed {
            self.ctx.store.replace_tools(id, tools).await?;
            self.expose_newcomers(id).await?;
            self.refresh().await?;
        }
        Ok(changed)
    }

    /// Whether the server of an mcp has resources or prompts, as it said when it was started from this definition.
    #[must_use]
    pub fn offers_other(&self, mcp: &Mcp) -> bool {
        let known = self.ctx.abilities.known(&mcp.id, &mcp.config_hash());
        known.is_some_and(|able| able.resources || able.prompts)
    }

    /// The tools that go on unchecked, though the definition says that their arguments are checked.
    pub async fn unfit(&self, mcp: &Mcp, tools: &[Tool]) -> Vec<UnfitSchema> {
        match mcp.talk.arguments {
            Check::Off => Vec::new(),
            Check::Warn | Check::Enforce => self.ctx.schemas.examine(tools.to_vec()).await,
        }
    }
}
