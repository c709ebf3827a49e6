//! Mcps: published definitions and their lifecycle.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::again::again;
use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::account::Millis;
use crate::domain::ids::McpId;
use crate::domain::mcp::{Defaults, Mcp, McpState, Usual};
use crate::domain::name::Name;

const CREATE: &str = "INSERT INTO mcps (id, name, description, state, sharing, program, limits, \
    times, audit_arguments, credentials, confinement, install, talk, created_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)";
const UPDATE: &str = "UPDATE mcps SET name = $2, description = $3, sharing = $4, program = $5, \
    limits = $6, times = $7, audit_arguments = $8, credentials = $9, confinement = $10, \
    install = $11, talk = $12, updated_at = $13 WHERE id = $1 AND state <> 'archived' RETURNING id";
const SET_STATE: &str =
    "UPDATE mcps SET state = $3, updated_at = $4 WHERE id = $1 AND state = $2 RETURNING id";
const FORGET_CREDENTIALS: &str =
    "UPDATE credentials SET sealed = '', set_by = '' WHERE mcp_id = $1 AND sealed <> ''";
const BY_NAME: &str = "SELECT id, name, description, state, sharing, program, limits, times, \
    audit_arguments, credentials, confinement, install, talk \
    FROM mcps WHERE name = $1 \
    ORDER BY CASE state WHEN 'archived' THEN 1 ELSE 0 END, created_at DESC, id LIMIT 1";
const BY_ID: &str = "SELECT id, name, description, state, sharing, program, limits, times, \
    audit_arguments, credentials, confinement, install, talk \
    FROM mcps WHERE id = $1";
const LIST: &str = "SELECT id, name, description, state, sharing, program, limits, times, \
    audit_arguments, credentials, confinement, install, talk \
    FROM mcps ORDER BY name, created_at, id";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    description: String,
    state: String,
    sharing: String,
    program: String,
    limits: String,
    times: String,
    audit_arguments: String,
    credentials: String,
    confinement: String,
    install: String,
    talk: String,
}

impl Row {
    fn into_mcp(self, defaults: &Defaults) -> Result<Mcp, StoreError> {
        let row = self;
        let mut left = BTreeSet::new();
        Ok(Mcp {
            id: rows::field("mcps.id", row.id)?,
            name: rows::field("mcps.name", row.name)?,
            description: row.description,
            state: state_from(&row.state)?,
            sharing: rows::json("mcps.sharing", &row.sharing)?,
            program: rows::json("mcps.program", &row.program)?,
            limits: filled("mcps.limits", &row.limits, &defaults.limits, &mut left)?,
            times: filled("mcps.times", &row.times, &defaults.times, &mut left)?,
            as_configured: left,
            audit_arguments: rows::json("mcps.audit_arguments", &row.audit_arguments)?,
            credentials: rows::json("mcps.credentials", &row.credentials)?,
            confinement: rows::json("mcps.confinement", &row.confinement)?,
            install: rows::json("mcps.install", &row.install)?,
            talk: rows::json("mcps.talk", &row.talk)?,
        })
    }
}

/// Writes what a definition says itself: what it leaves to the configuration is not its.
fn said<T: Serialize>(
    place: &'static str,
    values: &T,
    left: &BTreeSet<Usual>,
) -> Result<String, StoreError> {
    let text = rows::to_json(place, values)?;
    let mut values: Map<String, Value> = rows::json(place, &text)?;
    values.retain(|field, _| left.iter().all(|one| one.field() != field));
    rows::to_json(place, &values)
}

/// Reads what a definition says itself, takes the rest from the configuration, and names it.
fn filled<T: Serialize + DeserializeOwned>(
    place: &'static str,
    text: &str,
    defaults: &T,
    left: &mut BTreeSet<Usual>,
) -> Result<T, StoreError> {
    let said: Map<String, Value> = rows::json(place, text)?;
    let mut whole: Map<String, Value> = rows::json(place, &rows::to_json(place, defaults)?)?;
    let absent = |one: &Usual| whole.contains_key(one.field()) && !said.contains_key(one.field());
    left.extend(Usual::ALL.into_iter().filter(absent));
    whole.extend(said);
    rows::json(place, &rows::to_json(place, &whole)?)
}

const fn state_text(state: McpState) -> &'static str {
    match state {
        McpState::Draft => "draft",
        McpState::Published => "published",
        McpState::Archived => "archived",
    }
}

fn state_from(text: &str) -> Result<McpState, StoreError> {
    [McpState::Draft, McpState::Published, McpState::Archived]
        .into_iter()
        .find(|state| state_text(*state) == text)
        .ok_or_else(|| StoreError::Corrupt {
            place: "mcps.state".into(),
            detail: format!("`{text}` is no state"),
        })
}

impl Store {
    /// Adds a definition in whatever state it says.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a definition that is not archived has the name.
    pub async fn create_mcp(&self, mcp: &Mcp, at: Millis) -> Result<(), StoreError> {
        let sharing = rows::to_json("mcps.sharing", &mcp.sharing)?;
        let program = rows::to_json("mcps.program", &mcp.program)?;
        let limits = said("mcps.limits", &mcp.limits, &mcp.as_configured)?;
        let times = said("mcps.times", &mcp.times, &mcp.as_configured)?;
        let capture = rows::to_json("mcps.audit_arguments", &mcp.audit_arguments)?;
        let credentials = rows::to_json("mcps.credentials", &mcp.credentials)?;
        let confinement = rows::to_json("mcps.confinement", &mcp.confinement)?;
        let install = rows::to_json("mcps.install", &mcp.install)?;
        let talk = rows::to_json("mcps.talk", &mcp.talk)?;
        on!(self, |db| sqlx::query(CREATE)
            .bind(mcp.id.as_str())
            .bind(mcp.name.as_str())
            .bind(mcp.description.as_str())
            .bind(state_text(mcp.state))
            .bind(sharing)
            .bind(program)
            .bind(limits)
            .bind(times)
            .bind(capture)
            .bind(credentials)
            .bind(confinement)
            .bind(install)
            .bind(talk)
            .bind(at)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(adding("add an mcp", "mcp", "mcp", &mcp.name))?;
        Ok(())
    }

    /// Replaces everything of a definition but its state.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, [`StoreError::Conflict`] if it is archived or
    /// its new name is taken.
    pub async fn update_mcp(&self, mcp: &Mcp, at: Millis) -> Result<(), StoreError> {
        let sharing = rows::to_json("mcps.sharing", &mcp.sharing)?;
        let program = rows::to_json("mcps.program", &mcp.program)?;
        let limits = said("mcps.limits", &mcp.limits, &mcp.as_configured)?;
        let times = said("mcps.times", &mcp.times, &mcp.as_configured)?;
        let capture = rows::to_json("mcps.audit_arguments", &mcp.audit_arguments)?;
        let credentials = rows::to_json("mcps.credentials", &mcp.credentials)?;
        let confinement = rows::to_json("mcps.confinement", &mcp.confinement)?;
        let install = rows::to_json("mcps.install", &mcp.install)?;
        let talk = rows::to_json("mcps.talk", &mcp.talk)?;
        let updated = on!(self, |db| sqlx::query_scalar::<_, String>(UPDATE)
            .bind(mcp.id.as_str())
            .bind(mcp.name.as_str())
            .bind(mcp.description.as_str())
            .bind(sharing)
            .bind(program)
            .bind(limits)
            .bind(times)
            .bind(capture)
            .bind(credentials)
            .bind(confinement)
            .bind(install)
            .bind(talk)
            .bind(at)
            .fetch_optional(&db.writer)
            .await)
        .map_err(adding("update an mcp", "mcp", "mcp", &mcp.name))?;
        if updated.is_some() {
            return Ok(());
        }
        let stored = self.mcp(&mcp.id).await?;
        Err(StoreError::conflict(
            "mcp",
            stored.name,
            "is archived and cannot change any more",
        ))
    }

    /// Moves a definition along its lifecycle and returns it as it is now. With one that is archived go the
    /// credentials that were set for it: nothing is started with them any more.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the lifecycle does not allow the step
    /// ([`McpState::may_become`]) or somebody else moved it meanwhile,
    /// [`StoreError::NotFound`] if there is none.
    pub async fn set_mcp_state(
        &self,
        id: &McpId,
        next: McpState,
        at: Millis,
    ) -> Result<Mcp, StoreError> {
        let mut mcp = self.mcp(id).await?;
        if !mcp.state.may_become(next) {
            let why = format!(
                "is {} and cannot become {}",
                state_text(mcp.state),
                state_text(next)
            );
            return Err(StoreError::conflict("mcp", mcp.name, why));
        }
        if !again(|| self.move_mcp(id, mcp.state, next, at)).await? {
            return Err(StoreError::conflict(
                "mcp",
                mcp.name,
                "was changed by somebody else meanwhile; look again",
            ));
        }
        mcp.state = next;
        Ok(mcp)
    }

    /// Only from the state that was looked at, so that two changes at once cannot both pass.
    async fn move_mcp(
        &self,
        id: &McpId,
        from: McpState,
        to: McpState,
        at: Millis,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "change an mcp's state";
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(doing(DOING))?;
            let moved = sqlx::query_scalar::<_, String>(SET_STATE)
                .bind(id.as_str())
                .bind(state_text(from))
                .bind(state_text(to))
                .bind(at)
                .fetch_optional(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            if moved.is_some() && to == McpState::Archived {
                sqlx::query(FORGET_CREDENTIALS)
                    .bind(id.as_str())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(DOING))?;
            }
            tx.commit().await.map_err(doing(DOING))?;
            Ok(moved.is_some())
        })
    }

    /// The definition of that name; an archived one only if no other has the name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn mcp_by_name(&self, name: &Name) -> Result<Mcp, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(BY_NAME)
            .bind(name.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read an mcp"))?
        .ok_or_else(|| StoreError::not_found("mcp", name))?
        .into_mcp(&self.defaults)
    }

    /// The definition with that id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn mcp(&self, id: &McpId) -> Result<Mcp, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(BY_ID)
            .bind(id.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read an mcp"))?
        .ok_or_else(|| StoreError::not_found("mcp", id))?
        .into_mcp(&self.defaults)
    }

    /// Every definition, archived ones too, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn mcps(&self) -> Result<Vec<Mcp>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(LIST)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the mcps"))?;
        rows.into_iter()
            .map(|row| row.into_mcp(&self.defaults))
            .collect()
    }
}
