//! The supervisor of all users' households.
//!
//! A household that fails is started again after a pause and when it is next wanted; other users
//! never notice. Only ten *different* users given up on within a minute are taken for our bug and
//! end this supervisor, so that the root sees it.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use crate::domain::ids::UserId;
use crate::domain::limits::{INTENSITY_PERIOD, ISOLATE_STOP_MAX, KILL_WAIT, USERS_GIVEN_UP_MAX};

use crate::domain::verdict::Verdict;
use crate::telemetry::metrics::labels::ActorKind;

use super::ctx::Ctx;
use super::household::{Household, HouseholdMsg, Whose, abandon};
use super::measured::measured;
use super::slot::Slot;
use super::supervisor::{Children, Fate, Kind};

/// What it hears.
#[derive(Debug)]
pub(super) enum UsersMsg {
    /// A slot of a user is wanted.
    Ensure(Arc<Slot>),
    /// A user whose household failed is due again.
    Due(UserId),
}

/// The actor.
pub(super) struct Users;

/// What it knows.
pub(super) struct UsersState {
    ctx: Arc<Ctx>,
    children: Children<UserId>,
    given_up: HashMap<UserId, Instant>,
}

impl Actor for Users {
    type Msg = UsersMsg;
    type State = UsersState;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        myself: ActorRef<UsersMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<UsersState, ActorProcessingErr> {
        ctx.set_users(&myself);
        let children = Children::new(Kind::Transient);
        Ok(UsersState {
            ctx,
            children,
            given_up: HashMap::new(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<UsersMsg>,
        state: &mut UsersState,
    ) -> Result<(), ActorProcessingErr> {
        // What a failed predecessor left: slots with a run that nobody looks after, or wanted.
        for slot in state.ctx.slots.pin().values() {
            if slot.key.principal.user().is_some()
                && (slot.occupant().is_some() || slot.is_wanted())
            {
                myself.cast(UsersMsg::Ensure(Arc::clone(slot)))?;
            }
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<UsersMsg>,
        message: UsersMsg,
        state: &mut UsersState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            UsersMsg::Ensure(slot) => {
                let Some(user) = slot.key.principal.user().cloned() else {
                    return Ok(());
                };
                state.household(&myself, &user).await;
                state.forward(&user, slot);
            }
            UsersMsg::Due(user) => {
                state.children.restarting(&user);
                state.household(&myself, &user).await;
                state.take_over(&user);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<UsersMsg>,
        event: SupervisionEvent,
        state: &mut UsersState,
    ) -> Result<(), ActorProcessingErr> {
        let Some((user, fate)) = state.children.exited(&event) else {
            return Ok(());
        };
        let cause = match &event {
            SupervisionEvent::ActorFailed(_, error) => error.to_string(),
            _ => "all its isolates are at rest".to_owned(),
        };
        let tree = &state.ctx.tree;
        match fate {
            Fate::Ended => tree.note_user(&user, "down", &cause),
            Fate::Restart { .. } => tree.note_user(&user, "waiting", &cause),
            Fate::GivenUp => tree.note_user(&user, "given up", &cause),
        }
        match fate {
            Fate::Ended => {
                state.children.forget(&user);
                // A demand may have crossed its end.
                let wanted = state
                    .ctx
                    .slots_of(Some(&user))
                    .into_iter()
                    .find(|slot| slot.is_wanted());
                match wanted {
                    Some(slot) => myself.cast(UsersMsg::Ensure(slot))?,
                    None => {
                        let launcher = Arc::clone(&state.ctx.launcher);
                        tokio::task::spawn_blocking(move || launcher.release_user(&user));
                    }
                }
            }
            Fate::Restart { after } => {
                tracing::error!(user.id = %user, "a user's supervisor failed; it is started again");
                for slot in state.ctx.slots_of(Some(&user)) {
                    if let Some(run) = slot.occupant() {
                        let detail = "its supervisor failed".to_owned();
                        run.kill(Verdict::Internal { detail });
                    }
                }
                myself.send_after(after, move || UsersMsg::Due(user));
            }
            Fate::GivenUp => state.give_up(&user)?,
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<UsersMsg>,
        state: &mut UsersState,
    ) -> Result<(), ActorProcessingErr> {
        let cells: Vec<_> = state
            .children
            .iter()
            .filter_map(|(_, child)| child.cell.clone())
            .collect();
        for cell in &cells {
            cell.stop(None);
        }
        let deadline = Instant::now() + ISOLATE_STOP_MAX + KILL_WAIT * 2;
        for cell in cells {
            // Past the deadline the scopes' own drop kills what is left.
            let _ = cell
                .wait(Some(deadline.saturating_duration_since(Instant::now())))
                .await;
        }
        Ok(())
    }
}

impl UsersState {
    async fn household(&mut self, myself: &ActorRef<UsersMsg>, user: &UserId) {
        if self.children.cell(user).is_some() {
            return;
        }
        let args = (Arc::clone(&self.ctx), Whose::User);
        let actor = measured(&self.ctx.metrics, ActorKind::User, Household);
        match Actor::spawn_linked(None, actor, args, myself.get_cell()).await {
            Ok((household, _)) => {
                self.ctx
                    .tree
                    .note_user(user, "up", "a call wants an isolate");
                self.children.started(user, household.get_cell());
            }
            Err(error) => {
                self.ctx.tree.note_user(user, "waiting", &error.to_string());
                if let Fate::Restart { after } =
                    self.children.start_failed(user, &error.to_string())
                {
                    let user = user.clone();
                    myself.send_after(after, move || UsersMsg::Due(user));
                }
            }
        }
    }

    fn forward(&self, user: &UserId, slot: Arc<Slot>) {
        if let Some(cell) = self.children.cell(user) {
            let household: ActorRef<HouseholdMsg> = cell.clone().into();
            // If it is ending, its end finds the slot wanted.
            let _ = household.cast(HouseholdMsg::Ensure(slot));
        }
    }

    /// Hands a new household what the failed one left.
    fn take_over(&self, user: &UserId) {
        for slot in self.ctx.slots_of(Some(user)) {
            if slot.occupant().is_some() || slot.is_wanted() {
                self.forward(user, slot);
            }
        }
    }

    fn give_up(&mut self, user: &UserId) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        self.given_up.retain(|_, at| now - *at <= INTENSITY_PERIOD);
        self.given_up.insert(user.clone(), now);
        self.ctx.metrics.given_up(ActorKind::User);
        tracing::error!(user.id = %user, "gave up on a user's supervisor; the next call starts it anew");
        for slot in self.ctx.slots_of(Some(user)) {
            abandon(&slot);
        }
        if self.given_up.len() >= USERS_GIVEN_UP_MAX {
            return Err(format!("gave up on {} users within a minute", self.given_up.len()).into());
        }
        self.children.forget(user);
        Ok(())
    }
}
