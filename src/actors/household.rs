//! A household: the supervisor of isolates that belong together, one user's or the shared ones.
//!
//! It starts isolate actors for slots that are wanted and restarts those whose *actor* failed,
//! which is our bug; a server that dies is its isolate's business. A user's household ends when
//! all its isolates have ended; the shared one never does.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::domain::limits::{ISOLATE_STOP_MAX, KILL_WAIT};
use crate::domain::verdict::Verdict;
use crate::telemetry::metrics::labels::ActorKind;

use super::ctx::Ctx;
use super::isolate::{Isolate, IsolateArgs, IsolateMsg};
use super::measured::measured;
use super::slot::{Slot, SlotKey, SlotState};
use super::supervisor::{Children, Fate, Kind};

/// What a household hears.
#[derive(Debug)]
pub(super) enum HouseholdMsg {
    /// A slot of this household is wanted.
    Ensure(Arc<Slot>),
    /// An isolate actor that failed is due again.
    Due(SlotKey),
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// One user's.
    User,
    /// Everybody's.
    Shared,
}

/// The household actor.
pub(super) struct Household;

/// What it knows.
pub(super) struct HouseholdState {
    ctx: Arc<Ctx>,
    whose: Whose,
    children: Children<SlotKey>,
    slots: HashMap<SlotKey, Arc<Slot>>,
}

impl Actor for Household {
    type Msg = HouseholdMsg;
    type State = HouseholdState;
    type Arguments = (Arc<Ctx>, Whose);

    async fn pre_start(
        &self,
        _myself: ActorRef<HouseholdMsg>,
        (ctx, whose): (Arc<Ctx>, Whose),
    ) -> Result<HouseholdState, ActorProcessingErr> {
        let children = Children::new(Kind::Transient);
        Ok(HouseholdState {
            ctx,
            whose,
            children,
            slots: HashMap::new(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<HouseholdMsg>,
        state: &mut HouseholdState,
    ) -> Result<(), ActorProcessingErr> {
        if state.whose == Whose::Shared {
            state.ctx.set_shared(&myself);
            // Our predecessor's isolates: whatever is in their slots is cleared away and started
            // again if it is wanted.
            for slot in state.ctx.slots_of(None) {
                if slot.occupant().is_some() || slot.is_wanted() {
                    state.start(&myself, slot).await;
                }
            }
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<HouseholdMsg>,
        message: HouseholdMsg,
        state: &mut HouseholdState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HouseholdMsg::Ensure(slot) => state.ensure(&myself, slot).await,
            HouseholdMsg::Due(key) => {
                let down = state.children.cell(&key).is_none();
                if let Some(slot) = state.slots.get(&key).cloned().filter(|_| down) {
                    state.children.restarting(&key);
                    state.start(&myself, slot).await;
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<HouseholdMsg>,
        event: SupervisionEvent,
        state: &mut HouseholdState,
    ) -> Result<(), ActorProcessingErr> {
        let Some((key, fate)) = state.children.exited(&event) else {
            return Ok(());
        };
        if fate == Fate::GivenUp {
            state.ctx.metrics.given_up(ActorKind::Isolate);
        }
        if fate != Fate::Ended {
            tracing::error!(isolate.key = %key.text(), ?fate, "an isolate actor failed, which is a bug");
        }
        state.fate(&myself, key, fate).await
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<HouseholdMsg>,
        state: &mut HouseholdState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop_all().await;
        Ok(())
    }
}

impl HouseholdState {
    async fn ensure(&mut self, myself: &ActorRef<HouseholdMsg>, slot: Arc<Slot>) {
        match self.children.cell(&slot.key) {
            // Its end, if it is ending, comes back here, and the slot is still wanted then.
            Some(cell) => {
                // A successor under the same key is what its end must find wanted.
                self.slots.insert(slot.key.clone(), slot);
                let isolate: ActorRef<IsolateMsg> = cell.clone().into();
                let _ = isolate.cast(IsolateMsg::Demand);
            }
            None => self.start(myself, slot).await,
        }
    }

    async fn start(&mut self, myself: &ActorRef<HouseholdMsg>, slot: Arc<Slot>) {
        let key = slot.key.clone();
        self.slots.insert(key.clone(), Arc::clone(&slot));
        let args = IsolateArgs {
            ctx: Arc::clone(&self.ctx),
            slot,
        };
        let isolate = measured(&self.ctx.metrics, ActorKind::Isolate, Isolate);
        match Actor::spawn_linked(None, isolate, args, myself.get_cell()).await {
            Ok((isolate, _)) => self.children.started(&key, isolate.get_cell()),
            Err(error) => {
                let fate = self.children.start_failed(&key, &error.to_string());
                if let Fate::Restart { after } = fate {
                    myself.send_after(after, move || HouseholdMsg::Due(key));
                }
            }
        }
    }

    async fn fate(
        &mut self,
        myself: &ActorRef<HouseholdMsg>,
        key: SlotKey,
        fate: Fate,
    ) -> Result<(), ActorProcessingErr> {
        match fate {
            Fate::Restart { after } => {
                myself.send_after(after, move || HouseholdMsg::Due(key));
            }
            Fate::Ended => {
                let wanted = self
                    .slots
                    .get(&key)
                    .filter(|slot| slot.is_wanted())
                    .cloned();
                match wanted {
                    Some(slot) => self.start(myself, slot).await,
                    None => {
                        self.slots.remove(&key);
                        self.children.forget(&key);
                        if self.whose == Whose::User && self.children.running() == 0 {
                            myself.stop(None);
                        }
                    }
                }
            }
            Fate::GivenUp if self.whose == Whose::User => {
                return Err(format!("gave up on the isolate {}", key.text()).into());
            }
            Fate::GivenUp => {
                // One shared instance never takes the others down.
                if let Some(slot) = self.slots.remove(&key) {
                    abandon(&slot);
                }
                self.children.forget(&key);
            }
        }
        Ok(())
    }

    /// Asks every isolate to leave by the stop ladder, all at once, and waits.
    async fn stop_all(&mut self) {
        let mut leaving = Vec::new();
        for (key, child) in self.children.iter() {
            if let Some(cell) = &child.cell {
                let isolate: ActorRef<IsolateMsg> = cell.clone().into();
                let _ = isolate.cast(IsolateMsg::Leave(Verdict::Shutdown));
                leaving.push((key.clone(), cell.clone()));
            }
        }
        let deadline = tokio::time::Instant::now() + ISOLATE_STOP_MAX + KILL_WAIT;
        for (key, cell) in leaving {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if cell.wait(Some(left)).await.is_err() {
                tracing::error!(isolate.key = %key.text(), "an isolate did not stop in time");
                if let Some(slot) = self.slots.get(&key) {
                    abandon(slot);
                }
            }
        }
    }
}

/// Kills whatever is in a slot that nobody looks after any more.
pub(super) fn abandon(slot: &Slot) {
    if let Some(run) = slot.occupant() {
        run.kill(Verdict::Internal {
            detail: "its supervisor gave up".to_owned(),
        });
    }
    // The next call finds it at rest and asks anew; what is left in it is cleared away first.
    slot.enter(SlotState::Resting, "its supervisor gave up");
}
